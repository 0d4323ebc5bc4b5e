"""Fixtures shared by all tests: the original data, and small folders of shards."""

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

import pcl.cluster.connection  # noqa: F401 - before any test imports ray, which then reads how it is to listen
from pcl.data.manifest import Manifest, load_manifest
from pcl.data.shards import begin_build, build_shard, finish_build, plan_shards
from pcl.gaussian.process import GaussianProcessPair
from pcl.problems.gaussian_process.source import GaussianProcessSource
from tests.typed import finish, start

collect_ignore_glob = ["golden/*"]  # run by hand: it needs packages that pcl does not
torch.set_num_threads(1)  # threads of several processes on few cores wait for each other


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of original data that PCL_TEST_DATA names; without it tests are skipped, or fail under CI."""
    root = os.environ.get("PCL_TEST_DATA")
    if root and (Path(root) / "mnist").is_dir():
        return Path(root).resolve()
    give_up = pytest.fail if os.environ.get("CI") else pytest.skip
    give_up(f"PCL_TEST_DATA={root}: it must point to the folder that holds mnist/, with the four original .gz files")


@pytest.fixture(scope="session")
def mnist_root(data_root: Path) -> Path:
    return data_root / "mnist"


@pytest.fixture(scope="session")
def ocean_root(data_root: Path) -> Path:
    """The folder of ocean samples, with its layouts/; without it tests are skipped, or fail under CI."""
    root = data_root / "ocean"
    if not (root / "layouts").is_dir():
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up(f"PCL_TEST_DATA={data_root}: it must hold ocean/, with layouts/ in it")
    return root


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards of configs/gaussian.yaml, written once by the job."""
    folder = tmp_path_factory.mktemp("job") / "shards"
    code, _, errors = finish(start("write_shards", f"data.shards={folder}"))
    assert code == 0, errors
    return folder


@pytest.fixture(scope="session")
def make_shards(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, Manifest]]:
    """Return a function that builds Gaussian process shards in a new folder, as jobs/write_shards.py would."""

    def make(
        num_train: int = 160, num_test: int = 40, num_shards: int = 8, record_pairs: int = 5, seed: int = 0
    ) -> tuple[Path, Manifest]:
        root = tmp_path_factory.mktemp("shards")
        process = GaussianProcessPair(num_modes=20)
        source = GaussianProcessSource(num_train, num_test, seed, process)
        config = {
            "source": "gaussian_process",
            "seed": seed,
            "num_shards": num_shards,
            "record_pairs": record_pairs,
            "gaussian_process": {"num_train": num_train, "num_test": num_test, **asdict(process)},
        }
        assert begin_build(root, {"config": config, "source": source.provenance()})
        built = [(plan, *build_shard(source, plan, root, record_pairs)) for plan in plan_shards(source, num_shards)]
        finish_build(root, source, config, record_pairs, built)
        return root, load_manifest(root)

    return make
