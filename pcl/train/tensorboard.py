"""Scalars for people who watch: TensorBoard, and a small file that a progress bar can follow."""

__all__ = ["Journal"]

from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from pcl.data.manifest import write_json
from pcl.train.loop import Scalars

PROGRESS = "progress.json"


class Journal:
    """Writes a run's scalars; curves continue without overlap after a resume.

    Args:
        run: the run's directory.
        first_step: the step that training goes on from; later points of an interrupted run are dropped.
        num_steps: steps in all.
    """

    def __init__(self, run: Path, first_step: int, num_steps: int) -> None:
        self.run, self.num_steps = run, num_steps
        self.writer = SummaryWriter(str(run / "tensorboard"), purge_step=first_step + 1)
        write_json(run / PROGRESS, {"step": first_step, "num_steps": num_steps})

    def log(self, step: int, scalars: Scalars) -> None:
        """Write scalars as ``train/<name>``."""
        for name, value in scalars.items():
            self.writer.add_scalar(f"train/{name}", value, step)
        self.writer.flush()
        write_json(self.run / PROGRESS, {"step": step, "num_steps": self.num_steps} | scalars)
