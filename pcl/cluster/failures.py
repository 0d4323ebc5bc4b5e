"""Why workers failed: the errors that a restart cannot mend, and what is said of the others."""

__all__ = ["FINAL_ERRORS", "final_error", "first_line", "last_line", "lost_again", "what_happened"]

import textwrap
from collections.abc import Mapping

from pcl.errors import BadInputError, DamagedDataError, RunFailedError

# again, they would end the same way
FINAL_ERRORS = (BadInputError, DamagedDataError, RunFailedError, FloatingPointError)


def what_happened(errors: Mapping[int, Exception]) -> dict[int, str]:
    """Return what is said of workers that failed, by rank; where some died, the errors of the others follow from that.

    Args:
        errors: by rank.

    Raises:
        BadInputError: and other final errors, of a worker: Ray Train does not start workers again for what its
            callbacks raise.
    """
    for error in errors.values():
        if (final := final_error(error)) is not None:
            raise final
    died = dict.fromkeys(sorted(rank for rank, error in errors.items() if _has_died(error)), "died")
    return died or {rank: f"failed ({last_line(errors[rank])})" for rank in sorted(errors)}


def _has_died(error: Exception) -> bool:
    from ray.exceptions import RayActorError

    return isinstance(getattr(error, "health_check_failure", error), RayActorError)


def lost_again(why: str, where: str) -> RunFailedError:
    """Return what is raised of a task whose workers die, however often it is tried.

    Args:
        why: the last of them did.
        where: it ran.
    """
    return RunFailedError(
        f"a task was lost again and again ({why}): does it need more memory than {where} has? The same command goes on "
        "from what is finished"
    )


def first_line(error: BaseException) -> str:
    """Return the kind of a failure and the first line of what it says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ": ".join([type(error).__name__, *lines[:1]])


def last_line(error: BaseException) -> str:
    """Return the kind of a failure and the last line of what it says: the exception without its traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ": ".join([type(error).__name__, *(textwrap.shorten(line, 200) for line in lines[-1:])])


def final_error(error: BaseException | None) -> Exception | None:
    """Return the final error that caused an error of Ray's, if any."""
    seen: set[int] = set()
    queue = [error]
    while queue:
        current = queue.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        for kind in FINAL_ERRORS:
            if isinstance(current, kind):
                return kind(str(current)) if type(current) is not kind else current
        queue += [current.__cause__, getattr(current, "controller_failure", None)]
        queue += list(getattr(current, "worker_failures", {}).values())
    return None
