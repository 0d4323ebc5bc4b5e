"""The ways a job ends early, the exit code of each, and how what they tell is printed."""

__all__ = ["BadInputError", "DamagedDataError", "RunFailedError", "printable"]


class BadInputError(ValueError):
    """What was asked for cannot be done: the message says what was found, the rule and the remedy."""

    exit_code = 2


class DamagedDataError(RuntimeError):
    """Stored data differ from what their manifest promises."""

    exit_code = 1


class RunFailedError(RuntimeError):
    """A run ended for a reason that is not in its input: workers died, or never started."""

    exit_code = 1


def printable(text: object) -> str:
    r"""Text on one line as a terminal may have it: what is not printable, such as escape sequences, is spelled out.

    Example:
        >>> printable("\x1b[2Jrun\n")
        '\\x1b[2Jrun\\n'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text))
