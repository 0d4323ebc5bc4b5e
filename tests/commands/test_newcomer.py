"""What somebody types who is new here: help, a run's folder as its configuration, mistakes that name a remedy."""

import errno
import json
import os
import shlex
import shutil
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest
import torch
import yaml

import pcl
from pcl.cluster import address
from pcl.commands import compare, evaluate, submit
from pcl.commands import train as train_command
from pcl.commands.command_line import check_writable
from pcl.commands.ending import finish
from pcl.config.load import load_config, resolved_yaml
from pcl.encoders.registry import ENCODERS
from pcl.errors import BadInputError
from pcl.evaluation.result import Evaluation
from pcl.plugins import loading
from pcl.storage.stored import sealed, write_json
from pcl.train import runs
from pcl.train.best import keep_best
from pcl.train.checkpoint import checkpoint_content, checkpoint_name, save_checkpoint
from pcl.train.parts import full_experiment
from pcl.train.session import Session

ROOT = Path(__file__).resolve().parents[2]
GAUSSIAN = str(ROOT / "configs" / "gaussian.yaml")
JOBS = ("shards", "train", "evaluate", "theory", "head", "config", "benchmark")
SETTINGS = (
    *(f"data.gaussian_process.{item}" for item in ("num_train=160", "num_test=40", "num_modes=20")),
    *("data.num_shards=8", "data.record_pairs=5"),
    *("train.global_batch=32", "train.warmup_steps=0"),
)
PLUGIN = """
import torch
import pcl

@pcl.encoder("halved")
class Halved(torch.nn.Module):
    def __init__(self, shape, embedding_dim, *, width: int = 4):
        super().__init__()
        self.layer = torch.nn.Linear(shape[0], embedding_dim)

    def forward(self, x):
        return self.layer(x) / 2
"""


@pytest.fixture(autouse=True)
def _no_git(monkeypatch):
    """Let runs begin without a process."""
    monkeypatch.setattr(runs, "_git", lambda *_: "")


@pytest.fixture
def typed(capsys):
    """Return a function that runs a command in this process: exit code, output and errors."""

    def run(command, *arguments):
        module = import_module(f"pcl.commands.{command.replace('-', '_')}")
        try:
            finish(partial(module.command, f"pcl {command}", list(map(str, arguments))))
        except SystemExit as end:
            code = end.code
        else:
            code = 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def shards(make_shards):
    return make_shards()[0]


@pytest.fixture
def train(shards, tmp_path):
    """Return a function that makes a run in a folder, with the checkpoints of some steps."""

    def make(name, *overrides, steps=(3, 5), folder="runs"):
        where = (f"name={name}", f"storage={tmp_path / folder}", f"data.shards={shards}")
        config = load_config(GAUSSIAN, (*SETTINGS, *where, *overrides))
        run = tmp_path / folder / name
        runs.claim(run, full_experiment(config), resolved_yaml(config))
        session = Session(config, torch.device("cpu"))
        for step in steps:
            session.state.step = step
            content = checkpoint_content(session.state, session.spec, session.experiment_hash)
            save_checkpoint(run / checkpoint_name(step), content)
        return run

    return make


@pytest.fixture
def judged(monkeypatch):
    """Leave out what an evaluation measures; return what was to be saved: run, checkpoint, and what it is of."""
    saved = []

    def save(result, run, name, about, part, card):
        saved.append((str(run), name, about))
        return run / "evaluations" / name

    monkeypatch.setattr(evaluate, "evaluate", lambda *_, **__: Evaluation())
    monkeypatch.setattr(evaluate, "save_evaluation", save)
    return saved


# help


@pytest.mark.parametrize("command", JOBS)
def test_help_is_short_and_its_examples_and_keys_are_real(typed, command):
    code, output, errors = typed(command, "--help")
    assert (code, errors) == (0, "")
    assert output.startswith(f"usage: pcl {command} CONFIG")
    assert 10 <= output.count("\n") <= 22
    assert max(map(len, output.splitlines())) <= 120
    page = typed("config", "head" if command == "head" else "")[1] if command == "head" else typed("config")[1]
    lines = output.splitlines()
    examples = [shlex.split(line, comments=True) for line in lines if line.startswith(f"  pcl {command} ")]
    assert 3 <= len(examples) <= 5
    for words in examples:
        for key in (word.partition("=")[0] for word in words if "=" in word):
            assert f"{key.rpartition('.')[2]}:" in page
    keys = [line.split("=")[0].strip() for line in lines if line.startswith("  ") and not line.startswith("  pcl")]
    assert len(keys) >= 3
    for key in keys:
        assert f"{key.rpartition('.')[2]}:" in page


@pytest.mark.parametrize("command", [*(name for name in JOBS if name != "config"), "finetune", "draw", "export"])
def test_a_missing_config_is_one_line(typed, command):
    for arguments in ((), ("train.epochs=3",)):
        code, output, errors = typed(command, *arguments)
        assert (code, output, errors.count("\n")) == (2, "", 1)
        assert errors.startswith(f"error: pcl {command} needs a run file")
        assert f"such as pcl {command} " in errors
        assert "#" not in errors
        assert errors.endswith(f"; pcl {command} --help tells more\n")


def test_a_section_of_the_page_is_shown_alone(typed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()  # of raw files, as it is called by default
    code, output, _ = typed("config", "data.gaussian_process")
    assert code == 0
    assert [line.split(":")[0] for line in output.splitlines()[:3]] == ["data", "  gaussian_process", "    num_train"]
    assert set(typed("config", "data")[1].splitlines()) > set(output.splitlines())
    assert typed("config", "train.epochs")[1].splitlines()[1].startswith("  epochs: ???")
    assert "poll_s: 5.0" in typed("config", "head")[1]
    code, output, errors = typed("config", "gaussian_process")
    assert (code, output) == (2, "")
    assert errors == "error: 'gaussian_process' is no section of a configuration: write data.gaussian_process\n"


def test_the_page_shows_what_a_plugin_registers(typed, tmp_path):
    (tmp_path / "shown.py").write_text(PLUGIN.replace("halved", "shown").replace("Halved", "Shown"))
    code, output, errors = typed("config", f"plugins=[{tmp_path / 'shown.py'}]", "model")
    assert (code, errors) == (0, "")
    assert "\n  # settings_u and settings_v of shown:\n  #   width: 4 " in output


def test_help_on_a_run_file_shows_the_settings_of_what_it_chooses(typed, tmp_path):
    (tmp_path / "helped.py").write_text(PLUGIN.replace("halved", "helped").replace("Halved", "Helped"))
    overrides = (f"plugins=[{tmp_path / 'helped.py'}]", "model.encoder_v=helped", "model.settings_v.width=7")
    code, output, errors = typed("train", GAUSSIAN, *overrides, "--help")
    assert (code, errors) == (0, "")
    assert "\n  model.settings_v.width=7 " in output
    assert "\n  data.gaussian_process.noise_std=0.05 standard deviation" in output
    assert "model.settings_u" not in output  # linear has none
    assert typed("train", "nowhere.yaml", "--help")[:2] == (0, typed("train", "--help")[1])


# keys


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("epochs=3", "'epochs' is not a key: write train.epochs;"),
        ("model.encoder=mlp", "'model.encoder' is not a key: write one of model.encoder_u, model.encoder_v;"),
        ("encoder=mlp", "write one of model.encoder_u, model.encoder_v;"),
        ("temperature.initial=2", "'temperature' is not a key: write one of draw.temperature, model.temperature;"),
        ("loss.weight=1", "write one of loss.weight_u_given_v, loss.weight_v_given_u;"),
        ("train.kind=x", "write one of loss.kind, loss.kernel.kind;"),
        ("train.epoch=3", "the nearest is train.epochs;"),
    ],
)
def test_a_key_without_its_section_leads_to_the_whole_key(typed, override, hint):
    code, output, errors = typed("config", GAUSSIAN, override)
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert hint in errors


def test_a_key_at_the_wrong_level_of_a_file_leads_to_the_whole_key(typed, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("epochs: 3\n")
    assert f"{path}: 'epochs' is not a key: write train.epochs;" in typed("config", path)[2]
    path.write_text("train:\n  encoder_u: mlp\n")
    assert f"{path}: 'train.encoder_u' is not a key: write model.encoder_u;" in typed("config", path)[2]


# a run's folder


@pytest.mark.long
def test_a_run_is_evaluated_as_it_was_trained_without_repeating_its_overrides(typed, train):
    run = train("whole", "train.epochs=7", "model.embedding_dim=3", "train.learning_rate=0.5")
    code, output, errors = typed("evaluate", run, "evaluation.num_examples=0", "evaluation.num_embeddings=0")
    assert code == 0, errors
    assert output.splitlines()[-1] == f"watch: tensorboard --logdir {run.parent}"
    metrics = json.loads((run / "evaluations" / "checkpoint_00000005" / "metrics.json").read_text())
    assert (metrics["run"], metrics["training_seed"]) == ("whole", 0)
    recorded = yaml.safe_load(typed("config", run)[1])
    assert (recorded["train"]["epochs"], recorded["model"]["embedding_dim"]) == (7, 3)


def test_a_run_that_was_moved_is_evaluated_where_it_lies(typed, train, judged, tmp_path, shards, monkeypatch):
    run, there = train("moved"), tmp_path / "else where" / "renamed"
    there.parent.mkdir()
    run.rename(there)
    shutil.copytree(shards, tmp_path / "copied")
    code, output, errors = typed("evaluate", there, f"data.shards={tmp_path / 'copied'}")
    assert code == 0, errors
    assert output.splitlines()[-1] == f"watch: tensorboard --logdir '{there.parent}'"
    assert [(run, about["run"]) for run, _, about in judged] == [(str(there), "renamed")]
    monkeypatch.chdir(there)
    for path in (".", f"{there}/"):
        config = load_config(path)
        assert (config.name, config.storage) == ("renamed", str(there.parent))
    assert load_config("config.yaml").name == "moved"  # as it was written
    assert not run.exists()


def test_a_folder_that_is_no_run_is_told_so(typed, train):
    run = train("whole")
    code, _, errors = typed("evaluate", run.parent)
    assert (code, errors.count("\n")) == (2, 1)
    assert f"{run.parent} is a folder without config.yaml: give a run file" in errors
    code, _, errors = typed("evaluate", run / "checkpoint_00000003")
    assert (code, errors.count("\n")) == (2, 1)
    assert "give its run, and evaluation.checkpoint=..." in errors


def test_the_run_file_of_a_training_with_overrides_evaluates_it_and_says_what_differs(typed, train, judged, shards):
    run = train("short", "train.epochs=3", "seed=4")
    where = (*SETTINGS, "name=short", f"storage={run.parent}", f"data.shards={shards}")
    code, output, errors = typed("evaluate", GAUSSIAN, *where)
    assert code == 0, errors
    assert output.startswith(f"{run} was trained with seed=4, train.epochs=3, and is evaluated as such\n")
    assert [(run, about["training_seed"]) for run, _, about in judged] == [(str(run), 4)]


@pytest.mark.long
@pytest.mark.parametrize("override", ["model.tilting=cosine", "loss.weight_u_given_v=0.5", "train.epochs=4", "seed=5"])
def test_the_run_of_another_experiment_is_not_evaluated_and_the_remedy_works(typed, train, judged, shards, override):
    """Another model or loss, or what was typed: it is meant."""
    run = train("it's mine", "train.epochs=3")
    where = (*SETTINGS, "name=it's mine", f"storage={run.parent}", f"data.shards={shards}", override)
    code, output, errors = typed("evaluate", GAUSSIAN, *where)
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert f"differing: {override.partition('=')[0]})" in errors
    remedy = errors.partition("): ")[2].partition(" evaluates it")[0]
    _, command, *arguments = shlex.split(remedy)
    assert typed(command, *arguments)[0] == 0
    assert [run for run, _, _ in judged] == [str(run)]


def test_shards_that_are_not_where_the_run_file_says_lead_to_the_run(typed, train):
    run = train("whole")
    code, _, errors = typed("evaluate", GAUSSIAN, "name=whole", f"storage={run.parent}", "data.shards=nowhere")
    assert (code, errors.count("\n")) == (2, 1)
    assert f"if they lie elsewhere give data.shards=...; pcl evaluate {run} evaluates it as it was trained" in errors
    code, _, errors = typed("evaluate", run, "data.shards=nowhere")
    assert (code, errors.count("\n")) == (2, 1)
    assert errors.endswith("; if they lie elsewhere give data.shards=...\n")


def test_a_run_goes_on_by_its_folder(typed, train, monkeypatch):
    run, trained = train("whole", "train.epochs=7"), []
    monkeypatch.setattr(
        train_command, "fit_with_progress", lambda config, run, steps, *, goes_on: trained.append((run, steps, goes_on))
    )
    code, _, errors = typed("train", run)
    assert code == 0, errors
    assert trained == [(run, 7 * 160 // 32, False)]
    code, _, errors = typed("train", run, "train.epochs=8")
    assert (code, errors.count("\n")) == (2, 1)
    assert "has train.epochs=7" in errors  # its schedule is the cosine of so many
    assert "train.init_from=" in errors


class Server:
    """A cluster that keeps what is submitted."""

    address, submitted = "http://127.0.0.1:8265", list[tuple[list[str], list[str]]]()

    def __init__(self, address):
        self.submitted.clear()

    def newest(self, name):
        return 0, None

    def resources(self):
        return {"CPU": 1.0}

    def submit(self, name, command, code, needs):
        sent = sorted(path.name for path in Path(code["working_dir"]).iterdir() if path.is_file())
        self.submitted.append((shlex.split(command)[4:], sent))


def test_a_job_is_given_the_folder_of_a_run_and_plugins_as_it_finds_them(typed, train, plugin, monkeypatch, tmp_path):
    monkeypatch.setattr(submit, "JobServer", Server)
    run = train("whole")
    monkeypatch.chdir(run.parent)
    arguments = (f"plugins=[{os.path.relpath(plugin)}]", "evaluation.checkpoint=3")
    for configuration in ("whole", "whole/config.yaml"):
        code, _, errors = typed("submit", "--no-wait", "evaluate", configuration, *arguments)
        assert code == 0, errors
        given, sent = Server.submitted[0]
        assert given == [str(run.parent / configuration), *arguments, 'plugins=["own.py"]']
        assert "own.py" in sent
        assert "config.yaml" not in sent  # a copy would be a run file, whose plugins are imported


@pytest.mark.parametrize(
    ("job", "keys", "wrong", "said"),
    [
        ("finetune", ("finetune.steps=0",), ("finetune.stpes=0",), "finetune.steps"),
        ("draw", ("given.item=3", "draw.to=/shared/drawn"), ("given.itme=3",), "given.item"),
        ("export", ("export.to=/shared/model",), ("export.to=/shared/model", "exprt.to=x"), "export"),
    ],
)
def test_what_is_done_with_a_run_is_a_job_too(typed, train, monkeypatch, job, keys, wrong, said):
    monkeypatch.setattr(submit, "JobServer", Server)
    run = train("whole")
    code, output, errors = typed("submit", "--no-wait", job, run, *keys)
    assert code == 0, errors
    assert Server.submitted[0][0] == [str(run), *keys]
    assert f"job {job}-whole is submitted" in output
    Server.submitted.clear()
    code, _, errors = typed("submit", "--no-wait", job, run, *wrong)
    assert (code, errors.count("\n"), Server.submitted) == (2, 1, [])
    assert said in errors


def test_runs_are_compared_by_a_job_too(typed, train, monkeypatch):
    monkeypatch.setattr(submit, "JobServer", Server)
    runs = [str(train(name)) for name in ("kind-one", "kind-two")]
    code, output, errors = typed("submit", "--no-wait", "compare", *runs, "name=again")
    assert code == 0, errors
    assert Server.submitted[0][0] == [*runs, "name=again"]
    assert "job compare-again-comparison is submitted" in output
    code, _, errors = typed("submit", "--no-wait", "compare", runs[0])
    assert (code, errors.count("\n")) == (2, 1)


def test_a_job_keeps_nothing_in_its_copy_of_the_code(typed, train, monkeypatch, tmp_path):
    run, other = train("kind-one"), train("kind-two")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.setattr(address, "IS_LOCAL", False)
    for command, *arguments in (
        ("draw", run, "given.item=0", "draw.to=drawn"),
        ("export", run, "export.to=taken"),
        ("compare", run, other, "storage=compared"),
    ):
        code, _, errors = typed(command, *arguments)
        assert (code, errors.count("\n")) == (2, 1)
        assert "which no other job sees: give a folder that every node sees" in errors
    assert not {"drawn", "taken", "compared"} & {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("nmae=again", "name"),
        ("evaluation.lable=3", "evaluation.label"),
        ("evaluation.label=3", "v are no labels here"),
        ("name=../elsewhere", "name="),
        ("name=", ""),
    ],
)
def test_a_mistake_in_a_comparison_is_said_before_anything_is_read(typed, train, monkeypatch, key, said):
    runs, compared = [train(name) for name in ("kind-one", "kind-two")], list[Path]()
    monkeypatch.setattr(compare, "compare", lambda runs, folder, overrides: compared.append(folder))
    code, _, errors = typed("compare", *runs, key)
    if not said:
        assert (code, compared) == (0, [runs[0].parent / "kind-comparison"])
        return
    assert (code, errors.count("\n"), compared) == (2, 1, [])
    assert said in errors


def test_runs_that_were_judged_on_different_numbers_of_pairs_are_not_compared(typed, train):
    runs = [train(name, f"seed={seed}") for seed, name in enumerate(("kind-one", "kind-two"))]
    for run, number in zip(runs, (20, 10), strict=True):
        content = {"u_given_v_recall@1": 0.5, "step": 5, "split": "test", "max_pairs": number}
        write_json(run / "evaluations" / checkpoint_name(5) / "test_first" / "metrics.json", sealed(content))
    code, _, errors = typed("compare", *runs)
    assert (code, errors.count("\n")) == (2, 1)
    assert "kind-one was evaluated with evaluation.max_pairs=20 and kind-two with 10" in errors
    assert not (runs[0].parent / "kind-comparison").exists()


def test_a_pattern_of_runs_leaves_comparisons_out(typed, train, monkeypatch):
    runs, compared = [train(name) for name in ("kind-one", "kind-two")], list[list[Path]]()
    monkeypatch.setattr(compare, "compare", lambda runs, folder, overrides: compared.append(runs))
    comparison = runs[0].parent / "kind-comparison"
    comparison.mkdir()
    (comparison / "compare.json").write_text("{}")
    code, _, errors = typed("compare", comparison, *runs)
    assert (code, compared) == (0, [runs]), errors


def test_a_checkpoint_is_chosen_by_its_step(typed, train, judged):
    run = train("whole", steps=(3, 250))
    for asked in ("3", "checkpoint_00000250"):
        code, _, errors = typed("evaluate", run, f"evaluation.checkpoint={asked}")
        assert code == 0, errors
    names = [name for _, name, _ in judged]
    assert names == ["checkpoint_00000003", "checkpoint_00000250"]
    for asked in ("4", "9" * 5000, "-3", "٣"):
        with pytest.raises(BadInputError, match=r"holds checkpoint_00000003, checkpoint_00000250$"):
            evaluate.chosen_checkpoint(run, names, asked)


@pytest.mark.parametrize(("best", "newest"), [(250, 250), (3, 250), (1, 250), (400, 250)])
def test_the_newest_checkpoint_is_taken_whichever_is_the_best(train, best, newest):
    run = train("whole", steps=(3, 250))
    content = torch.load(run / checkpoint_name(3) / "state.pt", weights_only=True)
    keep_best(run, best, 0.5, content)
    assert evaluate.checkpoint_of(run, "")[0] == run / checkpoint_name(newest)
    chosen, known = evaluate.checkpoint_of(run, "best")
    assert (chosen.name, known.step) == (checkpoint_name(best), best)


# plugins of a run are not imported


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(PLUGIN + f"\nfrom pathlib import Path\nPath({str(tmp_path / 'sung')!r}).touch()\n")
    return path


def test_no_plugin_that_a_run_names_is_imported(typed, train, judged, tmp_path):
    run = train("whole")
    evil = tmp_path / "evil.py"
    evil.write_text(f"open({str(tmp_path / 'sung')!r}, 'w')")
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("plugins: []", f"plugins: [{evil}]"))
    assert load_config(run).plugins == load_config(run / "config.yaml").plugins == []
    assert typed("evaluate", run)[0] == 0
    for key in ("encoder_u: linear", "source: gaussian_process"):
        (run / "config.yaml").write_text(config.replace(key, f"{key.split(':')[0]}: os.system"))
        code, output, errors = typed("evaluate", run)
        assert (code, output, errors.count("\n")) == (2, "", 1)
        assert (
            f"{key.split(':')[0]}=os.system, which is not known here: if a plugin registers it give plugins=" in errors
        )
    assert not (tmp_path / "sung").exists()


@pytest.mark.long
def test_a_run_with_a_plugin_is_evaluated_with_that_of_the_command_line(
    typed, train, judged, plugin, monkeypatch, tmp_path
):
    run = train("own", f"plugins=[{plugin}]", "model.encoder_u=halved", "model.settings_u.width=6")
    (tmp_path / "sung").unlink()
    monkeypatch.setattr(loading, "_LOADED", {})
    monkeypatch.delitem(ENCODERS, "halved")  # as another process begins
    code, output, errors = typed("evaluate", run)
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert "model.encoder_u=halved, which is not known here" in errors
    assert not (tmp_path / "sung").exists()
    monkeypatch.chdir(tmp_path)
    code, _, errors = typed("evaluate", run, f"plugins=[{plugin.name}]")
    assert code == 0, errors
    assert (tmp_path / "sung").exists()
    plugin.write_text(plugin.read_text() + "# another content\n")
    code, output, errors = typed("evaluate", run, f"plugins=[{os.path.relpath(plugin)}]")
    assert code == 0, errors
    assert output.startswith("the plugin own is not what")
    assert pcl.load(run).encoder_u is not None


def test_settings_of_kinds_that_nobody_registers_here_are_left_out(train):
    run = train("whole")
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("\nmodel:\n", "\nmodel:\n  theirs: {width: 3}\n"))
    assert load_config(run).model.encoder_u == "linear"
    (run / "config.yaml").write_text(config.replace("\nmodel:\n", "\nmodel:\n  theirs: 3\n"))
    with pytest.raises(BadInputError, match=r"'model\.theirs' is not a key"):
        load_config(run)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO])
def test_a_place_that_cannot_be_written_to_is_told_with_what_to_do(capsys, number):
    def main():
        raise OSError(number, os.strerror(number), "/runs/mine")

    with pytest.raises(SystemExit) as end:
        finish(main)
    assert end.value.code == 1
    line = capsys.readouterr().err
    assert line.startswith(f"error: /runs/mine: {os.strerror(number)}")
    assert line.count("\n") == 1
    assert ("choose another place" in line) == (number != errno.EIO), "of a broken disk pcl knows no more"


@pytest.mark.parametrize(
    ("command", "key", "where"),
    [
        ("evaluate", "seed=0", "run/evaluations"),
        ("export", "export.to={file}/out", "{file}/out"),
        ("draw", "draw.to={file}/out/deep", "{file}/out/deep"),
    ],
)
def test_a_folder_that_cannot_be_written_to_is_refused_before_work_is_done_for_it(
    typed, train, tmp_path, monkeypatch, command, key, where
):
    run, file = train("run"), tmp_path / "file"
    file.write_text("what is no folder")
    if command == "evaluate":
        (run / "evaluations").write_text("what is no folder")
    monkeypatch.setattr(pcl, "load", lambda *_: pytest.fail("work is done"))
    given = ["given.item=0"] if command == "draw" else []
    code, _, errors = typed(command, run, key.format(file=file), *given)
    assert code == 2
    assert f"{where.format(file=file)} cannot be written to (" in errors
    assert errors.count("\n") == 1
    assert "choose another folder" in errors


@pytest.mark.parametrize("there", ["", "out", "out/deep"])
def test_a_folder_that_can_be_written_to_is_as_it_was(tmp_path, there):
    (tmp_path / there).mkdir(parents=True, exist_ok=True)
    before = sorted(tmp_path.rglob("*"))
    check_writable(tmp_path / "out" / "deep" / "deeper")
    assert sorted(tmp_path.rglob("*")) == before
