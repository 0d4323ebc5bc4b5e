"""The command line of the jobs, ``CONFIG [key=value ...]``, and how far they are."""

__all__ = ["job", "progress", "progress_of_many"]

import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from tqdm import tqdm

from pcl.config.load import load_config
from pcl.config.page import page_of_keys

C = TypeVar("C")
T = TypeVar("T")
MANY = 50  # files, or blocks of values: fewer are through in a moment


def job(
    main: Callable[[C], None],
    description: str,
    program: str,
    given: Sequence[str],
    flags: Mapping[str, str] | None = None,
    *,
    load: Callable[[str, Sequence[str]], C] = load_config,  # type: ignore[assignment]
    page: Callable[[], str] = page_of_keys,
) -> None:
    """Run a job with the configuration that a command line names, or print its help.

    Args:
        main: the job.
        description: first paragraph of its help.
        program: the words before the arguments, such as ``pcl train``.
        given: arguments.
        flags: short forms, such as ``--quick``, of ``key=value``.
        load: makes the configuration of a run file and overrides.
        page: makes the page of all keys, for the help.
    """
    flags = flags or {}
    arguments = [a for a in given if a not in flags] + [flags[a] for a in given if a in flags]
    if not arguments or any(argument in ("-h", "--help") for argument in arguments):
        usage = " ".join(["CONFIG", *(f"[{flag}]" for flag in flags), "[key=value ...]"])
        print(f"usage: {program} {usage}\n\n{textwrap.dedent(description).strip()}\n")
        print(page())
        sys.exit(0 if arguments else 2)
    main(load(arguments[0], arguments[1:]))


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
