"""Signals that tell a job to end: SIGINT, SIGTERM, SIGHUP."""

__all__ = ["SIGNALS", "Interrupted", "Stopping", "handled", "interruptible"]

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SAME_S = 1.0


class Interrupted(KeyboardInterrupt):
    """A job was told to end.

    Args:
        number: of the signal.
        message: what people are told.
    """

    def __init__(self, number: int, message: str = "the same command goes on from what is finished") -> None:
        super().__init__(message)
        self.number = number

    @property
    def exit_code(self) -> int:
        """The exit code of a process that a signal ended, as shells have it."""
        return 128 + self.number


@contextmanager
def handled(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Handle the signals in a block, but for those that are ignored, as nohup has it; only the main thread can."""
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in SIGNALS}
    handled = [number for number, handler_before in before.items() if handler_before is not signal.SIG_IGN]
    for number in handled:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, before[number])


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise ``Interrupted`` in a block when a signal comes, also where Ray waits and raises what it makes of it."""
    told: list[int] = []

    def tell(number: int, frame: FrameType | None) -> None:
        told.append(number)
        raise Interrupted(number)

    with handled(tell), _under_its_name(lambda: told[0] if told else None):
        yield


@contextmanager
def _under_its_name(number: Callable[[], int | None]) -> Iterator[None]:
    """Raise ``Interrupted`` for a signal that Ray's compiled code turned into a bare ``KeyboardInterrupt``."""
    try:
        yield
    except Interrupted:
        raise
    except KeyboardInterrupt as error:
        told = number()
        if told is None:
            raise
        raise Interrupted(told) from error


class Stopping:
    """A context that ends in good order: the first signal asks for it, a later one or the end of patience insists.

    Signals that follow the first within a second are the same: who ends a process often ends its group too.

    Args:
        ask: called once, in a thread, when the first signal comes.
        patience_s: seconds from the first signal until ``Interrupted`` is raised.

    Attributes:
        number: of the first signal, None before.
    """

    def __init__(self, ask: Callable[[], object], patience_s: float) -> None:
        self.number: int | None = None
        self._ask, self._patience_s = ask, patience_s
        self._since, self._insists = 0.0, False
        self._contexts = ExitStack()
        self._timer = threading.Timer(patience_s, self.insist)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._contexts.enter_context(handled(self._handle))
        self._contexts.enter_context(_under_its_name(lambda: self.number))
        return self

    def __exit__(self, *error: Any) -> None:
        self._timer.cancel()
        self._contexts.__exit__(*error)

    def insist(self) -> None:
        """End the block at once, from any thread."""
        self._insists = True
        os.kill(os.getpid(), self.number or signal.SIGTERM)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._insists or (self.number is not None and time.monotonic() - self._since > SAME_S):
            raise Interrupted(self.number or number)
        if self.number is None:
            self.number, self._since = number, time.monotonic()
            self._timer.start()
            threading.Thread(target=self._ask, daemon=True).start()
