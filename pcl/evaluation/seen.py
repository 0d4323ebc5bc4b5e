"""Items that an encoder has seen: how many are, byte by byte, among those of a training split."""

__all__ = ["num_seen"]

from collections.abc import Iterator
from hashlib import blake2b

from torch import Tensor

from pcl.data.loader import iterate_split
from pcl.data.manifest import Manifest
from pcl.storage.place import Place

DIGEST_BYTES = 12


def num_seen(items: Tensor, root: Place, manifest: Manifest) -> int:
    """Return how many stored u are among those of the training split of a folder of shards.

    Args:
        items: shape (N, ...).
        root: folder of the shards.
        manifest: its manifest.

    Raises:
        DamagedDataError: a shard differs from its manifest.
    """
    seen: set[bytes] = set()
    for (u,) in iterate_split(root, manifest, "train", ["u"]):
        seen.update(_digests(u))
    return sum(digest in seen for digest in _digests(items))


def _digests(items: Tensor) -> Iterator[bytes]:
    for item in items.contiguous().numpy():
        yield blake2b(item.tobytes(), digest_size=DIGEST_BYTES).digest()
