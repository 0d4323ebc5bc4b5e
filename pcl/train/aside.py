"""Work that is done aside: a function in a thread, one at a time, while the steps go on."""

__all__ = ["Aside"]

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self


class Aside:
    """A context whose functions are called in turn, each in a thread and after the one before has ended.

    What a function raises is raised by the next call of ``do`` or ``check``, or at the end of the block. The block ends
    when the last function has, also when an error ends it: what is under way is not lost.

    Example:
        >>> done = []
        >>> with Aside() as aside:
        ...     aside.do(lambda: done.append(1))
        ...     aside.do(lambda: done.append(2))
        >>> done
        [1, 2]
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="aside")
        self._under_way: Future[object] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True)
        if error is None:
            self.check()

    def do(self, function: Callable[[], object]) -> None:
        """Wait for the function that is under way, if any, and start another."""
        if self._under_way is not None:
            self._under_way.result()
        self._under_way = self._pool.submit(function)

    def check(self) -> None:
        """Raise what the last function raised, if it has ended."""
        if self._under_way is not None and self._under_way.done():
            self._under_way.result()
