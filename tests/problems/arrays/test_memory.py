"""The memory of a task, in a process of its own: a store of pairs ten times as large as it may fill is converted."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.s3 import s3_server, uploaded

MEMORY_MB, ROWS, CHUNK = 20, 2000, 10
CODE = """
import os, pickle, sys, warnings
from pathlib import Path
import numpy as np, xarray
from pcl.data.shards import build_shard, plan_shards
from pcl.data.source import SourceContext
from pcl.problems.arrays.settings import ArraysSettings
from pcl.problems.arrays.source import arrays_source

def megabytes(name):
    (line,) = (line for line in open("/proc/self/status") if line.startswith(name))
    return int(line.split()[1]) * 1024 / 1e6

def taken(function, *arguments):
    Path("/proc/self/clear_refs").write_text("5")
    before = megabytes("VmRSS")
    result = function(*arguments)
    return result, megabytes("VmHWM") - before

def source_of(store):
    settings = ArraysSettings(u=f"{store}:u", v=f"{store}:v", form_u="image")
    return arrays_source(settings, SourceContext(memory_mb=MEMORY))

MEMORY, folder, root = float(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]

def look():
    source, most = taken(source_of, root + "/pairs.zarr")
    (folder / "source").write_bytes(pickle.dumps(source))
    return most

def convert():
    source = pickle.loads((folder / "source").read_bytes())
    plans = plan_shards(source, 4)
    (folder / "shards").mkdir()
    return max(taken(build_shard, source, plan, folder / "shards", 10)[1] for plan in (plans[1], plans[5]))

for work in (look, convert):  # each in a process of its own, which has not held what the other did
    if os.fork() == 0:
        source_of(root + "/small.zarr").pairs("train", 0, 5)  # what is imported on first use is there
        print(work(), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
"""


def write(path: Path, num_rows: int, side: int) -> None:
    group = zarr.open_group(path, mode="w")
    generator = np.random.default_rng(0)
    plain = {"dtype": "f4", "compressors": None}
    u = group.create_array(
        "u", shape=(num_rows, side, side), chunks=(CHUNK, side, side), dimension_names="nyx", **plain
    )
    v = group.create_array("v", shape=(num_rows, 2), chunks=(CHUNK, 2), dimension_names="nk", **plain)
    for start in range(0, num_rows, CHUNK):
        values = generator.random((CHUNK, side, side), np.float32)
        u[start : start + CHUNK], v[start : start + CHUNK] = values, values[:, 0, :2]


@pytest.mark.process
def test_a_store_ten_times_the_memory_is_looked_at_and_converted_within_it(tmp_path):
    write(tmp_path / "pairs.zarr", ROWS, 160)
    write(tmp_path / "small.zarr", 100, 4)
    assert_modest(tmp_path, str(tmp_path))


@pytest.mark.slow
@pytest.mark.process
def test_a_store_in_object_storage_likewise(tmp_path):
    write(tmp_path / "raw" / "pairs.zarr", ROWS, 160)
    write(tmp_path / "raw" / "small.zarr", 100, 4)
    with s3_server():
        assert_modest(tmp_path, uploaded(tmp_path / "raw"))


def assert_modest(folder: Path, root: str) -> None:
    """Look at the store below an address and convert it, and measure what that takes."""
    assert ROWS * 160 * 160 * 4 > 10e6 * MEMORY_MB
    command = [sys.executable, "-c", CODE, str(MEMORY_MB), str(folder), root]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for what, most in zip(("look", "convert"), map(float, printed.split()), strict=True):
        assert most < MEMORY_MB, what
    assert (folder / "source").stat().st_size < 100_000  # what every task is given
    sizes = [path.stat().st_size for path in (folder / "shards").glob("*.tar")]
    assert max(sizes) > MEMORY_MB * 1e6  # a shard is not held
