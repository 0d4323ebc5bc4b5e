"""Pairs of the Gaussian process experiment, generated (THEORY 6.2)."""

__all__ = ["GaussianProcessSource", "process_of"]

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from pcl.data.manifest import SPLITS, ArrayInfo
from pcl.data.source import Arrays, Source
from pcl.errors import BadInputError
from pcl.gaussian.process import GaussianProcessPair


def process_of(settings: Mapping[str, Any]) -> GaussianProcessPair:
    """Return the law that settings name, whatever else they hold.

    Args:
        settings: the section ``data.gaussian_process`` of a configuration.

    Raises:
        BadInputError: a number is impossible.

    Example:
        >>> process_of({"num_points": 3, "num_train": 100}).num_points
        3
    """
    names = {field.name for field in fields(GaussianProcessPair)}
    try:
        return GaussianProcessPair(**{name: value for name, value in settings.items() if name in names})
    except ValueError as error:
        raise BadInputError(f"data.gaussian_process: {error}") from error


@dataclass(frozen=True)
class GaussianProcessSource(Source):
    """Pairs drawn from a Gaussian process; the law is known exactly.

    Attributes:
        num_train: training pairs.
        num_test: test pairs.
        seed: of the draws.
        process: the law.

    Raises:
        BadInputError: a count is not positive.

    Example:
        >>> source = GaussianProcessSource(100, 10, seed=0)
        >>> source.pairs("train", 5, 8)["u"].shape
        (3, 12)
    """

    num_train: int
    num_test: int
    seed: int
    process: GaussianProcessPair = field(default_factory=GaussianProcessPair)

    split_rule = "independent draws: each range of pairs of a split has a seed of its own"

    def __post_init__(self) -> None:
        if self.num_train < 1 or self.num_test < 1:
            raise BadInputError(f"{self.num_train} training and {self.num_test} test pairs: both must be at least 1")

    @property
    def arrays(self) -> dict[str, ArrayInfo]:
        """The arrays of a pair."""
        points, coefficients = self.process.num_points, self.process.num_coefficients
        return {
            "u": ArrayInfo("float32", (points,), "1", "noisy values of the process at uniform points of (0, 1)"),
            "v": ArrayInfo("float32", (coefficients,), "1", "leading Karhunen-Loeve coefficients of the process"),
        }

    def provenance(self) -> dict[str, Any]:
        """Return the law that generated the pairs."""
        return {"name": "gaussian_process", "process": asdict(self.process), "licence": "none needed: generated"}

    def num_pairs(self, split: str) -> int:
        """Return the number of pairs of a split."""
        return {"train": self.num_train, "test": self.num_test}[split]

    def pairs(self, split: str, start: int, stop: int) -> Arrays:
        """Draw the pairs of a range."""
        generator = np.random.default_rng([self.seed, SPLITS.index(split), start])
        u, v = self.process.sample(stop - start, generator)
        return {"u": u.astype(np.float32), "v": v.astype(np.float32)}
