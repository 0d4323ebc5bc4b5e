r"""Law of a current at a point: Student's, whose tails hold the errors of a covariance that is not the true one.

Shapes broadcast.
"""

__all__ = ["NORMAL", "PointLaw", "how_to_read"]

import math
from dataclasses import dataclass

import torch
from scipy import special
from torch import Tensor
from torch.distributions import Normal, StudentT

from pcl.problems.ocean.evaluation.field_scores import gaussian_crps

NORMAL = 1e6  # degrees of freedom from which on the law is the normal one, to rounding


@dataclass(frozen=True, eq=False)
class PointLaw:
    r"""Student's law of a mean, a standard deviation and degrees of freedom; the normal law is that of infinitely many.

    .. math:: \frac{y - \mu}{s} \sim t_\nu, \qquad s = \sigma \sqrt{1 - 2 / \nu}

    Attributes:
        mean: :math:`\mu`.
        std: :math:`\sigma`, a standard deviation.
        degrees: :math:`\nu`, a scalar above 2.

    Example:
        >>> law = PointLaw(torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64), 5.0)
        >>> law.place(torch.zeros(1)).item(), round(law.interval(0.9), 3)
        (0.5, 1.561)
    """

    mean: Tensor
    std: Tensor
    degrees: Tensor | float = math.inf

    @property
    def is_normal(self) -> bool:
        """Whether it is the normal law."""
        return self.nu >= NORMAL

    @property
    def nu(self) -> float:
        """Degrees of freedom, as a number."""
        return float(torch.as_tensor(self.degrees).detach())

    def log_density(self, truth: Tensor) -> Tensor:
        """Return the log-density, which can be differentiated in the mean, the deviation and the degrees.

        Args:
            truth: y.
        """
        law: Normal | StudentT = Normal(self.mean, self.std, validate_args=False)
        if not self.is_normal:
            nu = torch.as_tensor(self.degrees, dtype=torch.float64)
            law = StudentT(nu, self.mean, self.std * (1 - 2 / nu).sqrt(), validate_args=False)
        density: Tensor = law.log_prob(truth)  # type: ignore[no-untyped-call]
        return density

    def place(self, truth: Tensor) -> Tensor:
        """Return the place of the truth in the law, 0 to 1: the probability of less."""
        z, nu = self._standardised(truth)
        place: Tensor = torch.special.ndtr(z) if self.is_normal else torch.from_numpy(special.stdtr(nu, z.numpy()))
        return place

    def interval(self, share: float) -> float:
        """Return half the length of the central interval that holds a share, in units of the standard deviation."""
        end = 0.5 + share / 2
        if self.is_normal:
            return float(special.ndtri(end))
        return float(special.stdtrit(self.nu, end)) * self._ratio

    def crps(self, truth: Tensor) -> Tensor:
        r"""Return the continuous ranked probability score, of Student's law a number that is not differentiated.

        .. math:: s \left( z (2 F_\nu(z) - 1) + 2 f_\nu(z) \frac{\nu + z^2}{\nu - 1}
            - \frac{2 \sqrt\nu}{\nu - 1} \frac{B(\tfrac12, \nu - \tfrac12)}{B(\tfrac12, \tfrac\nu2)^2} \right)

        References:
            Jordan, Krueger and Lerch (2019), doi:10.18637/jss.v090.i12.
        """
        if self.is_normal:
            return gaussian_crps(self.mean, self.std, truth)
        z, nu = self._standardised(truth)
        unit = StudentT(torch.tensor(nu, dtype=torch.float64), validate_args=False)
        density = unit.log_prob(z).exp()  # type: ignore[no-untyped-call]
        betas = math.exp(special.betaln(0.5, nu - 0.5) - 2 * special.betaln(0.5, nu / 2))
        inner = z * (2 * self.place(truth) - 1) + 2 * density * (nu + z.square()) / (nu - 1)
        score: Tensor = self.std.detach() * self._ratio * (inner - 2 * math.sqrt(nu) / (nu - 1) * betas)
        return score

    @property
    def _ratio(self) -> float:
        """The scale s over the standard deviation."""
        return math.sqrt(1 - 2 / self.nu)

    def _standardised(self, truth: Tensor) -> tuple[Tensor, float]:
        """Return the truth in units of the scale, and the degrees of freedom."""
        z = ((truth - self.mean) / self.std).detach().double()
        return (z if self.is_normal else z / self._ratio), self.nu


def how_to_read(degrees: float) -> str:
    """Return what a file says beside standard deviations: of what law they are, and how intervals follow.

    Args:
        degrees: of freedom, infinite for the normal law.

    Example:
        >>> how_to_read(math.inf)
        'the law of a point is normal: 50 % within 0.67 standard deviations of the mean, 90 % within 1.64'
    """
    law = PointLaw(torch.zeros(()), torch.ones(()), degrees)
    name, members = "normal", ""
    if not law.is_normal:
        name = f"Student's of {degrees:.3g} degrees of freedom"
        members = "; members are of the covariance alone, narrower"
    half, most = (f"{law.interval(share):.2f}" for share in (0.5, 0.9))
    return (
        f"the law of a point is {name}: 50 % within {half} standard deviations of the mean, 90 % within {most}{members}"
    )
