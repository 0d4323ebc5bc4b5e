"""Items that stay in their shards against the same items read whole, and shards that are not what they were."""

import pytest
import torch

from pcl.errors import DamagedDataError
from pcl.evaluation.blocks import walk
from pcl.problems.ocean.evaluation.stored import StoredItems
from tests.problems.ocean.evaluation.ocean_pairs import MadePairs, write_pairs


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """51 pairs in three shards, in records of seven."""
    root = tmp_path_factory.mktemp("stored")
    source = MadePairs({"train": 51, "test": 4}, holes=0.1)
    return root, write_pairs(source, root, num_shards=3, record_pairs=7), source


def equal(a, b):
    return torch.equal(a.nan_to_num(9e9), b.nan_to_num(9e9))


@pytest.mark.parametrize("name", ["u", "origin"])
def test_items_are_those_of_the_split_wherever_they_lie(made, name):
    root, manifest, source = made
    whole = torch.from_numpy(source.pairs("train", 0, 51)[name])
    kept = torch.tensor([*range(0, 20), 22, 23, 30, *range(40, 51)])
    items = StoredItems(root, manifest, "train", name, kept)
    assert items.shape == (len(kept), *whole.shape[1:])
    for chosen in (slice(None), slice(3, 17), slice(0, 0), torch.tensor([5]), torch.tensor([1, 2, 3, 9, 33, 20, 20])):
        assert equal(items[chosen], whole[kept[chosen]])
    found = torch.cat([block for _, block in walk(items, torch.tensor([0, 3, 4, 31]))])
    assert equal(found, whole[kept[[0, 3, 4, 31]]])


def test_nothing_is_kept_of_what_was_read(made):
    root, manifest, _ = made
    items = StoredItems(root, manifest, "train", "u", torch.arange(51))
    first = items[:2]
    first.zero_()
    assert items[:2].nan_to_num().abs().sum() > 0


def test_a_shard_that_is_damaged_or_becomes_shorter_is_refused(made, tmp_path):
    root, manifest, _ = made
    for path in root.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    items = StoredItems(tmp_path, manifest, "train", "u", torch.arange(51))
    path = next(tmp_path / shard.name for shard in manifest.shards("train"))
    content = path.read_bytes()
    path.write_bytes(content[:2000])
    with pytest.raises(DamagedDataError, match="has become shorter while it was read"):
        items[:]
    path.write_bytes(content[:3000] + bytes([content[3000] ^ 1]) + content[3001:])
    with pytest.raises(DamagedDataError, match="is damaged: its SHA-256"):
        StoredItems(tmp_path, manifest, "train", "u", torch.arange(51))
