"""More epochs on a run whose learning rate is constant: it goes on as if it had had them from the start."""

__all__ = ["earlier_hashes", "has_other_epochs", "lengthen"]

from collections.abc import Mapping
from typing import Any

from pcl.config.identity import differing, experiment_hash
from pcl.errors import BadInputError, printable
from pcl.storage.place import Place, read_bytes, write_bytes
from pcl.storage.stored import read_json, write_json
from pcl.train.checkpoint import is_whole
from pcl.train.runs import CONFIG, PROVENANCE, Provenance, begun, checkpoints, recorded_experiment

EPOCHS, SCHEDULE = "train.epochs", "train.schedule"
REMEDY = "choose another name=... or delete that folder"


def has_other_epochs(run: Place, experiment: Mapping[str, Any], steps_per_epoch: int) -> bool:
    """Return whether a run is asked to go on to another number of epochs than it recorded; refuse what cannot be.

    A step of a training with a constant rate does not depend on how many follow, so such a run has the bits of one
    that had all epochs from the start. A cosine ends where the epochs do.

    Args:
        run: the run's directory.
        experiment: that is asked for, flat.
        steps_per_epoch: of it.

    Raises:
        BadInputError: the run is of another experiment, its rate is no constant, or more is done than is asked for.
        DamagedDataError: what says whose the name is cannot be read.
        OSError: storage refuses.
    """
    recorded = recorded_experiment(run)
    if recorded is None or differing(recorded, experiment) != [EPOCHS]:
        recorded_experiment(run, experiment)  # refuses another one
        return False
    had, asked = recorded[EPOCHS], experiment[EPOCHS]
    if experiment[SCHEDULE] != "constant":
        raise BadInputError(
            f"the run in {run} has {EPOCHS}={printable(had)} and a {experiment[SCHEDULE]} schedule, which ends with "
            f"them: only {SCHEDULE}=constant goes on to {asked}; begin another run with its weights, name=... "
            f"train.init_from={run}"
        )
    done = max((int(path.name.partition("_")[2]) for path in checkpoints(run) if is_whole(path)), default=0)
    if asked * steps_per_epoch < done:
        raise BadInputError(
            f"the run in {run} has done {done} steps, {EPOCHS}={asked} are {asked * steps_per_epoch}: give at least "
            f"{EPOCHS}={-(-done // steps_per_epoch)}, or choose another name=..."
        )
    return True


def lengthen(run: Place, experiment: Mapping[str, Any], config_yaml: str) -> None:
    """Record other epochs of a run, at once or not at all; what was recorded stays in its provenance, as ``earlier``.

    Only who holds the run's lease may do so. A process that is killed between its two files leaves a run that the
    same command lengthens.

    Args:
        run: the run's directory.
        experiment: that ``has_other_epochs`` has accepted.
        config_yaml: the resolved configuration.

    Raises:
        OSError: storage refuses.
    """
    before = read_json(run / PROVENANCE, dict[str, Any], REMEDY) or {}
    if before["experiment"][EPOCHS] == experiment[EPOCHS]:
        return  # another job was quicker
    earlier = before.pop("earlier", [])
    before["config"] = (read_bytes(run / CONFIG) or b"").decode(errors="replace")
    write_bytes(run / CONFIG, config_yaml.encode())
    recorded = before["experiment"] | {EPOCHS: experiment[EPOCHS]}
    write_json(run / PROVENANCE, begun() | {"experiment": recorded, "earlier": [*earlier, before]})


def earlier_hashes(run: Place) -> list[str]:
    """Return the hashes of a run's experiment as it was with fewer epochs: those of checkpoints of then.

    Raises:
        DamagedDataError: what says whose the name is cannot be read.
        OSError: storage refuses.
    """
    found = read_json(run / PROVENANCE, Provenance, REMEDY)
    experiments = [one.get("experiment") for one in found.earlier] if found is not None else []
    return [experiment_hash(one) for one in experiments if isinstance(one, dict)]
