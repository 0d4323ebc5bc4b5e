"""The best checkpoint of a run, by its held-out loss: ``<run>/best``, a folder of checkpoints that holds one.

It is a copy, so that it outlives ``workers.num_checkpoints``. ``best.json`` beside it says which it is, and is the mark
that it is whole. A training that was killed goes on from a committed checkpoint and comes to the same states again: the
best so far, which may be later than that checkpoint, is one of them.
"""

__all__ = ["Best", "best_checkpoint", "keep_best"]

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ConfigDict

from pcl.errors import DamagedDataError
from pcl.storage.place import Place, names
from pcl.storage.stored import Count, Finite, read_sealed, sealed, write_json
from pcl.train.checkpoint import NAME, checkpoint_name, is_whole, save_checkpoint
from pcl.train.runs import BEST, remove_checkpoint

RECORD = "best.json"
REMEDY = "choose another checkpoint, or train on: the best of what follows is kept"


@dataclass(frozen=True)
class Best:
    """The checkpoint with the least held-out loss so far.

    Attributes:
        step: of the checkpoint.
        loss: on the pairs that are held out, nats.
    """

    step: Count
    loss: Finite

    __pydantic_config__ = ConfigDict(extra="ignore")

    @property
    def name(self) -> str:
        """The name of the checkpoint."""
        return checkpoint_name(self.step)

    def place(self, run: Place) -> Place:
        """Return where it lies."""
        return run / BEST / self.name


def best_checkpoint(run: Place) -> Best | None:
    """Best checkpoint of a run; None of a run that has chosen none.

    Raises:
        DamagedDataError: what says which it is is damaged, or it is gone or half written.
        OSError: storage refuses.
    """
    read = read_sealed(run / BEST / RECORD, Best, REMEDY)
    if read is None:
        return None
    if not is_whole(read[0].place(run)):
        raise DamagedDataError(f"{read[0].place(run)} is half written or gone: {REMEDY}")
    return read[0]


def keep_best(run: Place, step: int, loss: float, content: Mapping[str, Any]) -> bool:
    """Keep a checkpoint if it is the best so far, in place of the one before.

    Args:
        run: the run's directory.
        step: of the checkpoint.
        loss: on the pairs that are held out.
        content: of the checkpoint.

    Returns:
        Whether it is.

    Raises:
        OSError: storage refuses; the one before is kept then.
    """
    try:
        known = best_checkpoint(run)
    except DamagedDataError:
        known = None
    if known is not None and known.step != step and known.loss <= loss:
        return False
    found = Best(step, loss)
    save_checkpoint(found.place(run), content)
    write_json(run / BEST / RECORD, sealed({"step": step, "loss": loss}))
    for other in names(run / BEST):
        if NAME.fullmatch(other) and other != found.name:
            remove_checkpoint(run / BEST / other)
    return True
