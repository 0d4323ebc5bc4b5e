"""Real clusters of several nodes: nodes die and join, the head dies, and nothing is lost or done twice."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch

from tests.cluster.nodes import ROOT, NodesHere
from tests.typed import finish, start

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
TRAINING = ("train.epochs=150", "train.checkpoint_every=100", "train.log_every=20", "model.embedding_dim=4")
LAST = "checkpoint_00000600"
HEAD = ("poll_s=1", "backoff_s=1")


@pytest.fixture
def cluster():
    with NodesHere() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def undisturbed(shards):
    """A run on this machine alone, with the evaluation of its last checkpoint."""
    storage = shards.parent / "undisturbed"
    for job in ("train", "evaluate"):
        code, _, errors = finish(start(job, f"data.shards={shards}", f"storage={storage}", *TRAINING))
        assert code == 0, errors
    return storage / "gaussian"


def wait(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen in {seconds} s"
        time.sleep(0.2)
    return found


def metrics_of(run, checkpoint=LAST):
    path = run / "evaluations" / checkpoint / "metrics.json"
    return json.loads(path.read_text()) if path.is_file() else None


def assert_same(run, other):
    """Assert that two runs ended with the same weights and the same metrics, to rounding."""
    ours, theirs = (torch.load(path / LAST / "state.pt", weights_only=True)["model"] for path in (run, other))
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-5)
    ours, theirs = metrics_of(run), metrics_of(other)
    numbers = {name: value for name, value in theirs.items() if isinstance(value, float)}
    assert numbers
    assert {name: ours[name] for name in numbers} == pytest.approx(numbers, rel=2e-3, abs=1e-4)


def drivers(job):
    """Return the processes that run a job of this cluster."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if words[1:4] == ["-m", "pcl", job] and "python" in words[0]:
            found.append(process)
    return found


def jobs_of(cluster):
    """Return status by name of all jobs of a cluster."""
    return {job["submission_id"]: job["status"] for job in cluster.get("/api/jobs/") or []}


def state_of(storage):
    path = storage / "head" / "status.json"
    return json.loads(path.read_text()) if path.is_file() else {"works": [], "counts": {}}


def test_training_and_head_on_three_nodes_while_one_dies(cluster, shards, undisturbed, tmp_path):
    storage = tmp_path / "runs"
    cluster.add("one")
    cluster.add("two")
    cluster.submitted("--no-wait", "head", "configs/head.yaml", f"storage={storage}", *HEAD, "theory.num_tasks=2")
    where = (f"data.shards={shards}", f"storage={storage}")
    patient = ("workers.resources_timeout_s=90", "workers.num_checkpoints=10")
    training = cluster.submit("train", "configs/gaussian.yaml", *where, *TRAINING, *patient)
    run = storage / "gaussian"
    wait((run / "checkpoint_00000100" / "state.pt").is_file, 120, "the first checkpoint")
    cluster.kill("two")
    cluster.add("three")
    output, _ = training.communicate(timeout=300)
    assert training.returncode == 0, output
    assert "going on from" in output
    wait(lambda: metrics_of(run), 180, "the last evaluation")
    assert_same(run, undisturbed)

    def all_done():
        works = state_of(storage)["works"]
        return works and all(work["state"] == "done" for work in works if work["kind"] == "evaluation")

    wait(all_done, 240, "all evaluations")

    def theory():
        return next(work for work in state_of(storage)["works"] if work["kind"] == "theory")

    wait(lambda: theory()["state"] == "done", 400, "the theory check")
    passed, _, total = theory()["message"].split()[:3]
    assert passed == total
    evaluated = [
        name for name, status in jobs_of(cluster).items() if name.startswith("evaluate-") and status == "SUCCEEDED"
    ]
    assert len(evaluated) == 6
    shown = subprocess.run(
        [sys.executable, "jobs/head.py", "--status", "configs/head.yaml", f"storage={storage}"],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout
    assert "at work" in shown
    assert f"gaussian {LAST}" in shown


def test_a_head_that_is_killed_neither_repeats_nor_forgets(cluster, shards, tmp_path):
    storage = tmp_path / "runs"
    cluster.add("one", num_cpus=1, background=2)
    where = (f"data.shards={shards}", f"storage={storage}")
    one = ("workers.num_workers=1", "workers.num_checkpoints=10")
    cluster.submitted("train", "configs/gaussian.yaml", *where, *TRAINING, *one, timeout_s=200)
    head = ("head", "configs/head.yaml", f"storage={storage}", "theory.files=[]", *HEAD)
    cluster.submitted("--no-wait", *head)
    wait(lambda: drivers("evaluate"), 60, "an evaluation")

    # by mistake a second one: it refuses in one line
    output = cluster.submitted("--id", "second", *head, code=2, timeout_s=60)
    assert "one is enough" in next(line for line in output.splitlines() if line.startswith("error: "))

    (process,) = [process for process in drivers("head") if f"storage={storage}" in process.cmdline()]
    os.kill(process.pid, signal.SIGKILL)
    cluster.submitted("--no-wait", *head)

    def done():
        return state_of(storage)["counts"].get("done") == 6

    wait(done, 240, "all six evaluations")
    jobs = {name: status for name, status in jobs_of(cluster).items() if name.startswith("evaluate-")}
    assert set(jobs.values()) == {"SUCCEEDED"}
    assert len(jobs) == 6, "an evaluation was done twice"


def test_mistakes_end_in_one_line_within_a_minute(cluster, shards, tmp_path):
    where = (f"data.shards={shards}", f"storage={tmp_path / 'runs'}")

    def attempt(*arguments, address=None, token=None):
        started = time.monotonic()
        environment = cluster.environment | {"RAY_API_SERVER_ADDRESS": cluster.dashboard}  # --address wins over it
        environment |= {"RAY_AUTH_TOKEN_PATH": str(token)} if token else {}
        command = [sys.executable, "jobs/submit.py", "--address", address or cluster.dashboard, *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, text=True, capture_output=True, check=False, timeout=90
        )
        assert time.monotonic() - started < 60
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, done.stdout + done.stderr
        return done.returncode, lines[0]

    wrong = tmp_path / "token"
    wrong.write_text("0" * 64)
    code, line = attempt("train", "configs/gaussian.yaml", *where, token=wrong)
    assert (code, "refuses the token" in line) == (2, True)
    code, line = attempt("train", "configs/gaussian.yaml", *where, address="http://127.0.0.1:9")
    assert (code, "no Ray cluster answers at http://127.0.0.1:9" in line) == (2, True)
    code, line = attempt("train", "configs/gaussian.yaml", *where, address=f"http://{cluster.unused_address}:8265")
    assert (code, "no Ray cluster answers" in line) == (2, True)
    soon = "workers.resources_timeout_s=3"
    code, line = attempt("write_shards", "configs/gaussian.yaml", f"data.shards={tmp_path / 'new'}", soon)
    assert (code, "1 tasks need 1 CPU each, on one node, and the cluster has room for 0 of them" in line) == (2, True)
    cluster.add("one")
    code, line = attempt("--id", "mine", "train", "configs/gaussian.yaml", where[0], "storage=s3://key:hunter2@b/r")
    assert (code, "no credentials" in line, "hunter2" in line) == (2, True, False)
    assert "hunter2" not in json.dumps(cluster.get("/api/jobs/"))
    code, line = attempt("train", "configs/gaussian.yaml", *where, soon, "workers.num_workers=8")
    assert (code, "8 workers need 1 CPU each, on one node, and the cluster has room for 1 of them" in line) == (2, True)
    code, line = attempt(
        "train", "configs/gaussian.yaml", *where, soon, "workers.num_workers=1", "workers.use_gpu=true"
    )
    assert (code, "1 workers need 1 CPU and 1 GPU each" in line) == (2, True)
    code, line = attempt("train", "configs/gaussian.yaml", *where, "train.epochs=many")
    assert (code, "train.epochs" in line) == (2, True)
    code, line = attempt("trane", "configs/gaussian.yaml", *where)
    assert (code, "'trane'" in line or "trane is not a job" in line) == (2, True)

    live = ("train.epochs=100000", "workers.num_workers=1", "name=live")
    cluster.submitted("--no-wait", "train", "configs/gaussian.yaml", *where, *live)
    wait((tmp_path / "runs" / "live" / "progress.json").is_file, 60, "the run")
    code, line = attempt("--id", "another", "train", "configs/gaussian.yaml", *where, *live)
    assert (code, "the run live is in use by process" in line) == (2, True)
    code, line = attempt("train", "configs/gaussian.yaml", *where, *live, "train.learning_rate=0.5")
    assert (code, "choose another --id" in line) == (2, True)
