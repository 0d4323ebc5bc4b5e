"""Plugins, read and run: whoever names a file trusts it; a name in a checkpoint or in a stored run leads to none."""

__all__ = ["Plugin", "all_loaded", "hashes", "load_plugins", "loaded", "modules", "place_of", "run_plugins", "running"]

import hashlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pcl.errors import BadInputError, printable

PREFIX = "pcl_plugin_"  # of the names of their modules, so that none hides a module that is installed
MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Plugin:
    """A plugin as it travels to workers, to which its file may be out of reach.

    Attributes:
        path: of its file, absolute, where it was read.
        text: of the file.
    """

    path: str
    text: str

    @property
    def name(self) -> str:
        """The name of its file without suffix."""
        return Path(self.path).stem

    @property
    def sha256(self) -> str:
        """The SHA-256 of the file."""
        return hashlib.sha256(self.text.encode()).hexdigest()


_LOADED: dict[str, Plugin] = {}  # by path
_RUNNING: ContextVar[Plugin | None] = ContextVar("running", default=None)


def load_plugins(paths: str | Path | Sequence[str | Path]) -> list[Plugin]:
    """Plugins read from their files and run, one after the other; one that has not changed is not run again.

    Args:
        paths: Python files, or one; relative ones are of the working directory.

    Raises:
        BadInputError: a file is missing, is no Python, raises an error, or registers a name that is in use.
    """
    paths = [paths] if isinstance(paths, str | Path) else paths
    found = [_read(Path(path).absolute()) for path in paths]
    names = [plugin.name for plugin in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadInputError(f"two plugins are named {twice[0]}: give one of their files another name")
    run_plugins(found)
    return found


def _read(path: Path) -> Plugin:
    try:
        if path.suffix != ".py":
            raise BadInputError(f"plugins: {printable(path)} is no Python file: give one that ends in .py")
        if path.stat().st_size > MOST_BYTES:
            raise BadInputError(f"plugins: {printable(path)} is larger than {MOST_BYTES:,} bytes: give a Python file")
        return Plugin(str(path), path.read_text())
    except FileNotFoundError as error:
        raise BadInputError(
            f"plugins: {printable(path)} does not exist: a run file names plugins relative to itself, a command line "
            "relative to the working directory"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise BadInputError(f"plugins: {printable(path)} cannot be read: {reason}") from error


def run_plugins(plugins: Iterable[Plugin]) -> None:
    """Run plugins that were read, here or elsewhere, unless they have been.

    Raises:
        BadInputError: a plugin raises an error, or registers a name that is in use.
    """
    for plugin in plugins:
        if _LOADED.get(plugin.path) != plugin:
            _run(plugin)
            _LOADED[plugin.path] = plugin


def _run(plugin: Plugin) -> None:
    module = ModuleType(f"{PREFIX}{plugin.name}")
    module.__file__ = plugin.path
    before = sys.modules.get(module.__name__)
    sys.modules[module.__name__] = module  # dataclasses and pickle look a class's module up
    try:
        with _as_running(plugin):
            exec(compile(plugin.text, plugin.path, "exec", dont_inherit=True), module.__dict__)
    except BaseException as error:
        del sys.modules[module.__name__]
        if before is not None:
            sys.modules[module.__name__] = before
        if isinstance(error, Exception):
            raise BadInputError(f"plugin {printable(plugin.path)}{_where(error, plugin.path)}") from error
        raise


def _where(error: Exception, path: str) -> str:
    """Return the line of a plugin that raised an error, and what it says."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    said = error.msg if isinstance(error, SyntaxError) else printable(str(error))[:300]
    kind = "" if isinstance(error, BadInputError) else f"{type(error).__name__}: "
    return f"{f', line {line}' if line else ''}: {kind}{said}"


def place_of(error: BaseException | None, function: Callable[..., Any] | None = None) -> str:
    """Say which line of a plugin an error passed last: nobody looks for a mistake of one's own in a library.

    Args:
        error: that was raised, if any.
        function: in whose file is looked too, or a class; it is named where no such line raised the error, as where
            it was called with arguments that it does not take.

    Returns:
        ``, in <file>, line <line>``, or nothing.

    Example:
        >>> place_of(ValueError("raised by no plugin"))
        ''
    """
    of_it = inspect.unwrap(function.__init__ if inspect.isclass(function) else function) if function else None
    code = getattr(of_it, "__code__", None)
    files = {*_LOADED, *([code.co_filename] if code else [])}
    frames = traceback.extract_tb(error.__traceback__) if error else []
    passed = [(frame.filename, frame.lineno) for frame in frames if frame.filename in files]
    if code and not passed:
        passed = [(code.co_filename, code.co_firstlineno)]
    return f", in {printable(passed[-1][0])}, line {passed[-1][1]}" if passed else ""


@contextmanager
def _as_running(plugin: Plugin) -> Iterator[None]:
    token = _RUNNING.set(plugin)
    try:
        yield
    finally:
        _RUNNING.reset(token)


def running() -> Plugin | None:
    """Return the plugin that is being run, to which belongs what is registered."""
    return _RUNNING.get()


def loaded(paths: Sequence[str | Path]) -> list[Plugin]:
    """Return plugins that were loaded in this process, by the paths of their files."""
    return [_LOADED[str(path)] for path in paths]


def all_loaded() -> list[Plugin]:
    """Return all plugins that were loaded in this process."""
    return [*_LOADED.values()]


def hashes(paths: Sequence[str | Path]) -> dict[str, str]:
    """Return the SHA-256 of plugins that were loaded in this process, by name."""
    return {plugin.name: plugin.sha256 for plugin in loaded(paths)}


def modules() -> list[ModuleType]:
    """Return the modules of the plugins that were loaded in this process."""
    return [sys.modules[f"{PREFIX}{plugin.name}"] for plugin in _LOADED.values()]
