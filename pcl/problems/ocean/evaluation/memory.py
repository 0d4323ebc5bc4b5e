"""The memory that an evaluation of ocean pairs takes, told before it starts."""

__all__ = ["describe_memory", "memory_needed"]

from collections.abc import Iterable
from pathlib import Path

import torch

from pcl.data.manifest import Manifest, bytes_per_pair
from pcl.problems.ocean.contract import ArchiveFacts, read_facts

WORK_BYTES = 150_000_000  # of blocks and libraries, whatever the data: layers of a network, figures, files
MEMBERS = 300  # fields of an ensemble of 50 and what is made of it at a time
BLOCKS_AT_ONCE = 4  # of pairs that this process scores, each on a core
WINDOW_BYTES = 600  # of a training window: features, origin, and where it lies
CLIMATOLOGY = 4  # fields of a tile: a mean and a standard deviation, of twice the precision


def _bytes_of_pair(manifest: Manifest, names: Iterable[str]) -> int:
    return bytes_per_pair(manifest.arrays[name] for name in names)


def _releases(manifest: Manifest) -> int:
    """Return how many training pairs share a field."""
    settings = manifest.config.get("ocean", {}).get("drifters", manifest.config.get("drifters", {}))
    found = settings.get("num_releases", 1)
    return found if isinstance(found, int) and found > 0 else 1


def _most_tiles(manifest: Manifest) -> int:
    """Return how many tiles the grid holds at most."""
    facts = read_facts(manifest.source, ArchiveFacts, Path("manifest.json"))
    stride = manifest.config.get("ocean", {}).get("tile_stride", 1)
    stride = stride if isinstance(stride, int) and stride > 0 else 1
    rows, columns = len(facts.grid.latitude), len(facts.grid.longitude)
    most = (1 + (rows - facts.drifters.height) // stride) * (1 + columns // stride)
    return max(1, min(most, manifest.num_pairs("train")))


def memory_needed(manifest: Manifest, split: str, max_pairs: int = 0) -> int:
    r"""Return the bytes that an evaluation holds at most, beside the program and the model, from shapes alone.

    .. math:: N_{split} (b_u + b_v + \dots) + 4 N_{tiles} b_u + 600 N_{train} + \text{a constant}

    with bytes b of an item; the terms of the training split, whose fields stay on disk, are there for held-out fields.

    Args:
        manifest: of the shards.
        split: to evaluate.
        max_pairs: evaluate the first pairs only; 0: all.
    """
    pairs = min(manifest.num_pairs(split), max_pairs or manifest.num_pairs(split))
    needed = pairs * _bytes_of_pair(manifest, manifest.arrays) + WORK_BYTES
    if split == "train":
        return needed
    fields = MEMBERS * min(BLOCKS_AT_ONCE, torch.get_num_threads()) + CLIMATOLOGY * _most_tiles(manifest)
    return needed + fields * _bytes_of_pair(manifest, "u") + WINDOW_BYTES * manifest.num_pairs("train")


def describe_memory(manifest: Manifest, split: str, max_pairs: int = 0) -> list[str]:
    """Return a line that says what ``memory_needed`` does, none where no archive is read; arguments as there."""
    if split == "train":
        return []
    archive = manifest.num_pairs("train") // _releases(manifest) * _bytes_of_pair(manifest, "u")
    return [
        f"evaluation needs at most {memory_needed(manifest, split, max_pairs) / 1e6:,.0f} MB of memory beside the "
        f"program; the training fields, {archive / 1e6:,.0f} MB, stay in the shards"
    ]
