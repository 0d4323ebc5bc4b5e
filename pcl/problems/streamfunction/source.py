"""Pairs of the Lagrangian experiment, generated: coefficients of a flow, and the path of a particle (THEORY 6.4)."""

__all__ = ["StreamfunctionSource", "streamfunction_source"]

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import torch

from pcl.data.manifest import SPLITS, ArrayInfo
from pcl.data.source import Arrays, Source
from pcl.errors import BadInputError
from pcl.problems.streamfunction.law import StreamfunctionLaw


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread: products this small gain nothing from two, and on a busy machine they wait for each other."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def streamfunction_source(settings: Mapping[str, Any], seed: int) -> "StreamfunctionSource":
    """Return the source that settings describe, with the step that their tolerance needs.

    Args:
        settings: the section ``data.streamfunction`` of a configuration.
        seed: of the draws.

    Raises:
        BadInputError: a number is impossible, or no step reaches the tolerance.

    Example:
        >>> small = {"num_train": 5, "num_test": 3, "num_modes": 4, "num_positions": 101, "tolerance": 1e-3}
        >>> source = streamfunction_source(small, seed=0)
        >>> source.substeps, source.difference < 1e-3
        (1, True)
    """
    names = {field.name for field in fields(StreamfunctionLaw)}
    try:
        law = StreamfunctionLaw(**{name: value for name, value in settings.items() if name in names})
        with one_thread():
            substeps, difference = law.choose_substeps(settings["tolerance"])
    except BadInputError as error:
        raise BadInputError(f"data.streamfunction: {error}") from error
    return StreamfunctionSource(settings["num_train"], settings["num_test"], seed, law, substeps, difference)


@dataclass(frozen=True)
class StreamfunctionSource(Source):
    """Flows drawn from a law, each with the path of one particle.

    Attributes:
        num_train: training pairs.
        num_test: test pairs.
        seed: of the draws.
        law: of the flows and paths.
        substeps: steps of the integrator between two recorded positions.
        difference: largest one found between such a step and half of it, widths of the domain.

    Raises:
        BadInputError: a count is not positive.

    Example:
        >>> source = StreamfunctionSource(100, 10, seed=0, law=StreamfunctionLaw(num_modes=4, num_positions=11))
        >>> {name: array.shape for name, array in source.pairs("train", 5, 8).items()}
        {'u': (3, 8), 'v': (3, 11, 2)}
    """

    num_train: int
    num_test: int
    seed: int
    law: StreamfunctionLaw = field(default_factory=StreamfunctionLaw)
    substeps: int = 1
    difference: float = 0.0

    split_rule = "independent draws: each pair of a split has a seed of its own"

    def __post_init__(self) -> None:
        if min(self.num_train, self.num_test, self.substeps) < 1:
            raise BadInputError(
                f"{self.num_train} training and {self.num_test} test pairs, {self.substeps} steps between two "
                "positions: all must be at least 1"
            )

    @property
    def arrays(self) -> dict[str, ArrayInfo]:
        """The arrays of a pair."""
        modes, positions = self.law.num_modes, self.law.num_positions
        return {
            "u": ArrayInfo(
                "float32",
                (2 * modes,),
                "domain_width2 time-1",
                "coefficients of the streamfunction: real parts of all modes, then imaginary parts",
            ),
            "v": ArrayInfo(
                "float32",
                (positions, 2),
                "domain_width",
                "positions of a particle, not wrapped, equally spaced in time",
                statistics="none",
            ),
        }

    def provenance(self) -> dict[str, Any]:
        """Return the law that generated the pairs, and how paths were computed."""
        law = asdict(self.law) | {"start": list(self.law.start)}
        return {
            "name": "streamfunction",
            "law": law,
            "time_step": self.law.time_step,
            "integrator": {"method": "rk4", "steps_between_positions": self.substeps, "dtype": "float64"},
            "licence": "none needed: generated",
        }

    def num_pairs(self, split: str) -> int:
        """Return the number of pairs of a split."""
        return {"train": self.num_train, "test": self.num_test}[split]

    def pairs(self, split: str, start: int, stop: int) -> Arrays:
        """Draw the flows of a range and follow their particles, all at once: 24 kB a pair at most."""
        seeds = ([self.seed, SPLITS.index(split), number] for number in range(start, stop))
        u = np.concatenate([self.law.sample(1, np.random.default_rng(seed)) for seed in seeds])
        with one_thread():
            v = self.law.paths(torch.from_numpy(u), self.substeps)
        return {"u": u.astype(np.float32), "v": np.ascontiguousarray(v.numpy(), np.float32)}

    def notes(self, record_pairs: int) -> list[str]:
        """Return the step of the integrator, and how far it is from half of it."""
        step = self.law.time_step / self.substeps
        return [f"step {step:.3g}, {self.substeps} a position: {self.difference:.1e} widths from half of it"]
