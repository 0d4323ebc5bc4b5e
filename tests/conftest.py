"""Fixtures shared by all tests: the original data, and small folders of shards."""

import functools
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch

if find_spec("ray"):  # the mathematics and the training are tested without it too
    import pcl.cluster.connection  # before any test imports ray, which reads how it is to listen
import pcl.commands.main
from pcl.commands.ending import finish
from pcl.config.identity import data_identity
from pcl.config.load import load_config
from pcl.data.manifest import Manifest
from pcl.gaussian.process import GaussianProcessPair
from pcl.problems.gaussian_process.source import GaussianProcessSource
from pcl.train.parts import make_source
from tests.registries import left_as_they_are
from tests.shards import build_shards

GAUSSIAN = Path(__file__).resolve().parents[1] / "configs" / "gaussian.yaml"
collect_ignore_glob = ["golden/*"]  # run by hand: it needs packages that pcl does not
pcl.commands.main.end_process, pcl.commands.main.template = finish, nullcontext  # what tests call in this process
torch.set_num_threads(1)  # threads of several processes on few cores wait for each other


@pytest.fixture(scope="module", autouse=True)
def registries_after_a_module() -> Iterator[None]:
    """Leave the registries as they were, whatever the fixtures of a module load."""
    with left_as_they_are():
        yield


@pytest.fixture(autouse=True)
def registries() -> Iterator[None]:
    """Leave the registries as they were: tests of one process share them."""
    with left_as_they_are():
        yield


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
    """The shards of configs/gaussian.yaml, to the byte those that the job writes."""
    folder, config = tmp_path_factory.mktemp("gaussian") / "shards", load_config(GAUSSIAN)
    build_shards(folder, make_source(config), config.data.num_shards, config.data.record_pairs, data_identity(config))
    return folder


SHARED_RAY = """
import os, sys
import torch
from pcl.cluster.template import template
with template():
  from pcl.cluster.connection import connected  # before ray
  import ray
  with connected(4):
    print(ray.get_runtime_context().gcs_address, os.environ["RAY_AUTH_TOKEN_PATH"], flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="session")
def shared_ray() -> Iterator[dict[str, str]]:
    """The environment of jobs that share one Ray, where a test is not about a Ray of a job's own: it starts once."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    kept |= {"RAY_num_workers_soft_limit": "0"}  # a worker that waits takes a hundredth of a CPU, as long as tests run
    command = [sys.executable, "-c", SHARED_RAY]
    with subprocess.Popen(
        command, cwd=GAUSSIAN.parents[1], env=kept, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:  # it ends with what it reads, also if this process is killed
        address, token = process.stdout.readline().split()  # type: ignore[union-attr]
        loopback = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # else a job looks for it at another address
        loopback |= {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}  # a process more, and nobody takes this machine away
        yield {"RAY_ADDRESS": address, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": token} | loopback
        process.communicate()


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
        return root, build_shards(root, source, num_shards, record_pairs, config)

    return make


STARTERS = (
    "multiprocessing",
    "pcl.commands.benchmark_losses",
    "ray",
    "subprocess",
    "tests.cluster",
    "tests.forked",
    "tests.processes",
    "tests.s3",
    "tests.typed",
)
"""Modules whose use starts processes: tests that import one have the mark ``process``."""


IMPORT = re.compile(r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+)?import[ \t]+(\([^)]*\)|[^\n#]+)", re.MULTILINE)


def _named(module: str, names: str) -> set[str]:
    """Return the modules that a line imports, or may: a tree of every module takes as long as a hundred tests."""
    found = {name.split(" as ")[0].strip() for name in names.strip("()").split(",")} - {""}
    return {module} | {f"{module}.{name}" for name in found} if module else found


@functools.cache
def starts_processes(path: Path) -> bool:
    """Return whether a module of tests, or one of its helpers, imports what starts processes."""
    names = {name for names in IMPORT.findall(path.read_text()) for name in _named(*names)}
    helpers = [Path(__file__).parents[1].joinpath(*name.split(".")).with_suffix(".py") for name in names]
    return any(name == one or name.startswith(f"{one}.") for name in names for one in STARTERS) or any(
        starts_processes(helper)
        for helper in helpers
        if helper.is_file() and helper.parts[-2:] != path.parts[-2:] and helper.is_relative_to(Path(__file__).parent)
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that start processes; their files, which take longest, come first: both processes end together."""
    items.sort(key=lambda item: not starts_processes(Path(item.path)))
    for item in items:
        if starts_processes(Path(item.path)):
            item.add_marker("process")
    if os.environ.get("PCL_QUICK"):
        try_fewer_examples(items)


QUICK_SHARE = 8
"""The part of the random examples that is tried where PCL_QUICK is set, as ``make quick`` does: one in so many."""


def try_fewer_examples(items: list[pytest.Item]) -> None:
    """Let tests try a part of their random examples, at least five."""
    for function in {item.function for item in items if hasattr(item, "function")}:
        if (given := getattr(function, "_hypothesis_internal_use_settings", None)) is not None:
            number = min(given.max_examples, max(5, given.max_examples // QUICK_SHARE))
            function._hypothesis_internal_use_settings = hypothesis.settings(given, max_examples=number)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Let a test that is not marked so start no process."""
    if item.get_closest_marker("process") is None:
        watched.add(item.nodeid)
    yield
    watched.clear()


watched: set[str] = set()


def refuse_processes(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse to start a process in a test that is not marked so."""
    if watched and event in ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"):
        raise RuntimeError(f"{event} {arguments[:1]}: a test that starts a process has the mark process")


sys.addaudithook(refuse_processes)
