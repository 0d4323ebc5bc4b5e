"""The ways a job ends early, and the exit code of each."""

__all__ = ["BadInputError", "DamagedDataError", "RunFailedError"]


class BadInputError(ValueError):
    """What was asked for cannot be done: the message says what was found, the rule and the remedy."""

    exit_code = 2


class DamagedDataError(RuntimeError):
    """Stored data differ from what their manifest promises."""

    exit_code = 1


class RunFailedError(RuntimeError):
    """A run ended for a reason that is not in its input: workers died, or never started."""

    exit_code = 1
