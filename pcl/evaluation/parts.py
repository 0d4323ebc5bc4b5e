"""Parts of an evaluation, computed on the cores of this machine or as tasks of a cluster: each on one core.

What is evaluated says where it is cut, and one core computes a part, with the same sums in the same order whoever it
belongs to. So no number depends on how many cores or tasks there are.
"""

__all__ = ["HERE", "Lazily", "Parts", "RunTasks", "one_core"]

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar, overload

import torch

FEW = 2  # items that are done before others have begun
T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S")


class RunTasks(Protocol):
    """What runs a function of something shared and an item for every item, elsewhere."""

    def __call__(self, function: Callable[[S, T], R], shared: S, items: Sequence[T]) -> Iterator[tuple[int, R]]:
        """Yield the number of every item with its result, as they finish."""


class Lazily(Sequence[T], Generic[T]):
    """Items that are made when they are asked for: of parts of large arrays only those under way are held.

    Args:
        make: the item of a number.
        number: of items.

    Example:
        >>> [*Lazily(lambda i: i * i, 3)]
        [0, 1, 4]
    """

    def __init__(self, make: Callable[[int], T], number: int) -> None:
        self._make, self._number = make, number

    def __len__(self) -> int:
        return self._number

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...

    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            chosen = range(self._number)[index]
            return Lazily(lambda i: self._make(chosen[i]), len(chosen))
        return self._make(range(self._number)[index])


def _quietly(found: Iterable[R], total: int, what: str) -> Iterable[R]:
    return found


@dataclass(frozen=True)
class Parts:
    """Where the parts of an evaluation are computed.

    Attributes:
        elsewhere: runs them as tasks; None: this process does, on as many cores as torch would take.
        device: of the encoders and of the scores, wherever they are.
        show: shows how far it is, of results as they come, their number and what they are.
    """

    elsewhere: RunTasks | None = None
    device: str = "cpu"
    show: Callable[[Iterable[Any], int, str], Iterable[Any]] = _quietly

    def each(
        self,
        function: Callable[[S, T], R],
        shared: S,
        items: Sequence[T],
        what: str = "parts",
        most_at_once: int = 0,
    ) -> Iterator[tuple[int, R]]:
        """Yield the number of every item and ``function(shared, item)``, as they finish.

        Args:
            function: importable wherever tasks run; it has no gradients.
            shared: what all parts know.
            items: one of each part.
            what: people are told that they are.
            most_at_once: cores of this process; 0: all.
        """
        alone = partial(_alone, function)
        if self.elsewhere is not None and (len(items) > FEW or self.device != "cpu"):
            found = self.elsewhere(alone, shared, items)
        else:
            cores = 1 if self.device != "cpu" else torch.get_num_threads()
            found = _here(alone, shared, items, min(most_at_once or cores, cores, len(items)))
        yield from self.show(found, len(items), what)

    def in_order(
        self,
        function: Callable[[S, T], R],
        shared: S,
        items: Sequence[T],
        what: str = "parts",
        most_at_once: int = 0,
    ) -> Iterator[R]:
        """Yield ``function(shared, item)`` of every item, in their order; arguments as of ``each``.

        Example:
            >>> [*HERE.in_order(divmod, 7, [2, 3])]
            [(3, 1), (2, 1)]
        """
        early: dict[int, R] = {}
        following = 0
        for number, result in self.each(function, shared, items, what, most_at_once):
            early[number] = result
            while following in early:
                yield early.pop(following)
                following += 1


HERE = Parts()
"""All in this process."""


@contextmanager
def one_core() -> Iterator[None]:
    """Let torch compute on one core: how it divides a sum among several changes its last bits."""
    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _alone(function: Callable[[S, T], R], shared: S, item: T) -> R:
    with one_core(), torch.no_grad():
        return function(shared, item)


def _here(function: Callable[[S, T], R], shared: S, items: Sequence[T], num_threads: int) -> Iterator[tuple[int, R]]:
    """Yield what a function makes of every item in threads of this process, whose work leaves Python to others."""
    if num_threads < 2:
        yield from enumerate(function(shared, item) for item in items)
        return
    cores = torch.get_num_threads()
    with ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            rest = iter(range(len(items)))
            waiting = {pool.submit(function, shared, items[number]): number for number in islice(rest, num_threads)}
            while waiting:
                for done in wait(waiting, return_when=FIRST_COMPLETED).done:
                    finished = waiting.pop(done)
                    waiting |= {pool.submit(function, shared, items[number]): number for number in islice(rest, 1)}
                    yield finished, done.result()
        finally:
            torch.set_num_threads(cores)  # what threads say counts for all that begin later
