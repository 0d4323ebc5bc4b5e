"""Checkpoints: one file of tensors and plain values, loaded without executing anything."""

__all__ = [
    "FILE_NAME",
    "UNREADABLE",
    "checkpoint_content",
    "checkpoint_name",
    "compare",
    "content_of",
    "is_whole",
    "load_checkpoint",
    "not_ours",
    "restore",
    "save_checkpoint",
]

import errno
import io
import pickle
import platform
import re
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import Tensor, nn
from typing_extensions import TypedDict

from pcl.encoders.build import ModelSpec
from pcl.errors import DamagedDataError, printable
from pcl.storage.place import Place, read_bytes, write_bytes
from pcl.storage.stored import Count
from pcl.train.loop import TrainingState

FILE_NAME = "state.pt"
NAME = re.compile(r"checkpoint_([0-9]{8,15})")
MOST_COUNTED = 1 << 24  # steps: Adam counts in float32
UNREADABLE = (
    OSError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    MemoryError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)


class Content(TypedDict):
    """What a checkpoint holds."""

    __pydantic_config__ = ConfigDict(arbitrary_types_allowed=True, strict=True)  # type: ignore[misc]

    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    step: Count
    spec: dict[str, Any]
    config_hash: str
    versions: dict[str, str]


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
    return content_of(state.model, state.optimizer.state_dict(), state.step, spec, config_hash)


def content_of(
    model: nn.Module, optimizer: dict[str, Any], step: int, spec: ModelSpec, config_hash: str
) -> dict[str, Any]:
    """Copy, on the CPU, of a model and what else a checkpoint holds: the optimiser's state, the step, what it is of."""
    content: dict[str, Any] = _copied(
        {
            "model": dict(model.state_dict()),
            "optimizer": optimizer,
            "step": step,
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
        DamagedDataError: the file is missing, cannot be read, or holds something else.
        OSError: storage refuses.
    """
    path = directory / FILE_NAME
    if not path.is_file():
        raise DamagedDataError(f"{path} is missing: use another checkpoint, a training goes on from the one before")
    try:
        with path.open("rb") if isinstance(path, Path) else io.BytesIO(read_bytes(path) or b"") as file:
            content = _read(file)
    except UNREADABLE as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # EINVAL: a place that is not there
            raise
        raise DamagedDataError(
            f"{path} cannot be read ({type(error).__name__}): delete that checkpoint and resume from the one before"
        ) from error
    try:
        checked = dict(TypeAdapter(Content).validate_python(content))
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise not_ours(path, f"{'.'.join(map(str, wrong['loc']))[:100]}: {wrong['msg']}") from error
    named = NAME.fullmatch(directory.name)
    if named and int(named[1]) != checked["step"]:
        raise not_ours(path, f"it is of step {checked['step']}")
    if not all(value.isfinite().all() for value in content["model"].values()):
        raise not_ours(path, "some of its weights are not finite")
    return checked


def _read(file: IO[bytes]) -> Any:
    """Return the content of a file in which nothing is compressed, so that it takes no more memory than the file."""
    size = file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file) as archive:  # torch does not look at the checksums itself
        members = archive.infolist()
        if sum(one.file_size for one in members) > size or any(one.compress_type for one in members):
            raise zipfile.BadZipFile
        if archive.testzip() is not None:
            raise zipfile.BadZipFile
    file.seek(0)
    content = torch.load(file, map_location="cpu", weights_only=True)
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in _tensors(content, size)
    }
    held = sorted(one.file_size for one in members if "/data/" in one.filename and one.file_size)
    if sorted(filter(None, storages.values())) != held:
        raise ValueError
    return content


def _tensors(content: Any, most: int) -> list[Tensor]:
    """Return the tensors of nested content that has at most so many parts, and in which each holds all its values.

    A part takes a byte of the file at least, unless it is referred to again and again.
    """
    found, parts = [], [content]
    while parts:
        part = parts.pop()
        inner = list(part.values()) if isinstance(part, dict) else part if isinstance(part, list | tuple) else []
        most -= len(inner)
        if most < 0:
            raise ValueError
        parts += inner
        if isinstance(part, Tensor):
            if part.layout is not torch.strided or part.is_quantized or part.device.type != "cpu":
                raise ValueError
            if part.untyped_storage().nbytes() < part.nbytes:
                raise ValueError
            found.append(part)
    return found


def is_whole(directory: Place) -> bool:
    """Return whether a checkpoint's file is there to its end; whether it is also undamaged shows when it is loaded.

    Raises:
        OSError: storage refuses.
    """
    try:
        with (directory / FILE_NAME).open("rb") as file:
            return zipfile.is_zipfile(file)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return False
    except ValueError:  # of an address, whose file is too short to be searched
        return False


def not_ours(path: Place, what: str) -> DamagedDataError:
    """Return the error of a file that is no checkpoint of this program."""
    return DamagedDataError(
        f"{path} is no checkpoint that this program wrote ({printable(what)}): use another one, or the version of the "
        "program that wrote it; a training goes on from the one before once that folder is moved away"
    )


def compare(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Raise ``ValueError`` where tensors do not have the names, shapes and dtypes of others."""
    for name in sorted({*wanted, *found}):
        one, other = wanted.get(name), found.get(name)
        if one is None or other is None or one.shape != other.shape or one.dtype != other.dtype:
            raise ValueError(f"{name} is missing, or has another shape or dtype")


def restore(
    state: TrainingState, directory: Place, config_hash: str, num_steps: int, earlier: Collection[str] = ()
) -> None:
    """Put a checkpoint's content into a state.

    Args:
        state: changed in place.
        directory: of the checkpoint.
        config_hash: of the experiment.
        num_steps: of the whole training.
        earlier: hashes of the experiment as it was with fewer epochs.

    Raises:
        DamagedDataError: the checkpoint cannot be read, or belongs to another experiment.
    """
    content = load_checkpoint(directory)
    if content["config_hash"] not in (config_hash, *earlier):
        raise DamagedDataError(f"{directory} belongs to another configuration: give the run another name")
    if content["step"] > num_steps:
        raise not_ours(directory / FILE_NAME, f"it is of step {content['step']}, the training has {num_steps}")
    try:
        compare(state.model.state_dict(), content["model"])
        moments = _checked_moments(state, content)
    except UNREADABLE as error:
        raise not_ours(directory / FILE_NAME, f"{type(error).__name__}: {str(error)[:100]}") from error
    state.model.load_state_dict(content["model"])
    # its options follow from the configuration, whose hash is that of this one
    state.optimizer.load_state_dict({**state.optimizer.state_dict(), "state": moments})
    state.step = content["step"]


def _checked_moments(state: TrainingState, content: Mapping[str, Any]) -> dict[int, dict[str, Tensor]]:
    """Return Adam's moments of every parameter that has moved, none before the first step."""
    names = {id(parameter): name for name, parameter in state.model.named_parameters()}
    parameters = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
    moments: dict[int, dict[str, Tensor]] = content["optimizer"]["state"]
    if moments.keys() - range(len(parameters)) or bool(moments) != bool(content["step"]):
        raise ValueError("the moments of the optimiser are not those of its parameters")
    for number, parameter in enumerate(parameters):
        one, weight = moments.get(number), content["model"][names[id(parameter)]]
        if one is None:
            if not torch.equal(parameter.detach().cpu(), weight):
                raise ValueError("a parameter that has moved has no moments of the optimiser")
            continue
        compare({"step": torch.tensor(0.0), "exp_avg": weight, "exp_avg_sq": weight}, one)
        are_finite = one["exp_avg"].isfinite().all() and one["exp_avg_sq"].isfinite().all()
        # a parameter that some steps do not use counts fewer
        if not 0 < one["step"] <= min(content["step"], MOST_COUNTED) or not are_finite or one["exp_avg_sq"].min() < 0:
            raise ValueError("the moments of the optimiser are not possible after so many steps")
    return moments
