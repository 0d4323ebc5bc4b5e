"""What the losses cost: memory far below that of whole score matrices, no more time, half the traffic."""

import math
import os
import runpy
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from pcl.benchmark.costs import clip_loss_bytes, flops, sent_bytes
from pcl.commands import benchmark_losses as benchmark
from pcl.commands.benchmark_losses import measure, side_by_side
from pcl.errors import RunFailedError
from tests.processes import new_processes

JOB = Path(__file__).resolve().parents[2] / "jobs" / "benchmark_losses.py"
pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux")


def test_memory_is_a_32nd_of_that_of_clip_loss_and_grows_with_the_batch_not_its_square():
    """At once, on one thread each: 4.02 GiB are what ClipLoss takes at 16384."""
    with ThreadPoolExecutor() as pool:
        half, whole = pool.map(lambda batch: measure("ours", batch, num_threads=1).peak_bytes, (8192, 16384))
    gradients = 2 * 16384 * 256 * 4
    assert gradients < whole <= 4.02 * 2**30 / 32
    assert whole < 2.5 * half


@pytest.fixture
def copies(monkeypatch):
    """Let measurements be done in copies of a process that has imported torch, which is soon done."""
    context = new_processes()
    monkeypatch.setattr(benchmark, "multiprocessing", SimpleNamespace(get_context=lambda method: context))


@pytest.mark.parametrize("num_workers", [1, 2])
def test_both_losses_are_the_same_and_the_counts_are_those_seen(num_workers, copies):
    batch = 2048
    ours, clip = (measure(loss, batch, num_workers, num_threads=1) for loss in benchmark.LOSSES)
    assert ours.loss + math.log(batch) == pytest.approx(clip.loss, rel=1e-5)
    assert 0.9 * clip_loss_bytes(batch) / num_workers < clip.peak_bytes  # four copies of the scores
    assert ours.peak_bytes < clip.peak_bytes / 2
    counted = [sent_bytes(loss, batch, num_workers, 256) for loss in benchmark.LOSSES]
    assert counted == [0, 0] if num_workers == 1 else counted[0] < 0.506 * counted[1]
    assert counted[0] <= ours.loopback_bytes
    assert counted[1] <= clip.loopback_bytes
    assert flops("ours", batch, num_workers, 256) / flops("ClipLoss", batch, num_workers, 256) == pytest.approx(2 / 3)


def test_clip_loss_needs_open_clip(monkeypatch):
    monkeypatch.setattr(benchmark, "load_clip_loss", lambda: None)
    with pytest.raises(RunFailedError, match="pip install --no-deps open_clip_torch"):
        measure("ClipLoss", 4)


def die(*_):
    os._exit(1)


def test_a_process_that_dies_is_named(monkeypatch, copies):
    monkeypatch.setattr(benchmark, "_work", die)
    with pytest.raises(RunFailedError, match="measured ours at B = 4, W = 1: the machine may be out of memory"):
        measure("ours", 4)


def test_the_job_goes_on_without_open_clip(monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "load_clip_loss", lambda: None)
    monkeypatch.setattr(
        benchmark, "side_by_side", lambda losses, *_: [benchmark.Cost(0.0, 2**20, 1.0, 0.0)] * len(losses)
    )
    monkeypatch.setattr(sys, "argv", [str(JOB), "4096"])
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    runpy.run_path(str(JOB), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("pip install --no-deps open_clip_torch")
    assert [line.split()[:5] for line in lines[-2:]] == [["4096", w, "1.0", "-", "-"] for w in "12"]
    assert max(map(len, lines)) <= 120


def test_a_batch_that_two_workers_cannot_share_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(JOB), "4095"])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(JOB), run_name="__main__")
    assert "B = 4095: two workers share a global batch, so it must be even and positive" in capsys.readouterr().err


@pytest.mark.slow
def test_the_loss_takes_no_longer_than_clip_loss(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    ours, clip = side_by_side(benchmark.LOSSES, 8192)
    print(f"B = 8192: {ours.seconds:.2f} s, ClipLoss {clip.seconds:.2f} s")  # noqa: T201
    assert ours.seconds <= 1.2 * clip.seconds
