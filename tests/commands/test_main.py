"""The command pcl as people type it: what it lists, what it refuses, and how it ends while it imports."""

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import omegaconf
import pytest
import yaml

from pcl.cluster.signals import Interrupted
from pcl.commands import config as print_config
from pcl.commands import main
from pcl.commands.required import pins
from pcl.config.page import page_of_keys
from pcl.errors import BadInputError
from tests import forked

ROOT = Path(__file__).resolve().parents[2]
GAUSSIAN = "configs/gaussian.yaml"
COMMANDS = {
    *(
        "shards",
        "train",
        "sweep",
        "compare",
        "evaluate",
        "finetune",
        "draw",
        "reconstruct",
        "export",
        "theory",
        "head",
        "submit",
    ),
    *("config", "benchmark", "benchmark-losses"),
}
SCRIPTS = {"write_shards": "shards", "check_theory": "theory"}


def typed(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def pcl(*arguments, **environment):
    """Return exit code, output and errors of ``python -m pcl``."""
    process = typed("-m", "pcl", *arguments, **environment)
    output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors


def test_help_lists_every_command_within_a_second():
    started = time.perf_counter()
    code, output, errors = pcl("--help")
    assert time.perf_counter() - started < 1, "torch takes longer"
    assert (code, errors) == (0, "")
    listed = {line.split()[0]: line.split(maxsplit=1)[1] for line in output.splitlines() if line.startswith("  ")}
    assert listed.keys() == COMMANDS
    for command, about in listed.items():
        module = ROOT / "pcl" / "commands" / f"{command.replace('-', '_')}.py"
        assert ast.get_docstring(ast.parse(module.read_text())).splitlines()[0] == about
    assert pcl() == (2, output, "")


def test_the_version_is_that_of_the_project():
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    (number,) = [line.split('"')[1] for line in lines if line.startswith("version = ")]
    assert pcl("--version") == (0, f"{number}\n", "")


def test_a_command_that_is_not_known_is_refused_with_the_nearest():
    code, output, errors = pcl("trian", GAUSSIAN)
    assert (code, output) == (2, "")
    assert errors == "error: 'trian' is not a command: the nearest is train; python -m pcl --help lists them all\n"
    assert pcl("\x1b[2Jq")[2].startswith("error: '\\x1b[2Jq' is not a command; ")


@pytest.mark.parametrize(
    ("words", "usage"), [(("-m", "pcl", "train"), "python -m pcl train"), (("jobs/train.py",), "")]
)
def test_help_of_a_command_says_how_it_was_called(words, usage):
    done = forked.run([sys.executable, *words, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {usage or 'python jobs/train.py'} CONFIG [key=value ...]\n\nTrain a run ")
    assert "train.learning_rate=... " in done.stdout


def test_a_configuration_is_printed_whole_and_the_page_of_all_keys_without_one(capsys):
    print_config.command("pcl config", [str(ROOT / GAUSSIAN), "train.epochs=7", "name=a: b"])
    config = yaml.safe_load(capsys.readouterr().out)
    assert (config["name"], config["train"]["epochs"], config["data"]["source"]) == ("a: b", 7, "gaussian_process")
    assert config["train"]["learning_rate"] == yaml.safe_load((ROOT / GAUSSIAN).read_text())["train"]["learning_rate"]
    print_config.command("pcl config", [])
    assert capsys.readouterr().out == page_of_keys()
    with pytest.raises(BadInputError, match=r"the nearest is train\.epochs"):
        print_config.command("pcl config", [str(ROOT / GAUSSIAN), "train.epoch=7"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_torch_is_imported_ends_in_one_line(number, tmp_path):
    (tmp_path / "torch.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    for words in (("-m", "pcl", "train"), ("jobs/train.py",)):
        process = typed(*words, GAUSSIAN, PYTHONPATH=f"{tmp_path}:{ROOT}")
        assert process.stdout.readline() == "importing\n"
        process.send_signal(number)
        output, errors = process.communicate(timeout=20)
        line = f"error: {number.name}: the same command goes on from what is finished\n"
        assert (process.returncode, output, errors) == (128 + number, "", line)


@pytest.mark.parametrize("name", main.COMMANDS)
@pytest.mark.parametrize("message", [(), ("step 7 is committed",)])
def test_a_command_that_keeps_nothing_does_not_say_that_it_goes_on(monkeypatch, capsys, name, message):
    def command(program, given):
        raise Interrupted(signal.SIGTERM, *message)

    monkeypatch.setattr(main, "imported", lambda module: SimpleNamespace(command=command))
    monkeypatch.setattr(sys, "argv", [f"jobs/{name}.py"])
    with pytest.raises(SystemExit) as ended:
        main.script(name)
    keeps = name in ("shards", "train", "sweep", "theory", "head")
    said = message[0] if message else f"the same command {'goes on from what is finished' if keeps else 'begins again'}"
    assert (ended.value.code, capsys.readouterr().err) == (143, f"error: SIGTERM: {said}\n")


def test_a_python_that_lacks_a_package_is_told_so_in_one_line(tmp_path):
    (tmp_path / "omegaconf.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'omegaconf'\", name='omegaconf')"
    )
    code, output, errors = pcl("train", GAUSSIAN, PYTHONPATH=f"{tmp_path}")
    line = (
        f"error: this process's Python, {sys.executable}, has no omegaconf: install pcl into it with what it requires"
    )
    assert (code, output, errors) == (1, "", f"{line}, pip install {ROOT}\n")


def test_a_job_whose_python_lacks_packages_is_told_of_the_remedy_before_it_imports_any(tmp_path):
    """A Python without the packages of this one, as the `python` of a cluster may be."""
    bare = ("-S", "-m", "pcl", "train", GAUSSIAN)
    process = typed(*bare, RAY_JOB_CONFIG_JSON_ENV_VAR="{}")
    output, errors = process.communicate(timeout=20)
    assert (process.returncode, output, errors.count("\n")) == (1, "", 1)
    assert ", has no cftime, dask, " in errors
    assert ", so it is not the one that Ray runs with: " in errors
    assert errors.endswith(", or pcl submit --install lets it run the job\n")


def test_what_is_brought_to_a_cluster_is_what_is_installed_here_without_ray_and_torch():
    found = dict(pin.split("==") for pin in pins())
    assert found["omegaconf"] == omegaconf.__version__
    assert {"netCDF4", "tensorboard", "universal_pathlib", "zarr", "s3fs"} <= found.keys()
    assert not {"ray", "torch", "pytest", "parcels"} & found.keys()


@pytest.mark.parametrize("script", sorted(path.stem for path in (ROOT / "jobs").glob("*.py")))
def test_every_script_is_a_command_with_its_description(script):
    ours = ast.get_docstring(ast.parse((ROOT / "jobs" / f"{script}.py").read_text()))
    module = ROOT / "pcl" / "commands" / f"{SCRIPTS.get(script, script)}.py"
    assert ast.get_docstring(ast.parse(module.read_text())).splitlines()[0] == ours
