"""The random sample of a split against its definition, in any records and shards; kernels made of it."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from pcl.config.load import load_config
from pcl.data import sample
from pcl.data.loader import iterate_split
from pcl.data.manifest import load_manifest
from pcl.data.sample import sample_pairs
from pcl.errors import BadInputError, DamagedDataError
from pcl.gaussian.process import GaussianProcessPair
from pcl.problems.gaussian_process.source import GaussianProcessSource
from pcl.train.loss import kernels_of
from tests.shards import build_shards

ROOT = Path(__file__).resolve().parents[2]
NUM_PAIRS = 330
LAYOUTS = [(8, 1), (8, 2), (1, 1000), (3, 50), (30, 7)]  # shards and pairs in a record


class Whole:
    """A source of pairs that are the same in any layout: those of another source, drawn at once."""

    def __init__(self, source):
        self.arrays, self.counted, self.split_rule = source.arrays, source.counted, source.split_rule
        self.provenance, self.statistics, self.num_pairs = source.provenance, source.statistics, source.num_pairs
        self.drawn = {split: source.pairs(split, 0, source.num_pairs(split)) for split in ("train", "test")}

    def pairs(self, split, start, stop):
        return {name: array[start:stop] for name, array in self.drawn[split].items()}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    process = GaussianProcessPair(num_modes=20)
    source = Whole(GaussianProcessSource(NUM_PAIRS, 40, 0, process))
    found = []
    for num_shards, record_pairs in LAYOUTS:
        root = tmp_path_factory.mktemp("shards")
        sizes = {"gaussian_process": {"num_train": NUM_PAIRS, "num_test": 40, **asdict(process)}}
        layout = {"num_shards": num_shards, "record_pairs": record_pairs}
        config = {"source": "gaussian_process", "seed": 0} | layout | sizes
        found.append((root, build_shards(root, source, num_shards, record_pairs, config)))
    return found


@pytest.mark.long
@pytest.mark.parametrize("most", [0, 1, 2, 60, NUM_PAIRS - 1, NUM_PAIRS, 1000])
def test_a_sample_is_that_of_its_definition_in_any_layout(folders, most):
    whole = [torch.cat(parts) for parts in zip(*iterate_split(*folders[0], "train"), strict=True)]
    generator = np.random.default_rng([3, 2])
    chosen = np.sort(generator.choice(NUM_PAIRS, min(most, NUM_PAIRS), replace=False))
    for root, manifest in folders:
        for part, every in zip(sample_pairs(root, manifest, "train", most, 3), whole, strict=True):
            assert torch.equal(part, every[chosen])
    if 0 < most < NUM_PAIRS:
        assert not torch.equal(sample_pairs(*folders[0], "train", most, 4)[0], whole[0][chosen])


def test_every_pair_is_as_likely(folders):
    counts = torch.zeros(NUM_PAIRS)
    whole = torch.cat([u for u, _ in iterate_split(*folders[2], "train")])
    for seed in range(200):
        u, _ = sample_pairs(*folders[2], "train", 33, seed)
        counts += (whole[:, None, 0] == u[None, :, 0]).any(1)
    assert counts.sum() == 200 * 33
    assert abs(counts[:100].mean() - 20) < 1.5  # 20 of 200 each, standard deviation 4.2
    assert counts.max() < 40


def test_only_shards_with_a_chosen_pair_are_read_and_they_are_verified(make_shards, monkeypatch):
    root, manifest = make_shards(num_train=40, num_shards=8, record_pairs=2)
    seen = []
    monkeypatch.setattr(sample, "verify", lambda path, shard: seen.append(shard.name))
    sample_pairs(root, manifest, "train", 2, 0)
    assert 1 <= len(seen) <= 2
    monkeypatch.undo()
    path = root / seen[0]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DamagedDataError, match="is damaged"):
        sample_pairs(root, manifest, "train", 2, 0)


def kernel_values(root, layout, *overrides):
    shards, record = layout
    config = load_config(
        ROOT / "configs" / "gaussian.yaml",
        (
            f"data.shards={root}",
            f"data.num_shards={shards}",
            f"data.record_pairs={record}",
            "train.num_lanes=1",
            "workers.num_workers=1",
            "loss.kind=conditional_mmd",
            *overrides,
        ),
    )
    manifest = load_manifest(root)
    probe = [torch.linspace(-1, 1, 3 * manifest.arrays[name].shape[0]).view(3, -1) for name in "uv"]
    return [k(x, x) for k, x in zip(kernels_of(config, manifest, torch.device("cpu")), probe, strict=True)]


@pytest.mark.parametrize("kind", ["gaussian", "polynomial"])
def test_kernels_do_not_depend_on_records_and_shards(folders, kind):
    found = [
        kernel_values(root, layout, f"loss.kernel.kind={kind}")
        for (root, _), layout in zip(folders, LAYOUTS, strict=True)
    ]
    for values in found[1:]:
        assert all(torch.allclose(a, b, rtol=1e-6) for a, b in zip(values, found[0], strict=True))


def test_given_bandwidths_read_no_data(folders, monkeypatch):
    monkeypatch.setattr(sample, "verify", lambda *_: pytest.fail("a shard is read"))
    kernel_values(folders[0][0], LAYOUTS[0], "loss.kernel.bandwidth_u=1", "loss.kernel.bandwidth_v=2")


def test_a_single_training_pair_has_no_distance(make_shards):
    root, _ = make_shards(num_train=1, num_test=1, num_shards=1)
    with pytest.raises(BadInputError, match=r"loss\.kernel for u: 1 items: a median distance needs at least two"):
        kernel_values(root, (1, 5))
