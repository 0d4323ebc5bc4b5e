"""Stored files, mutated at random: each reader gives what it gave before, or ends in one line of the product's own."""

import contextlib
import json
import random
import shutil
import threading
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

import pcl
import pcl.problems.mnist.source as mnist
from pcl.config.load import load_config, resolved_yaml
from pcl.data.loader import iterate_split
from pcl.data.manifest import load_manifest
from pcl.data.shards import begin_build
from pcl.errors import BadInputError, DamagedDataError, RunFailedError
from pcl.evaluation.record import save_evaluation
from pcl.evaluation.result import Evaluation
from pcl.gaussian.process import GaussianProcessPair
from pcl.head.head import Head, Options
from pcl.head.status import Status, describe, table
from pcl.head.watch import evaluations
from pcl.head.work import Rules
from pcl.storage.inputs import input_at
from pcl.storage.lease import Lease
from pcl.storage.stored import read_json
from pcl.theory.cells import Cell
from pcl.theory.plan import Task
from pcl.theory.store import Store
from pcl.train.best import best_checkpoint, keep_best
from pcl.train.checkpoint import checkpoint_name, save_checkpoint
from pcl.train.follow import follow
from pcl.train.parts import full_experiment
from pcl.train.runs import checkpoints, claim, mend_record, recorded_experiment
from pcl.train.session import Session

ROOT = Path(__file__).resolve().parents[1]
OURS = (BadInputError, DamagedDataError, RunFailedError)
LONGEST_S = 5.0
NAN, INFINITY, LONG, ESCAPE = float("nan"), float("inf"), "x" * 5000, "\x1b]0;title\x07"
EXTREMES = (None, True, -1, 0, 1, 10**18, 10**400, 1e300, NAN, INFINITY, "", LONG, ESCAPE, [], {}, [[]])
JUNK = (b"\0" * 100, b"[" * 100_000, b'{"a":' * 50_000, b"\x1b[2J" + ESCAPE.encode(), b"\xff\xfe", b"null")


# mutations of bytes: of any file, and of the values in JSON


def flip(content, choice):
    position = choice.randrange(len(content))
    return content[:position] + bytes([content[position] ^ 1 << choice.randrange(8)]) + content[position + 1 :]


def cut(content, choice):
    return content[: choice.randrange(len(content))]


def splice(content, choice):
    start = choice.randrange(len(content))
    junk = choice.randbytes(choice.randrange(1, 200))
    return content[:start] + junk + content[start + choice.randrange(len(junk) + 1) :]


def empty(content, choice):
    return b""


def junk(content, choice):
    return choice.choice(JUNK)


def value(content, choice):
    """Change a value somewhere in JSON, or take a key away; the bytes of anything else."""
    try:
        tree = json.loads(content)
    except ValueError:
        return splice(content, choice)
    places = [(tree, key) for key in _keys(tree)]
    for node, key in places:
        places += [(node[key], inner) for inner in _keys(node[key])]
    if not places:
        return b"7"
    node, key = choice.choice(places)
    if isinstance(node, dict) and choice.random() < 0.2:
        del node[key]
    else:
        node[key] = choice.choice(EXTREMES)
    return json.dumps(tree).encode()


def _keys(node):
    return list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()


MUTATIONS = (flip, flip, cut, splice, value, value, value, empty, junk)


# the stored files of a small project, each with what reads it


@pytest.fixture(scope="module")
def project(tmp_path_factory, make_shards):
    """A folder with one of every kind of file."""
    root = tmp_path_factory.mktemp("project")
    shards, _ = make_shards(num_train=160, num_test=40, num_shards=8, record_pairs=5)
    shutil.copytree(shards, root / "shards")
    config = config_of(root)
    session = Session(config, torch.device("cpu"))
    run = root / "runs" / "run"
    claim(run, full_experiment(config), resolved_yaml(config))
    committed = []

    def commit(step, scalars, content):
        save_checkpoint(run / checkpoint_name(step), content)
        keep_best(run, step, 1 / step, content)
        committed.append({"version": 0, "checkpoint_dir_name": checkpoint_name(step), "metrics": {"step": step}})

    session.run(run, commit)
    record = {
        "ray_version": "2.60.0",
        "checkpoint_results": committed,
        "checkpoint_report_indices": list(range(len(committed))),
        "latest_checkpoint_result": committed[-1],
        "pending_training_results": [],
        "pending_validation_specs": [],
        "current_report_index": len(committed),
        "validated_checkpoint_dir_names": [],
        "timed_out_validation_checkpoint_dir_names": [],
        "failed_validation_checkpoint_dir_names": [],
    }
    (run / "checkpoint_manager_snapshot.json").write_text(json.dumps(record))
    for one in committed:
        step = one["metrics"]["step"]
        save_evaluation(Evaluation({"recall": 0.5}), run, one["checkpoint_dir_name"], {"step": step, "split": "test"})
    pcl.load(run).save(root / "model")
    left = run / "evaluations" / checkpoint_name(20)  # by a process that was killed
    (left / ".draft").mkdir()
    shutil.copy(left / "metrics.json", left / ".draft")
    with Lease(root / "lease", "the name", "wait", duration_s=0.2):
        pass
    store_of(root).save(TASK, {"value": 1.0, "curve": [1.0, 2.0]})
    (root / "runs" / "head").mkdir()
    head_of(root).step()
    (root / "build").mkdir()
    assert begin_build(root / "build", IDENTITY)
    return root


IDENTITY = {"config": {"seed": 1, "source": "x"}, "source": {"name": "x", "sizes": [1, 2, 3]}}
TASK = Task("minimum", Cell())


def config_of(root):
    sizes = ("num_train=160", "num_test=40", "num_modes=20")
    overrides = ("data.num_shards=8", "data.record_pairs=5", *(f"data.gaussian_process.{size}" for size in sizes))
    training = ("train.epochs=2", "train.global_batch=16", "train.checkpoint_every=10", "model.embedding_dim=2")
    where = (f"data.shards={root / 'shards'}", f"storage={root / 'runs'}", "name=run")
    return load_config(ROOT / "configs" / "gaussian.yaml", (*overrides, *training, *where))


def store_of(root):
    return Store(root / "theory", GaussianProcessPair(num_modes=20))


class NoJobs:
    """A cluster that knows of no job and takes all."""

    def look(self, name):
        return None

    def submit(self, name, command):
        assert command.startswith("python -m pcl ")

    stop = look


def head_of(root):
    rules = Rules({"evaluation": 1, "theory": 1}, attempts=2, backoff_s=10.0, timeout_s=100.0)
    return Head(root / "runs" / "head", NoJobs(), list, Options(rules, 1.0), say=one_line, clock=lambda: 1e6)


def one_line(text):
    assert text.isprintable(), text
    assert len(text) < 2000, text


def read_manifest(root):
    return asdict(load_manifest(root / "shards"))


def read_shard(root):
    shards = root / "shards"
    return [part.tolist() for record in iterate_split(shards, load_manifest(shards), "train") for part in record]


def read_build(root):
    return begin_build(root / "build", IDENTITY, claim=False)


def read_state(root):
    session = Session(config_of(root), torch.device("cpu"), root / "runs" / "run" / "checkpoint_00000010")
    model = pcl.load(root / "runs" / "run" / "checkpoint_00000010")
    state = {**model.state_dict(), **session.state.model.state_dict()}
    return {name: value.tolist() for name, value in state.items()}, session.state.step


def read_model(root):
    model = pcl.load(root / "model")
    return model.spec, asdict(model.about), {name: value.tolist() for name, value in model.state_dict().items()}


def read_best(root):
    return asdict(best_checkpoint(root / "runs" / "run"))


def read_snapshot(root):
    run = root / "runs" / "run"
    mend_record(run)
    return [path.name for path in checkpoints(run)]


def read_provenance(root):
    """What a record lacks counts as its default."""
    wanted = full_experiment(config_of(root))
    return wanted | recorded_experiment(root / "runs" / "run", wanted)


def read_yaml(root):
    return resolved_yaml(load_config(root / "runs" / "run" / "config.yaml"))


def read_progress(root):
    over = threading.Event()
    over.set()
    follow(root / "runs" / "run" / "progress.json", 20, over, list)


def read_evaluations(root):
    """Evaluate again: the other evaluations, damaged or not, are not in the way."""
    folder = save_evaluation(Evaluation({"recall": 0.5}), root / "runs" / "run", "checkpoint_00000010", {"step": 10})
    return json.loads((folder / "metrics.json").read_text())["recall"]


def read_lease(root):
    with Lease(root / "lease", "the name", "wait", duration_s=0.05):
        pass


def read_cell(root):
    found = store_of(root).load(TASK)
    return found if found is not None else {"value": 1.0, "curve": [1.0, 2.0]}  # computed anew


def read_head(root):
    head = head_of(root)
    head.step()


def read_watch(root):
    for work in evaluations(root / "runs"):
        assert work.command[:4] == ("python", "-m", "pcl", "evaluate")


def read_status(root):
    content = read_json(root / "runs" / "head" / "status.json", Status, "a running head writes it anew")
    if content is not None:
        one_line(describe(content, 1e6, has_ended=False))
        for row in table(content, 1e6):
            for cell in row:
                one_line(cell)


RUN = "runs/run"
FILES = [
    ("shards/manifest.json", read_manifest, True),
    ("shards/manifest.json", read_shard, True),
    ("shards/train-000003.tar", read_shard, True),
    ("build/build.json", read_build, False),
    (f"{RUN}/checkpoint_00000010/state.pt", read_state, True),
    (f"{RUN}/best/best.json", read_best, True),
    (f"{RUN}/best/checkpoint_00000020/state.pt", read_best, True),
    ("model/model.json", read_model, True),
    ("model/model.safetensors", read_model, True),
    (f"{RUN}/checkpoint_manager_snapshot.json", read_snapshot, False),
    (f"{RUN}/checkpoint_manager_snapshot.json", read_watch, False),
    (f"{RUN}/provenance.json", read_provenance, True),
    (f"{RUN}/provenance.json", read_watch, False),
    (f"{RUN}/config.yaml", read_yaml, False),
    (f"{RUN}/progress.json", read_progress, False),
    (f"{RUN}/evaluations/checkpoint_00000020/metrics.json", read_evaluations, True),
    (f"{RUN}/evaluations/checkpoint_00000020/.draft/metrics.json", read_evaluations, True),
    (f"{RUN}/evaluations/events*", read_evaluations, True),
    ("lease/00000001.json", read_lease, False),
    ("theory/*.json", read_cell, False),
    ("runs/head/state.json", read_head, False),
    ("runs/head/status.json", read_status, False),
]


def restore(project, root):
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(project, root)


def outcome(read, root):
    """Return what a reader gives, or the error in which it ends; it is quick, and says one line."""
    began = time.monotonic()
    try:
        return read(root), None
    except OURS as error:
        one_line(str(error))
        return None, error
    finally:
        assert time.monotonic() - began < LONGEST_S


def mutate_and_read(project, root, name, read, is_told, numbers):
    """Mutate one file and read it, again and again; a value that nothing tells from the right one may change it."""
    restore(project, root)
    before, error = outcome(read, root)
    assert error is None
    for number in numbers:
        choice = random.Random(f"{name} {read.__name__} {number}")
        restore(project, root)
        path = choice.choice(sorted(root.glob(name)))
        mutation = choice.choice(MUTATIONS)
        content = path.read_bytes()
        mutated = mutation(content, choice)
        path.write_bytes(mutated)
        found, error = outcome(read, root)
        if error is None and is_told and mutated != content:
            assert found == before, f"{mutation.__name__} of {name} gives another result"


@pytest.fixture(scope="module")
def root(project, tmp_path_factory):
    """A copy that mutations may harm, in the place that its own files name."""
    kept = tmp_path_factory.mktemp("kept") / "project"
    shutil.copytree(project, kept)
    return project, kept


@pytest.mark.long
@pytest.mark.parametrize(("name", "read", "is_told"), FILES, ids=[f"{n}-{r.__name__}" for n, r, _ in FILES])
def test_a_mutated_file_ends_in_one_line_or_is_harmless(root, name, read, is_told):
    mutate_and_read(root[1], root[0], name, read, is_told, range(13))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("name", "read", "is_told"), FILES, ids=[f"{n}-{r.__name__}" for n, r, _ in FILES])
def test_many_mutations(root, name, read, is_told):
    mutate_and_read(root[1], root[0], name, read, is_told, range(13, 150))


@pytest.mark.parametrize("mutation", dict.fromkeys(MUTATIONS), ids=lambda mutation: mutation.__name__)
def test_a_mutated_file_of_mnist_ends_in_one_line_or_holds_the_same(mnist_root, tmp_path, mutation):
    name = "t10k-labels-idx1-ubyte"
    content, path = (mnist_root / f"{name}.gz").read_bytes(), tmp_path / f"{name}.gz"
    path.write_bytes(content)
    before = mnist._read(input_at(str(tmp_path)), name)
    for number in range(13):
        choice = random.Random(f"{mutation.__name__} {number}")
        path.write_bytes(mutation(content, choice))
        found, error = outcome(lambda root: mnist._read(input_at(str(root)), name), tmp_path)
        assert error is not None or found == before


@pytest.mark.parametrize(("name", "read", "is_told"), FILES, ids=[f"{n}-{r.__name__}" for n, r, _ in FILES])
def test_a_folder_in_the_place_of_a_file_ends_in_one_line(root, name, read, is_told):
    restore(root[1], root[0])
    path = sorted(root[0].glob(name))[0]
    path.unlink()
    path.mkdir()
    with contextlib.suppress(IsADirectoryError):  # the machine says it, with the name
        outcome(read, root[0])
