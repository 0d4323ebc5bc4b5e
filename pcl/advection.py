r"""Particles in a velocity field: the classical Runge-Kutta method of fourth order, and the check of its step.

.. math:: \dot x = w(t, x), \qquad x(t_0) = x_0

Shapes: K recorded positions; any leading shape of particles; the last axis is the two coordinates. A velocity is a
function of the time, a float, and of positions, and returns velocities of the positions' shape.
"""

__all__ = ["Velocity", "choose_step", "convergence", "integrate", "rk4_step"]

from collections.abc import Callable

import torch
from torch import Tensor

from pcl.errors import BadInputError

Velocity = Callable[[float, Tensor], Tensor]


def rk4_step(velocity: Velocity, time: float, positions: Tensor, step: float) -> Tensor:
    r"""Advance positions by one step.

    .. math:: x' = x + \tfrac{h}{6} (k_1 + 2 k_2 + 2 k_3 + k_4)

    Args:
        velocity: of (time, positions).
        time: at the positions.
        positions: shape (..., 2).
        step: h, negative to go back in time.

    Returns:
        Shape (..., 2).

    Example:
        >>> rk4_step(lambda t, x: x, 0.0, torch.ones(2, dtype=torch.float64), 0.1)
        tensor([1.1052, 1.1052], dtype=torch.float64)
    """
    k1 = velocity(time, positions)
    k2 = velocity(time + step / 2, torch.add(positions, k1, alpha=step / 2))
    k3 = velocity(time + step / 2, torch.add(positions, k2, alpha=step / 2))
    k4 = velocity(time + step, torch.add(positions, k3, alpha=step))
    return positions + (k1 + 2 * (k2 + k3) + k4) * (step / 6)


def integrate(
    velocity: Velocity, positions: Tensor, start_time: float, step: float, num_steps: int, record_every: int = 1
) -> Tensor:
    """Follow particles with steps of one length.

    Args:
        velocity: of (time, positions).
        positions: at the start, shape (..., 2), float64.
        start_time: of the positions, in the unit of ``step``.
        step: negative to go back in time.
        num_steps: number of steps.
        record_every: steps between two recorded positions.

    Returns:
        Shape (num_steps // record_every + 1, ..., 2); the first entry is the start.

    Raises:
        BadInputError: a count is out of its range.

    Example:
        >>> def rotation(time, x):
        ...     return torch.stack([-x[..., 1], x[..., 0]], -1)
        >>> quarter = torch.pi / 2
        >>> path = integrate(rotation, torch.tensor([1.0, 0.0], dtype=torch.float64), 0.0, quarter / 100, 100, 50)
        >>> path.round(decimals=4).abs()
        tensor([[1.0000, 0.0000],
                [0.7071, 0.7071],
                [0.0000, 1.0000]], dtype=torch.float64)
    """
    if num_steps < 0 or record_every < 1:
        raise BadInputError(f"num_steps={num_steps} and record_every={record_every}: they must be at least 0 and 1")
    path = positions.new_empty(num_steps // record_every + 1, *positions.shape)
    path[0] = positions
    for number in range(1, num_steps // record_every * record_every + 1):
        # times are products, not sums: they do not drift
        positions = rk4_step(velocity, start_time + (number - 1) * step, positions, step)
        if number % record_every == 0:
            path[number // record_every] = positions
    return path


def convergence(
    velocity: Velocity, positions: Tensor, start_time: float, step: float, num_steps: int, record_every: int = 1
) -> float:
    r"""Return the largest distance, over particles and records, between paths with a step and with half of it.

    .. math:: \max_{k, i} \lVert x^{h}_{k, i} - x^{h/2}_{k, i} \rVert

    It exceeds the error of the half step by about 15 times (Richardson), and is the error of the step within 7%.

    Args:
        velocity: of (time, positions).
        positions: at the start, shape (..., 2), float64.
        start_time: of the positions.
        step: h.
        num_steps: number of steps h.
        record_every: steps h between two records.

    Example:
        >>> decay = lambda time, x: -x
        >>> convergence(decay, torch.ones(1, 2, dtype=torch.float64), 0.0, 0.1, 10) < 1e-6
        True
    """
    whole = integrate(velocity, positions, start_time, step, num_steps, record_every)
    half = integrate(velocity, positions, start_time, step / 2, 2 * num_steps, 2 * record_every)
    return float((whole - half).norm(dim=-1).max())


def choose_step(
    velocity: Velocity,
    positions: Tensor,
    start_time: float,
    record_step: float,
    num_records: int,
    tolerance: float,
    max_substeps: int = 64,
) -> tuple[int, float]:
    """Return the fewest steps between two records, a power of two, whose paths agree with those of half the step.

    Args:
        velocity: of (time, positions).
        positions: of particles to try, shape (..., 2), float64.
        start_time: of the positions.
        record_step: time between two records.
        num_records: records after the start.
        tolerance: largest difference between a step and half of it, in the unit of the positions.
        max_substeps: where to give up.

    Returns:
        The number of steps between two records, and the difference found.

    Raises:
        BadInputError: ``max_substeps`` steps do not reach the tolerance.

    Example:
        >>> decay = lambda time, x: -x
        >>> choose_step(decay, torch.ones(1, 2, dtype=torch.float64), 0.0, 1.0, 2, 1e-4)[0]
        4
    """
    substeps = 1
    while True:
        found = convergence(velocity, positions, start_time, record_step / substeps, num_records * substeps, substeps)
        if found <= tolerance:
            return substeps, found
        if substeps * 2 > max_substeps:
            raise BadInputError(
                f"with {substeps} steps between two records paths still differ by {found:.1e} from those of half the "
                f"step, the tolerance is {tolerance:.1e}: record more often or allow more"
            )
        substeps *= 2
