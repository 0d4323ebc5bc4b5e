"""The held-out loss: what it is of, that it changes no bit of a training, and the best checkpoint by it."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import pcl
from pcl.commands.evaluate import best_of
from pcl.commands.train import held_out_line
from pcl.data.held_out import HeldOut, held_out
from pcl.data.loader import iterate_split
from pcl.data.sample import pairs_at
from pcl.encoders.build import build_model
from pcl.errors import BadInputError, DamagedDataError
from pcl.marginals import FiniteModality
from pcl.objective import make_loss
from pcl.storage.place import names, place
from pcl.train.best import best_checkpoint, keep_best
from pcl.train.checkpoint import checkpoint_content, load_checkpoint, save_checkpoint
from pcl.train.runs import sweep
from pcl.train.session import Session
from pcl.train.validation import HELD_OUT_LOSS, batch_loss, evaluating
from tests.processes import run_workers
from tests.reference import conditional
from tests.s3 import s3_server
from tests.train.test_session import config, shards

__all__ = ["shards"]
HELD_OUT = ("train.validation_fraction=0.15", "train.epochs=2", "train.checkpoint_every=10", "train.log_every=7")
CPU = torch.device("cpu")


def session_of(root, *overrides, resume_from=None):
    return Session(config(root, *HELD_OUT, *overrides), CPU, resume_from)


def rows_by_hand(root, manifest, fraction):
    """Return u and v of the last pairs of every training shard, read in order."""
    found, first = [], 0
    u, v = (torch.cat(parts) for parts in zip(*iterate_split(root, manifest, "train"), strict=True))
    for shard in manifest.shards("train"):
        found += range(first + shard.pairs - math.floor(fraction * shard.pairs + 1e-9), first + shard.pairs)
        first += shard.pairs
    return found, u, v


def test_pairs_that_are_held_out_are_the_last_of_every_shard(shards):
    session = session_of(shards)
    by_hand, u, v = rows_by_hand(shards, session.manifest, 0.15)
    numbers = held_out(session.manifest, 0.15).numbers
    assert numbers.tolist() == by_hand
    assert len(numbers) == sum(shard.pairs * 15 // 100 for shard in session.manifest.shards("train"))
    found = pairs_at(shards, session.manifest, "train", numbers)
    assert torch.equal(found["u"], u[by_hand])
    assert torch.equal(found["v"], v[by_hand])
    known = {row.numpy().tobytes() for row in v[by_hand]}
    stream = session.loader.batches()
    trained = {row.numpy().tobytes() for _ in range(3 * session.loader.steps_per_epoch) for row in next(stream)[1]}
    assert len(trained) > 1000
    assert not trained & known
    assert session.loader.num_pairs == 1500 - len(numbers)


def test_batches_are_fixed_distinct_and_not_too_many():
    pairs = HeldOut("train", np.arange(100, 1000))
    batches = pairs.batches(64, seed=0)
    assert batches.shape == (900 // 64, 64)
    assert len(set(batches.flat)) == batches.size
    assert set(batches.flat) <= set(range(100, 1000))
    assert np.array_equal(batches, pairs.batches(64, seed=0))
    assert not np.array_equal(batches, pairs.batches(64, seed=1))
    assert pairs.batches(10_000, seed=0).shape == (1, 900)
    assert HeldOut("test", np.arange(1)).batches(8, seed=0).size == 0
    assert HeldOut("test", np.arange(10**5)).batches(1024, seed=0).shape == (16, 1024)
    assert HeldOut("test", np.arange(10**5)).batches(16, seed=0).shape == (256, 16)


def test_the_held_out_loss_is_the_training_loss_of_its_batches(shards):
    session = session_of(shards, "train.precision=float64", "loss.weight_u_given_v=0.5", "loss.weight_v_given_u=1.5")
    model = session.state.model
    numbers, u, v = rows_by_hand(shards, session.manifest, 0.15)
    batches = held_out(session.manifest, 0.15).batches(64, session.config.seed)
    assert batches.shape == (len(numbers) // 64, 64)
    with torch.no_grad():
        losses = [conditional(model.log_tilting(u[batch], v[batch]), (0.5, 1.5)).item() for batch in batches]
    assert session.validation(model)[HELD_OUT_LOSS] == pytest.approx(np.mean(losses), rel=1e-12)


def test_the_normaliser_of_labels_is_exact_as_in_training():
    spec = {
        "embedding_dim": 3,
        "encoder_u": {"kind": "linear", "shape": [4]},
        "encoder_v": {"kind": "one_hot", "shape": []},
        "tilting": "inner_product",
        "temperature": {"initial": 0.5, "learned": False, "minimum": 0.1, "maximum": 10.0},
        "dtype": "float64",
    }
    model, labels = build_model(spec, seed=0), torch.arange(300) % 3
    u = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    prior = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    with torch.no_grad():
        s = model.log_tilting(u, torch.arange(3))
        expected = ((s.exp() * prior).sum(1).log() - s.gather(1, labels[:, None])[:, 0]).mean().item()
    finite = [FiniteModality("v", torch.arange(3), prior.log())]
    found = batch_loss(model, (u, labels), make_loss("conditional", (0.0, 2.0)), finite)
    assert found == pytest.approx(expected, rel=1e-12)
    assert math.isnan(batch_loss(model, (torch.full_like(u, math.inf), labels), make_loss("conditional"), finite))


DROPOUT = ("model.encoder_u=mlp", "model.settings_u={widths: [16], dropout: 0.3}")


def test_it_changes_no_bit_of_a_training(shards):
    """With dropout, whose random numbers would differ if any were drawn between two steps."""
    states, values = [], []
    for every in (0, 3):
        session = Session(config(shards, *DROPOUT, f"train.validate_every={every}", "train.epochs=2"), CPU)
        session.train(lambda step, scalars: values.append(scalars.get(HELD_OUT_LOSS)), lambda state, scalars: None)
        states.append(session.state)
    assert sum(value is not None for value in values) >= 2 * (1500 // 4 // 16) // 3
    for one, other in zip(*(state.model.state_dict().values() for state in states), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(*(state.optimizer.state_dict()["state"].values() for state in states), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_every_part_of_a_model_goes_back_to_its_own_mode():
    model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Sequential(torch.nn.Dropout()))
    model[1].eval()
    with evaluating(model):
        assert not any(part.training for part in model.modules())
    assert [part.training for part in (model, model[0], model[1], model[1][0])] == [True, True, False, False]


def held_out_losses(root):
    """Return the held-out losses of first weights, in both precisions, and how many batches this worker holds."""
    found = []
    for precision in ("float32", "float64"):
        session = session_of(root, f"train.precision={precision}")
        found.append(session.validation(session.state.model)[HELD_OUT_LOSS])
    return found, len(session.validation.items["u"]) // 64


@pytest.mark.process
def test_it_is_the_same_to_the_bit_on_any_number_of_workers(shards):
    alone, num_batches = held_out_losses(shards)
    workers = run_workers(held_out_losses, 2, shards)
    assert [losses for losses, _ in workers] == [alone, alone]
    assert [number for _, number in workers] == [num_batches - num_batches // 2, num_batches // 2]


def test_the_test_split_is_a_curve_and_chooses_nothing(shards, tmp_path):
    chosen = config(shards, "train.validate_every=20", "train.epochs=1", "train.checkpoint_every=10")
    session = Session(chosen, CPU)
    assert "no checkpoint is chosen" in held_out_line(chosen, session.manifest)
    assert "pairs_per_lane" not in held_out_line(chosen, session.manifest)
    assert session.validation.rows.shape == (1, 40)  # all of the test split, which is smaller than a batch
    found = run(session, tmp_path)
    assert [step for step, loss in found if loss is not None] == [20, 23]
    curve = EventAccumulator(str(tmp_path)).Reload().Scalars(HELD_OUT_LOSS)
    assert [event.step for event in curve] == [20, 23]
    assert held_out_line(config(shards), session.manifest) == ""


def run(session, directory):
    """Train as a worker does, keeping the best; return the steps at which a checkpoint was due, with their losses."""
    found = []

    def commit(step, scalars, content):
        found.append((step, scalars.get(HELD_OUT_LOSS)))
        save_checkpoint(directory / f"checkpoint_{step:08d}", content)
        if session.config.train.validation_fraction and HELD_OUT_LOSS in scalars:
            keep_best(directory, step, scalars[HELD_OUT_LOSS], content)

    session.run(directory, commit)
    return found


def test_the_checkpoint_with_the_least_held_out_loss_is_kept_and_named(shards, tmp_path):
    overrides = ("train.learning_rate=0.3", "train.schedule=constant")  # so that the loss goes up and down
    found = dict(run(session_of(shards, *overrides), tmp_path))
    assert [*found][:2] == [10, 20]
    assert all(loss is not None for loss in found.values())
    step = min(found, key=found.get)
    best = best_checkpoint(tmp_path)
    assert (best.step, best.loss) == (step, found[step])
    assert best_of(tmp_path, "best") == best
    assert [path.name for path in (tmp_path / "best").glob("checkpoint*")] == [f"checkpoint_{step:08d}"]
    model, content = pcl.load(tmp_path / "best"), load_checkpoint(tmp_path / best.name)
    assert all(torch.equal(weight, content["model"][name]) for name, weight in model.state_dict().items())
    session = session_of(shards, *overrides)
    assert session.validation(model)[HELD_OUT_LOSS] == found[step]
    # a process that was killed goes on from an earlier checkpoint, and comes to the same one again
    again = dict(run(session_of(shards, *overrides, resume_from=tmp_path / "checkpoint_00000010"), tmp_path))
    assert {step: loss for step, loss in found.items() if step > 10} == again
    assert best_checkpoint(tmp_path) == best


def content_of(step):
    session = content_of.session
    session.state.step = step
    return checkpoint_content(session.state, session.spec, session.experiment_hash)


def test_the_best_so_far_stays_until_a_better_one_is_whole(shards, tmp_path, monkeypatch):
    content_of.session = session_of(shards)
    assert best_checkpoint(tmp_path) is None
    with pytest.raises(BadInputError, match=r"has chosen none.*train\.validation_fraction=0\.1"):
        best_of(tmp_path, "best")
    kept = [keep_best(tmp_path, step, loss, content_of(step)) for step, loss in ((10, 2.0), (20, 2.0), (30, 1.0))]
    assert kept == [True, False, True]
    assert best_checkpoint(tmp_path).step == 30

    def refuse(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:  # killed between the checkpoint and what says that it is the best
        patch.setattr("pcl.train.best.write_json", refuse)
        with pytest.raises(OSError, match="No space"):
            keep_best(tmp_path, 40, 0.5, content_of(40))
    assert best_checkpoint(tmp_path).step == 30
    left = tmp_path / "best" / "checkpoint_00000030" / f".state.pt.{0:032x}"  # by a process that was killed
    left.touch()
    sweep(tmp_path)
    assert not left.exists()
    assert keep_best(tmp_path, 30, 1.5, content_of(30)), "the same step again is the same state"
    assert best_checkpoint(tmp_path).loss == 1.5
    assert [path.name for path in (tmp_path / "best").glob("checkpoint*")] == ["checkpoint_00000030"]

    path = Path(tmp_path / "best" / "best.json")
    path.write_text(path.read_text().replace("1.5", "0.1"))
    with pytest.raises(DamagedDataError, match=r"checksum.*another checkpoint"):
        best_of(tmp_path, "best")
    assert best_of(tmp_path, "") is None
    assert keep_best(tmp_path, 50, 3.0, content_of(50))
    (tmp_path / "best" / "checkpoint_00000050" / "state.pt").write_bytes(b"half")
    with pytest.raises(DamagedDataError, match="half written or gone"):
        best_of(tmp_path, "best")


def test_the_best_checkpoint_of_a_run_in_s3(shards, tmp_path):
    content_of.session = session_of(shards)
    with s3_server() as server:
        run = place(f"{server.address}/{tmp_path.name}")
        kept = [keep_best(run, step, loss, content_of(step)) for step, loss in ((10, 2.0), (20, 3.0), (30, 1.0))]
        assert kept == [True, False, True]
        assert best_checkpoint(run).name == "checkpoint_00000030"
        assert sorted(names(run / "best")) == ["best.json", "checkpoint_00000030"]
        assert pcl.load(run / "best").spec == content_of.session.spec


def test_what_is_held_out_is_said_in_numbers_and_too_little_is_refused(shards):
    session = session_of(shards)
    line = held_out_line(session.config, session.manifest)
    assert line.startswith("224 of 1,500 training pairs are held out, the last 28 of every shard;")
    assert "the least loss on 192 of them, in batches of 64, is kept as the best" in line
    few = config(shards, "train.validation_fraction=0.02")
    with pytest.raises(BadInputError, match=r"holds out 24 of 1,500 pairs, fewer than one global batch of 64"):
        held_out_line(few, session.manifest)
    assert not session.is_validated(5)
    assert [step for step in range(1, 39) if session.is_validated(step)] == [10, 20, 30, 38]
