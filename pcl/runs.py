"""A run directory: what lies where, who may use its name, and how a finished model is loaded again.

::

    <storage>/<name>/config.yaml            resolved configuration
                     provenance.json        versions, commit, command, manifest of the shards
                     checkpoint_<step>/     state.pt
                     lease/                 who trains it
                     progress.json          the newest step
                     tensorboard/           of the training; evaluation/: of all evaluations
                     profile/               traces
                     evaluations/<checkpoint>/metrics.json, figures
"""

__all__ = ["check_name", "checkpoints", "claim", "experiment_hash", "forget_half_written", "load", "sweep"]

import hashlib
import json
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pcl.data.manifest import differing_keys, is_empty, write_json
from pcl.errors import BadInputError, DamagedDataError
from pcl.model import PairModel
from pcl.storage import Place, create, is_local, names, place, read_bytes, remove_temporaries, write_bytes
from pcl.train.checkpoint import FILE_NAME, is_whole, load_model

PROVENANCE = "provenance.json"
CHECKPOINT = re.compile(r"checkpoint_\d{8}")
SNAPSHOT = "checkpoint_manager_snapshot.json"  # Ray Train's record of the checkpoints that are committed


def experiment_hash(experiment: Mapping[str, Any]) -> str:
    """Return a short hash of what a run is a function of.

    Example:
        >>> experiment_hash({"seed": 0}) == experiment_hash({"seed": 1})
        False
    """
    return hashlib.sha256(json.dumps(experiment, sort_keys=True).encode()).hexdigest()[:16]


def check_name(run: Place, experiment: Mapping[str, Any]) -> bool:
    """Return whether a run exists, and refuse a name that belongs to another experiment.

    Args:
        run: the run's directory.
        experiment: all that the run is a function of, flat.

    Raises:
        BadInputError: the name is in use by another experiment (the message lists the keys), or the directory exists
            and is not a run.
        OSError: storage refuses.
    """
    saved = read_bytes(run / PROVENANCE)
    if saved is not None:
        try:
            found = dict(json.loads(saved)["experiment"])
        except (ValueError, KeyError, TypeError) as error:
            raise BadInputError(f"{run / PROVENANCE} cannot be read: choose another name=...") from error
        differing = differing_keys(found, experiment)
        if differing:
            raise BadInputError(
                f"the run in {run} has another configuration (differing: {', '.join(differing)}): "
                "choose another name=... or delete that folder"
            )
        return True
    if run.exists() and not is_empty(run):
        raise BadInputError(f"{run} exists and is not a run: choose another name=... or another storage=...")
    return False


def claim(run: Place, experiment: Mapping[str, Any], config_yaml: str) -> None:
    """Give a run its directory with ``config.yaml`` and ``provenance.json``; an existing run keeps its own.

    Args:
        run: the run's directory.
        experiment: all that the run is a function of, flat.
        config_yaml: the resolved configuration.

    Raises:
        BadInputError: see ``check_name``.
        OSError: storage refuses.
    """
    if not check_name(run, experiment):
        content = _provenance() | {"experiment": dict(experiment)}
        if not create(run / PROVENANCE, json.dumps(content, indent=2, sort_keys=True).encode()):
            check_name(run, experiment)  # another job was quicker
    if not (run / "config.yaml").is_file():
        write_bytes(run / "config.yaml", config_yaml.encode())


def _provenance() -> dict[str, Any]:
    commit, status = _git("rev-parse", "HEAD"), _git("status", "--porcelain")
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "commit": commit or None,
        "uncommitted_changes": bool(status) if commit else None,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("pcl", "torch", "ray", "numpy", "webdataset")},
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

    Raises:
        DamagedDataError: Ray Train's record of them cannot be read.
        OSError: storage refuses.
    """
    complete = {path.parent.name: path.parent for path in run.glob(f"checkpoint_*/{FILE_NAME}")}
    snapshot = read_bytes(run / SNAPSHOT)
    if snapshot is not None:
        try:
            committed = {result["checkpoint_dir_name"] for result in json.loads(snapshot)["checkpoint_results"]}
        except (ValueError, LookupError, TypeError) as error:
            raise DamagedDataError(f"{run / SNAPSHOT} cannot be read: choose another name=...") from error
        complete = {name: path for name, path in complete.items() if name in committed}
    elif (run / PROVENANCE).is_file():
        complete = {}
    return [complete[name] for name in sorted(complete)]


def forget_half_written(run: Place) -> list[str]:
    """Take checkpoints that are gone or half written out of Ray Train's record, so that it goes on from the one before.

    Only who holds the run's lease may do so.

    Returns:
        Their names.

    Raises:
        DamagedDataError: the record cannot be read.
        OSError: storage refuses.
    """
    saved = read_bytes(run / SNAPSHOT)
    if saved is None:
        return []
    try:
        record = json.loads(saved)
        results, indices = record["checkpoint_results"], record["checkpoint_report_indices"]
        names = [result["checkpoint_dir_name"] for result in results]
        # Ray Train deletes what the record names: it must not lead elsewhere
        whole = [re.fullmatch(r"checkpoint_\d+", name) is not None and is_whole(run / name) for name in names]
        kept = [(result, index) for result, index, good in zip(results, indices, whole, strict=True) if good]
        lost = [name for name, good in zip(names, whole, strict=True) if not good]
        latest = record.get("latest_checkpoint_result")
        is_lost = bool(lost) or (latest is not None and latest["checkpoint_dir_name"] not in names)
    except (ValueError, LookupError, TypeError) as error:
        raise DamagedDataError(f"{run / SNAPSHOT} cannot be read: choose another name=...") from error
    if is_lost:
        record["checkpoint_results"], record["checkpoint_report_indices"] = [r for r, _ in kept], [i for _, i in kept]
        record["latest_checkpoint_result"] = kept[-1][0] if kept else None
        write_json(run / SNAPSHOT, record)
    return lost


def sweep(run: Place) -> None:
    """Remove what processes that were killed left in a run: temporary files, and checkpoints that count no more.

    A checkpoint counts no more if it is not committed and one that came later is. Only who holds the run's lease may
    remove it.

    Raises:
        DamagedDataError: Ray Train's record cannot be read.
        OSError: storage refuses.
    """
    committed = [path.name for path in checkpoints(run)]
    folders = [name for name in names(run) if CHECKPOINT.fullmatch(name)]
    for name in folders:
        if committed and name not in committed and name < committed[-1]:
            for file in names(run / name):
                (run / name / file).unlink(missing_ok=True)
            if is_local(run):
                (run / name).rmdir()
    for folder in (run, *(run / name for name in committed)):
        remove_temporaries(folder)


def load(path: str | Place) -> PairModel:
    """Load a trained model from a run (its newest checkpoint) or from a checkpoint.

    Args:
        path: a run directory or a checkpoint directory, in a folder or at an ``s3://`` address.

    Returns:
        The model on the CPU: ``encode_u``, ``encode_v``, ``log_tilting``, and ``conditional`` on a reference set.

    Raises:
        BadInputError: there is no checkpoint.
        DamagedDataError: the checkpoint cannot be read.
        OSError: storage refuses.
    """
    directory = place(str(path))
    if not (directory / FILE_NAME).is_file():
        found = checkpoints(directory)
        if not found:
            raise BadInputError(f"{directory} holds no checkpoint: give a run or a checkpoint directory")
        directory = found[-1]
    return load_model(directory).eval().requires_grad_(False)
