"""Run directories: whose name it is, which checkpoints count, and the trained model comes back as it was saved."""

import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pcl
from pcl.errors import BadInputError, DamagedDataError
from pcl.model import ModelSpec, PairModel, build_model
from pcl.runs import check_name, checkpoints, claim, experiment_hash, forget_half_written, sweep
from pcl.storage import Place, names, place, read_bytes, write_bytes
from pcl.train.checkpoint import checkpoint_content, load_checkpoint, save_checkpoint
from pcl.train.loop import Optimisation, TrainingState, make_optimizer
from tests.s3 import S3, SLOW_DOWN, s3_server

EXPERIMENT = {"seed": 0, "train.epochs": 3, "evaluated": [1, 5], "model.standardise": True}
SNAPSHOT = "checkpoint_manager_snapshot.json"


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


# names


def test_a_new_run_gets_its_configuration_and_provenance(tmp_path):
    run = tmp_path / "storage" / "run"
    assert check_name(run, EXPERIMENT) is False
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
    assert check_name(tmp_path, EXPERIMENT) is True
    claim(tmp_path, EXPERIMENT, "seed: 0\nworkers: {num_workers: 8}\n")
    assert contents(tmp_path) == before


def test_another_experiment_is_refused_with_the_differing_keys(tmp_path):
    claim(tmp_path, EXPERIMENT, "seed: 0\n")
    before = contents(tmp_path)
    other = EXPERIMENT | {"seed": 1, "train.epochs": 4, "new": 0}
    for use in (lambda: check_name(tmp_path, other), lambda: claim(tmp_path, other, "seed: 1\n")):
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
    with pytest.raises(BadInputError, match=r"provenance\.json"):
        claim(tmp_path, EXPERIMENT, "seed: 0\n")
    assert contents(tmp_path) == {"provenance.json": text.encode()}


def test_the_hash_sees_values_and_not_their_order():
    assert experiment_hash(dict(reversed(EXPERIMENT.items()))) == experiment_hash(EXPERIMENT)
    hashes = {experiment_hash(EXPERIMENT | {key: "other"}) for key in EXPERIMENT}
    assert len(hashes | {experiment_hash(EXPERIMENT)}) == len(EXPERIMENT) + 1


# checkpoints


def commit(run: Path, *names: str) -> None:
    """Write the snapshot that Ray Train keeps of its committed checkpoints."""
    results = [{"checkpoint_dir_name": name, "metrics": {}} for name in names]
    (run / SNAPSHOT).write_text(json.dumps({"ray_version": "2.60.0", "checkpoint_results": results}))


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


def test_half_written_checkpoints_are_forgotten_and_others_kept(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path / f"checkpoint_0000000{step}", make_spec(), seed=step)
    names = [f"checkpoint_0000000{step}" for step in (1, 2, 3)]
    results = [{"checkpoint_dir_name": name, "metrics": {}} for name in names]
    record = {"checkpoint_results": results, "checkpoint_report_indices": [0, 1, 2], "other": "kept"}
    (tmp_path / SNAPSHOT).write_text(json.dumps(record | {"latest_checkpoint_result": results[2]}))
    assert forget_half_written(tmp_path) == []
    content = (tmp_path / names[2] / "state.pt").read_bytes()
    (tmp_path / names[2] / "state.pt").write_bytes(content[: len(content) // 2])
    (tmp_path / names[0] / "state.pt").unlink()
    assert forget_half_written(tmp_path) == [names[0], names[2]]
    left = json.loads((tmp_path / SNAPSHOT).read_text())
    assert left["checkpoint_results"] == [results[1]]
    assert (left["checkpoint_report_indices"], left["latest_checkpoint_result"]) == ([1], results[1])
    assert left["other"] == "kept"
    assert forget_half_written(tmp_path / "nowhere") == []


def test_names_in_the_record_of_checkpoints_that_lead_elsewhere_are_forgotten(tmp_path):
    run, name = tmp_path / "runs" / "run", "checkpoint_00000001"
    for folder in (run / name, tmp_path / "elsewhere", tmp_path / "runs"):
        save(folder, make_spec(), seed=0)
    strays = ["../../elsewhere", str(tmp_path / "elsewhere"), "..", f"../run/{name}", f"{name}/"]
    results = [{"checkpoint_dir_name": found, "metrics": {}} for found in (name, *strays)]
    record = {"checkpoint_results": results, "checkpoint_report_indices": [*range(6)]}
    (run / SNAPSHOT).write_text(json.dumps(record | {"latest_checkpoint_result": results[1]}))
    assert forget_half_written(run) == strays
    left = json.loads((run / SNAPSHOT).read_text())
    assert (left["checkpoint_results"], left["latest_checkpoint_result"]) == ([results[0]], results[0])
    (run / SNAPSHOT).write_text(json.dumps(left | {"latest_checkpoint_result": results[2]}))
    assert forget_half_written(run) == []
    assert json.loads((run / SNAPSHOT).read_text()) == left


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
    state = TrainingState(model, make_optimizer(model, Optimisation(num_steps=1, learning_rate=0.1)), step=1)
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
@pytest.mark.parametrize("tilting", ["cosine", "inner_product", "squared_distance"])
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
    with pytest.raises(BadInputError, match=f"{tmp_path / name} holds no checkpoint"):
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
    assert check_name(run, EXPERIMENT) is False
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
    with pytest.raises(BadInputError, match=r"provenance\.json cannot be read"):
        claim(run / "other", EXPERIMENT, "seed: 0\n")


def test_checkpoints_in_s3_count_when_they_are_committed(run):
    claim(run, EXPERIMENT, "seed: 0\n")
    for step in (9, 10, 1000):
        write_bytes(run / f"checkpoint_{step:08d}" / "state.pt", b"")
    write_bytes(run / "checkpoint_00002000" / "other.pt", b"")
    assert checkpoints(run) == []
    results = [{"checkpoint_dir_name": f"checkpoint_{step:08d}"} for step in (10, 9, 2000)]
    write_bytes(run / SNAPSHOT, json.dumps({"checkpoint_results": results}).encode())
    assert checkpoints(run) == [run / "checkpoint_00000009", run / "checkpoint_00000010"]
    write_bytes(run / SNAPSHOT, b'{"checkpoint_results": [')
    with pytest.raises(DamagedDataError, match=SNAPSHOT):
        checkpoints(run)


def upload(tmp_path: Path, directory: Place, seed: int) -> PairModel:
    model = save(tmp_path, make_spec(), seed)
    write_bytes(directory / "state.pt", (tmp_path / "state.pt").read_bytes())
    return model


@pytest.mark.parametrize("what", [str, lambda path: path], ids=["address", "place"])
def test_a_model_is_loaded_from_s3(run, tmp_path, what):
    upload(tmp_path, run / "checkpoint_00000001", seed=8)
    saved = upload(tmp_path, run / "checkpoint_00000002", seed=9)
    u, v = make_pairs()
    assert torch.equal(pcl.load(what(run)).log_tilting(u, v), saved.log_tilting(u, v))
    assert torch.equal(pcl.load(what(run / "checkpoint_00000002")).log_tilting(u, v), saved.log_tilting(u, v))
    with pytest.raises(BadInputError, match="holds no checkpoint"):
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
            lambda: check_name(run, EXPERIMENT),
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
    committed = [{"checkpoint_dir_name": f"checkpoint_{step:08d}", "metrics": {}} for step in (20, 30)]
    (run / "checkpoint_manager_snapshot.json").write_text(json.dumps({"checkpoint_results": committed}))
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
