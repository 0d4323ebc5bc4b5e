"""Time by part: what a clock gives to whom, that the parts are the whole, and that waiting shows as such."""

import time
from itertools import count, pairwise

import pytest
import torch

from pcl.encoders.build import build_model
from pcl.objective import make_loss
from pcl.train.clock import COLLECTIVES, PARTS, Clock
from pcl.train.collectives import make_workers
from pcl.train.loop import Optimisation, TrainingState, make_optimizer, train
from pcl.workers import OneWorker
from tests.processes import run_workers
from tests.train.test_loop import SPEC

SLEEP_S = 0.04


def test_every_moment_belongs_to_the_innermost_part():
    clock = Clock(now=iter([1.0, 2.0, 5.0, 5.5, 10.0, 20.0]).__next__)
    clock.begin_step()
    with clock.part("loss"), clock.part("gather"):  # from 1 and from 2 to 5, to 5.5
        pass
    with clock.part("update"):
        pass
    expected = dict.fromkeys(PARTS, 0.0) | {"loss": 1.5, "gather": 3.0, "update": 10.0}
    assert clock.seconds == expected
    scalars = clock.take()
    assert {name: scalars[f"time/{name}_ms"] for name in PARTS} == {part: 1e3 * s for part, s in expected.items()}
    assert scalars["data_share"] == 0
    assert scalars["collective_share"] == pytest.approx(3 / 14.5)
    assert set(clock.seconds.values()) == {0.0}


def test_an_error_within_a_part_leaves_the_clock_in_order():
    clock = Clock(now=count().__next__)
    clock.begin_step()
    with pytest.raises(KeyError), clock.part("loss"), clock.part("gather"):
        raise KeyError
    with clock.part("update"):
        pass
    assert (clock.seconds["loss"], clock.seconds["gather"], clock.seconds["update"]) == (2, 1, 1)


def test_on_cuda_only_logged_steps_are_measured_and_synchronised(monkeypatch):
    synchronised = []
    monkeypatch.setattr(torch.cuda, "synchronize", synchronised.append)
    clock = Clock(torch.device("cuda"), now=count().__next__)
    for is_logged in (False, False, True, False):
        before = len(synchronised)
        clock.begin_step(is_logged)
        with clock.part("forward"):
            pass
        assert len(synchronised) - before == 2 * is_logged
    assert clock.take()["time/forward_ms"] == 1000.0  # of the one step


def sleepy(seconds):
    """Return a loss that sleeps in its forward and in its backward pass."""
    plain = make_loss("conditional")

    def loss(u, v, temperature, **options):
        time.sleep(seconds)
        value, diagnostics = plain(u, v, temperature, **options)
        hook = value * 1.0
        hook.register_hook(lambda gradient: time.sleep(2 * seconds))
        return hook, diagnostics

    return loss


def run(loss, workers, clock, num_steps=12, log_every=4, data_s=0.0):
    """Train on random pairs; return the steps and scalars that were logged, and the seconds between the logs."""
    generator = torch.Generator().manual_seed(workers.worker_rank)

    def batches():
        while True:
            time.sleep(data_s)
            yield tuple(torch.randn(16, 6, generator=generator) for _ in range(2))

    logged = []

    def log(step, scalars):
        logged.append((step, scalars))
        times.append(time.perf_counter())

    optimisation = Optimisation(num_steps, 0.01)
    model = build_model(SPEC, seed=0)
    state = TrainingState(model, make_optimizer(model, optimisation))
    times = [time.perf_counter()]
    train(
        state,
        batches(),
        loss,
        optimisation,
        workers=workers,
        global_batch=16 * workers.num_workers,
        log_every=log_every,
        checkpoint_every=1000,
        log=log,
        report=lambda *_: None,
        clock=clock,
    )
    return logged, [later - earlier for earlier, later in pairwise(times)]


def test_the_parts_add_up_to_the_time_of_the_steps():
    logged, elapsed = run(sleepy(SLEEP_S), OneWorker(), Clock(), data_s=SLEEP_S / 3)
    assert [step for step, _ in logged] == [4, 8, 12]
    for (_, scalars), seconds in zip(logged, elapsed, strict=True):
        milliseconds = {part: scalars[f"time/{part}_ms"] for part in PARTS}
        assert 4 * sum(milliseconds.values()) == pytest.approx(1e3 * seconds, rel=0.03)
        assert milliseconds["loss"] >= 1e3 * SLEEP_S
        assert milliseconds["backward"] >= 2e3 * SLEEP_S
        assert milliseconds["data"] >= 1e3 * SLEEP_S / 3
        assert milliseconds["gather"] == 0
        assert scalars["data_share"] == pytest.approx(milliseconds["data"] / sum(milliseconds.values()))
        assert scalars["pairs_per_second"] == pytest.approx(4 * 16 / seconds, rel=0.03)


def lopsided(mode):
    """Train on one of two workers, of which worker 1 is late with its data and slow in its backward pass."""
    clock = Clock()
    workers = make_workers(clock)
    taken = []
    take, clock.take = clock.take, lambda: taken.append(dict(clock.seconds)) or take()
    slow = workers.worker_rank * SLEEP_S
    plain = make_loss("conditional", mode=mode)

    def loss(u, v, temperature, **options):
        u.register_hook(lambda gradient: time.sleep(slow))  # after the collectives of the loss's backward pass
        return plain(u, v, temperature, **options)

    logged, _ = run(loss, workers, clock, data_s=slow)
    return taken, [scalars for _, scalars in logged]


@pytest.mark.parametrize("mode", ["plain", "one_sided"])
def test_waiting_for_a_slow_worker_is_time_in_collectives(mode):
    (fast, means), (slow, same) = run_workers(lopsided, 2, mode)
    assert means == same
    slept_s = 4 * SLEEP_S
    for quick, late, mean in list(zip(fast, slow, means, strict=True))[1:]:  # the first steps wait for the start
        assert late["data"] >= slept_s
        assert late["backward"] >= slept_s
        assert quick["gather"] >= 0.8 * slept_s  # the data are awaited in the first gather
        assert quick["average"] >= 0.8 * slept_s  # the backward pass in the mean of the gradients
        assert quick["backward"] + quick["loss"] + quick["data"] < late["backward"] + late["loss"] + late["data"]
        assert late["gather"] + late["average"] < 0.6 * (quick["gather"] + quick["average"])
        for part in PARTS:
            assert mean[f"time/{part}_ms"] == pytest.approx(1e3 * (quick[part] + late[part]) / 2 / 4)
        waits = [sum(s[part] for part in COLLECTIVES) / sum(s.values()) for s in (quick, late)]
        assert mean["collective_share"] == pytest.approx(sum(waits) / 2)
