"""What importing pcl leaves as it was: everything that others of the same process use."""

import json
import subprocess
import sys

from tests.test_layering import MODULES, imports, within


def needs_ray(module: str) -> bool:
    """Return whether a module, or one that it leads to, imports Ray, which changes a lot; late imports may go back."""
    found, waiting = set(), {module}
    while waiting:
        found |= waiting
        waiting = {name for one in waiting & set(MODULES) for name in imports(one)} - found
    return any(within(name, "ray") for name in found)


SNAPSHOT = """
import importlib, json, logging, os, signal, sys, warnings

def snapshot():
    import fsspec, torch, numpy, upath.registry
    from fsspec.registry import known_implementations, registry
    from omegaconf.basecontainer import BaseContainer
    return {
        "file systems": {name: str(kind) for name, kind in known_implementations.items()},
        "file systems in use": {name: str(kind) for name, kind in registry.items() if name in ("s3", "file", "memory")},
        "kinds of paths": str(sorted(upath.registry._registry._m.items(), key=str)),
        "resolvers": sorted(BaseContainer._resolvers),
        "environment": dict(os.environ),
        "signals": {n.name: str(signal.getsignal(n)) for n in signal.valid_signals() if isinstance(n, signal.Signals)},
        "logging": [logging.root.level, logging.root.disabled, len(logging.root.handlers), logging.raiseExceptions],
        "warnings": [str(rule) for rule in warnings.filters],
        "torch": [str(torch.get_default_dtype()), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(),
                  torch.backends.cuda.matmul.allow_tf32, torch.initial_seed(), torch.is_grad_enabled()],
        "numpy": [str(numpy.geterr()), str(numpy.get_printoptions())],
        "process": [os.getcwd(), sys.getrecursionlimit(), str(sys.excepthook), os.umask(os.umask(0o22))],
    }

for name in THEIRS:
    try:
        importlib.import_module(name)
    except ImportError:
        pass
before = snapshot()
for name in OURS:
    importlib.import_module(name)
after = snapshot()
print(json.dumps({key: [before[key], after[key]] for key in before if before[key] != after[key]}))
"""


def test_importing_pcl_changes_nothing_outside():
    ours = sorted(name for name in MODULES if within(name, "pcl") and not needs_ray(name))
    theirs = sorted({name for module in ours for name in imports(module) if not within(name, "pcl")} | {"s3fs"})
    code = f"OURS, THEIRS = {ours}, {theirs}\n{SNAPSHOT}"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout.splitlines()[-1]) == {}


def test_s3_of_others_is_theirs():
    code = (
        "from pcl.storage.place import place\nimport fsspec, upath, pickle\n"
        "ours = place('s3://bucket/a') / 'b'\n"
        "again = pickle.loads(pickle.dumps(ours))\n"
        "print(type(ours.fs).__module__, type(again.fs).__module__, again == ours)\n"
        "print(type(upath.UPath('s3://bucket/a').fs).__module__, fsspec.get_filesystem_class('s3').__module__)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["pcl.storage.s3", "pcl.storage.s3", "True", "s3fs.core", "s3fs.core"]


def test_what_only_speaks_to_ray_or_starts_tasks_imports_no_torch():
    """An actor of Ray that imports it starts two seconds later."""
    code = "import pcl.cluster.board, pcl.cluster.tasks, sys; print(*{'torch', 'numpy', 'pandas'} & {*sys.modules})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "\n"
