"""Traces of a few steps: the right steps, written, and nothing where none is asked for."""

import json
from contextlib import closing

import pytest
import torch

from pcl.train.profiler import profiled
from tests.train.test_session import config, run_to_the_end


def trace_of(tmp_path, num_batches, steps, first_step=0, used=None):
    """Multiply matrices of another size at every step; return the traces by name with the sizes they saw."""
    with closing(profiled(range(num_batches), first_step, steps, tmp_path)) as batches:
        for number, _ in enumerate(batches, 1):
            torch.ones(first_step + number, 3) @ torch.ones(3, 3)
            if number == used:
                break
    return {path.name: path.read_text() for path in (tmp_path / "profile").glob("*")}


@pytest.mark.parametrize(
    ("first_step", "used", "steps", "name", "num"),
    [
        (0, None, (2, 3), "steps_2_3", 2),
        (0, 3, (2, 3), "steps_2_3", 2),  # training ends with the last traced step
        (2, None, (1, 4), "steps_3_4", 2),  # a resume within the steps
        (0, 2, (2, 9), "steps_2_2", 1),
    ],
)
def test_exactly_the_steps_asked_for_are_traced(tmp_path, first_step, used, steps, name, num):
    traces = trace_of(tmp_path, 6, steps, first_step, used)
    assert set(traces) == {f"{name}.pt.trace.json"}
    events = json.loads(traces[f"{name}.pt.trace.json"])["traceEvents"]
    assert sum(event["name"] == "aten::mm" for event in events) == num


def test_steps_that_never_come_leave_nothing(tmp_path):
    assert trace_of(tmp_path, 4, (7, 9)) == {}
    assert trace_of(tmp_path, 4, (1, 2), first_step=5) == {}


def test_a_trace_that_cannot_be_written_does_not_end_the_training(tmp_path, capsys):
    (tmp_path / "profile").write_text("in the way")
    with closing(profiled(range(4), 0, (1, 2), tmp_path)) as batches:
        assert list(batches) == [0, 1, 2, 3]
    assert "the trace steps_1_2 is lost" in capsys.readouterr().err


@pytest.fixture(scope="module")
def shards(make_shards):
    root, _ = make_shards(num_train=1500, num_test=40, num_shards=8, record_pairs=50)
    return root


def test_a_configuration_asks_for_a_trace(shards, tmp_path):
    assert config(shards).workers.profile_steps == []
    run_to_the_end(shards, ("train.epochs=1", "train.warmup_steps=0"), tmp_path, None)
    assert not (tmp_path / "profile").exists()
    overrides = ("train.epochs=1", "train.warmup_steps=0", "workers.profile_steps=[3,4]")
    run_to_the_end(shards, overrides, tmp_path, None)
    events = json.loads((tmp_path / "profile" / "steps_3_4.pt.trace.json").read_text())["traceEvents"]
    assert sum("Optimizer.step" in event["name"] for event in events) == 2
