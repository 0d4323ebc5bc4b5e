"""The memory that an evaluation of ocean pairs takes, told before it starts."""

__all__ = ["describe_memory", "memory_needed"]

from collections.abc import Iterable

from pcl.data.manifest import Manifest, bytes_per_pair

WORK_BYTES = 180_000_000  # of blocks and libraries, whatever the data: layers of a network, figures, files
MEMBERS = 300  # fields of an ensemble of 50 and what is made of it at a time


def _bytes_of_pair(manifest: Manifest, names: Iterable[str]) -> int:
    return bytes_per_pair(manifest.arrays[name] for name in names)


def _archive_bytes(manifest: Manifest, split: str) -> int:
    """Return the bytes of the training fields, each once, which held-out fields are estimated from."""
    if split == "train":
        return 0
    settings = manifest.config.get("ocean", {}).get("drifters", manifest.config.get("drifters", {}))
    found = settings.get("num_releases", 1)
    releases = found if isinstance(found, int) and found > 0 else 1  # pairs that share a field
    return manifest.num_pairs("train") // releases * _bytes_of_pair(manifest, ("u", "origin"))


def memory_needed(manifest: Manifest, split: str, max_pairs: int = 0) -> int:
    r"""Return the bytes that an evaluation holds at most, beside the program and the model, from shapes alone.

    .. math:: N_{train} b_u + N_{split} (b_u + b_v + \dots) + \text{a constant}

    with bytes b of an item; the first term, the archive, is there for held-out fields.

    Args:
        manifest: of the shards.
        split: to evaluate.
        max_pairs: evaluate the first pairs only; 0: all.
    """
    pairs = min(manifest.num_pairs(split), max_pairs or manifest.num_pairs(split))
    members = MEMBERS * _bytes_of_pair(manifest, "u") if _archive_bytes(manifest, split) else 0
    own = pairs * _bytes_of_pair(manifest, manifest.arrays)
    return _archive_bytes(manifest, split) + own + members + WORK_BYTES


def describe_memory(manifest: Manifest, split: str, max_pairs: int = 0) -> list[str]:
    """Return a line that says what ``memory_needed`` does, none where no archive is held; arguments as there."""
    archive, needed = _archive_bytes(manifest, split), memory_needed(manifest, split, max_pairs)
    if not archive:
        return []
    return [
        f"evaluation needs at most {needed / 1e6:,.0f} MB of memory beside the program, of which the training fields "
        f"take {archive / 1e6:,.0f} MB"
    ]
