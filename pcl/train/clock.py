"""Time by part of a step: every moment belongs to the innermost part that is open, so that parts add up to the whole.

On CPUs a host's time is exact and every step is measured. On CUDA a host's time is that of launches: there only the
steps that are logged are measured, one of every ``train.log_every``, with a synchronisation at the boundaries of parts;
the other steps run on undisturbed.
"""

__all__ = ["COLLECTIVES", "PARTS", "Clock"]

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

PARTS = ("data", "forward", "gather", "loss", "backward", "average", "update")
COLLECTIVES = ("gather", "average")
"""Parts that wait for other workers: ``gather``, the loss's collectives in both passes, and the mean gradient."""


class Clock:
    """Adds up the seconds that the steps of a training spend in each of ``PARTS``.

    Args:
        device: of the training; None: a CPU.
        now: the time in seconds.

    Example:
        >>> clock = Clock(now=iter([0.0, 2.0, 5.0, 6.0]).__next__)
        >>> clock.begin_step()
        >>> with clock.part("loss"):
        ...     with clock.part("gather"):
        ...         pass
        >>> clock.seconds["loss"], clock.seconds["gather"]
        (3.0, 3.0)
    """

    def __init__(self, device: torch.device | None = None, now: Callable[[], float] = time.perf_counter) -> None:
        self.now = now
        self.cuda = device if device is not None and device.type == "cuda" else None
        self._open: list[str] = []
        self._start_anew()

    def _start_anew(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.num_steps = 0
        self._measures = False
        self._since = 0.0

    def begin_step(self, is_logged: bool = True) -> None:
        """Begin a step; one that is not logged is measured only where that costs nothing."""
        self._measures = is_logged or self.cuda is None
        self.num_steps += self._measures

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Give the time of a block to a part, but for that of the parts within it."""
        self._turn()
        self._open.append(name)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def _turn(self) -> None:
        """Give the time since the last boundary to the part that was open."""
        if not self._measures:
            return
        if self.cuda is not None:
            torch.cuda.synchronize(self.cuda)
        now = self.now()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now

    def take(self) -> dict[str, float]:
        """Return milliseconds per measured step by part, and the shares of waiting; the clock starts anew."""
        total = max(sum(self.seconds.values()), 1e-12)
        scalars = {f"time/{part}_ms": 1e3 * s / max(1, self.num_steps) for part, s in self.seconds.items()}
        scalars["data_share"] = self.seconds["data"] / total
        scalars["collective_share"] = sum(self.seconds[part] for part in COLLECTIVES) / total
        self._start_anew()
        return scalars
