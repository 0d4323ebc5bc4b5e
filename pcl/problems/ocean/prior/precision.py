r"""Error of a measured velocity as a representation of the current, learned from what is known of the piece.

Shapes: n measurements.
"""

__all__ = ["Precision"]

import torch
from torch import Tensor, nn

from pcl.problems.ocean.prior.measurements import Measurements

HIDDEN, REACH = 8, 3.0  # units; the variance changes by a factor e^3 at most
LENGTH_M = 1e5


class Precision(nn.Module):
    r"""Factor of the variance of the error of a measured velocity: a small network that begins at one.

    .. math:: \exp\big(3 \tanh f(\log(1 + |w| / s),\ \log(\Delta t / T),\ |w| \Delta t / L)\big)

    with the speed w of a piece over the local standard deviation s, its duration over the usual one, and its length
    over 100 km. Where all pieces last equally long nothing is learned of durations, and they change nothing.

    Example:
        >>> one = Measurements(torch.ones(1, 2), *torch.ones(5, 1))
        >>> Precision()(one, torch.ones(1), 1.0)
        tensor([1.], dtype=torch.float64, grad_fn=<ExpBackward0>)
    """

    def __init__(self) -> None:
        super().__init__()
        first, last = (nn.Linear(*size, dtype=torch.float64) for size in ((3, HIDDEN), (HIDDEN, 1)))
        self.layers = nn.Sequential(first, nn.Tanh(), last)
        with torch.no_grad():
            first.weight[:, 1] = 0.0
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, measurements: Measurements, amplitude: Tensor, usual_s: float) -> Tensor:
        """Return factors, shape (n,).

        Args:
            measurements: n of them.
            amplitude: local standard deviation, m/s, shape (n,).
            usual_s: duration of a piece that is usual, s.
        """
        speed = measurements.velocity.double().norm(dim=1)
        duration = measurements.duration_s.double()
        longer = (duration / usual_s).clamp(min=1e-6).log()
        known = torch.stack([(speed / amplitude).log1p(), longer, speed * duration / LENGTH_M], 1)
        factors: Tensor = (REACH * torch.tanh(self.layers(known)[:, 0])).exp()
        return factors
