"""Jobs of a cluster as everybody speaks of them: their names, and what is known of each; nothing here needs Ray."""

__all__ = ["ENDED", "Job", "attempt_name", "slug"]

import re
from dataclasses import dataclass

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


def attempt_name(name: str, attempt: int) -> str:
    """Return the name of a job's attempt, counted from 1.

    Example:
        >>> attempt_name("train-mnist", 1), attempt_name("train-mnist", 2)
        ('train-mnist', 'train-mnist-a2')
    """
    return name if attempt <= 1 else f"{name}-a{attempt}"


def slug(name: str) -> str:
    """Return a name as jobs may have it.

    Example:
        >>> slug("my run, 2")
        'my-run-2'
    """
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-")[:60]


@dataclass(frozen=True)
class Job:
    """What the cluster says of a job.

    Attributes:
        status: ``PENDING``, ``RUNNING``, ``SUCCEEDED``, ``FAILED`` or ``STOPPED``.
        message: why it ended.
        started: whether it ever ran.
    """

    status: str
    message: str = ""
    started: bool = True

    @property
    def has_ended(self) -> bool:
        """Whether it will change no more."""
        return self.status in ENDED
