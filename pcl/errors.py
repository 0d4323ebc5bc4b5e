"""The two ways a run ends early, and the exit code of each."""

__all__ = ["BadInputError", "DamagedDataError"]


class BadInputError(ValueError):
    """What was asked for cannot be done: the message says what was found, the rule and the remedy."""

    exit_code = 2


class DamagedDataError(RuntimeError):
    """Stored data differ from what their manifest promises."""

    exit_code = 1
