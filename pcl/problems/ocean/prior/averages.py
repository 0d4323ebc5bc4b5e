r"""What the mean of a climatology takes from anomalies: they are currents less their own mean over some time.

With the correlation :math:`\rho(t) = e^{-t^2 / 2 T^2}` of a current in time and angle brackets for the mean over the
time of the climatology, that of an anomaly is

.. math:: \rho(t - t') - \langle \rho(t - s) \rangle_s - \langle \rho(t' - s) \rangle_s
    + \langle \rho(s - s') \rangle_{s s'}

Where a climatology is of a few weeks its mean is wrong by as much as currents vary: far from these weeks the variance
of an anomaly is that of the current and that of the mean.

Shapes: P intervals, K time scales, n and m times, M frequencies.
"""

__all__ = ["Averages"]

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Averages:
    """The time over which a mean was taken, in days.

    Attributes:
        spans: begin and end of intervals, shape (P, 2).
        longest: largest time scale that can be told, half the length of the training period: currents that change more
            slowly are in the mean.

    Example:
        >>> one = Averages(torch.tensor([[0.0, 20.0]], dtype=torch.float64), 10.0)
        >>> far, days = torch.tensor([500.0], dtype=torch.float64), torch.tensor([5.0], dtype=torch.float64)
        >>> one.correlation(days, far, far).round(decimals=2)  # one, and the variance of the mean
        tensor([[[1.5000]]], dtype=torch.float64)
    """

    spans: Tensor
    longest: float

    def correlation(self, days: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Return the covariance of anomalies of a current of variance one at two sets of times, shape (K, n, m).

        Its gradient is that of the correlation of the currents: what a mean takes is not how time scales are learned.

        Args:
            days: time scales, shape (K,).
            first: days, shape (n,).
            second: likewise, shape (m,).
        """
        plain = (-((first[:, None] - second) / days[:, None, None]).square() / 2).exp()
        given = days.detach()
        taken = self.with_mean(given, first)[:, :, None] + self.with_mean(given, second)[:, None]
        return plain + self.of_mean(given)[:, None, None] - taken

    def variance(self, days: Tensor, times: Tensor) -> Tensor:
        """Return its diagonal, shape (K, n)."""
        given = days.detach()
        return 1 + self.of_mean(given)[:, None] - 2 * self.with_mean(given, times)

    def with_mean(self, days: Tensor, times: Tensor) -> Tensor:
        """Return the covariance of a current and its mean, shape (K, n)."""
        scale = math.sqrt(2) * days[:, None, None]
        begin, end = (torch.erf((times[:, None] - edge) / scale) for edge in self.spans.T)
        area = (begin - end).sum(-1) * days[:, None] * math.sqrt(math.pi / 2)
        return area / self._length

    def of_mean(self, days: Tensor) -> Tensor:
        """Return the variance of the mean, shape (K,)."""
        edges, signs = self.spans.T.flatten(), torch.tensor([-1.0, 1.0]).repeat_interleave(len(self.spans)).double()
        apart = (edges[:, None] - edges) / days[:, None, None]
        twice = apart * torch.erf(apart / math.sqrt(2)) * math.sqrt(math.pi / 2) + (-apart.square() / 2).exp()
        area = -(twice * signs[:, None] * signs).sum((-1, -2)) * days.square()
        return area / self._length**2

    def of_waves(self, frequency: Tensor) -> tuple[Tensor, Tensor]:
        """Return the means of cosines and sines of frequencies, radians a day, shape (M,) each."""
        slow = torch.where(frequency.abs() < 1e-9, 1e-9, frequency)
        begin, end = (slow[:, None] * edge for edge in self.spans.T)
        cosine = (end.sin() - begin.sin()).sum(-1) / slow / self._length
        sine = (begin.cos() - end.cos()).sum(-1) / slow / self._length
        return cosine, sine

    @property
    def _length(self) -> Tensor:
        return (self.spans[:, 1] - self.spans[:, 0]).sum()
