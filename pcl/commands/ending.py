"""How a command ends: one clear line for every mistake, and exit codes."""

__all__ = ["finish"]

import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from pcl.cluster.signals import SIGNALS, Interrupted, interruptible
from pcl.errors import BadInputError, DamagedDataError, RunFailedError, printable


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
        print(f"error: {printable(' '.join(str(message).split()))}", file=sys.stderr, flush=True)
        sys.stdout.flush()
    except OSError:  # the terminal is gone
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
    sys.exit(exit_code)
