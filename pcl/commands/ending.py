"""How a command ends: one clear line for every mistake, and exit codes."""

__all__ = ["end_process", "finish", "imported"]

import errno
import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from types import FrameType
from typing import Any, NoReturn

from pcl.cluster.signals import SIGNALS, Interrupted, handled, interruptible
from pcl.cluster.template import end_at_once
from pcl.commands.required import lacks
from pcl.errors import BadInputError, DamagedDataError, RunFailedError, printable

REMEDIES = dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room there, or choose another place")
REMEDIES |= dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "choose another place, or have that permitted")


def finish(main: Callable[[], object]) -> None:
    """Run a program, and exit: 0, or one line on what went wrong and a code that is not.

    Exit codes: 1 damaged data or a failed run, 2 bad input, 128 + n ended by signal n: 130 by Ctrl-C.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # jobs of a Ray of our own start with them blocked
    try:
        with interruptible():
            main()
    except (BadInputError, DamagedDataError, RunFailedError) as error:
        _leave(error, error.exit_code)
    except FloatingPointError as error:
        _leave(error, 1)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "pcl":
            raise
        _leave(lacks([error.name]), 1)
    except OSError as error:  # no permission, no space, no storage: what the machine says is the clearest
        remedy = f": {REMEDIES[error.errno]}" if error.errno in REMEDIES else ""
        _leave((f"{error.filename}: {error.strerror}" if error.filename else str(error)) + remedy, 1)
    except KeyboardInterrupt as error:
        _leave_told(error if isinstance(error, Interrupted) else Interrupted(signal.SIGINT))
    except Exception as error:
        if type(error).__module__.split(".")[0] != "botocore":
            raise
        _leave(f"storage in S3: {error}", 1)  # from TensorBoard's own access to it


def end_process(main: Callable[[], object]) -> NoReturn:
    """Run a program as ``finish`` does, and end the process at once."""
    code: str | int | None = 0
    try:
        finish(main)
    except SystemExit as end:
        code = end.code
    end_at_once(code)


def imported(name: str) -> Any:
    """Return a module; a signal that comes while it is imported ends the process at once.

    Torch alone takes seconds. What is raised inside an extension module may come out of it as an error of another kind.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        try:
            _leave_told(Interrupted(number))
        finally:
            os._exit(128 + number)

    with handled(leave):
        return import_module(name)


def _leave_told(ended: Interrupted) -> NoReturn:
    _leave(f"{signal.Signals(ended.number).name}: {ended}", ended.exit_code)


def _leave(message: object, exit_code: int) -> NoReturn:
    """Say a line, if there is anybody to hear it, and exit."""
    try:
        print(f"error: {printable(' '.join(str(message).split()))}", file=sys.stderr, flush=True)
        sys.stdout.flush()
    except OSError:  # the terminal is gone
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
    sys.exit(exit_code)
