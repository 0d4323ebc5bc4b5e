"""What Ray does not promise stands in one room, and another version of Ray is trained with without it."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pcl.train.runs import checkpoints
from tests import forked
from tests.trained import weights_of_two
from tests.typed import ROOT, finish, stand_still_when, wait_until, workers_of

PRIVATE = ("ray._private", "ray.dashboard", "ray.experimental", "ray.train._internal", "ray.train.v2")
ROOM = ROOT / "pcl" / "cluster" / "ray_insides"
SETTINGS = ("train.epochs=5", "train.global_batch=512", "train.checkpoint_every=11")
# a process for which Ray is of another version, and what stands for the insides of this one cannot be imported
OTHER = """
import sys, types
version = types.ModuleType("ray._version")
version.version, version.commit = "2.99.0", "none"
sys.modules["ray._version"] = version
sys.modules["pcl.cluster.ray_insides.train"] = None
from pcl.commands.main import script
script("train")
"""


def private_names(path):
    """Return the private names of Ray that a file imports, or reaches through ``ray``."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith(PRIVATE)}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ray"):
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in full if name.startswith(PRIVATE) or "._" in name}
        elif isinstance(node, ast.Attribute) and node.attr.startswith("_") and ast.unparse(node.value) == "ray":
            found.add(ast.unparse(node))
    return {name for name in found if not name.endswith("__")}


def test_no_other_module_knows_a_private_name_of_ray():
    files = [path for folder in ("pcl", "jobs") for path in sorted((ROOT / folder).rglob("*.py"))]
    assert {path: names for path in files if (names := private_names(path)) and path.parent != ROOM} == {}


def test_every_private_name_is_explained():
    for path in sorted(ROOM.glob("*.py")):
        told = ast.get_docstring(ast.parse(path.read_text()))
        names = {name.split(".")[-1] for name in private_names(path)}
        assert names
        assert [name for name in names if name not in told] == []


@pytest.mark.timeout(900)  # of a machine that does much else
def test_another_version_of_ray_gives_the_same_weights_although_a_worker_dies(shards, tmp_path):
    arguments = [f"data.shards={shards}", f"storage={tmp_path}", *SETTINGS]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    command = [sys.executable, "-c", OTHER, "configs/gaussian.yaml", *arguments, "name=other"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    other = forked.Popen(command, cwd=ROOT, env=environment, text=True, **pipes)
    wait_until(lambda: len(workers_of(other)) == 2, other, 300)
    victim = workers_of(other)[1]
    stand_still_when(lambda: checkpoints(tmp_path / "other"), victim, other, 300)
    victim.kill()
    code, output, errors = finish(other)
    assert code == 0, errors
    (told,) = [line for line in output.splitlines() if "public interface" in line]
    assert told.startswith("Ray 2.99.0 is not 2.60: its public interface alone is used, with 2 workers")
    assert re.search(r"^worker [01] died: the newest checkpoint is that of step ", output, re.MULTILINE), output
    one, two = weights_of_two(*arguments), model_of(tmp_path / "other")
    assert one.keys() == two.keys()
    assert [name for name, value in one.items() if not torch.equal(value, two[name])] == []


def model_of(run: Path):
    return torch.load(run / "checkpoint_00000095" / "state.pt", weights_only=True)["model"]
