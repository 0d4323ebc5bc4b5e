"""The head on real folders with a cluster of dictionaries: what it finds, does once, writes down, and survives."""

import json
import re
import shlex
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pcl.cluster.jobs import Job
from pcl.config.load import load_config
from pcl.errors import BadInputError, DamagedDataError
from pcl.evaluation.tables import format_table
from pcl.head.head import Head, Options
from pcl.head.status import Status, describe, table
from pcl.head.watch import Theory
from pcl.head.work import Rules
from pcl.storage.stored import read_json, write_json
from pcl.train import runs
from pcl.train.runs import claim
from pcl.train.tensorboard import PatientWriter

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SAVED = (CONFIGS / "gaussian.yaml").read_text() + "evaluation:\n  num_examples: 0\n"
OPTIONS = Options(Rules({"evaluation": 1, "theory": 1}, attempts=2, backoff_s=10.0, timeout_s=100.0), poll_s=1.0)


class Clock:
    """Time that the test turns on."""

    now = 1_000_000.0

    def __call__(self):
        return self.now


class Jobs:
    """A cluster whose jobs run until the test ends them."""

    def __init__(self):
        self.jobs, self.commands, self.stopped, self.silent = {}, {}, [], False

    def look(self, name):
        self._answer()
        return self.jobs.get(name)

    def submit(self, name, command):
        self._answer()
        assert name not in self.jobs, "submitted twice"
        self.jobs[name], self.commands[name] = Job("RUNNING"), command

    def stop(self, name):
        self.stopped.append(name)
        self.jobs[name] = Job("STOPPED")

    def _answer(self):
        if self.silent:
            raise RuntimeError("nobody answers")

    @property
    def running(self):
        return [name for name, job in self.jobs.items() if job.status == "RUNNING"]


class World:
    """A storage with runs, a cluster, and heads that come and go."""

    def __init__(self, storage):
        self.storage, self.jobs, self.clock, self.lines, self.theory = storage, Jobs(), Clock(), [], []
        self.new_head()

    def new_head(self, options=OPTIONS):
        self.head = Head(
            self.storage / "head",
            self.jobs,
            lambda: self.theory,
            options,
            say=self.lines.append,
            clock=self.clock,
        )

    def step(self, seconds=1.0):
        self.clock.now += seconds
        self.head.step()

    def commit(self, run, step, committed=True):
        """Write a checkpoint as Ray Train does: its folder, then its record."""
        folder = self.storage / run
        if not folder.exists():
            claim(folder, {"seed": 0, "name": run}, SAVED)
        checkpoint = folder / f"checkpoint_{step:08d}"
        checkpoint.mkdir()
        (checkpoint / "state.pt").write_bytes(b"weights")
        if committed:
            self.record(run)

    def record(self, run):
        names = sorted(path.name for path in (self.storage / run).glob("checkpoint_0*"))
        record = runs._record_of([runs.Reported(name, {}) for name in names])
        write_json(self.storage / run / "checkpoint_manager_snapshot.json", asdict(record))

    def succeed(self, name, metrics=None):
        """End a job well, with what it writes."""
        config = self.config_of(name)
        folder = self.storage / config.name / "evaluations" / config.evaluation.checkpoint
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").write_text(json.dumps(metrics or {"u_to_v_recall@1": 0.25}))
        self.jobs.jobs[name] = Job("SUCCEEDED")

    def config_of(self, name):
        """Return the configuration with which a job evaluates."""
        path, *overrides = shlex.split(self.jobs.commands[name])[4:]
        assert path == str(self.storage / load_config(path, overrides).name)
        return load_config(path, overrides)

    @property
    def status(self):
        return json.loads((self.storage / "head" / "status.json").read_text())

    def states(self):
        return {work["what"]: work["state"] for work in self.status["works"]}


@pytest.fixture(autouse=True)
def _no_git(monkeypatch):
    """Let runs begin without a process: what git says of the code is nothing to the head."""
    monkeypatch.setattr(runs, "_git", lambda *_: "")


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "runs")


def test_every_committed_checkpoint_is_evaluated_once_the_newest_first(world):
    world.commit("mnist", 100)
    world.commit("mnist", 200)
    world.commit("mnist", 300, committed=False)
    world.step()
    (name,) = world.jobs.running
    assert name.startswith("evaluate-mnist-00000200-")
    config = world.config_of(name)
    assert (config.name, config.storage) == ("mnist", str(world.storage))
    assert config.evaluation.checkpoint == "checkpoint_00000200"
    world.record("mnist")  # 300 is committed now
    world.succeed(name)
    for _ in range(6):
        world.step()
        for running in world.jobs.running:
            world.succeed(running)
    assert [job.split("-")[2] for job in world.jobs.jobs] == ["00000200", "00000300", "00000100"]
    assert set(world.states().values()) == {"done"}
    assert world.status["works"][0]["message"] == "u_to_v_recall@1 0.2500"


@pytest.mark.parametrize("name", ["3.10", "007", "1e3", "1:30", "true", "null", "a #b", "[x]", "a: b", "*x", "ü, =$x"])
def test_whatever_a_run_is_called_it_is_evaluated(world, name):
    world.commit(name, 100)
    world.step()
    (job,) = world.jobs.running
    assert re.fullmatch(r"evaluate-[\w.-]*-00000100-\w+", job)
    world.succeed(job)
    world.step()
    assert world.states() == {f"{name} checkpoint_00000100": "done"}


def test_a_run_whose_own_evaluation_lies_elsewhere_is_evaluated_where_the_head_looks(world):
    saved = SAVED.replace("evaluation:", "evaluation:\n  split: train\n  max_pairs: 100")
    claim(world.storage / "mnist", {"seed": 0, "name": "mnist"}, saved)
    world.commit("mnist", 100)
    world.step()
    config = world.config_of(world.jobs.running[0])
    assert (config.evaluation.split, config.evaluation.max_pairs) == ("test", 0)


def test_evaluations_know_the_plugins_of_the_head_and_none_that_a_run_names(world, tmp_path):
    evil, own = tmp_path / "evil.py", tmp_path / "our, own.py"
    evil.write_text(f"open({str(tmp_path / 'sung')!r}, 'w')")
    own.write_text("")
    claim(world.storage / "mnist", {"seed": 0, "name": "mnist"}, SAVED + f"plugins: [{evil}]\n")
    world.commit("mnist", 100)
    world.step()
    (first,) = world.jobs.running
    assert world.config_of(first).plugins == []
    for _ in range(OPTIONS.rules.attempts):
        for name in world.jobs.running:
            world.jobs.jobs[name] = Job("FAILED", "error: the encoder is not known here")
        for _ in range(2):
            world.step(50)
    assert world.states() == {"mnist checkpoint_00000100": "given up"}
    world.new_head(replace(OPTIONS, overrides=(f'plugins=["{own}"]',), about=("a1b2",)))
    world.step()
    (again,) = world.jobs.running
    assert again.split("-")[:3] == first.split("-")[:3]
    assert world.config_of(again).plugins == [str(own)]
    assert not (tmp_path / "sung").exists()


def test_an_evaluation_that_is_there_is_not_repeated(world):
    world.commit("mnist", 100)
    folder = world.storage / "mnist" / "evaluations" / "checkpoint_00000100"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text('{"u_to_v_recall@1": 0.5}')
    world.step()
    assert world.jobs.jobs == {}
    assert world.states() == {"mnist checkpoint_00000100": "done"}


def test_failures_are_retried_and_given_up_visibly(world):
    world.commit("mnist", 100)
    world.step()
    for attempt in (1, 2):
        (name,) = world.jobs.running
        assert name.endswith("-a2") == (attempt == 2)
        world.jobs.jobs[name] = Job("FAILED", "error: the shards are gone")
        world.step()
        assert world.jobs.running == []
        world.step(5)
        assert world.jobs.running == []
        world.step(10)
    assert world.jobs.running == []
    assert world.states() == {"mnist checkpoint_00000100": "given up"}
    assert world.status["counts"]["given up"] == 1
    assert world.lines[-1].endswith("GIVEN UP after 2 failures: error: the shards are gone")
    assert sum("failure 1 of 2" in line for line in world.lines) == 1


def test_what_was_given_up_and_is_then_done_by_hand_is_done(world):
    world.commit("mnist", 100)
    for _ in range(4):
        world.step(20)
        for name in world.jobs.running:
            world.jobs.jobs[name] = Job("FAILED", "error: x")
    assert set(world.states().values()) == {"given up"}
    world.succeed(next(iter(world.jobs.jobs)))
    world.step()
    assert set(world.states().values()) == {"done"}


def test_a_job_that_could_not_start_says_why_and_has_not_failed(world):
    world.commit("mnist", 100)
    world.step()
    world.jobs.jobs[world.jobs.running[0]] = Job("FAILED", "nobody had room", started=False)
    world.step()
    assert world.status["works"][0]["failures"] == 0
    assert world.lines[-1] == "evaluation of mnist checkpoint_00000100: did not start: nobody had room"


def test_a_stop_that_is_refused_is_tried_again_before_the_next_attempt(world):
    world.commit("mnist", 100)
    world.step()
    (name,) = world.jobs.running
    stop = world.jobs.stop

    def refuse(_):
        raise RuntimeError("nobody answers")

    world.jobs.stop = refuse
    world.step(101)
    world.step(50)
    assert world.jobs.running == [name]
    world.jobs.stop = stop
    world.step()
    assert world.jobs.running == []
    world.step(11)
    assert world.jobs.running == [f"{name}-a2"]


def test_a_job_that_takes_too_long_is_stopped(world):
    world.commit("mnist", 100)
    world.step()
    (name,) = world.jobs.running
    world.step(101)
    assert world.jobs.stopped == [name]
    assert world.status["works"][0]["message"] == "stopped after 100 s"


@pytest.mark.long
@pytest.mark.parametrize("moment", ["before it writes", "before it submits", "after it submitted"])
def test_a_head_that_dies_repeats_and_forgets_nothing(world, monkeypatch, moment):
    for step in (100, 200, 300):
        world.commit("mnist", step)

    class Died(BaseException):
        pass

    def die(*_, **__):
        raise Died

    with monkeypatch.context() as patch:
        if moment == "before it writes":
            patch.setattr("pcl.head.head.write_json", die)
        elif moment == "before it submits":
            patch.setattr(world.jobs, "submit", die)
        else:
            submit = world.jobs.submit
            patch.setattr(world.jobs, "submit", lambda *given: (submit(*given), die()))
        with pytest.raises(Died):
            world.step()
    for _ in range(8):
        world.new_head()  # dies after every step
        world.step()
        assert len(world.jobs.running) <= 1
        for running in world.jobs.running:
            world.succeed(running)
    assert sorted(name.split("-")[2] for name in world.jobs.jobs) == ["00000100", "00000200", "00000300"]
    assert set(world.states().values()) == {"done"}


def test_a_cluster_that_is_silent_and_a_storage_that_refuses_are_waited_for(world, monkeypatch):
    world.commit("mnist", 100)
    world.step()
    (name,) = world.jobs.running
    world.jobs.silent = True
    world.step()
    world.step()
    world.jobs.silent = False

    def refuse(*_, **__):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pcl.head.head.write_json", refuse)
        world.commit("mnist", 200)
        world.succeed(name)
        world.step()
        assert world.jobs.running == [], "nothing is started that could not be written down"
    world.step()
    assert world.jobs.running[0].split("-")[2] == "00000200"
    told = [line for line in world.lines if "cannot go on" in line or line == "going on"]
    assert told == [
        "cannot go on for now: nobody answers",
        "cannot go on for now: No space left on device",
        "going on",
    ]


def test_a_cluster_that_was_started_again_gets_its_jobs_again(world):
    world.commit("mnist", 100)
    world.step()
    (name,) = world.jobs.running
    world.jobs.jobs.clear()
    world.step()
    world.step()
    assert world.jobs.running == [name]


def test_a_checkpoint_that_is_deleted_is_gone_and_a_run_that_is_made_again_is_another(world):
    world.commit("mnist", 100)
    world.commit("mnist", 200)
    world.step()
    shutil.rmtree(world.storage / "mnist")
    world.step()
    (name,) = world.jobs.running
    assert name.startswith("evaluate-mnist-00000200-")
    world.jobs.jobs[name] = Job("FAILED", "error: it is gone")
    world.step()
    assert set(world.states().values()) == {"gone"}
    claim(world.storage / "mnist", {"seed": 1}, "seed: 1\n")
    world.commit("mnist", 100)
    world.step()
    assert len(world.jobs.running) == 1


def test_a_run_that_is_deleted_and_made_again_as_it_was_is_evaluated_again(world):
    world.commit("mnist", 100)
    world.step()
    (first,) = world.jobs.running
    world.succeed(first)
    world.step()
    shutil.rmtree(world.storage / "mnist")
    world.step()
    world.commit("mnist", 100)
    provenance = world.storage / "mnist" / "provenance.json"
    content = json.loads(provenance.read_text())
    provenance.write_text(json.dumps(content | {"started": "2100-01-01T00:00:00+00:00"}))
    world.step()
    (second,) = world.jobs.running
    assert second != first
    world.succeed(second)
    world.step()
    world.step()
    assert world.jobs.running == []


def test_what_is_gone_is_not_read_again(world, monkeypatch):
    world.commit("mnist", 100)
    world.commit("mnist", 200)
    world.step()
    shutil.rmtree(world.storage / "mnist")
    world.jobs.jobs[world.jobs.running[0]] = Job("FAILED", "error: it is gone")
    world.step()
    assert set(world.states().values()) == {"gone"}
    monkeypatch.setattr("pcl.head.head.result_of", None)
    lines = len(world.lines)
    world.step()
    assert len(world.lines) == lines


@pytest.mark.parametrize(
    "metrics",
    [{"u_to_v_recall@1": None}, {"u_to_v_recall@1": 1e30}, {"checks": [{}]}, {"checks": 1}, {"checks": [[[]]]}],
)
def test_a_result_that_says_nothing_is_none(world, metrics):
    world.commit("mnist", 100)
    world.step()
    (name,) = world.jobs.running
    world.succeed(name, metrics)
    world.step()
    assert world.status["works"][0]["failures"] == 1


def test_half_written_runs_and_checkpoints_are_left_alone(world):
    world.commit("mnist", 100)
    (world.storage / "mnist" / "checkpoint_00000200").mkdir()
    (world.storage / "half").mkdir()
    (world.storage / "half" / "provenance.json").write_text('{"exper')
    (world.storage / "notes.txt").write_text("not a run")
    world.commit("damaged", 100)
    (world.storage / "damaged" / "checkpoint_manager_snapshot.json").write_text("{")
    world.step()
    assert list(world.states()) == ["mnist checkpoint_00000100"]


def test_theory_is_checked_anew_when_its_configuration_or_the_code_changes(world):
    check = Theory("gaussian", "configs/gaussian.yaml", {"seed": 0}, "one code", ("theory.quick=true",))
    world.theory = [check]
    world.step()
    (first,) = world.jobs.running
    assert shlex.split(world.jobs.commands[first])[1:] == [
        "-m",
        "pcl",
        "theory",
        "configs/gaussian.yaml",
        f"storage={world.storage}",
        "theory.quick=true",
    ]
    report = world.storage / "gaussian_theory" / "metrics.json"
    report.parent.mkdir()
    report.write_text(json.dumps({"checks": [{"passed": True}, {"passed": False}]}))
    world.step()
    assert world.jobs.running == [first], "the report of an earlier code says nothing"
    world.jobs.jobs[first] = Job("SUCCEEDED")
    world.step()
    assert world.status["works"][0]["message"] == "1 of 2 checks passed"
    world.step()
    assert world.jobs.running == []
    world.theory = [replace(check, identity={"seed": 1})]
    world.step()
    (second,) = world.jobs.running
    world.jobs.jobs[second] = Job("SUCCEEDED")
    world.step()
    world.theory = [replace(check, identity={"seed": 1}, version="another code")]
    world.step()
    (third,) = world.jobs.running
    assert len({first, second, third}) == 3


def test_a_configuration_that_cannot_be_read_for_a_while_changes_nothing(world):
    world.theory = [Theory("gaussian", "configs/gaussian.yaml", {"seed": 0}, "", ())]
    world.step()

    def mistake():
        raise BadInputError("configs/gaussian.yaml: seed=x")

    world.head.theory = mistake
    world.commit("mnist", 100)
    world.step()
    world.step()
    assert len(world.jobs.running) == 2
    assert "gone" not in world.states().values()
    assert [line for line in world.lines if "seed=x" in line] == ["cannot go on for now: configs/gaussian.yaml: seed=x"]
    world.head.theory = list
    world.step()
    assert world.lines[-1] == "going on"


def damaged(content):
    """Yield what a file of the head might hold instead of a content, each with one thing wrong."""
    yield content[: len(content) // 2]
    yield "[" * 100_000
    yield "1"
    pattern = (
        r'"(changes|since|not_before|failures|submissions|updated|pid|poll_s|records|works|state|job|what)": [^,{\[\n]+'
    )
    for found in re.finditer(pattern, content):
        for value in ("1e30", "-1", "NaN", "null", '"x\\u001b[2J"', "[]"):
            kept = found[1] in ("job", "what") and value.startswith('"')  # a text may be any
            if not kept:
                yield f'{content[: found.start()]}"{found[1]}": {value}{content[found.end() :]}'


def test_a_state_that_cannot_be_read_is_refused(world):
    world.commit("mnist", 100)
    world.step()
    path = world.storage / "head" / "state.json"
    wrong = list(damaged(path.read_text()))
    assert len(wrong) > 30
    for content in [*wrong, '{"changes": 1, "records": 1}']:
        path.write_text(content)
        with pytest.raises(DamagedDataError, match=r"state.json cannot be read \(.*\): delete it") as refused:
            world.new_head()
        assert str(refused.value).isprintable()


def test_a_status_that_cannot_be_read_is_refused(world):
    world.commit("mnist", 100)
    world.step()
    path = world.storage / "head" / "status.json"
    wrong = list(damaged(path.read_text()))
    assert len(wrong) > 30
    for content in wrong:
        path.write_text(content)
        with pytest.raises(DamagedDataError, match=r"status.json cannot be read \(.*\): wait") as refused:
            read_json(path, Status, "wait")
        assert str(refused.value).isprintable()


def test_a_command_that_somebody_stored_is_never_run(world):
    world.commit("mnist", 100)
    world.commit("mnist", 200)
    world.step()
    (name,) = world.jobs.running
    path = world.storage / "head" / "state.json"
    path.write_text(path.read_text().replace('"pcl"', '"evil"'))
    world.new_head()
    world.succeed(name)
    world.step()
    assert [shlex.split(command)[2:4] for command in world.jobs.commands.values()] == [["pcl", "evaluate"]] * 2


@pytest.mark.parametrize("content", ["[" * 100_000, '{"experiment": 1, "started": "x"}', "{}", '{"experiment": {}}'])
def test_a_run_whose_record_is_damaged_is_left_out_and_the_others_are_not(world, content):
    world.commit("mnist", 100)
    world.commit("other", 100)
    (world.storage / "mnist" / "provenance.json").write_text(content)
    world.step()
    assert list(world.states()) == ["other checkpoint_00000100"]


def test_the_status_is_for_people(world, tmp_path):
    world.commit("mnist", 100)
    world.commit("mnist", 200)
    world.step()
    world.jobs.jobs[world.jobs.running[0]] = Job("FAILED", "error: no shards")
    world.step()
    text = format_table(table(world.status, world.clock.now))
    assert text.splitlines()[0].split() == ["what", "kind", "state", "since", "failures", "job", "message"]
    assert "error: no shards; again in 10 s" in text
    assert "1 waiting, 1 running, 0 done" in describe(world.status, world.clock.now)
    assert "at work" in describe(world.status, world.clock.now)
    assert "SILENT" in describe(world.status, world.clock.now + 300)


def test_a_head_that_has_ended_or_a_clock_that_was_set_back_does_not_look_alive(world):
    world.commit("mnist", 100)
    world.step()
    for text in (
        describe(world.status, world.clock.now - 86400),
        describe(world.status, world.clock.now - 20),
        describe(world.status, world.clock.now, has_ended=True),
    ):
        assert "at work" not in text
        assert re.search("SILENT|NOT RUNNING", text)
    assert "at work" in describe(world.status, world.clock.now - 2)  # another machine's clock
    updated = world.status["updated"]
    world.step(-86400)
    assert world.status["updated"] == updated - 86400, "it says nothing until the clock is where it was"


def test_a_clock_that_was_set_back_keeps_nothing_waiting_for_ever(world):
    world.commit("mnist", 100)
    world.step()
    world.jobs.jobs[world.jobs.running[0]] = Job("FAILED", "error: x")
    world.step()
    assert world.jobs.running == []
    world.step(-86400)
    assert len(world.jobs.running) == 1


def test_a_job_that_the_cluster_has_not_started_does_not_run(world, monkeypatch):
    world.commit("mnist", 100)
    submit = world.jobs.submit

    def queue(name, command):
        submit(name, command)
        world.jobs.jobs[name] = Job("PENDING")

    monkeypatch.setattr(world.jobs, "submit", queue)
    for _ in range(2):
        world.step()
        assert "1 waiting, 0 running" in describe(world.status, world.clock.now)
        assert world.status["works"][0]["message"] == "waits for room in the cluster"
    (name,) = world.jobs.jobs
    world.jobs.jobs[name] = Job("RUNNING")
    world.step()
    assert "0 waiting, 1 running" in describe(world.status, world.clock.now)


def test_tensorboard_shows_counts_and_table_and_goes_on_after_a_refusal(world, monkeypatch):
    writer = PatientWriter(world.storage / "head" / "tensorboard")
    world.head.draw = writer.draw
    world.commit("mnist", 100)
    world.step()
    world.succeed(world.jobs.running[0])

    def refuse(*_):
        raise OSError("no space")

    with monkeypatch.context() as patch:
        patch.setattr("pcl.storage.events.EventFile.append", refuse)
        world.step()
    world.commit("mnist", 200)
    world.step()
    events = EventAccumulator(str(world.storage / "head" / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("head/evaluation/done")] == [(1, 0), (3, 1)]
    *_, last = events.Tensors("table/text_summary")
    assert "| mnist checkpoint_00000200 | evaluation | running |" in last.tensor_proto.string_val[0].decode()
