"""What the numbers of an evaluation of flows mean."""

__all__ = ["meaning"]

MEANINGS = {
    "frequency_rms_error": "Root mean square error of the learned frequencies of the flows, radians per unit of time.",
    "frequency_rms": "Root mean square of the true frequencies of the flows, radians per unit of time.",
    "frequency_correlation": "Correlation of learned and true frequencies over the modes: 1 is perfect.",
    "velocity_noise": "Learned standard deviation of the error of a velocity along a path, as of the flows.",
}


def meaning(name: str) -> str:
    """Return a sentence on a metric, empty where it is none of the flows'.

    Example:
        >>> meaning("frequency_correlation")
        'Correlation of learned and true frequencies over the modes: 1 is perfect.'
    """
    return MEANINGS.get(name, "")
