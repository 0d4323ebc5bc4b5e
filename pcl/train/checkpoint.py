"""Checkpoints: one file of tensors and plain values, loaded without executing anything."""

__all__ = [
    "FILE_NAME",
    "checkpoint_content",
    "checkpoint_name",
    "is_whole",
    "load_checkpoint",
    "load_model",
    "restore",
    "save_checkpoint",
]

import io
import pickle
import platform
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch

from pcl.errors import DamagedDataError
from pcl.model import ModelSpec, PairModel, build_model
from pcl.storage import Place, read_bytes, write_bytes
from pcl.train.loop import TrainingState

FILE_NAME = "state.pt"
KEYS = {"model", "optimizer", "step", "spec", "config_hash", "versions"}
UNREADABLE = (
    OSError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)


def checkpoint_name(step: int) -> str:
    """Return the name of the directory of the checkpoint after a step.

    Example:
        >>> checkpoint_name(400)
        'checkpoint_00000400'
    """
    return f"checkpoint_{step:08d}"


def checkpoint_content(state: TrainingState, spec: ModelSpec, config_hash: str) -> dict[str, Any]:
    """Copy of all that a checkpoint holds, on the CPU: training may go on while it is written.

    The step is the cursor of every lane, of the schedule and of the random numbers (``pcl.data.loader``,
    ``pcl.train.loop``), so nothing else is needed to go on.

    Args:
        state: model, optimiser, step.
        spec: builds the model again.
        config_hash: of the experiment, checked on resume.
    """
    content: dict[str, Any] = _copied(
        {
            "model": dict(state.model.state_dict()),
            "optimizer": state.optimizer.state_dict(),
            "step": state.step,
            "spec": dict(spec),
            "config_hash": config_hash,
            "versions": {"torch": str(torch.__version__), "python": platform.python_version()},
        }
    )
    return content


def _copied(content: Any) -> Any:
    """Return nested content with a copy of every tensor."""
    if isinstance(content, torch.Tensor):
        return content.detach().to("cpu", copy=True)
    if isinstance(content, dict):
        return {key: _copied(value) for key, value in content.items()}
    return [_copied(value) for value in content] if isinstance(content, list) else content


def save_checkpoint(directory: Place, content: Mapping[str, Any]) -> None:
    """Write a checkpoint at once or not at all.

    Args:
        directory: created if needed.
        content: see ``checkpoint_content``.

    Raises:
        OSError: storage refuses.
    """
    file = io.BytesIO()
    torch.save(dict(content), file)
    write_bytes(directory / FILE_NAME, file.getvalue())


def load_checkpoint(directory: Place) -> dict[str, Any]:
    """Read a checkpoint as tensors on the CPU and plain values.

    Raises:
        DamagedDataError: the file is missing or cannot be read.
        OSError: S3 refuses.
    """
    path = directory / FILE_NAME
    remote = None if isinstance(path, Path) else read_bytes(path) or b""
    try:
        with path.open("rb") if remote is None else io.BytesIO(remote) as file:
            content = _read(file)
        if not isinstance(content, dict) or not content.keys() >= KEYS:
            raise ValueError
    except UNREADABLE as error:
        raise _damaged(path, error) from error
    return content


def _read(file: IO[bytes]) -> dict[str, Any]:
    with zipfile.ZipFile(file) as archive:  # torch does not look at the checksums itself
        if archive.testzip() is not None:
            raise zipfile.BadZipFile
    file.seek(0)
    content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return content


def is_whole(directory: Place) -> bool:
    """Return whether a checkpoint's file is there to its end; whether it is also undamaged shows when it is loaded.

    Raises:
        OSError: storage refuses.
    """
    try:
        with (directory / FILE_NAME).open("rb") as file:
            return zipfile.is_zipfile(file)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _damaged(path: Place, error: Exception) -> DamagedDataError:
    return DamagedDataError(
        f"{path} cannot be read ({type(error).__name__}): delete that checkpoint and resume from the one before"
    )


def load_model(directory: Place) -> PairModel:
    """Build the model of a checkpoint, on the CPU.

    Raises:
        DamagedDataError: the checkpoint cannot be read or does not hold such a model.
    """
    content = load_checkpoint(directory)
    try:
        model = build_model(content["spec"])
        model.load_state_dict(content["model"])
    except UNREADABLE as error:
        raise _damaged(directory / FILE_NAME, error) from error
    return model


def restore(state: TrainingState, directory: Place, config_hash: str) -> None:
    """Put a checkpoint's content into a state.

    Raises:
        DamagedDataError: the checkpoint cannot be read, or belongs to another experiment.
    """
    content = load_checkpoint(directory)
    if content["config_hash"] != config_hash:
        raise DamagedDataError(f"{directory} belongs to another configuration: give the run another name")
    try:
        state.model.load_state_dict(content["model"])
        state.optimizer.load_state_dict(content["optimizer"])
    except UNREADABLE as error:
        raise _damaged(directory / FILE_NAME, error) from error
    state.step = content["step"]
