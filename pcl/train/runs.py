"""A run directory: what lies where, who may use its name, and how a finished model is loaded again.

::

    <storage>/<name>/config.yaml            resolved configuration
                     provenance.json        versions, commit, command, manifest of the shards
                     checkpoint_<step>/     state.pt
                     best/                  the checkpoint with the least held-out loss, if pairs are held out
                     lease/                 who trains it
                     progress.json          the newest step
                     events.out.tfevents.*  TensorBoard's curves of the training (earlier versions: in tensorboard/)
                     profile/               traces
                     evaluations/           curves of all evaluations; <checkpoint>/metrics.json, figures, report.html
"""

__all__ = [
    "BEST",
    "CONFIG",
    "PROVENANCE",
    "SNAPSHOT",
    "Provenance",
    "begun",
    "checkpoints",
    "claim",
    "commit_times",
    "load",
    "lost_checkpoints",
    "mend_record",
    "model_at",
    "recorded_experiment",
    "remove_checkpoint",
    "sweep",
]

import json
import platform
import shutil
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from pcl.config.identity import differing
from pcl.errors import BadInputError, DamagedDataError, printable
from pcl.plugins.loading import load_plugins
from pcl.storage.place import Place, create, is_empty, is_local, names, place, remove_temporaries, write_bytes
from pcl.storage.stored import Count, read_json, write_json
from pcl.train.checkpoint import FILE_NAME, NAME, is_whole
from pcl.train.model_folder import holds_model
from pcl.train.trained import TrainedModel, load_model

CONFIG, PROVENANCE, BEST = "config.yaml", "provenance.json", "best"
PACKAGES = ("pcl", "torch", "ray", "numpy", "webdataset")  # whose versions are kept
SNAPSHOT = "checkpoint_manager_snapshot.json"  # Ray Train's record of the checkpoints that are committed


@dataclass(frozen=True)
class Provenance:
    """What ``provenance.json`` must hold; the rest of it is for people."""

    experiment: dict[str, bool | int | float | str | list[Any] | None]
    earlier: list[dict[str, Any]] = field(default_factory=list)  # what it held while the run had fewer epochs


@dataclass(frozen=True)
class Reported:
    """A checkpoint in Ray Train's record."""

    checkpoint_dir_name: str
    metrics: dict[str, Any]
    version: Count = 0


@dataclass(frozen=True)
class Record:
    """Ray Train's record of the checkpoints that are committed, as it writes and reads it."""

    ray_version: str
    checkpoint_results: list[Reported]
    checkpoint_report_indices: list[Count]
    latest_checkpoint_result: Reported | None
    current_report_index: Count
    pending_training_results: Annotated[list[Any], Field(max_length=0)]
    pending_validation_specs: Annotated[list[Any], Field(max_length=0)]
    validated_checkpoint_dir_names: list[str]
    timed_out_validation_checkpoint_dir_names: list[str]
    failed_validation_checkpoint_dir_names: list[str]

    @property
    def names(self) -> list[str]:
        """The names of the checkpoints."""
        return [result.checkpoint_dir_name for result in self.checkpoint_results]


def recorded_experiment(run: Place, experiment: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """Return the experiment of a run as it was recorded, None where there is no run; refuse a name of another one.

    Args:
        run: the run's directory.
        experiment: all that the run is a function of, flat, by today's configuration; None: whatever it is.

    Raises:
        BadInputError: the name is in use by another experiment (the message lists the keys), or the directory exists
            and is not a run.
        DamagedDataError: what says whose the name is cannot be read.
        OSError: storage refuses.
    """
    found = read_json(run / PROVENANCE, Provenance, "choose another name=... or delete that folder")
    if found is not None:
        if experiment is not None and (keys := differing(found.experiment, experiment)):
            raise BadInputError(
                f"the run in {run} has another configuration (differing: {printable(', '.join(keys))[:500]}): "
                "choose another name=... or delete that folder"
            )
        return found.experiment
    if run.exists() and not is_empty(run):
        raise BadInputError(f"{run} exists and is not a run: choose another name=... or another storage=...")
    return None


def claim(run: Place, experiment: Mapping[str, Any], config_yaml: str) -> dict[str, Any]:
    """Give a run its directory with ``config.yaml`` and ``provenance.json``; an existing run keeps its own.

    Args:
        run: the run's directory.
        experiment: all that the run is a function of, flat.
        config_yaml: the resolved configuration.

    Returns:
        The experiment as it is recorded.

    Raises:
        BadInputError: see ``recorded_experiment``.
        OSError: storage refuses.
    """
    recorded = recorded_experiment(run, experiment)
    if recorded is None:
        content = begun() | {"experiment": dict(experiment)}
        recorded = dict(experiment)
        if not create(run / PROVENANCE, json.dumps(content, indent=2, sort_keys=True).encode()):
            recorded = recorded_experiment(run, experiment) or recorded  # another job was quicker
    if not (run / CONFIG).is_file():
        write_bytes(run / CONFIG, config_yaml.encode())
    return recorded


def begun() -> dict[str, Any]:
    """Return what a run keeps of its beginning: when, by which command, code and versions."""
    commit, status = _git("rev-parse", "HEAD"), _git("status", "--porcelain")
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "commit": commit or None,
        "uncommitted_changes": bool(status) if commit else None,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _git(*arguments: str) -> str:
    """Return what git says of the code, nothing where there is no git or no repository."""
    if shutil.which("git") is None:
        return ""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _version(package: str) -> str | None:
    """Return a package's version, None for what is on the path but not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def checkpoints(run: Place) -> list[Place]:
    """Return the committed checkpoints of a run, oldest first; a plain folder of checkpoints has no other kind.

    A checkpoint that was uploaded and not yet committed when the run ended is not resumed from, so it does not count.
    Where Ray Train's record of what is committed is lost or damaged, those that are whole count: each is the state of
    the training after its steps, committed or not.

    Raises:
        OSError: storage refuses.
    """
    record, found = _record(run), _there(run)
    if record is not None:
        found = [path for path in found if path.name in record.names]
    elif (run / PROVENANCE).is_file() or (run / SNAPSHOT).exists():
        found = [path for path in found if is_whole(path)]
    return found


def commit_times(run: Place) -> dict[str, float]:
    """Return when each committed checkpoint of a run was written, by its name, oldest first.

    Returns:
        Seconds of the clock on the wall.

    Raises:
        OSError: storage refuses.
    """
    return {path.name: (path / FILE_NAME).stat().st_mtime for path in checkpoints(run)}


def lost_checkpoints(run: Place) -> list[str]:
    """Return the names of committed checkpoints that are gone or half written, and newer than all whole ones.

    Returns:
        Newest first.

    Raises:
        OSError: storage refuses.
    """
    record, there = _record(run), checkpoints(run)
    newest = next((_step(path.name) for path in reversed(there) if is_whole(path)), -1)
    committed = {path.name for path in there} | set(filter(NAME.fullmatch, record.names if record else ()))
    return sorted((name for name in committed if _step(name) > newest), key=_step, reverse=True)


def mend_record(run: Place) -> list[str]:
    """Make Ray Train's record of checkpoints name those that are whole, so that it goes on from the newest of them.

    Checkpoints that are gone or half written are taken out of it; where it is lost, damaged, or names none that is
    whole, it is written anew from all that are. Only who holds the run's lease may do so.

    Returns:
        Lines on what was mended.

    Raises:
        OSError: storage refuses.
    """
    record = _record(run)
    kept, lines = dict[str, Reported](), list[str]()
    for one in record.checkpoint_results if record else ():
        name = one.checkpoint_dir_name
        if NAME.fullmatch(name) and is_whole(run / name):  # Ray Train deletes what it names: it must not lead elsewhere
            kept[name] = one
        else:
            lines.append(f"{printable(name)[:100]} is half written or gone: it is left out")
    if not kept:
        kept = {path.name: Reported(path.name, {"step": _step(path.name)}) for path in _there(run) if is_whole(path)}
    results = [kept[name] for name in sorted(kept, key=_step)]
    if not (record and record.names) and (results or (run / SNAPSHOT).exists()):
        lines.append(f"{SNAPSHOT} is lost or damaged: it is written anew, with all {len(results)} whole checkpoints")
    if lines or (record is not None and not _fits(record, results)):
        write_json(run / SNAPSHOT, asdict(_record_of(results)), allow_nan=True)
    return lines


def _step(name: str) -> int:
    return int(name.removeprefix("checkpoint_"))


def _there(run: Place) -> list[Place]:
    """Return the checkpoints that lie in a run, oldest first."""
    found = (path.parent for path in run.glob(f"checkpoint_*/{FILE_NAME}") if NAME.fullmatch(path.parent.name))
    return sorted(found, key=lambda path: _step(path.name))


def _record(run: Place) -> Record | None:
    """Return Ray Train's record, None where it is lost or damaged."""
    try:
        return read_json(run / SNAPSHOT, Record, "")
    except DamagedDataError:
        return None


def _fits(record: Record, kept: list[Reported]) -> bool:
    """Return whether Ray Train can go on from a record as it is."""
    indices = record.checkpoint_report_indices
    return (
        record.checkpoint_results == kept
        and len(set(record.names)) == len(kept) == len(indices)
        and indices == sorted(set(indices))
        and (not indices or indices[-1] < record.current_report_index)
        and [one.checkpoint_dir_name for one in (record.latest_checkpoint_result,) if one] == record.names[-1:]
    )


def _record_of(results: list[Reported]) -> Record:
    return Record(
        ray_version=_version("ray") or "",
        checkpoint_results=results,
        checkpoint_report_indices=[*range(len(results))],
        latest_checkpoint_result=results[-1] if results else None,
        current_report_index=len(results),
        pending_training_results=[],
        pending_validation_specs=[],
        validated_checkpoint_dir_names=[],
        timed_out_validation_checkpoint_dir_names=[],
        failed_validation_checkpoint_dir_names=[],
    )


def sweep(run: Place) -> None:
    """Remove what processes that were killed left in a run: temporary files, and checkpoints that count no more.

    A checkpoint counts no more if it is not committed and one that came later is. Only who holds the run's lease may
    remove it.

    Raises:
        OSError: storage refuses.
    """
    committed = [path.name for path in checkpoints(run)]
    folders = [name for name in names(run) if NAME.fullmatch(name)]
    for name in folders:
        if committed and name not in committed and _step(name) < _step(committed[-1]):
            remove_checkpoint(run / name)
    best = (run / BEST / name for name in names(run / BEST) if NAME.fullmatch(name))
    for folder in (run, run / BEST, *best, *(run / name for name in committed)):
        remove_temporaries(folder)


def remove_checkpoint(directory: Place) -> None:
    """Remove a checkpoint; only who holds the run's lease may do so.

    Raises:
        OSError: storage refuses.
    """
    for file in names(directory):
        (directory / file).unlink(missing_ok=True)
    if is_local(directory):
        directory.rmdir()


def model_at(path: Place) -> Place:
    """Return the folder of the weights that a path leads to: a model's, a checkpoint's, or a run's newest checkpoint.

    Raises:
        BadInputError: there are none.
        OSError: storage refuses.
    """
    if holds_model(path) or (path / FILE_NAME).is_file():
        return path
    found = checkpoints(path)
    if not found:
        what = "holds no checkpoint" if path.exists() else "does not exist"
        raise BadInputError(f"{path} {what}: give a run, a checkpoint, or the folder of a model")
    lost = lost_checkpoints(path)
    newest = ([one for one in found if one.name not in lost] or found)[-1]
    if lost and newest.name not in lost:
        warnings.warn(f"{', '.join(lost)} is half written or gone: {newest} is loaded instead", stacklevel=3)
    return newest


def load(path: str | Place, plugins: str | Path | Sequence[str | Path] = ()) -> TrainedModel:
    """Load a trained model from a run (its newest checkpoint), from a checkpoint, or from a folder of its own.

    Args:
        path: a run directory, a checkpoint directory, or what ``save`` or ``pcl export`` wrote, in a folder or at an
            ``s3://`` address.
        plugins: Python files that register encoders which the model needs; what is loaded leads itself to none.

    Returns:
        The model on the CPU: ``encode_u``, ``encode_v``, ``log_tilting``, ``conditional`` on a reference set, ``save``.

    Raises:
        BadInputError: there is no model, a plugin cannot be run, or an encoder of the model is not registered.
        DamagedDataError: the model cannot be read.
        OSError: storage refuses.
    """
    given = {plugin.name: plugin.sha256 for plugin in load_plugins(plugins)}
    model = load_model(model_at(place(str(path))))
    if others := [name for name, sha256 in model.about.plugins.items() if given.get(name, sha256) != sha256]:
        warnings.warn(f"the plugin {printable(others[0])[:100]} is not what {path} was made with", stacklevel=2)
    return model
