"""The command line of the jobs: ``CONFIG [key=value ...]``, one clear line for every mistake, and exit codes."""

__all__ = ["finish", "job", "progress", "progress_of_many"]

import os
import signal
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

from tqdm import tqdm

from pcl.cluster.signals import SIGNALS, Interrupted, interruptible
from pcl.config.load import DEFAULTS, load_config
from pcl.errors import BadInputError, DamagedDataError, RunFailedError, printable

C = TypeVar("C")
T = TypeVar("T")
MANY = 50  # files, or blocks of values: fewer are through in a moment


def job(
    main: Callable[[C], None],
    description: str,
    flags: Mapping[str, str] | None = None,
    *,
    load: Callable[[str, Sequence[str]], C] = load_config,  # type: ignore[assignment]
    defaults: Path = DEFAULTS,
) -> None:
    """Run a job with the configuration that the command line names, and exit.

    Exit codes: 0 success, 1 damaged data or a failed run, 2 bad input, 128 + n ended by signal n: 130 by Ctrl-C.

    Args:
        main: the job.
        description: first paragraph of its help.
        flags: short forms, such as ``--quick``, of ``key=value``.
        load: makes the configuration of a run file and overrides.
        defaults: file that explains every key, for the help.
    """
    flags = flags or {}
    given = sys.argv[1:]
    arguments = [a for a in given if a not in flags] + [flags[a] for a in given if a in flags]
    if not arguments or any(argument in ("-h", "--help") for argument in arguments):
        usage = " ".join(["CONFIG", *(f"[{flag}]" for flag in flags), "[key=value ...]"])
        print(f"usage: python {sys.argv[0]} {usage}\n\n{textwrap.dedent(description).strip()}\n")  # noqa: T201
        print(f"{defaults.read_text()}")  # noqa: T201
        sys.exit(0 if arguments else 2)
    finish(lambda: main(load(arguments[0], arguments[1:])))


def finish(main: Callable[[], object]) -> None:
    """Run a program, and exit: 0, or one line on what went wrong and the code of ``job``."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # jobs of a Ray of our own start with them blocked
    try:
        with interruptible():
            main()
    except (BadInputError, DamagedDataError, RunFailedError) as error:
        _leave(error, error.exit_code)
    except FloatingPointError as error:
        _leave(error, 1)
    except OSError as error:  # no permission, no space, no storage: what the machine says is the clearest
        _leave(f"{error.filename}: {error.strerror}" if error.filename else error, 1)
    except KeyboardInterrupt as error:
        ended = error if isinstance(error, Interrupted) else Interrupted(signal.SIGINT)
        _leave(f"{signal.Signals(ended.number).name}: {ended}", ended.exit_code)
    except Exception as error:
        if type(error).__module__.split(".")[0] != "botocore":
            raise
        _leave(f"storage in S3: {error}", 1)  # from TensorBoard's own access to it


def _leave(message: object, exit_code: int) -> NoReturn:
    """Say a line, if there is anybody to hear it, and exit."""
    try:
        print(f"error: {printable(' '.join(str(message).split()))}", file=sys.stderr, flush=True)  # noqa: T201
        sys.stdout.flush()
    except OSError:  # the terminal is gone
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
    sys.exit(exit_code)


def progress(items: Iterable[T], total: int, description: str, unit: str) -> Iterable[T]:
    """Show a progress bar on a terminal, and a few plain lines elsewhere."""
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=description, unit=unit)
        return
    for number, item in enumerate(items, 1):
        yield item
        if number == total or number % max(1, total // 4) == 0:
            print(f"{description}: {number} of {total} {unit}s", flush=True)  # noqa: T201


def progress_of_many(items: Sequence[T], unit: str) -> Iterable[T]:
    """Show how far a look through an archive has come, if it takes long."""
    return progress(items, len(items), "looking through the archive", unit) if len(items) > MANY else items
