"""Who may import whom (DESIGN): asserted from the imports of every module."""

import ast
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

# the prefix of a module -> the prefixes of the modules of ours that it may import
ALLOWED = {
    "pcl.errors": (),
    "pcl.s3": (),
    "pcl.storage": ("pcl.errors", "pcl.s3"),
    "pcl.stored": ("pcl.errors", "pcl.storage"),
    "pcl.lease": ("pcl.errors", "pcl.storage", "pcl.stored"),
    "pcl.events": ("pcl.storage",),
    "pcl.entrance": (),
    "pcl.precision": (),
    "pcl.tilting": ("pcl.entrance", "pcl.precision"),
    "pcl.workers": (),
    "pcl.scores": ("pcl.precision", "pcl.workers"),
    "pcl.losses": ("pcl.precision", "pcl.scores", "pcl.workers"),
    "pcl.kernels": ("pcl.precision",),
    "pcl.mmd": ("pcl.kernels", "pcl.losses", "pcl.precision", "pcl.scores", "pcl.workers"),
    "pcl.objective": ("pcl.kernels", "pcl.losses", "pcl.mmd", "pcl.scores"),
    "pcl.conditional": ("pcl.entrance", "pcl.precision", "pcl.tilting"),
    "pcl.gaussian": ("pcl.gaussian",),
    "pcl.sphere": (),
    "pcl.advection": ("pcl.errors",),
    "pcl.streamfunction": ("pcl.advection", "pcl.errors"),
    "pcl.encoders": ("pcl.encoders", "pcl.entrance", "pcl.errors", "pcl.sphere", "pcl.streamfunction"),
    "pcl.model": ("pcl.conditional", "pcl.encoders", "pcl.entrance", "pcl.tilting"),
    "pcl.data": (
        "pcl.data",
        "pcl.advection",
        "pcl.errors",
        "pcl.gaussian",
        "pcl.lease",
        "pcl.sphere",
        "pcl.storage",
        "pcl.stored",
        "pcl.streamfunction",
    ),
    "pcl.train": (
        "pcl.train",
        "pcl.data.manifest",
        "pcl.encoders",
        "pcl.errors",
        "pcl.events",
        "pcl.losses",
        "pcl.model",
        "pcl.objective",
        "pcl.storage",
        "pcl.stored",
        "pcl.tilting",
        "pcl.workers",
    ),
    "pcl.train.session": (
        "pcl.train",
        "pcl.data",
        "pcl.encoders",
        "pcl.errors",
        "pcl.kernels",
        "pcl.model",
        "pcl.objective",
        "pcl.config",
        "pcl.runs",
        "pcl.storage",
    ),
    "pcl.train.elastic": ("pcl.cluster", "pcl.errors"),
    "pcl.train.files": ("pcl.cluster", "pcl.errors", "pcl.storage"),
    "pcl.train.worker": ("pcl.train", "pcl.cluster", "pcl.errors", "pcl.config", "pcl.storage"),
    "pcl.benchmark": ("pcl.errors", "pcl.losses", "pcl.train.collectives"),
    "pcl.theory": (
        "pcl.theory",
        "pcl.data.manifest",
        "pcl.errors",
        "pcl.evaluation.calibration",
        "pcl.evaluation.calibration_figure",
        "pcl.gaussian",
        "pcl.kernels",
        "pcl.losses",
        "pcl.model",
        "pcl.objective",
        "pcl.storage",
        "pcl.stored",
        "pcl.train.loop",
        "pcl.workers",
    ),
    "pcl.evaluation": (
        "pcl.evaluation",
        "pcl.advection",
        "pcl.conditional",
        "pcl.data",
        "pcl.encoders.linear_inverse",
        "pcl.encoders.tracks",
        "pcl.errors",
        "pcl.events",
        "pcl.gaussian",
        "pcl.model",
        "pcl.storage",
        "pcl.stored",
        "pcl.streamfunction",
        "pcl.sphere",
    ),
    "pcl.schema": (),
    "pcl.values": (),
    "pcl.config": ("pcl.errors", "pcl.schema", "pcl.storage", "pcl.values"),
    "pcl.runs": (
        "pcl.data.manifest",
        "pcl.errors",
        "pcl.model",
        "pcl.storage",
        "pcl.stored",
        "pcl.train.checkpoint",
    ),
    "pcl.own_ray": ("pcl.errors", "pcl.signals"),
    "pcl.cluster": ("pcl.errors", "pcl.own_ray", "pcl.signals"),
    "pcl.submission": ("pcl.errors", "pcl.head.work"),
    "pcl.head": (
        "pcl.head",
        "pcl.data.manifest",
        "pcl.errors",
        "pcl.runs",
        "pcl.storage",
        "pcl.stored",
        "pcl.submission",
        "pcl.theory.store",
        "pcl.train.checkpoint",
    ),
    "pcl.signals": (),
    "pcl.command": ("pcl.config", "pcl.errors", "pcl.signals"),
    "pcl": ("pcl.runs",),
    "jobs": ("pcl",),
}
IMPORT_RAY = {
    "pcl.cluster",
    "pcl.head.cluster",
    "pcl.own_ray",
    "pcl.submission",
    "pcl.train.elastic",
    "pcl.train.worker",
}
READ_CONFIGURATION = {"pcl.config", "pcl.command", "pcl.train.session", "pcl.train.worker"}


def imports(module: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            found.add(node.module or "")
    return found


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module):
    rule = max((prefix for prefix in ALLOWED if within(module, prefix)), key=len)
    ours = {name for name in imports(module) if within(name, "pcl") or within(name, "jobs")}
    forbidden = {name for name in ours if not any(within(name, allowed) for allowed in ALLOWED[rule])}
    assert not forbidden, f"{module} may import {ALLOWED[rule]}, not {forbidden}"


@pytest.mark.parametrize("module", MODULES)
def test_ray_stays_where_it_belongs(module):
    uses_ray = any(within(name, "ray") for name in imports(module))
    assert not uses_ray or module in IMPORT_RAY or within(module, "jobs")


@pytest.mark.parametrize("module", MODULES)
def test_configuration_is_read_in_few_places(module):
    reads = "pcl.config" in imports(module)
    assert not reads or module in READ_CONFIGURATION or within(module, "jobs")


@pytest.mark.parametrize("module", [name for name in MODULES if within(name, "jobs")])
def test_jobs_are_thin(module):
    assert len(MODULES[module].read_text().splitlines()) < 80


def test_importing_the_mathematics_does_not_import_ray():
    code = "import pcl, pcl.train.session, pcl.evaluation.report, sys; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
