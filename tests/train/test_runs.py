"""Run directories: whose name it is, which checkpoints count, and the trained model comes back as it was saved."""

import json
import pickle
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pcl
from pcl.config.identity import experiment_hash
from pcl.encoders import ENCODERS, EncoderKind
from pcl.encoders.build import ModelSpec, build_model
from pcl.errors import BadInputError, DamagedDataError
from pcl.model import PairModel
from pcl.storage.place import Place, names, place, read_bytes, write_bytes
from pcl.train.checkpoint import checkpoint_content, load_checkpoint, restore, save_checkpoint
from pcl.train.loop import Optimisation, TrainingState, make_optimizer
from pcl.train.runs import checkpoints, claim, lost_checkpoints, mend_record, recorded_experiment, sweep
from tests.modest import modest
from tests.s3 import S3, SLOW_DOWN, s3_server

EXPERIMENT = {"seed": 0, "train.epochs": 3, "evaluated": [1, 5], "model.standardise": True}
SNAPSHOT = "checkpoint_manager_snapshot.json"


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


# names


def test_a_new_run_gets_its_configuration_and_provenance(tmp_path):
    run = tmp_path / "storage" / "run"
    assert recorded_experiment(run, EXPERIMENT) is None
    assert not run.exists()
    claim(run, EXPERIMENT, "seed: 0\n")
    assert sorted(contents(run)) == ["config.yaml", "provenance.json"]
    assert (run / "config.yaml").read_text() == "seed: 0\n"
    provenance = json.loads((run / "provenance.json").read_text())
    assert provenance["experiment"] == EXPERIMENT
    assert provenance["versions"]["torch"] == torch.__version__


def test_the_same_experiment_is_accepted_again_and_keeps_its_files(tmp_path):
    claim(tmp_path, EXPERIMENT, "seed: 0\n")
    before = contents(tmp_path)
    assert recorded_experiment(tmp_path, EXPERIMENT) == EXPERIMENT
    claim(tmp_path, EXPERIMENT, "seed: 0\nworkers: {num_workers: 8}\n")
    assert contents(tmp_path) == before


def test_another_experiment_is_refused_with_the_differing_keys(tmp_path):
    claim(tmp_path, EXPERIMENT, "seed: 0\n")
    before = contents(tmp_path)
    other = EXPERIMENT | {"seed": 1, "train.epochs": 4, "new": 0}
    for use in (lambda: recorded_experiment(tmp_path, other), lambda: claim(tmp_path, other, "seed: 1\n")):
        with pytest.raises(BadInputError, match=r"differing: new, seed, train\.epochs\): choose another name"):
            use()
    assert contents(tmp_path) == before


def test_a_foreign_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("do not touch")
    with pytest.raises(BadInputError, match=f"{tmp_path}.*not a run"):
        claim(tmp_path, EXPERIMENT, "seed: 0\n")
    assert contents(tmp_path) == {"thesis.tex": b"do not touch"}


def test_a_file_with_the_name_of_the_run_is_refused(tmp_path):
    (tmp_path / "run").write_text("do not touch")
    with pytest.raises(BadInputError, match=str(tmp_path / "run")):
        claim(tmp_path / "run", EXPERIMENT, "seed: 0\n")


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", "null", '{"experiment": 3}'])
def test_a_garbled_provenance_is_refused(tmp_path, text):
    (tmp_path / "provenance.json").write_text(text)
    with pytest.raises(DamagedDataError, match=r"provenance\.json"):
        claim(tmp_path, EXPERIMENT, "seed: 0\n")
    assert contents(tmp_path) == {"provenance.json": text.encode()}


def test_the_hash_sees_values_and_not_their_order():
    assert experiment_hash(dict(reversed(EXPERIMENT.items()))) == experiment_hash(EXPERIMENT)
    hashes = {experiment_hash(EXPERIMENT | {key: "other"}) for key in EXPERIMENT}
    assert len(hashes | {experiment_hash(EXPERIMENT)}) == len(EXPERIMENT) + 1


# checkpoints


def commit(run: Path, *names: str) -> None:
    """Write the snapshot that Ray Train keeps of its committed checkpoints."""
    (run / SNAPSHOT).write_text(json.dumps(record_of(*names)))


def record_of(*names: str, **changed: Any) -> dict[str, Any]:
    """Return Ray Train's record of some checkpoints, as it writes it."""
    results = [{"version": 0, "checkpoint_dir_name": name, "metrics": {"loss": float("nan")}} for name in names]
    record = {
        "ray_version": "2.60.0",
        "checkpoint_results": results,
        "checkpoint_report_indices": [*range(3, 3 + len(names))],
        "latest_checkpoint_result": results[-1] if results else None,
        "pending_training_results": [],
        "pending_validation_specs": [],
        "current_report_index": 3 + len(names),
        "validated_checkpoint_dir_names": [],
        "timed_out_validation_checkpoint_dir_names": [],
        "failed_validation_checkpoint_dir_names": [],
    }
    return record | changed


def touch_checkpoints(run: Path, *steps: int) -> list[Path]:
    directories = [run / f"checkpoint_{step:08d}" for step in steps]
    for directory in directories:
        directory.mkdir()
        (directory / "state.pt").touch()
    return directories


def test_checkpoints_are_listed_oldest_first_without_incomplete_ones(tmp_path):
    nine, ten, thousand = touch_checkpoints(tmp_path, 9, 10, 1000)
    (tmp_path / "checkpoint_00002000").mkdir()
    (tmp_path / "checkpoint_00003000").mkdir()
    (tmp_path / "checkpoint_00003000" / ".state.pt.17").touch()
    (tmp_path / "tensorboard").mkdir()
    assert checkpoints(tmp_path) == [nine, ten, thousand]


def test_only_committed_checkpoints_count(tmp_path):
    old, new, _ = touch_checkpoints(tmp_path, 100, 200, 300)
    commit(tmp_path, new.name, old.name, "checkpoint_00000050")
    assert checkpoints(tmp_path) == [old, new]
    commit(tmp_path)
    assert checkpoints(tmp_path) == []


def save_some(run: Path, *steps: int) -> list[str]:
    for step in steps:
        save(run / f"checkpoint_{step:08d}", make_spec(), seed=step)
    return [f"checkpoint_{step:08d}" for step in steps]


def ray_goes_on_from(run: Path) -> tuple[list[str], str]:
    """Return what Ray Train reads in its record: all checkpoints, and the newest."""
    ray_train = pytest.importorskip("ray.train.v2._internal.execution.checkpoint.checkpoint_manager")
    state = ray_train._CheckpointManagerState.parse_obj(json.loads((run / SNAPSHOT).read_text()))
    names = [result.checkpoint_dir_name for result in state.checkpoint_results]
    assert len(names) == len(state.checkpoint_report_indices) <= state.current_report_index
    return names, state.latest_checkpoint_result.checkpoint_dir_name


def test_half_written_checkpoints_are_forgotten_and_others_kept(tmp_path):
    names = save_some(tmp_path, 1, 2, 3)
    commit(tmp_path, *names)
    before = (tmp_path / SNAPSHOT).read_bytes()
    assert mend_record(tmp_path) == []
    assert (tmp_path / SNAPSHOT).read_bytes() == before
    content = (tmp_path / names[2] / "state.pt").read_bytes()
    (tmp_path / names[2] / "state.pt").write_bytes(content[: len(content) // 2])
    (tmp_path / names[0] / "state.pt").unlink()
    assert mend_record(tmp_path) == [f"{name} is half written or gone: it is left out" for name in (names[0], names[2])]
    assert ray_goes_on_from(tmp_path) == ([names[1]], names[1])
    assert mend_record(tmp_path) == mend_record(tmp_path / "nowhere") == []


def test_names_in_the_record_of_checkpoints_that_lead_elsewhere_are_forgotten(tmp_path):
    run, name = tmp_path / "runs" / "run", "checkpoint_00000001"
    for folder in (run / name, tmp_path / "elsewhere", tmp_path / "runs"):
        save(folder, make_spec(), seed=0)
    strays = ["../../elsewhere", str(tmp_path / "elsewhere"), "..", f"../run/{name}", f"{name}/", "\x1b]0;title\x07"]
    commit(run, name, *strays)
    lines = mend_record(run)
    assert [line.split(" is half")[0] for line in lines] == [*strays[:-1], r"\x1b]0;title\x07"]
    assert ray_goes_on_from(run) == ([name], name)
    stray = {"checkpoint_dir_name": strays[0], "metrics": {}}
    (run / SNAPSHOT).write_text(json.dumps(record_of(name, latest_checkpoint_result=stray)))
    assert mend_record(run) == []
    assert ray_goes_on_from(run) == ([name], name)


RECORDS = {
    "lost": None,
    "empty": "",
    "half": '{"ray_version": "2.60.0", "checkpoint_results": [',
    "nested": "[" * 100_000,
    "another kind": "[]",
    "a key missing": json.dumps({key: value for key, value in record_of().items() if key != "current_report_index"}),
    "an index no number": json.dumps(record_of("checkpoint_00000200", checkpoint_report_indices=["x"])),
    "all gone": json.dumps(record_of("checkpoint_00000700", "checkpoint_00000800")),
}


@pytest.mark.parametrize("text", RECORDS.values(), ids=RECORDS)
def test_a_lost_or_damaged_record_is_written_anew_from_the_checkpoints_that_are_whole(tmp_path, text):
    claim(tmp_path, EXPERIMENT, "seed: 0\n")
    names = save_some(tmp_path, 100, 200, 300)
    (tmp_path / "checkpoint_00000400").mkdir()
    (tmp_path / "checkpoint_00000400" / "state.pt").write_bytes(b"half")
    if text is not None:
        (tmp_path / SNAPSHOT).write_text(text)
    if text != RECORDS["all gone"]:
        assert [path.name for path in checkpoints(tmp_path)] == names
    lines = mend_record(tmp_path)
    assert all(line.isprintable() for line in lines)
    assert lines[-1].endswith("it is left out" if text == RECORDS["all gone"] else "with all 3 whole checkpoints")
    assert ray_goes_on_from(tmp_path) == (names, names[-1])
    assert [path.name for path in checkpoints(tmp_path)] == names
    assert mend_record(tmp_path) == []


@pytest.mark.parametrize(
    "changed",
    [
        {"checkpoint_report_indices": [5, 4]},
        {"checkpoint_report_indices": [5, 5]},
        {"checkpoint_report_indices": [5]},
        {"current_report_index": 2},
        {"latest_checkpoint_result": None},
    ],
    ids=str,
)
def test_a_record_that_ray_train_could_not_go_on_from_is_put_right(tmp_path, changed):
    names = save_some(tmp_path, 100, 200)
    (tmp_path / SNAPSHOT).write_text(json.dumps(record_of(*names) | changed))
    assert mend_record(tmp_path) == []
    assert ray_goes_on_from(tmp_path) == (names, names[-1])


def test_a_committed_checkpoint_that_is_gone_is_named(tmp_path):
    names = save_some(tmp_path, 100, 200, 300)
    commit(tmp_path, *names)
    assert lost_checkpoints(tmp_path) == []
    for name in names[1:]:
        (tmp_path / name / "state.pt").unlink()
    assert lost_checkpoints(tmp_path) == [names[2], names[1]]
    with pytest.warns(UserWarning, match="checkpoint_00000300, checkpoint_00000200 .* gone: .*checkpoint_00000100 is"):
        pcl.load(tmp_path)


def test_a_committed_checkpoint_that_is_half_written_is_named(tmp_path):
    names = save_some(tmp_path, 100, 200)
    commit(tmp_path, *names)
    path = tmp_path / names[1] / "state.pt"
    path.write_bytes(path.read_bytes()[:1000])
    assert lost_checkpoints(tmp_path) == [names[1]]
    with pytest.warns(UserWarning, match="checkpoint_00000200 is half written"):
        pcl.load(tmp_path)


def test_checkpoints_are_in_the_order_of_their_steps(tmp_path):
    touch_checkpoints(tmp_path, 99_999_999, 100_000_000, 9)
    assert [path.name for path in checkpoints(tmp_path)][-1] == "checkpoint_100000000"


def test_a_run_without_checkpoints_has_none(tmp_path):
    assert checkpoints(tmp_path) == checkpoints(tmp_path / "nowhere") == []


# models


def make_spec(dtype: str = "float32", tilting: str = "inner_product") -> ModelSpec:
    return {
        "embedding_dim": 4,
        "encoder_u": {"kind": "linear", "shape": [3], "scale_factor": 0.5, "mean": [1.0, 2, 3], "std": [2.0, 1, 4]},
        "encoder_v": {"kind": "linear", "shape": [2, 3], "mean": 0.25, "std": 3.0},
        "tilting": tilting,
        "temperature": {"initial": 0.7, "learned": True, "minimum": 0.1, "maximum": 10.0},
        "dtype": dtype,
    }


def save(directory: Path, spec: ModelSpec, seed: int) -> PairModel:
    """Save a model that a step of training has taken away from its first weights."""
    model = build_model(spec, seed)
    step = int(directory.name.removeprefix("checkpoint_")) if directory.name.startswith("checkpoint_") else 1
    state = TrainingState(model, make_optimizer(model, Optimisation(num_steps=1, learning_rate=0.1)), step=step)
    model.log_tilting(*make_pairs()).sum().backward()
    state.optimizer.step()
    save_checkpoint(directory, checkpoint_content(state, spec, "hash"))
    return model


def make_pairs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(5, 3, generator=generator), torch.randn(7, 2, 3, generator=generator)


def by_hand(model: PairModel, u: torch.Tensor, v: torch.Tensor) -> np.ndarray:
    """Return the log tilting of a linear model with numpy, from its two matrices and its temperature."""
    matrices = [value.double().numpy() for name, value in model.state_dict().items() if name.endswith("weight")]
    embedding_u = (u.double().numpy() * 0.5 - [1, 2, 3]) / [2, 1, 4] @ matrices[0].T
    embedding_v = ((v.double().numpy() - 0.25) / 3).reshape(len(v), 6) @ matrices[1].T
    return embedding_u @ embedding_v.T / np.exp(model.temperature.log_temperature.item())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("tilting", ["cosine", "inner_product", "squared_distance", "potentials"])
@pytest.mark.parametrize("where", ["run", "checkpoint"])
def test_a_loaded_model_is_the_saved_one(tmp_path, dtype, tilting, where):
    save(tmp_path / "checkpoint_00000001", make_spec(dtype, tilting), seed=8)
    saved = save(tmp_path / "checkpoint_00000002", make_spec(dtype, tilting), seed=9)
    loaded = pcl.load(str(tmp_path) if where == "run" else tmp_path / "checkpoint_00000002")
    u, v = make_pairs()
    found = loaded.log_tilting(u, v)
    assert found.dtype == getattr(torch, dtype)
    assert torch.equal(found, saved.log_tilting(u, v))
    if tilting == "inner_product":
        np.testing.assert_allclose(found, by_hand(saved, u, v), rtol=1e-12 if dtype == "float64" else 1e-4)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_loading_leaves_the_random_numbers_alone(tmp_path):
    save(tmp_path, make_spec(), seed=9)
    state = torch.get_rng_state()
    pcl.load(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_newest_committed_checkpoint_of_a_run_is_loaded(tmp_path):
    committed = save(tmp_path / "checkpoint_00000001", make_spec(), seed=8)
    save(tmp_path / "checkpoint_00000002", make_spec(), seed=9)
    commit(tmp_path, "checkpoint_00000001")
    assert torch.equal(pcl.load(tmp_path).log_tilting(*make_pairs()), committed.log_tilting(*make_pairs()))


@pytest.mark.parametrize("name", ["", "nowhere", "checkpoint_00000001", "file"])
def test_where_there_is_no_checkpoint_it_says_so(tmp_path, name):
    (tmp_path / "checkpoint_00000001").mkdir()
    (tmp_path / "file").touch()
    what = "does not exist" if name == "nowhere" else "holds no checkpoint"
    with pytest.raises(BadInputError, match=f"{tmp_path / name} {what}"):
        pcl.load(tmp_path / name)


def flip(content: bytes, part: bytes) -> bytes:
    """Flip a bit in the middle of a part of some bytes."""
    assert content.count(part) == 1
    position = content.index(part) + len(part) // 2
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


DAMAGES: dict[str, Callable[[bytes, bytes], bytes]] = {
    "empty": lambda content, weight: b"",
    "garbage": lambda content, weight: b"\x80\x02" + bytes(range(30)),
    "half": lambda content, weight: content[: len(content) // 2],
    "last bytes missing": lambda content, weight: content[:-30],
    "bit of a name": lambda content, weight: flip(content, b"encoder_u.1.map.weight"),
    "bit of a key": lambda content, weight: flip(content, b"config_hash"),
    "bit of a weight": flip,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_noticed(tmp_path, damage):
    path = tmp_path / "checkpoint_00000001" / "state.pt"
    model = save(path.parent, make_spec(), seed=8)
    weight = model.state_dict()["encoder_u.1.map.weight"].numpy().tobytes()
    path.write_bytes(DAMAGES[damage](path.read_bytes(), weight))
    with pytest.raises(DamagedDataError, match=str(path)):
        pcl.load(tmp_path)


@pytest.mark.parametrize(
    "content",
    [{}, [], 3, {"spec": {}, "model": {}}, {"spec": make_spec(), "model": {}}],
    ids=["no key", "list", "number", "no encoder", "no weight"],
)
def test_a_file_of_something_else_is_noticed(tmp_path, content):
    torch.save(content, tmp_path / "state.pt")
    with pytest.raises(DamagedDataError, match=r"state\.pt"):
        pcl.load(tmp_path)


def change_content(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Change what a checkpoint after 7 steps holds, as a program would that wrote it whole."""
    directory = tmp_path / "checkpoint_00000007"
    save(directory, make_spec(), seed=8)
    content = torch.load(directory / "state.pt", weights_only=True)
    for one in content["optimizer"]["state"].values():
        one["step"] = torch.tensor(7.0)
    change(content)
    torch.save(content, directory / "state.pt")
    return directory


def state_of_seven_steps() -> TrainingState:
    model = build_model(make_spec(), 0)
    return TrainingState(model, make_optimizer(model, Optimisation(num_steps=9, learning_rate=0.1)))


NOT_FINITE = torch.tensor([[float("nan"), 0.0, 0.0]] * 4)
WEIGHT = "encoder_u.1.map.weight"
LIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "step a text": lambda c: c.update(step="x"),
    "step negative": lambda c: c.update(step=-5),
    "step large": lambda c: c.update(step=10**12),
    "step another": lambda c: c.update(step=8),
    "step true": lambda c: c.update(step=True),
    "no optimiser": lambda c: c.update(optimizer={}),
    "optimiser empty": lambda c: c["optimizer"].update(state={}),
    "optimiser of fewer": lambda c: c["optimizer"]["state"].pop(0),
    "optimiser of more": lambda c: c["optimizer"]["state"].update({9: c["optimizer"]["state"][0]}),
    "moments of another shape": lambda c: c["optimizer"]["state"][0].update(exp_avg=torch.zeros(4)),
    "moments of another dtype": lambda c: c["optimizer"]["state"][0].update(exp_avg=torch.zeros(4, 3).double()),
    "moments not finite": lambda c: c["optimizer"]["state"][0].update(exp_avg=NOT_FINITE),
    "second moments infinite": lambda c: c["optimizer"]["state"][0].update(exp_avg_sq=1 / torch.zeros(4, 3)),
    "second moments negative": lambda c: c["optimizer"]["state"][0].update(exp_avg_sq=-torch.ones(4, 3)),
    "moments no tensors": lambda c: c["optimizer"]["state"][0].update(exp_avg=3),
    "moments of other steps": lambda c: c["optimizer"]["state"][0].update(step=torch.tensor(8.0)),
    "hash no text": lambda c: c.update(config_hash=3),
    "weights no tensors": lambda c: c["model"].update({WEIGHT: 3}),
    "weights of another dtype": lambda c: c["model"].update({WEIGHT: torch.zeros(4, 3).double()}),
    "weights of another shape": lambda c: c["model"].update({WEIGHT: torch.zeros(4, 4)}),
    "weights not finite": lambda c: c["model"].update({WEIGHT: NOT_FINITE}),
    "weights unnamed": lambda c: c["model"].pop(WEIGHT),
    "weights of more": lambda c: c["model"].update(other=torch.zeros(3)),
}
LIES_OF_SPEC: dict[str, Callable[[dict[str, Any]], object]] = {
    "embedding_dim large": lambda s: s.update(embedding_dim=10**8),
    "embedding_dim beyond counting": lambda s: s.update(embedding_dim=10**30),
    "embedding_dim negative": lambda s: s.update(embedding_dim=-4),
    "shape large": lambda s: s["encoder_u"].update(shape=[10**6, 10**6]),
    "shape a text": lambda s: s["encoder_u"].update(shape="3"),
    "mean of another shape": lambda s: s["encoder_u"].update(mean=[1.0, 2.0]),
    "one_hot of many": lambda s: s.update(embedding_dim=10**6, encoder_v={"kind": "one_hot", "shape": []}),
    "deep": lambda s: s.update(
        encoder_v={"kind": "field", "shape": [2, 3, 16, 16], "width": 4, "depth": 10**12},
    ),
    "very deep": lambda s: s.update(
        encoder_v={"kind": "transformer", "shape": [50, 2], "lift": "none", "positions_per_token": 10, "width": 16}
        | {"num_heads": 2, "time_step": 0.1, "depth": 10**9}
    ),
    "dtype a function": lambda s: s.update(dtype="load"),
    "dtype of integers": lambda s: s.update(dtype="int64"),
    "no temperature": lambda s: s.pop("temperature"),
    "temperature 0": lambda s: s["temperature"].update(minimum=0.0, initial=0.0),
    "encoder nothing": lambda s: s.update(encoder_u=None),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_checkpoint_that_cannot_be_is_not_resumed_from(tmp_path, lie):
    restore(state_of_seven_steps(), change_content(tmp_path, lambda content: None), "hash", 9)
    state = state_of_seven_steps()
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    with pytest.raises(DamagedDataError, match=r"state\.pt is no checkpoint that this program wrote") as noticed:
        restore(state, change_content(tmp_path, LIES[lie]), "hash", 9)
    assert str(noticed.value).isprintable()
    assert all(torch.equal(value, before[name]) for name, value in state.model.state_dict().items())
    assert state.step == 0


def test_a_checkpoint_beyond_the_end_of_the_training_is_not_resumed_from(tmp_path):
    directory = change_content(tmp_path, lambda content: None)
    with pytest.raises(DamagedDataError, match="it is of step 7, the training has 6"):
        restore(state_of_seven_steps(), directory, "hash", 6)


def test_options_of_the_optimiser_are_those_of_the_configuration(tmp_path):
    directory = change_content(tmp_path, lambda c: c["optimizer"]["param_groups"][0].update(weight_decay=9.0))
    state = state_of_seven_steps()
    restore(state, directory, "hash", 9)
    assert [group["weight_decay"] for group in state.optimizer.param_groups] == [0.0, 0.0]
    moments = torch.load(directory / "state.pt", weights_only=True)["optimizer"]["state"]
    for number, found in state.optimizer.state_dict()["state"].items():
        assert torch.equal(found["exp_avg"], moments[number]["exp_avg"])


@pytest.mark.parametrize("lie", LIES_OF_SPEC)
def test_a_specification_that_does_not_fit_the_weights_builds_nothing(tmp_path, lie):
    directory = change_content(tmp_path, lambda content: LIES_OF_SPEC[lie](content["spec"]))
    began = time.monotonic()
    with pytest.raises((DamagedDataError, BadInputError), match=r"state\.pt") as noticed:
        pcl.load(directory)
    assert time.monotonic() - began < 5
    assert str(noticed.value).isprintable()
    assert "delete" not in str(noticed.value)


def test_an_encoder_of_another_version_is_named_and_nobody_is_told_to_delete(tmp_path):
    directory = change_content(tmp_path, lambda content: content["spec"]["encoder_u"].update(kind="oracle"))
    with pytest.raises(
        BadInputError, match=r"state\.pt .*encoder 'oracle' is not known.*name the plugin that.*use the version"
    ) as noticed:
        pcl.load(directory)
    assert "delete" not in str(noticed.value)


def many_times(content: dict[str, Any]) -> None:
    """Refer to lists of references to lists ...: few bytes, and 10^30 values for who follows them all."""
    values: list[Any] = [0]
    for _ in range(30):
        values = [values] * 10
    content["optimizer"]["more"] = values


SPARSE = torch.sparse_coo_tensor(torch.zeros(2, 0).long(), torch.zeros(0), (10**5, 10**5), check_invariants=True)
BOMBS: dict[str, Callable[[dict[str, Any]], object]] = {
    "one value expanded": lambda c: c["model"].update({WEIGHT: torch.zeros(1).expand(10**5, 10**5)}),
    "values many times": many_times,
    "sparse": lambda c: c["model"].update({WEIGHT: SPARSE}),
    "without values": lambda c: c["model"].update({WEIGHT: torch.zeros(4, 3, device="meta")}),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_few_bytes_do_not_become_many(tmp_path, bomb):
    directory = change_content(tmp_path, BOMBS[bomb])
    with modest(), pytest.raises(DamagedDataError, match=r"state\.pt"):
        pcl.load(directory)


class Measured(torch.nn.Linear):
    """An encoder of a plugin that looks at its own values while it is built."""

    def __init__(self, shape: list[int], embedding_dim: int) -> None:
        super().__init__(shape[0], embedding_dim, bias=False)
        self.size = self.weight.square().sum().item()


def test_an_encoder_that_cannot_be_built_without_memory_is_built_with_it(tmp_path, monkeypatch):
    monkeypatch.setitem(ENCODERS, "measured", EncoderKind(Measured))
    spec = make_spec()
    spec["encoder_u"] = {"kind": "measured", "shape": [3]}
    saved = save(tmp_path, spec, seed=8)
    assert torch.equal(pcl.load(tmp_path).log_tilting(*make_pairs()), saved.log_tilting(*make_pairs()))


@pytest.mark.parametrize("key", ["encoder_u", "model"])
def test_a_key_of_another_version_is_named(tmp_path, key):
    """It is no damage: nobody is told to delete."""

    def change(content: dict[str, Any]) -> None:
        spec = content["spec"]
        (spec if key == "model" else spec[key])["of tomorrow\x1b"] = 1

    with pytest.raises(BadInputError, match=r"state\.pt .*'of tomorrow\\x1b'.* is not known") as noticed:
        pcl.load(change_content(tmp_path, change))
    assert str(noticed.value).isprintable()


def test_storage_that_may_not_be_read_is_no_damage(tmp_path, monkeypatch):
    save(tmp_path, make_spec(), seed=8)

    def refuse(self: Path, *arguments: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionError):
        pcl.load(tmp_path)


def test_a_compressed_checkpoint_is_not_unpacked(tmp_path):
    """A few bytes of it would fill the memory."""
    save(tmp_path, make_spec(), seed=8)
    with zipfile.ZipFile(tmp_path / "state.pt") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "state.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(DamagedDataError, match=r"state\.pt cannot be read"):
        pcl.load(tmp_path)


def test_a_storage_longer_than_its_record_is_not_read(tmp_path):
    save(tmp_path, make_spec(), seed=8)
    with zipfile.ZipFile(tmp_path / "state.pt") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "state.pt", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content[: len(content) // 2] if "/data/" in name else content)
    with pytest.raises(DamagedDataError, match=r"state\.pt cannot be read"):
        pcl.load(tmp_path)


class Canary:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickled_object_is_refused_and_not_executed(tmp_path):
    sung = tmp_path / "sung"
    pickle.loads(pickle.dumps(Canary(sung)))
    assert sung.exists()
    sung.unlink()

    save(tmp_path, make_spec(), seed=8)
    content = torch.load(tmp_path / "state.pt", weights_only=True)
    torch.save(content | {"extra": Canary(sung)}, tmp_path / "state.pt")
    with pytest.raises(DamagedDataError, match=r"state\.pt"):
        pcl.load(tmp_path)
    assert not sung.exists()


def test_a_checkpoint_that_was_never_committed_does_not_count(tmp_path):
    run = tmp_path / "run"
    claim(run, {"seed": 0}, "seed: 0\n")
    (run / "checkpoint_00000100").mkdir()
    (run / "checkpoint_00000100" / "state.pt").write_bytes(b"uploaded when the run was interrupted")
    assert checkpoints(run) == []
    with pytest.raises(BadInputError, match="holds no checkpoint"):
        pcl.load(run)


# storage in S3


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


@pytest.fixture
def run(s3, request) -> Place:
    """A run of this test's own, in S3."""
    return place(f"{s3.address}/runs") / str(abs(hash(request.node.name)))


def test_a_name_in_s3_belongs_to_one_experiment(run):
    assert recorded_experiment(run, EXPERIMENT) is None
    claim(run, EXPERIMENT, "seed: 0\n")
    assert names(run) == ["config.yaml", "provenance.json"]
    assert read_bytes(run / "config.yaml") == b"seed: 0\n"
    before = read_bytes(run / "provenance.json")
    assert json.loads(before)["experiment"] == EXPERIMENT
    claim(run, EXPERIMENT, "seed: 0\nworkers: {num_workers: 8}\n")
    with pytest.raises(BadInputError, match=r"the run in s3://bucket/runs/\d+ has another.*differing: seed\)"):
        claim(run, EXPERIMENT | {"seed": 1}, "seed: 1\n")
    assert read_bytes(run / "config.yaml") == b"seed: 0\n"
    assert read_bytes(run / "provenance.json") == before


def test_what_is_no_run_in_s3_is_left_alone(run):
    write_bytes(run / "thesis.tex", b"do not touch")
    with pytest.raises(BadInputError, match="exists and is not a run"):
        claim(run, EXPERIMENT, "seed: 0\n")
    assert names(run) == ["thesis.tex"]
    write_bytes(run / "other" / "provenance.json", b"{")
    with pytest.raises(DamagedDataError, match=r"provenance\.json cannot be read"):
        claim(run / "other", EXPERIMENT, "seed: 0\n")


def test_checkpoints_in_s3_count_when_they_are_committed(run):
    claim(run, EXPERIMENT, "seed: 0\n")
    for step in (9, 10, 1000):
        write_bytes(run / f"checkpoint_{step:08d}" / "state.pt", b"")
    write_bytes(run / "checkpoint_00002000" / "other.pt", b"")
    assert checkpoints(run) == []
    committed = (f"checkpoint_{step:08d}" for step in (10, 9, 2000))
    write_bytes(run / SNAPSHOT, json.dumps(record_of(*committed)).encode())
    assert checkpoints(run) == [run / "checkpoint_00000009", run / "checkpoint_00000010"]
    write_bytes(run / SNAPSHOT, b'{"checkpoint_results": [')
    assert checkpoints(run) == [], "none of them is whole"


def upload(tmp_path: Path, directory: Place, seed: int) -> PairModel:
    model = save(tmp_path / directory.name, make_spec(), seed)
    write_bytes(directory / "state.pt", (tmp_path / directory.name / "state.pt").read_bytes())
    return model


@pytest.mark.parametrize("what", [str, lambda path: path], ids=["address", "place"])
def test_a_model_is_loaded_from_s3(run, tmp_path, what):
    upload(tmp_path, run / "checkpoint_00000001", seed=8)
    saved = upload(tmp_path, run / "checkpoint_00000002", seed=9)
    u, v = make_pairs()
    assert torch.equal(pcl.load(what(run)).log_tilting(u, v), saved.log_tilting(u, v))
    assert torch.equal(pcl.load(what(run / "checkpoint_00000002")).log_tilting(u, v), saved.log_tilting(u, v))
    with pytest.raises(BadInputError, match="does not exist"):
        pcl.load(what(run / "nowhere"))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_in_s3_is_noticed(run, tmp_path, damage):
    model = upload(tmp_path, run / "checkpoint_00000001", seed=8)
    path = run / "checkpoint_00000001" / "state.pt"
    weight = model.state_dict()["encoder_u.1.map.weight"].numpy().tobytes()
    write_bytes(path, DAMAGES[damage](read_bytes(path), weight))
    with pytest.raises(DamagedDataError, match=str(path)):
        pcl.load(run)


def test_storage_that_refuses_is_neither_a_new_name_nor_damage(s3, run, tmp_path):
    """A remedy such as deleting the checkpoint would be wrong, and training from the start again worse."""
    claim(run, EXPERIMENT, "seed: 0\n")
    upload(tmp_path, run / "checkpoint_00000001", seed=8)
    s3.refusal = SLOW_DOWN
    try:
        for use in (
            lambda: recorded_experiment(run, EXPERIMENT),
            lambda: claim(run, EXPERIMENT, ""),
            lambda: checkpoints(run),
            lambda: pcl.load(run),
            lambda: load_checkpoint(run / "checkpoint_00000001"),
        ):
            with pytest.raises(OSError, match=r"request rate|Service Unavailable"):
                use()
    finally:
        s3.refusal = None


def test_a_checkpoint_on_a_full_disk_is_an_os_error_and_leaves_nothing(tmp_path, monkeypatch):
    """It is then tried again."""
    save(tmp_path, make_spec(), seed=8)
    before = contents(tmp_path)
    real = Path.open

    def full(self: Path, mode: str = "r", *arguments: Any, **keywords: Any) -> Any:
        return real(Path("/dev/full") if mode == "wb" else self, mode, *arguments, **keywords)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, make_spec(), seed=9)
    monkeypatch.undo()
    assert contents(tmp_path) == before


def test_what_killed_processes_left_is_swept_and_what_counts_stays(tmp_path):
    run = tmp_path / "run"
    for step in (10, 20, 30, 40):
        save(run / f"checkpoint_{step:08d}", make_spec(), seed=step)
    (run / "checkpoint_00000050").mkdir()
    commit(run, "checkpoint_00000020", "checkpoint_00000030")
    left = [run / f".progress.json.{'a' * 32}", run / "checkpoint_00000030" / f".state.pt.{'0' * 32}"]
    kept = [run / ".mine", run / f".progress.json.{'g' * 32}", run / "checkpoint_best" / f".x.{'a' * 32}"]
    kept[-1].parent.mkdir()
    for path in (*left, *kept):
        path.touch()
    sweep(run)
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in kept)
    found = sorted(int(path.name[-8:]) for path in run.glob("checkpoint_0*"))
    assert found == [20, 30, 40, 50], "the newest is not committed yet"
