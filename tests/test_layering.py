"""Who may import whom (docs/design.md): asserted by folder, from the imports of every module."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for folder in ("pcl", "jobs")
    for path in sorted((ROOT / folder).rglob("*.py"))
}

# a folder of pcl -> the folders and modules that it may import beside itself and the mathematics, which lie flat
ALLOWED = {
    "mathematics": (),
    "gaussian": (),
    "storage": (),
    "encoders": (),
    "data": ("storage",),
    "plugins": ("encoders", "data", "problems"),
    "config": ("storage", "encoders", "data.source", "data.augmentation", "problems.problem", "plugins.loading"),
    "evaluation": ("data", "encoders", "gaussian", "storage"),
    "train": ("data", "encoders", "config", "storage", "problems.problem", "plugins.loading"),
    "problems": ("data", "encoders", "evaluation", "gaussian", "storage"),
    "theory": ("gaussian", "encoders", "train.loop", "evaluation", "storage"),
    "cluster": ("train", "config", "storage", "plugins.loading"),
    "head": ("cluster.jobs", "storage", "train.runs", "config.identity"),
}
ABOVE = ("pcl", "library", "commands", "benchmark", "jobs")  # which may import all
MAY_IMPORT_A_PROBLEM = ("pcl.commands", "pcl.library", "pcl.problems.registry", "pcl.plugins.decorators")
MAY_IMPORT_RAY = ("pcl.cluster", "jobs")
MAY_READ_CONFIGURATION = (
    "pcl.config",
    "pcl.benchmark",
    "pcl.commands",
    "pcl.library",
    "pcl.train.loss",
    "pcl.train.parts",
    "pcl.train.session",
    "pcl.cluster.alone",
    "pcl.cluster.on_ray",
    "pcl.cluster.worker",
)


@functools.cache
def imports(module: str) -> frozenset[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            found.add(node.module or "")
    return frozenset(found)


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def folder_of(module: str) -> str:
    """Return the folder of a module: ``mathematics`` of those that lie flat."""
    first, *rest = module.split(".")
    if first == "jobs" or not rest:
        return first
    if rest == ["__main__"]:
        return "commands"
    return rest[0] if f"pcl.{rest[0]}" in MODULES and MODULES[f"pcl.{rest[0]}"].stem == "__init__" else "mathematics"


def is_allowed(module: str, name: str) -> bool:
    folder = folder_of(module)
    if folder in ABOVE or folder_of(name) in (folder, "mathematics"):
        return True
    return any(within(name, f"pcl.{allowed}") for allowed in ALLOWED[folder])


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module):
    ours = {name for name in imports(module) if within(name, "pcl") or within(name, "jobs")}
    assert not (wrong := {name for name in ours if not is_allowed(module, name)}), f"{module} imports {wrong}"


@pytest.mark.parametrize("module", MODULES)
def test_nobody_knows_a_problem_by_name(module):
    own = module.split(".")[2:3] if within(module, "pcl.problems") else []
    known = {name for name in imports(module) if within(name, "pcl.problems") and name.split(".")[2:3] != own}
    of_one = known - {"pcl.problems.problem"}
    may = module == "pcl.problems" or any(within(module, one) for one in MAY_IMPORT_A_PROBLEM)
    assert may or not of_one, of_one


@pytest.mark.parametrize("module", MODULES)
def test_ray_stays_where_it_belongs(module):
    uses_ray = any(within(name, "ray") for name in imports(module))
    assert not uses_ray or any(within(module, one) for one in MAY_IMPORT_RAY)


@pytest.mark.parametrize("module", MODULES)
def test_configuration_is_read_in_few_places(module):
    reads = bool(imports(module) & {"pcl.config.load", "pcl.config.schema", "pcl.config.validation"})
    assert not reads or any(within(module, one) for one in MAY_READ_CONFIGURATION)


@pytest.mark.parametrize("module", [name for name in MODULES if within(name, "jobs")])
def test_jobs_are_thin(module):
    assert len(MODULES[module].read_text().splitlines()) < 80


def test_importing_the_mathematics_does_not_import_ray():
    code = "import pcl, pcl.train.session, pcl.evaluation.evaluate, sys; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
