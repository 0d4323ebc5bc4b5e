"""Ocean pairs: against plain loops, in every encoding, on any number of tasks, cut off, and within their memory."""

import hashlib
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import dask.array
import numpy as np
import psutil
import pytest

from pcl.cluster.tasks import task_runner
from pcl.commands.main import main
from pcl.data.manifest import load_manifest
from pcl.data.shards import begin_build, build_shard, finish_build, plan_shards
from pcl.data.source import SourceContext
from pcl.data.summary import describe_needs, describe_statistics, planned_sizes, written_sizes
from pcl.errors import BadInputError
from pcl.problems.ocean.settings import DriftersSettings, OceanSettings
from pcl.problems.ocean.source import ocean_source
from tests.problems.ocean.archives import DAY_S, make_archive, write_archive
from tests.processes import new_processes
from tests.typed import ROOT, finish, start, still_there

EPOCH_2000 = 946_684_800.0
RECORD_PAIRS = 30  # a window: 15 tiles with two releases
TILES = {"tile_points": 8, "tile_stride": 6, "minimum_wet": 0.5}
WINDOWS = {"window_steps": 4, "window_stride": 6, "test_fraction": 0.3, "gap_days": 6.0, "max_gap_hours": None}
DRIFTERS = {
    "num_drifters": 3,
    "num_releases": 2,
    "record_s": 21_600.0,
    "step_s": 21_600.0,
    "land": "freeze",
    "halo_degrees": 1.0,
    "noise_m": 0.0,
}


def open_source(*paths, memory_mb=512.0, seed=3, **settings):
    drifters, ocean = (
        {name: settings.get(name, value) for name, value in section.items()} for section in (DRIFTERS, TILES | WINDOWS)
    )
    chosen = OceanSettings([str(path) for path in paths], **ocean, drifters=DriftersSettings(**drifters))
    return ocean_source(chosen, SourceContext(seed, memory_mb=memory_mb))


def build(source, root, num_shards=4, record_pairs=RECORD_PAIRS):
    """Write shards in this process; return the SHA-256 of each and the manifest."""
    config = {"num_shards": num_shards, "record_pairs": record_pairs}
    assert begin_build(root, {"config": config, "source": source.provenance()})
    built = [(plan, *build_shard(source, plan, root, record_pairs)) for plan in plan_shards(source, num_shards)]
    finish_build(root, source, config, record_pairs, built)
    return hashes(root), load_manifest(root)


def hashes(root):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(root.glob("*.tar"))}


@pytest.fixture(scope="module")
def archive():
    return make_archive()


@pytest.fixture(scope="module")
def clean(archive, tmp_path_factory):
    return write_archive(tmp_path_factory.mktemp("clean") / "clean.nc", archive)


@pytest.fixture(scope="module")
def source(clean):
    return open_source(clean)


@pytest.fixture(scope="module")
def built(source, tmp_path_factory):
    root = tmp_path_factory.mktemp("built")
    return root, *build(source, root)


def naive_velocity(archive, currents, seconds, longitude, latitude):
    """Return degrees per second from the eight corners around, one after another."""
    step, row, column = (
        min(max(int((value - axis[0]) / (axis[1] - axis[0])), 0), len(axis) - 2)
        for value, axis in ((seconds, archive.time_s), (latitude, archive.latitude), (longitude, archive.longitude))
    )
    total = np.zeros(3)
    for k in (step, step + 1):
        for i in (row, row + 1):
            for j in (column, column + 1):
                weight = 1 - abs(seconds - archive.time_s[k]) / DAY_S
                weight *= 1 - abs(latitude - archive.latitude[i]) / 0.25
                weight *= 1 - abs(longitude - archive.longitude[j]) / 0.25
                if archive.water[k, i, j]:
                    total += weight * np.array([*currents[:, k, i, j].astype(float), 1.0])
    u, v = total[:2] / total[2]
    return np.array([u / (111_120 * math.cos(math.radians(latitude))), v / 111_120])


def test_drifters_agree_with_a_plain_loop(archive, clean):
    currents, pairs = archive.currents, open_source(clean, step_s=7200.0).pairs("train", 90, 120)
    checked = 0
    for v, origin in zip(pairs["v"][::7], pairs["origin"][::7], strict=True):
        for drifter in v[:2].astype(np.float64):
            position, seconds = drifter[0, :2] + origin[1:3], origin[0] - EPOCH_2000
            for record in drifter[1:]:
                for _ in range(3):
                    k1 = naive_velocity(archive, currents, seconds, *position)
                    k2 = naive_velocity(archive, currents, seconds + 3600, *(position + 3600 * k1))
                    k3 = naive_velocity(archive, currents, seconds + 3600, *(position + 3600 * k2))
                    k4 = naive_velocity(archive, currents, seconds + 7200, *(position + 7200 * k3))
                    position, seconds = position + 1200 * (k1 + 2 * k2 + 2 * k3 + k4), seconds + 7200
                if record[3] != 0:  # aground or lost: rules of their own
                    break
                np.testing.assert_allclose(record[:2] + origin[1:3], position, rtol=0, atol=2e-5)
                checked += 1
    assert checked > 60


def test_a_pair_is_found_again_in_the_archive(archive, source):
    for split in ("train", "test"):
        pairs = source.pairs(split, 20, 50)
        for u, wet, v, origin in zip(*(pairs[name] for name in ("u", "wet", "v", "origin")), strict=True):
            row, column, first = origin[3:].astype(int)
            box = (slice(first, first + 4), slice(row, row + 8), slice(column, column + 8))
            np.testing.assert_array_equal(u, archive.currents[:, *box])
            np.testing.assert_array_equal(wet, archive.water[box])
            assert origin[0] == archive.time_s[first] + EPOCH_2000
            assert origin[1] == pytest.approx(archive.longitude[column] + 7 / 8)
            assert origin[2] == pytest.approx(archive.latitude[row] + 7 / 8)
            assert abs(v[:, 0, :2]).max() <= 7 / 8
            np.testing.assert_allclose(v[..., 1] + origin[2], v[..., 2], rtol=0, atol=1e-5)
            for longitude, latitude in v[:, 0, :2] + origin[1:3]:
                nearest = (abs(archive.latitude - latitude).argmin(), abs(archive.longitude - longitude).argmin())
                assert archive.water[first, *nearest]


def test_arrays_are_as_announced_and_say_what_is_missing(source):
    pairs = source.pairs("train", 0, 60)
    for name, info in source.arrays.items():
        assert pairs[name].shape == (60, *info.shape)
        assert pairs[name].dtype == np.dtype(info.dtype)
    assert (np.isnan(pairs["u"]) == (pairs["wet"] == 0)[:, None]).all()
    missing = np.isnan(pairs["v"])
    assert missing.any()
    assert (missing.all(-1) == missing.any(-1)).all()
    assert (np.diff(missing[..., 0].astype(int), axis=2) >= 0).all()  # for good
    assert set(np.unique(pairs["v"][..., 3][~missing[..., 3]])) == {0.0, 1.0}


def test_dropped_drifters_are_missing_where_frozen_ones_are_aground(clean, source):
    frozen, dropped = (s.pairs("train", 0, 60)["v"] for s in (source, open_source(clean, land="drop")))
    kept = frozen[..., 3] == 0
    np.testing.assert_array_equal(frozen[kept], dropped[kept])
    assert np.isnan(dropped[~kept]).all()


def test_noise_is_of_recorded_positions_only(clean, source):
    noisy = open_source(clean, noise_m=500.0).pairs("train", 0, 80)["v"].astype(np.float64)
    exact = source.pairs("train", 0, 80)["v"].astype(np.float64)
    shift = (noisy - exact)[..., :2] * 111_120
    shift[..., 0] *= np.cos(np.radians(exact[..., 2]))
    shift = shift[~np.isnan(shift)]
    assert shift.std() == pytest.approx(500, rel=0.03)  # it does not grow along the path
    assert abs(shift.mean()) < 25


def test_training_and_test_never_touch(source, clean):
    time_s, windows = source.currents.time_s, source.cut.windows
    used = {split: {int(first) + step for first in windows[split] for step in range(4)} for split in windows}
    assert time_s[min(used["test"])] - time_s[max(used["train"])] >= 6 * DAY_S
    assert len(used["test"]) == 4 * len(windows["test"])
    assert min(used["test"]) >= 0.7 * len(time_s)
    origins = {split: source.pairs(split, 0, source.num_pairs(split))["origin"] for split in windows}
    last_train = (origins["train"][:, 0] + 3 * DAY_S).max()
    assert origins["test"][:, 0].min() - last_train >= 6 * DAY_S
    assert "at least 6" in source.split_rule


def test_pairs_do_not_depend_on_range_or_memory(clean, source):
    whole = source.pairs("train", 10, 90)
    small = open_source(clean, memory_mb=3.25)  # 3.17 MB are the chunks of the file
    assert len(list(small._slabs(10, 90))) > len(list(source._slabs(10, 90)))
    for other, first, last in ((source, 11, 12), (source, 37, 71), (small, 10, 90)):
        part = other.pairs("train", first, last)
        for name in whole:
            np.testing.assert_array_equal(part[name], whole[name][first - 10 : last - 10])
    assert small.statistics() == source.statistics()
    v = source.pairs("train", 0, 2)["v"]
    assert not np.array_equal(v[0], v[1])  # two releases in the same water
    assert not np.array_equal(open_source(clean, seed=4).pairs("train", 0, 1)["v"][0], v[0])


def test_statistics_are_of_the_water_of_training_tiles(archive, source):
    stop = int(source.cut.windows["train"][-1]) + 4
    used = np.zeros(archive.water.shape[1:], bool)
    for row, column in source.cut.tiles:
        used[row : row + 8, column : column + 8] = True
    values = archive.currents[:, :stop][:, archive.water[:stop] & used].astype(np.float64)
    statistics = source.statistics()["u"]
    assert np.shape(statistics["mean"]) == (2, 1, 1, 1)
    np.testing.assert_allclose(np.ravel(statistics["mean"]), values.mean(1), rtol=1e-10)
    np.testing.assert_allclose(np.ravel(statistics["std"]), values.std(1), rtol=1e-10)


def test_the_manifest_holds_what_readers_need(built, source, clean):
    root, _, manifest = built
    facts = manifest.source["drifters"]
    assert facts["window_time_s"] == [0.0, DAY_S, 2 * DAY_S, 3 * DAY_S]
    assert (facts["record_s"], facts["duration_s"], facts["cell_degrees"]) == (21_600.0, 3 * DAY_S, [0.25, 0.25])
    assert (facts["height"], facts["width"]) == (8, 8)
    (file,) = manifest.source["files"]
    assert (file["name"], file["bytes"]) == ("clean.nc", clean.stat().st_size)
    assert manifest.source["product"] == {"title": "a test"}
    assert manifest.source["licence"] == "none needed"
    assert len(manifest.source["grid"]["longitude"]) == 33
    assert str(clean.parent) not in (root / "manifest.json").read_text()
    assert written_sizes(manifest) == planned_sizes(source, plan_shards(source, 4), RECORD_PAIRS)
    assert "MB of fields" in describe_needs(source, plan_shards(source, 4), RECORD_PAIRS)[1]
    assert describe_statistics(manifest)[0].endswith("m s-1")


def filled(archive, value):
    return np.where(archive.water, archive.currents, np.float32(value))


ENCODINGS = {
    "zero with a mask": lambda a: {"values": filled(a, 0.0)},
    "1e20": lambda a: {"values": filled(a, 1e20), "encoding": {"_FillValue": None}},
    "declared fill": lambda a: {"values": filled(a, 9.96921e36), "encoding": {"_FillValue": np.float32(9.96921e36)}},
    "packed": lambda a: {
        "values": np.where(a.water, a.thousandths * 0.001, np.nan),
        "encoding": {"dtype": "int16", "scale_factor": 0.001, "_FillValue": np.int16(-32767)},
    },
    "centimetres": lambda a: {
        "values": np.where(a.water, a.thousandths * 0.1, np.nan),
        "attributes": {"units": "cm/s"},
    },
    "south last": lambda a: {"values": a.currents, "order": -1},
    "longitudes to 360": lambda a: {"values": a.currents, "longitude": a.longitude + 360},
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_every_encoding_gives_the_same_shards(name, archive, built, tmp_path):
    path = write_archive(tmp_path / "other.nc", archive, **ENCODINGS[name](archive))
    found, manifest = build(open_source(path), tmp_path / "shards")
    assert found == built[1]
    assert manifest.statistics == built[2].statistics


def test_many_files_and_zarr_give_the_same_shards(archive, built, tmp_path):
    for number, first in enumerate((0, 13, 31)):
        times = slice(first, (13, 31, None)[number])
        write_archive(tmp_path / f"part{number}.nc", archive, times=times)
    assert build(open_source(tmp_path / "*.nc"), tmp_path / "shards")[0] == built[1]
    store = write_archive(tmp_path / "all.zarr", archive, encoding={"chunks": (7, 9, 11)})
    assert build(open_source(store), tmp_path / "from zarr")[0] == built[1]


def test_windows_do_not_span_a_hole_in_the_archive(archive, tmp_path):
    kept = np.delete(np.arange(60), [10, 11, 12, 50])
    path = write_archive(tmp_path / "holes.nc", archive, times=kept)
    source = open_source(path)
    for split in ("train", "test"):
        for first in source.cut.windows[split]:
            assert np.ptp(source.currents.time_s[first : first + 4]) == 3 * DAY_S
        assert len(source.cut.windows[split]) > 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window_steps": 41, "gap_days": 80.0}, "60 times over 59 days leave 0 training and 0 test windows"),
        ({"gap_days": 5.0}, "gap_days=5 is a gap shorter than a window and a trajectory, 3 days each"),
        ({"tile_points": 26}, "tile_points=26 and a grid of 25 x 33 points: a tile must fit in the grid"),
        ({"minimum_wet": 1.1}, "the wettest of 15 tiles has 100% water and data.ocean.minimum_wet=1.1"),
        ({"step_s": 7000.0}, "step_s=7000 does not divide the interval of the fields, 86400 s"),
        ({"record_s": 5000.0, "step_s": 1000.0}, "the interval of the fields, 86400 s: choose a whole fraction"),
        ({"window_steps": 1}, "give at least two steps"),
        ({"memory_mb": 0.01}, "build.memory_mb=0.01 and a tile with its halo needs"),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_one_line(clean, settings, message):
    with pytest.raises(BadInputError, match=message) as caught:
        open_source(clean, **settings)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{clean}: ")


def test_a_grid_of_different_cells_is_refused(archive, tmp_path):
    latitude = archive.latitude + np.maximum(archive.latitude - archive.latitude[10], 0)
    path = write_archive(tmp_path / "stretched.nc", replace(archive, latitude=latitude))
    with pytest.raises(BadInputError, match=r"stretched\.nc: the spacing of latitude goes from 0\.25 to 0\.5 degrees"):
        open_source(path)


def test_chunks_that_do_not_fit_the_memory_are_refused(archive, tmp_path):
    store = write_archive(tmp_path / "whole.zarr", archive, encoding={"chunks": (60, 25, 33)})
    with pytest.raises(BadInputError, match=r"3\.2 MB are chunks of the files"):
        open_source(store, memory_mb=3.0)
    assert open_source(store, memory_mb=4.0).memory_of_task(7) > 3.1e6


def test_the_same_name_and_size_with_other_currents_is_another_archive(archive, clean, tmp_path):
    other = write_archive(tmp_path / "clean.nc", archive, values=archive.currents / 2)
    assert other.stat().st_size == clean.stat().st_size
    assert open_source(other).provenance()["files"] != open_source(clean).provenance()["files"]


def test_tiles_of_land_are_left_out(archive, tmp_path):
    water = archive.water.copy()
    water[:, :9, :9] = False
    path = write_archive(tmp_path / "bay.nc", replace(archive, water=water))
    assert [0, 0] not in open_source(path, minimum_wet=0.0).cut.tiles.tolist()


def test_irregular_times_are_refused(archive, tmp_path):
    path = write_archive(tmp_path / "irregular.nc", archive, times=np.flatnonzero(np.arange(60) % 3))
    with pytest.raises(BadInputError, match=r"irregular.nc: .* equally spaced times"):
        open_source(path)


def test_land_everywhere_is_refused(archive, tmp_path):
    dry = replace(archive, water=np.zeros_like(archive.water))
    path = write_archive(tmp_path / "dry.nc", dry)
    with pytest.raises(BadInputError, match=r"dry\.nc"):
        open_source(path)


def test_currents_too_fast_for_the_step_are_refused(tmp_path):
    path = write_archive(tmp_path / "fast.nc", make_archive(speed=3000))
    with pytest.raises(BadInputError, match=r"crosses .* cells .* choose \d+ s or less"):
        open_source(path, step_s=21_600.0).pairs("train", 0, 1)


JOB = [
    *(f"data.ocean.{name}={'null' if value is None else value}" for name, value in (TILES | WINDOWS).items()),
    *(f"data.ocean.drifters.{name}={value}" for name, value in DRIFTERS.items()),
    *("data.seed=3", "data.num_shards=4", f"data.record_pairs={RECORD_PAIRS}"),
]


def write_shards(*arguments, **environment):
    return start("write_shards", *JOB, *arguments, config="configs/ocean.yaml", **environment)


@pytest.fixture
def write_here(monkeypatch, capsys):
    """Return a function that runs the job in this process: exit code, output, errors."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["pcl", "shards", f"{ROOT}/configs/ocean.yaml", *JOB, *arguments])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return run


def test_a_dry_run_tells_the_size_and_writes_nothing(clean, built, tmp_path, write_here):
    code, output, errors = write_here("--dry-run", f"data.ocean.paths=[{clean}]", f"data.shards={tmp_path / 'no'}")
    assert code == 0, errors
    pairs, shards, size = written_sizes(built[2])["train"]
    assert f"train: {pairs:,} pairs in {shards} shards, {size / 1e6:.1f} MB" in output
    assert "memory of a task" in output
    assert "chunks" in output
    assert not (tmp_path / "no").exists()


def kill_after(process, folder, num_shards):
    """End a job and its Ray at once when so many shards lie in a folder; return the hashes of those."""
    deadline = time.monotonic() + 120
    while len(list(folder.glob("*.tar"))) < num_shards and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert still_there(family) == []
    assert not (folder / "manifest.json").exists()
    return hashes(folder)


def test_a_build_that_was_killed_goes_on_to_the_same_shards(clean, built, tmp_path, write_here):
    arguments = (f"data.ocean.paths=[{clean}]", f"data.shards={tmp_path / 'shards'}", "build.num_tasks=1")
    slowly = "build.memory_mb=3.25"  # a tile at a time: it is killed well before the last shard
    written = kill_after(write_shards(*arguments, slowly), tmp_path / "shards", 2)
    assert 2 <= len(written) < 8
    new_processes()
    code, output, errors = write_here(*arguments)
    assert code == 0, errors
    assert hashes(tmp_path / "shards") == built[1]
    assert "u, mean and standard deviation over the training split" in output
    assert load_manifest(tmp_path / "shards").statistics == built[2].statistics


def run_code(code, *arguments):
    """Run code that imports this module, in a process of its own outside any cluster; return its output."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {"PYTHONPATH": str(ROOT), "MALLOC_ARENA_MAX": "1"}  # or each thread keeps what it has freed
    command = [sys.executable, "-c", code, *map(str, arguments)]
    process = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, timeout=250, stdout=subprocess.PIPE, text=True
    )
    return process.stdout


def test_one_and_four_tasks_write_the_same_shards(clean, built, tmp_path):
    new_processes()
    source = open_source(clean)
    with task_runner() as run_tasks:
        for num_tasks in (1, 4):
            root = tmp_path / str(num_tasks)
            root.mkdir()
            build = partial(build_shard, root=root, record_pairs=RECORD_PAIRS)
            assert len(list(run_tasks(build, source, plan_shards(source, 4), num_tasks, timeout_s=0))) == 8
    assert hashes(tmp_path / "1") == hashes(tmp_path / "4") == built[1]


def test_a_damaged_file_in_the_midst_of_many_ends_in_one_line(archive, tmp_path, write_here):
    for number in range(3):
        times = slice(20 * number, 20 * number + 20)
        write_archive(tmp_path / f"part{number}.nc", archive, times=times)
    content = (tmp_path / "part1.nc").read_bytes()
    (tmp_path / "part1.nc").write_bytes(content[: len(content) // 2])
    code, _, errors = write_here(f"data.ocean.paths=[{tmp_path}/*.nc]", f"data.shards={tmp_path / 'shards'}")
    assert code == 1
    assert len(errors.splitlines()) == 1
    assert "part1.nc" in errors
    assert not (tmp_path / "shards" / "manifest.json").exists()


def test_a_speed_no_current_has_ends_in_one_line(archive, tmp_path, write_here):
    fast = archive.currents.copy()
    fast[0, 52, 3, 3] = 40.0  # not at a time step that is looked at when the files are opened
    for number in range(3):
        times = slice(20 * number, 20 * number + 20)
        write_archive(tmp_path / f"part{number}.nc", archive, times=times, values=fast)
    code, _, errors = write_here(f"data.ocean.paths=[{tmp_path}/*.nc]", f"data.shards={tmp_path / 'shards'}")
    assert code == 2
    assert len(errors.splitlines()) == 1
    assert "part2.nc" in errors
    assert "40 m s-1" in errors
    assert not (tmp_path / "shards" / "manifest.json").exists()


MEASURE = """
import sys
from tests.problems.ocean.test_source import build, open_source
from pathlib import Path
import torch
torch.set_num_threads(1)

def kib(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))

def source_of(path):
    return open_source(path, memory_mb=16.0, seed=0, tile_points=24, tile_stride=200, minimum_wet=0.5, window_steps=8,
                       window_stride=16, test_fraction=0.2, gap_days=14.0, num_drifters=2, num_releases=1,
                       record_s=86400.0, step_s=28800.0, halo_degrees=2.0)

source_of(sys.argv[3]).pairs("train", 0, 1)  # what libraries load on first use is not the archive's
baseline = kib("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
source = source_of(sys.argv[1])  # it looks through the archive
build(source, Path(sys.argv[2]), num_shards=2, record_pairs=25)
print((kib("VmHWM") - baseline) * 1024 / 1e6, source.num_pairs("train"), source.num_pairs("test"))
"""


def write_waves(folder, points):
    """Write a store of currents, little on disk, whose chunks are not those of the windows and tiles."""
    steps = 100
    archive = {
        "time_s": np.arange(steps) * DAY_S,
        "latitude": 0.1 * np.arange(points),
        "longitude": 0.1 * np.arange(points),
    }
    still = dask.array.ones((steps, points, points), chunks=(5, 112, 112), dtype=np.float32)
    wave = still * np.sin(np.arange(steps), dtype=np.float32)[:, None, None] * np.float32(0.2)
    return write_archive(folder / "waves.zarr", SimpleNamespace(**archive), values=[wave, wave]), 2 * wave.nbytes / 1e6


@pytest.fixture(scope="module")
def huge(tmp_path_factory):
    """A store of 161 MB."""
    store, size_mb = write_waves(tmp_path_factory.mktemp("huge"), 448)
    assert size_mb > 160
    return store


HELD_MB = 8.0
"""What an allocator has at most of memory that was freed, in pieces between others that are in use."""


def test_an_archive_of_ten_times_the_memory_is_cut_within_it(huge, tmp_path):
    small, _ = write_waves(tmp_path, 64)
    output = run_code(MEASURE, huge, tmp_path / "shards", small)
    peak_mb, train, test = map(float, output.split())
    assert (train, test) == (4 * 9, 2 * 9)
    assert peak_mb < 16 + HELD_MB, peak_mb


@pytest.mark.slow
def test_a_huge_archive_that_was_cut_off_ends_with_the_same_shards(huge, tmp_path):
    settings = [f"data.ocean.paths=[{huge}]", "build.memory_mb=16", "data.num_shards=8", "data.record_pairs=25"]
    settings += ["data.ocean.tile_points=24", "data.ocean.tile_stride=100", "data.ocean.window_steps=8"]
    settings += ["data.ocean.window_stride=16", "data.ocean.test_fraction=0.2", "data.ocean.gap_days=14"]
    code, _, errors = finish(write_shards(*settings, f"data.shards={tmp_path / 'whole'}", "build.num_tasks=4"))
    assert code == 0, errors
    cut = (*settings, f"data.shards={tmp_path / 'cut'}", "build.num_tasks=1")
    assert 3 <= len(kill_after(write_shards(*cut), tmp_path / "cut", 3)) < 16
    code, _, errors = finish(write_shards(*cut))
    assert code == 0, errors
    assert hashes(tmp_path / "cut") == hashes(tmp_path / "whole")
    assert (tmp_path / "cut" / "manifest.json").read_bytes() == (tmp_path / "whole" / "manifest.json").read_bytes()
