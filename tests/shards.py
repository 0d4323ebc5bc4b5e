"""Shards of any source, built in this process."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pcl.data.manifest import Manifest, load_manifest
from pcl.data.shards import begin_build, build_shard, finish_build, plan_shards
from pcl.data.source import Source


def build_shards(
    root: Path,
    source: Source,
    num_shards: int,
    record_pairs: int,
    config: Mapping[str, Any] | None = None,
    order: Sequence[int] | None = None,
) -> Manifest:
    """Build, or go on building, shards in a folder, in some order, and return the manifest that lies in it."""
    assert begin_build(root, {"config": config or {}, "source": source.provenance()})
    plans = plan_shards(source, num_shards)
    built = [(plans[i], *build_shard(source, plans[i], root, record_pairs)) for i in order or range(len(plans))]
    finish_build(root, source, config or {}, record_pairs, built)
    return load_manifest(root)


def damaged_copy(shards: Path, folder: Path) -> Path:
    """Copy shards to a new folder, with one bit of one of them flipped."""
    folder.mkdir()
    for path in shards.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    content = bytearray((folder / "train-000003.tar").read_bytes())
    content[5000] ^= 1
    (folder / "train-000003.tar").write_bytes(content)
    return folder
