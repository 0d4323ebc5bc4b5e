"""Training sessions without Ray: the number of workers is not part of an experiment, and resuming is exact."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import pcl
from pcl.config.load import load_config
from pcl.encoders.build import build_model
from pcl.errors import BadInputError, DamagedDataError
from pcl.marginals import FiniteModality
from pcl.objective import make_loss
from pcl.train.checkpoint import checkpoint_content, load_checkpoint, save_checkpoint
from pcl.train.collectives import mean_over_workers
from pcl.train.loop import Optimisation, TrainingState, make_optimizer, train_step
from pcl.train.session import Session
from pcl.workers import OneWorker
from tests.processes import run_workers

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = (
    "train.global_batch=64",
    "train.num_lanes=4",
    "train.epochs=6",
    "train.log_every=10",
    "train.warmup_steps=5",
)


@pytest.fixture(scope="module")
def shards(make_shards):
    root, _ = make_shards(num_train=1500, num_test=40, num_shards=8, record_pairs=50)
    return root


def config(shards, *overrides):
    data = (f"data.shards={shards}", "data.num_shards=8", "data.record_pairs=50")
    process = ("num_train=1500", "num_test=40", "num_modes=20")
    sizes = tuple(f"data.gaussian_process.{item}" for item in process)
    return load_config(ROOT / "configs" / "gaussian.yaml", (*data, *sizes, *SETTINGS, *overrides))


def follow(shards, overrides, num_steps):
    """Return the losses of the first steps, hashes of this worker's batches, and the final weights."""
    session = Session(config(shards, *overrides), torch.device("cpu"))
    losses, digests, stream = [], [], session.loader.batches()
    for _ in range(num_steps):
        batch = next(stream)
        digests.append([row.numpy().tobytes() for row in batch[0]])
        diagnostics = train_step(session.state, batch, session.loss, session.optimisation, session.workers)
        losses.append(mean_over_workers(diagnostics, session.workers)["loss"])
    return losses, digests, session.state.model.state_dict()


def digests_of_global_batches(results):
    steps = zip(*(digests for _, digests, _ in results), strict=True)
    return [hashlib.sha256(b"".join(row for worker in step for row in worker)).hexdigest() for step in steps]


def follow_both(shards):
    settings = ("train.epochs=8", "train.gradient_clip=1.0")
    return {p: follow(shards, (f"train.precision={p}", *settings), 50) for p in ("float32", "float64")}


def test_the_number_of_workers_changes_nothing(shards):
    runs = {1: [follow_both(shards)]} | {w: run_workers(follow_both, w, shards) for w in (2, 4)}
    for num_workers in (2, 4):
        for precision, tolerance in (("float32", 1e-5), ("float64", 1e-10)):
            one, many = ([worker[precision] for worker in runs[w]] for w in (1, num_workers))
            assert digests_of_global_batches(many) == digests_of_global_batches(one)
            np.testing.assert_allclose(many[0][0], one[0][0], rtol=0, atol=tolerance)
            for worker in many:
                for name, value in worker[2].items():
                    np.testing.assert_array_equal(value, many[0][2][name])
    losses = runs[1][0]["float64"][0]
    assert losses[-1] < losses[0] - 0.3


def run_to_the_end(shards, overrides, directory, resume_from):
    """Train a session, keeping every checkpoint; return the final weights."""
    session = Session(config(shards, *overrides), torch.device("cpu"), resume_from)

    def commit(step, scalars, content):
        assert np.isfinite(scalars["loss"])
        if content is not None:
            save_checkpoint(directory / f"checkpoint_{step:08d}", content)

    session.run(directory, commit)
    return session.state.model.state_dict()


def run_twice(shards, overrides, directory):
    """Return the weights of a run that was never stopped, and of one that went on from step 75."""
    whole = run_to_the_end(shards, overrides, directory, None)
    return whole, run_to_the_end(shards, overrides, directory, directory / "checkpoint_00000075")


@pytest.mark.parametrize("num_workers", [1, 2])
def test_resuming_mid_epoch_gives_the_same_bits(shards, tmp_path, num_workers):
    overrides = ("train.epochs=4", "train.checkpoint_every=25", "model.temperature.learned=true", "loss.kind=joint")
    whole, resumed = (
        run_twice(shards, overrides, tmp_path)
        if num_workers == 1
        else run_workers(run_twice, num_workers, shards, overrides, tmp_path)[0]
    )
    steps_per_epoch = 1500 // 4 // 16
    assert 75 % steps_per_epoch != 0, "the checkpoint must lie within an epoch"
    for name, value in whole.items():
        np.testing.assert_array_equal(resumed[name], value)


def run_and_stop(shards, overrides, directory, rank_that_is_told):
    """Tell one worker to stop at step 40; return the steps committed, and the last weights of a run from there."""
    session, steps = Session(config(shards, *overrides), torch.device("cpu")), []

    def stop():
        return session.workers.worker_rank == rank_that_is_told and session.state.step >= 40

    def commit(step, scalars, content):
        steps.append(step)
        if content is not None:
            save_checkpoint(directory / f"checkpoint_{step:08d}", content)

    session.run(directory, commit, stop)
    mean_over_workers({"everybody has written": torch.zeros(())}, session.workers)
    return steps, run_to_the_end(shards, overrides, directory, directory / f"checkpoint_{steps[-1]:08d}")


STOPPED = ("train.checkpoint_every=25", "train.epochs=3")


@pytest.fixture(scope="module")
def whole(shards, tmp_path_factory):
    """The last weights of a run that nobody told to stop."""
    return run_workers(run_to_the_end, 2, shards, STOPPED, tmp_path_factory.mktemp("whole"), None)[0]


@pytest.mark.parametrize("rank_that_is_told", [0, 1])
def test_all_workers_stop_after_the_same_step_and_go_on_from_it_to_the_same_bits(
    shards, whole, tmp_path, rank_that_is_told
):
    told = run_workers(run_and_stop, 2, shards, STOPPED, tmp_path, rank_that_is_told)
    assert [steps for steps, _ in told] == [[25, 41]] * 2
    for name, value in whole.items():
        np.testing.assert_array_equal(told[0][1][name], value)


def test_resuming_on_another_number_of_workers_gives_the_same_losses(shards, tmp_path):
    overrides = ("train.checkpoint_every=25", "train.precision=float64")
    whole = run_to_the_end(shards, overrides, tmp_path, None)
    resumed = run_workers(run_to_the_end, 2, shards, overrides, tmp_path, tmp_path / "checkpoint_00000050")
    for name, value in whole.items():
        np.testing.assert_allclose(resumed[0][name], value, rtol=0, atol=1e-10)


def test_tensorboard_curves_continue_without_overlap(shards, tmp_path):
    overrides = ("train.checkpoint_every=50", "train.log_every=10")
    run_to_the_end(shards, overrides, tmp_path, None)
    run_to_the_end(shards, overrides, tmp_path, tmp_path / "checkpoint_00000050")
    events = EventAccumulator(str(tmp_path)).Reload()
    num_steps = 6 * (1500 // 4 // 16)
    steps = [event.step for event in events.Scalars("train/loss")]
    assert steps == sorted({*range(10, num_steps + 1, 10), 50, 100, num_steps})
    assert {"train/learning_rate", "train/gradient_norm", "train/temperature", "train/pairs_per_second"} <= set(
        events.Tags()["scalars"]
    )


def test_the_finished_model_loads_and_scores(shards, tmp_path):
    session = Session(config(shards), torch.device("cpu"))
    directory = tmp_path / "checkpoint_00000000"
    save_checkpoint(directory, checkpoint_content(session.state, session.spec, session.experiment_hash))
    model = pcl.load(directory)
    u, v = next(session.loader.batches())
    with torch.no_grad():
        expected = session.state.model.log_tilting(u, v)
    torch.testing.assert_close(model.log_tilting(u, v), expected, rtol=0, atol=0)
    assert load_checkpoint(directory)["step"] == 0


def test_a_model_knows_the_dtype_that_is_stored(shards):
    spec = Session(config(shards), torch.device("cpu")).spec
    assert [spec[f"encoder_{name}"]["dtype"] for name in "uv"] == ["float32", "float32"]


def test_a_checkpoint_of_another_experiment_is_refused(shards, tmp_path):
    session = Session(config(shards), torch.device("cpu"))
    save_checkpoint(tmp_path, checkpoint_content(session.state, session.spec, session.experiment_hash))
    with pytest.raises(DamagedDataError, match="another configuration"):
        Session(config(shards, "train.learning_rate=0.5"), torch.device("cpu"), tmp_path)


def test_shards_of_another_configuration_are_refused(shards):
    with pytest.raises(BadInputError, match=r"data\.gaussian_process\.num_train"):
        Session(config(shards, "data.gaussian_process.num_train=1600"), torch.device("cpu"))


def test_a_loss_that_is_not_finite_ends_the_run(shards, tmp_path):
    with pytest.raises(FloatingPointError, match=r"the loss is nan: .* lower the learning rate"):
        run_to_the_end(shards, ("train.learning_rate=1e30", "train.log_every=1"), tmp_path, None)


@pytest.mark.parametrize("kernel", ["gaussian", "polynomial"])
@pytest.mark.parametrize("kind", ["conditional", "joint", "conditional_mmd", "joint_mmd"])
def test_every_loss_that_a_configuration_names_learns(shards, kind, kernel):
    losses, _, _ = follow(shards, (f"loss.kind={kind}", f"loss.kernel.kind={kernel}", "loss.exclude_positive=true"), 40)
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


def labels_session(exact):
    """Return a session whose v are labels, with a model and batches of its own."""
    labels = torch.arange(64) % 3
    u = torch.randn(64, 4, generator=torch.Generator().manual_seed(0)) + torch.eye(4)[labels]
    spec = {
        "embedding_dim": 3,
        "encoder_u": {"kind": "linear", "shape": [4]},
        "encoder_v": {"kind": "one_hot", "shape": []},
        "tilting": "inner_product",
        "temperature": {"initial": 1.0, "learned": False, "minimum": 0.1, "maximum": 10.0},
        "dtype": "float64",
    }
    model = build_model(spec, seed=0)
    optimisation = Optimisation(num_steps=1, learning_rate=0.1)
    prior = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    finite = [FiniteModality("v", torch.arange(3), prior.log())] if exact else []
    state = TrainingState(model, make_optimizer(model, optimisation))
    loss = make_loss("conditional", (0.0, 2.0))
    with torch.no_grad():
        s = model.log_tilting(u, torch.arange(3))
        expected = ((s.exp() * prior).sum(1).log() - s.gather(1, labels[:, None])[:, 0]).mean().item()
    found = train_step(state, (u, labels), loss, optimisation, OneWorker(), finite)["loss"].item()
    return found, expected


def test_a_step_uses_the_exact_normaliser_of_a_finite_modality():
    found, expected = labels_session(exact=True)
    assert found == pytest.approx(expected, rel=1e-12)
    assert labels_session(exact=False)[0] != pytest.approx(expected, rel=1e-3)


def test_an_exact_normaliser_needs_labels(shards):
    with pytest.raises(BadInputError, match=r"loss.normaliser=atoms and neither u nor v .* are labels"):
        Session(config(shards, "loss.exact_normaliser=true"), torch.device("cpu"))
    with pytest.raises(BadInputError, match="the joint_mmd loss has none"):
        config(shards, "loss.normaliser=atoms", "loss.kind=joint_mmd")
    with pytest.raises(BadInputError, match=r"loss.kernel.bandwidth_u=-1.0: it must be at least 0"):
        config(shards, "loss.kernel.bandwidth_u=-1")
