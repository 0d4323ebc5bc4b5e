"""Shards, lanes and batch for as many pairs as there are: those of a run file wherever these are enough."""

__all__ = ["sizes_of"]

from collections.abc import Mapping
from typing import Any

from pcl.config.layers import DEFAULTS, defaults_of
from pcl.config.schema import Config
from pcl.data.held_out import num_held_out
from pcl.errors import BadInputError

MULTIPLE = 8  # of a batch, so that it divides among the lanes


def sizes_of(batch: int, num_train: int, num_test: int, options: Mapping[str, Any]) -> dict[str, int]:
    """Return how many shards and lanes there are and B, by their keys; what options give stays.

    Args:
        batch: B that is asked for, or what all lanes hold if that is less.
        num_train: pairs that are trained on.
        num_test: pairs that are not.
        options: further keys of the configuration.

    Raises:
        BadInputError: the batch is no multiple of 8.

    Example:
        >>> sizes_of(256, 90, 10, {})
        {'data.num_shards': 8, 'train.num_lanes': 8, 'train.global_batch': 88}
    """
    if isinstance(batch, bool) or not isinstance(batch, int) or batch % MULTIPLE or batch < MULTIPLE:
        raise BadInputError(f"batch={batch}: it must be a multiple of {MULTIPLE}, at least {MULTIPLE}")
    usual: Any = defaults_of(Config, DEFAULTS)
    usual_shards, most_lanes = int(usual["data"]["num_shards"]), int(usual["train"]["num_lanes"])
    asked = _whole(options, "data.num_shards")
    most = asked or min(usual_shards, num_train, num_test)
    lanes = _whole(options, "train.num_lanes") or next(n for n in (most_lanes, 4, 2, 1) if n <= most)
    shards = asked or max(lanes, most // lanes * lanes)
    fraction = options.get("train.validation_fraction", 0.0)
    held_out = fraction if isinstance(fraction, float) and 0 <= fraction < 1 else 0.0
    sizes = sorted(num_train * (i + 1) // shards - num_train * i // shards for i in range(shards))
    of_a_lane = sum(size - num_held_out(size, held_out) for size in sizes[: shards // lanes])
    return {
        "data.num_shards": shards,
        "train.num_lanes": lanes,
        "train.global_batch": min(batch, max(1, of_a_lane) * lanes),
    }


def _whole(options: Mapping[str, Any], key: str) -> int:
    """Return a number that options give, 0 where they give none or what a check of the configuration refuses."""
    value = options.get(key)
    return value if isinstance(value, int) and value > 0 else 0
