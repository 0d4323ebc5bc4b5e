"""The command line of the jobs, ``CONFIG [key=value ...]``, their help, and how far they are."""

__all__ = [
    "Guide",
    "check_is_kept",
    "check_is_one_run",
    "check_writable",
    "job",
    "plugins_in_job",
    "progress",
    "progress_of_many",
    "watch",
]

import itertools
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from inspect import cleandoc
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from tqdm import tqdm

from pcl.cluster.package import path_in_job
from pcl.commands.required import is_job
from pcl.config.load import Config, load_config
from pcl.config.page import choices_as_typed, keys_as_typed
from pcl.errors import BadInputError
from pcl.storage.place import Place, write_bytes

C = TypeVar("C")
T = TypeVar("T")
HELP = ("-h", "--help")
MANY = 50  # files, or blocks of values: fewer are through in a moment


@dataclass(frozen=True)
class Guide:
    """What the help of a command shows.

    Attributes:
        description: what the command does.
        examples: arguments as somebody types them.
        keys: that this command's users give most; those of the head begin with ``head.``.
        flags: short forms, such as ``--quick``, of ``key=value``.
        config: what may be given as CONFIG.
        page: prints all keys.
        takes_variants: whether the command means all variants of a run file.
    """

    description: str | None
    examples: Sequence[str]
    keys: Sequence[str]
    flags: Mapping[str, str] = field(default_factory=dict)
    config: str = "a run file, or the folder of a run"
    page: str = "pcl config"
    takes_variants: bool = False

    @property
    def example(self) -> str:
        """The first example, without what is said of it."""
        return self.examples[0].partition(" #")[0].rstrip()

    def text(self, program: str, chosen: Sequence[str] = ()) -> str:
        """Return the help of a command.

        Args:
            program: the words before the arguments, such as ``pcl train``.
            chosen: lines on the keys of what a configuration chooses.
        """
        usage = " ".join([program, "CONFIG", *(f"[{flag}]" for flag in self.flags), "[key=value ...]"])
        examples = [f"  {program} {example}" for example in self.examples]
        keys = [f"  {line}" for line in (*keys_as_typed(self.keys), *chosen)]
        end = f"CONFIG is {self.config}. {self.page} prints every key, and what it means."
        return "\n".join([f"usage: {usage}\n", cleandoc(self.description or ""), "", *examples, "", *keys, "", end])


def job(
    main: Callable[[C], None],
    guide: Guide,
    program: str,
    given: Sequence[str],
    load: Callable[[str, Sequence[str]], C] = load_config,  # type: ignore[assignment]
) -> None:
    """Run a job with the configuration that a command line names, or print its help.

    Args:
        main: the job.
        guide: what the help shows.
        program: the words before the arguments, such as ``pcl train``.
        given: arguments; with ``--help`` a configuration among them adds the keys of what it chooses.
        load: makes the configuration of a run file and overrides.

    Raises:
        BadInputError: no configuration is named, or one of several runs where the command takes one.
    """
    if any(argument in HELP for argument in given):
        print(guide.text(program, _chosen([one for one in given if one not in (*HELP, *guide.flags)], load)))
        sys.exit(0)
    arguments = [a for a in given if a not in guide.flags] + [guide.flags[a] for a in given if a in guide.flags]
    if not arguments or ("=" in arguments[0] and not Path(arguments[0]).exists() and "://" not in arguments[0]):
        raise BadInputError(
            f"{program} needs {guide.config}, before any key: such as {program} "
            f"{guide.example}; {program} --help tells more"
        )
    config = load(arguments[0], arguments[1:])
    if not guide.takes_variants:
        check_is_one_run(config, arguments[0], program)
    main(config)


def check_is_one_run(config: object, file: str, program: str) -> None:
    """Refuse a run file of several runs: the one that it would be without its variants is none that somebody means.

    Raises:
        BadInputError: it has variants or seeds.
    """
    if isinstance(config, Config) and (config.variants or config.seeds or config.crossed_with):
        raise BadInputError(
            f"{file} stands for several runs, by its variants or seeds, and {program} takes one: pcl sweep {file} "
            "trains, evaluates and compares them all, and each is a folder afterwards that can be given here"
        )


def check_is_kept(**places: str) -> None:
    """Refuse places whose files would end with a job of a cluster: those in its own copy of the code.

    Args:
        places: folders or addresses by the key that gives them, with ``__`` for a dot.

    Raises:
        BadInputError: this is such a job, and one of them lies in its folder.
    """
    if is_job():
        from pcl.cluster.address import check_shared

        check_shared(**places)


def check_writable(folder: Place) -> None:
    """Refuse a folder that nothing can be written to, before long work is done for it; what is made is removed again.

    Raises:
        BadInputError: what the machine says, of a folder.
        OSError: storage refuses.
    """
    parents = [folder, *folder.parents] if isinstance(folder, Path) else []
    missing = list(itertools.takewhile(lambda parent: not parent.exists(), parents))
    try:
        write_bytes(probe := folder / f".writable.{uuid4().hex}", b"")
        probe.unlink()
    except OSError as error:
        if not isinstance(folder, Path):
            raise
        raise BadInputError(
            f"{folder} cannot be written to ({error.strerror}): choose another folder, or have that permitted"
        ) from error
    finally:
        with suppress(OSError):  # somebody writes there
            for parent in missing:
                parent.rmdir()


def _chosen(given: Sequence[str], load: Callable[[str, Sequence[str]], Any]) -> list[str]:
    """Return lines on the keys of what a configuration chooses, none where help is asked for without one."""
    with suppress(BadInputError, OSError):
        config = load(given[0], given[1:]) if given else None
        return choices_as_typed(config) if isinstance(config, Config) else []
    return []


def plugins_in_job(paths: Sequence[str]) -> list[str]:
    """Return the overrides that give plugins to a job, which finds them in the folder that it is sent.

    Example:
        >>> plugins_in_job([]), plugins_in_job(["/shared/a, b.py"])
        ([], ['plugins=["/shared/a, b.py"]'])
    """
    quoted = ['"' + path_in_job(path).replace('"', '""') + '"' for path in paths]
    return [f"plugins=[{', '.join(quoted)}]"] if quoted else []


def watch(storage: str) -> str:
    """Return the line that says how to watch runs.

    Example:
        >>> watch("my runs")
        "watch: tensorboard --logdir 'my runs'"
    """
    return f"watch: tensorboard --logdir {shlex.quote(storage)}"


def progress(items: Iterable[T], total: int, description: str, unit: str) -> Iterable[T]:
    """Show a progress bar on a terminal, and a few plain lines elsewhere."""
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=description, unit=unit)
        return
    for number, item in enumerate(items, 1):
        yield item
        if number == total or number % max(1, total // 4) == 0:
            print(f"{description}: {number} of {total} {unit}s", flush=True)


def progress_of_many(items: Sequence[T], unit: str) -> Iterable[T]:
    """Show how far a look through an archive has come, if it takes long."""
    return progress(items, len(items), "looking through the archive", unit) if len(items) > MANY else items
