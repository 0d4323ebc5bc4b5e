r"""What real drifters do that ideal ones do not: they slip through the water, and are heard of now and then.

The slip of a drifter (windage, a lost drogue, motion that the fields do not resolve) is a velocity of its own, east
and north, added to that of the water: normal, of standard deviation :math:`\sigma`, with the correlation
:math:`e^{-t / T}` in time; without T it is one for the whole track.

A position is received if the drifter is still alive, is not within a gap, and is not left out by chance. Lives are
exponential from the release; gaps come and go as a Markov chain in continuous time that starts from its own share.

Shapes: D drifters, S steps of the integrator, P recorded positions.
"""

__all__ = ["received", "slips"]

import math

import numpy as np

from pcl.problems.ocean.settings import DriftersSettings
from pcl.problems.ocean.tiles import DAY_S, HOUR_S


def slips(generator: np.random.Generator, settings: DriftersSettings, num_steps: int) -> np.ndarray | None:
    """Draw velocities of drifters through the water.

    Args:
        generator: of the draws.
        settings: of the drifters.
        num_steps: S.

    Returns:
        East and north, m/s, shape (D, S, 2); None where drifters go with the water.

    Example:
        >>> settings = DriftersSettings(num_drifters=3, slip_m_s=0.1)
        >>> drawn = slips(np.random.default_rng(0), settings, 5)
        >>> drawn.shape, bool((drawn == drawn[:, :1]).all())
        ((3, 5, 2), True)
    """
    if settings.slip_m_s == 0:
        return None
    drawn: np.ndarray = generator.normal(size=(settings.num_drifters, num_steps, 2))
    kept = 1.0 if settings.slip_days is None else math.exp(-settings.step_s / (settings.slip_days * DAY_S))
    for step in range(1, num_steps):
        drawn[:, step] = kept * drawn[:, step - 1] + math.sqrt(1 - kept**2) * drawn[:, step]
    return settings.slip_m_s * drawn


def received(generator: np.random.Generator, settings: DriftersSettings, num_positions: int) -> np.ndarray:
    """Draw which recorded positions are received, bool, shape (D, P).

    Args:
        generator: of the draws; they are the same whatever the probabilities.
        settings: of the drifters.
        num_positions: P, the first at the release.

    Example:
        >>> received(np.random.default_rng(0), DriftersSettings(num_drifters=2, received=0.5), 6).astype(int)
        array([[0, 1, 1, 1, 0, 0],
               [0, 0, 0, 0, 0, 1]])
    """
    by_chance, of_gap = generator.random((2, settings.num_drifters, num_positions))
    lives = generator.exponential(size=(settings.num_drifters, 1))
    heard: np.ndarray = (by_chance < settings.received) & ~_gaps(of_gap, settings)
    if settings.life_days is not None:
        heard &= np.arange(num_positions) * settings.record_s <= lives * settings.life_days * DAY_S
    return heard


def _gaps(uniform: np.ndarray, settings: DriftersSettings) -> np.ndarray:
    """Return which positions lie within gaps, from uniform numbers, shape (D, P)."""
    share = settings.gap_share
    kept = math.exp(-settings.record_s / (settings.gap_hours * HOUR_S * (1 - share)))  # of what is known of the state
    within = np.empty(uniform.shape, bool)
    within[:, 0] = uniform[:, 0] < share
    for position in range(1, uniform.shape[1]):
        within[:, position] = uniform[:, position] < share + (within[:, position - 1] - share) * kept
    return within
