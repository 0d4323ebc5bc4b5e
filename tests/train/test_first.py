"""First weights from another model: what fits is taken, by content, on any number of workers."""

import hashlib
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import pcl
from pcl.config.identity import differing, experiment, experiment_hash
from pcl.config.load import load_config
from pcl.encoders import ENCODERS
from pcl.encoders.build import build_model
from pcl.errors import BadInputError, DamagedDataError
from pcl.train.checkpoint import content_of, load_checkpoint, save_checkpoint
from pcl.train.first import FIRST_FILE, FirstWeights, begin_with, first_weights_at
from pcl.train.parts import first_weights, full_experiment, keep_first_weights, pinned, prepare
from pcl.train.runs import claim
from pcl.train.session import Session
from pcl.train.trained import trained
from tests.processes import run_workers
from tests.s3 import s3_server

GAUSSIAN = Path(__file__).resolve().parents[2] / "configs" / "gaussian.yaml"


def spec(dim=4, widths=(8, 6), mean=0.5, dtype="float32", learned=True, **other):
    side = {"kind": "mlp", "shape": [3], "widths": list(widths), "mean": mean, "std": 2.0}
    tau = {"initial": 0.5, "learned": learned, "minimum": 0.1, "maximum": 2.0}
    return {
        "embedding_dim": dim, "encoder_u": side, "encoder_v": side | {"shape": [5]}, "tilting": "cosine",
        "temperature": tau, "dtype": dtype,
    } | other  # fmt: skip


def model_of(given, seed=3):
    return trained(given, dict(build_model(given, seed).state_dict()))


def first_of(model):
    return FirstWeights("there", dict(model.state_dict()))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_all_that_is_learned_is_taken_and_the_own_standardisation_stays(dtype):
    other, mine = model_of(spec(mean=7.0)), build_model(spec(dtype=dtype), 9)
    with torch.no_grad():
        other.temperature.log_temperature.fill_(0.3)
    before = {name: value.clone() for name, value in mine.named_buffers()}
    assert begin_with(mine, first_of(other)) == [
        "encoder_u: 6 of 6 tensors are those of there",
        "encoder_v: 6 of 6 tensors are those of there",
        "temperature: 1 of 1 tensors are those of there",
    ]
    for (name, value), (_, wanted) in zip(mine.named_parameters(), other.named_parameters(), strict=True):
        assert value.dtype == getattr(torch, dtype)
        np.testing.assert_array_equal(value.detach().numpy(), wanted.numpy(), err_msg=name)
    for name, value in mine.named_buffers():
        assert torch.equal(value, before[name])


def test_what_does_not_fit_is_drawn_as_ever_and_named():
    other, drawn = model_of(spec(dim=9, learned=False)), build_model(spec(), 9)
    mine = build_model(spec(), 9)
    lines = begin_with(mine, first_of(other))
    last = "1.layers.2.weight, 1.layers.2.bias"
    assert lines[:2] == [f"encoder_{n}: 4 of 6 tensors are those of there; drawn anew: {last}" for n in "uv"]
    for name, value in mine.named_parameters():
        wanted = drawn if ".layers.2." in name else other
        assert torch.equal(value, dict(wanted.state_dict())[name])


def test_a_temperature_that_is_not_learned_is_that_of_the_settings():
    mine = build_model(spec(learned=False), 9)
    begin_with(mine, first_of(model_of(spec())))
    assert mine.temperature().item() == pytest.approx(0.5)
    other = model_of(spec())
    with torch.no_grad():
        other.temperature.log_temperature.fill_(50.0)
    mine = build_model(spec(), 9)
    begin_with(mine, first_of(other))
    assert mine.temperature().item() == pytest.approx(2.0), "within its own bounds"


def test_where_nothing_fits_one_line_says_so():
    with pytest.raises(BadInputError, match=r"no tensor of there has the name and shape .* leave train\.init_from out"):
        begin_with(build_model(spec(widths=(5,))), first_of(model_of(spec(dim=7, widths=(6, 6)))))


def test_encoders_that_share_a_network_begin_with_one():
    side = spec()["encoder_u"]
    shared = spec(encoder_v=side | {"mean": 1.0}, share=True)
    mine, other = build_model(shared, 9), model_of(spec(encoder_v=side))
    assert begin_with(mine, first_of(other))[0].startswith("encoder_u: 6 of 6")
    assert mine.encoder_u[-1] is mine.encoder_v[-1]
    for name, value in mine.encoder_v[-1].state_dict().items():
        assert torch.equal(value, other.encoder_u[-1].state_dict()[name])


def test_the_hash_is_that_of_the_content_wherever_it_lies(tmp_path):
    model = model_of(spec())
    model.save(tmp_path / "saved")
    save_checkpoint(tmp_path / "old", content_of(model, {"state": {}, "param_groups": []}, 0, model.spec, "x"))
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} torch.float32 {tuple(value.shape)}\n".encode() + value.numpy().tobytes())
    found = {first_weights_at(str(tmp_path / where)).sha256 for where in ("saved", "old")}
    assert found == {digest.hexdigest()}
    with torch.no_grad():
        model.encoder_u[-1].layers[-1].bias[0] += 1e-7
    assert first_of(model).sha256 not in found


def test_a_model_lies_in_s3_as_in_a_folder():
    model, (u, v) = model_of(spec()), (torch.randn(4, 3), torch.randn(6, 5))
    with s3_server() as s3:
        model.save(f"{s3.address}/models/mine")
        again, first = pcl.load(f"{s3.address}/models/mine"), first_weights_at(f"{s3.address}/models/mine")
        with pytest.raises(BadInputError, match="holds a model already"):
            model.save(f"{s3.address}/models/mine")
    assert torch.equal(again.log_tilting(u, v), model.log_tilting(u, v))
    assert first.sha256 == first_of(model).sha256


class Canary:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_only_tensors_are_read_and_names_import_nothing(tmp_path):
    model, sung = model_of(spec()), tmp_path / "sung"
    content = content_of(model, {"state": {}, "param_groups": []}, 0, model.spec, "x")
    content["spec"]["encoder_u"] = {"kind": "os.system", "shape": [3], "plugin": "antigravity"}
    save_checkpoint(tmp_path / "named", content)
    before = set(sys.modules)
    first = first_weights_at(str(tmp_path / "named"))
    assert set(sys.modules) == before
    begin_with(build_model(spec()), first)
    (tmp_path / "pickled").mkdir()
    for written in (pickle.dumps(Canary(sung)), None):
        if written is None:
            torch.save(content | {"model": Canary(sung)}, tmp_path / "pickled" / "state.pt")
        else:
            (tmp_path / "pickled" / "state.pt").write_bytes(written)
        with pytest.raises(DamagedDataError, match=r"train\.init_from: .*state\.pt"):
            first_weights_at(str(tmp_path / "pickled"))
    assert not sung.exists()


def test_a_head_upon_another_program_is_not_taken(tmp_path):
    from pcl.encoders.frozen import trust_program

    shas = []
    for number in (1, 2):
        network = torch.nn.Linear(3, 4).requires_grad_(False)
        program = torch.export.export(network, (torch.zeros(2, 3),), dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch.export.save(program, tmp_path / f"{number}.pt2")
        shas.append(trust_program(tmp_path / f"{number}.pt2"))
    one, other = (
        spec(encoder_u={"kind": "frozen", "shape": [3], "dtype": "float32", "sha256": sha, "widths": [8]})
        for sha in shas
    )
    lines = begin_with(build_model(other, 9), first_of(model_of(one)))
    assert lines[0].startswith("encoder_u: 0 of 4 tensors")
    assert begin_with(build_model(one, 9), first_of(model_of(one)))[0].startswith("encoder_u: 4 of 4 tensors")


# runs


@pytest.fixture(scope="module")
def shards(make_shards):
    root, _ = make_shards(num_train=400, num_test=40, num_shards=8, record_pairs=25)
    return root


def config(shards, *overrides):
    sizes = ("num_train=400", "num_test=40", "num_modes=20")
    data = (f"data.shards={shards}", "data.num_shards=8", "data.record_pairs=25")
    settings = ("train.global_batch=40", "train.num_lanes=4", "train.epochs=3", "train.checkpoint_every=7")
    given = (*data, *(f"data.gaussian_process.{one}" for one in sizes), *settings, *overrides)
    return load_config(GAUSSIAN, given)


def run_to_the_end(config, folder, resume_from=None):
    session = Session(config, torch.device("cpu"), resume_from)
    begun = {name: value.clone() for name, value in session.state.model.state_dict().items()}
    moments = len(session.state.optimizer.state_dict()["state"])

    def commit(step, scalars, content):
        if content is not None:
            save_checkpoint(folder / f"checkpoint_{step:08d}", content)

    session.run(folder, commit)
    return begun, session.state.model.state_dict(), moments


@pytest.fixture
def source(shards, tmp_path):
    run_to_the_end(config(shards, "seed=5"), tmp_path / "source")
    return tmp_path / "source"


def test_a_training_begins_with_the_weights_of_a_run_and_a_new_optimiser(shards, tmp_path, source):
    given = config(shards, f"train.init_from={source}", "train.learning_rate=0.001")
    begun, _, moments = run_to_the_end(given, tmp_path / "alone")
    weights = load_checkpoint(source / "checkpoint_00000030")["model"]
    assert all(torch.equal(begun[name], value) for name, value in weights.items())
    assert moments == 0
    resumed = run_to_the_end(given, tmp_path / "again", tmp_path / "alone" / "checkpoint_00000014")
    for name, value in run_to_the_end(given, tmp_path / "alone")[1].items():
        assert torch.equal(resumed[1][name], value)


@pytest.mark.process
def test_all_workers_begin_with_them(shards, tmp_path, source):
    given = config(shards, f"train.init_from={source}", "train.precision=float64", "train.num_lanes=4")
    alone = run_to_the_end(given, tmp_path / "alone")
    for worker in run_workers(run_to_the_end, 2, given, tmp_path / "two"):
        for name, value in worker[0].items():
            np.testing.assert_array_equal(value, alone[0][name].numpy())
        for name, value in worker[1].items():
            np.testing.assert_allclose(value, alone[1][name].numpy(), rtol=0, atol=1e-10)


def test_weights_are_part_of_the_experiment_and_their_place_is_not(shards, tmp_path, source):
    given = config(shards, f"train.init_from={source}")
    plain, one = full_experiment(config(shards)), full_experiment(pinned(given))
    assert differing(plain, one) == ["train.init_from_sha256"]
    pcl.load(source).save(tmp_path / "saved")
    moved = config(shards, f"train.init_from={tmp_path / 'saved'}")
    assert full_experiment(pinned(moved)) == one
    older = config(shards, f"train.init_from={source / 'checkpoint_00000014'}")
    assert differing(one, full_experiment(pinned(older))) == ["train.init_from_sha256"]


def test_a_record_without_the_key_is_that_of_a_training_without_it(shards):
    wanted = experiment(config(shards))
    recorded = {key: value for key, value in wanted.items() if not key.startswith("train.init_from")}
    assert len(recorded) == len(wanted) - 1
    assert differing(recorded, wanted) == []


def test_a_run_keeps_its_first_weights(shards, tmp_path, source):
    """So it goes on where they are gone, and where the run they are of has gone on itself."""
    run = tmp_path / "run"
    given = pinned(config(shards, f"train.init_from={source}"), run)
    claim(run, full_experiment(given), "")
    keep_first_weights(given, run)
    sha256 = given.train.init_from_sha256
    written = (run / FIRST_FILE).read_bytes()
    keep_first_weights(given, run)
    assert (run / FIRST_FILE).read_bytes() == written
    save_checkpoint(source / "checkpoint_00000031", load_checkpoint(source / "checkpoint_00000007") | {"step": 31})
    assert first_weights(given, run).sha256 == sha256
    with pytest.raises(BadInputError, match=r"not those of train\.init_from_sha256=.*name the checkpoint"):
        first_weights(given)
    source.rename(tmp_path / "moved")
    assert pinned(config(shards, f"train.init_from={source}"), run).train.init_from_sha256 == sha256
    session = Session.of_run(given, torch.device("cpu"), run, None)
    assert session.experiment_hash == experiment_hash(full_experiment(given))
    weights = load_checkpoint(tmp_path / "moved" / "checkpoint_00000030")["model"]
    assert all(torch.equal(session.state.model.state_dict()[name], value) for name, value in weights.items())


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["train.init_from={tmp}/nothing"],
            r"train\.init_from: .*nothing does not exist: give a run, a checkpoint",
        ),
        (["train.init_from={source}", "model.embedding_dim=3"], "no tensor of .*checkpoint_00000030 has the name"),
        (["train.init_from={source}", "train.init_from_sha256=12ab"], "not those of train.init_from_sha256=12ab"),
    ],
)
def test_what_cannot_be_begun_with_is_refused_before_anything_is_trained(shards, tmp_path, source, overrides, said):
    given = config(shards, *(one.format(tmp=tmp_path, source=source) for one in overrides))
    with pytest.raises(BadInputError, match=said) as refused:
        prepare(given, 1)
    assert "\n" not in str(refused.value)


def test_a_hash_without_a_place_is_refused(shards):
    with pytest.raises(BadInputError, match="say where the weights are"):
        config(shards, "train.init_from_sha256=12ab")


def test_fit_begins_with_a_model_or_a_folder(tmp_path, capsys):
    u = np.random.default_rng(0).normal(size=(320, 3)).astype(np.float32)
    v = u[:, :2] + 0.1
    settings = {"settings_u": {"widths": [8]}, "settings_v": {"widths": [8]}, "batch": 32, "epochs": 1}
    model = pcl.fit(u, v, **settings, show=False)
    model.save(tmp_path / "model")
    still = {"learning_rate": 1e-12}
    found = [
        pcl.fit(u, v, **settings, **still, seed=1, init_from=given, validation=0.1)
        for given in (model, tmp_path / "model", str(tmp_path / "model"))
    ]
    assert "encoder_u: 4 of 4 tensors are those of the given model" in capsys.readouterr().err
    for one in found:
        for name, value in one.state_dict().items():
            if ".layers." in name:
                torch.testing.assert_close(value, model.state_dict()[name], rtol=0, atol=1e-9)
    assert "linear" in ENCODERS
    with pytest.raises(BadInputError, match="no tensor of the given model"):
        pcl.fit(u, v, **settings | {"encoder_u": "linear", "encoder_v": "linear", "settings_u": {}, "settings_v": {}},
                init_from=model, show=False)  # fmt: skip
