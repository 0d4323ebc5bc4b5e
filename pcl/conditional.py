r"""The learned conditionals on a reference set: weights, mode, samples, moments, log-density.

With references x_1 .. x_N and a query y, :math:`\nu^N_{x|y} = \sum_i w_i(y) \delta_{x_i}`, where
:math:`w(y) = \text{softmax}_i\,(s(x_i, y) + \log\pi_i)` (arXiv:2505.24134, equations 28, C.1, C.2).

Shapes: Q queries, N references, F features.
"""

__all__ = ["Conditional"]

import math

import torch
from torch import Tensor

from pcl.tilting import check_temperature


class Conditional:
    """The conditional of a model given queries, carried by a reference set.

    Args:
        features: feature maps of the references, shape (N, F).
        temperature: tau > 0.
        log_prior: log weights of the references up to a constant, shape (N,); uniform when None.

    Raises:
        ValueError: there is no reference, tau is not positive and finite, a feature is not finite, or the prior has
            another length or a value that is no log weight.

    Example:
        >>> labels = Conditional(torch.eye(3), temperature=1.0)
        >>> query = torch.tensor([[5.0, 0.0, 0.0]])
        >>> labels.mode(query), labels.weights(query).sum(-1)
        (tensor([0]), tensor([1.]))
    """

    def __init__(self, features: Tensor, temperature: float | Tensor, log_prior: Tensor | None = None) -> None:
        if len(features) == 0:
            raise ValueError("the reference set is empty: give at least one reference")
        if log_prior is not None and log_prior.shape != features.shape[:1]:
            raise ValueError(f"log_prior has shape {tuple(log_prior.shape)}; {len(features)} references need one each")
        check_temperature(temperature)
        if not torch.isfinite(features).all():
            raise ValueError("features of the references are not finite: the encoder or the references are damaged")
        if log_prior is not None and not (log_prior < math.inf).all():
            raise ValueError("log_prior holds nan or +inf: give log weights, -inf to leave a reference out")
        self.features = features / temperature
        prior = torch.zeros(len(features)) if log_prior is None else log_prior
        self.log_prior = torch.log_softmax(prior.to(features), 0)

    def log_weights(self, queries: Tensor) -> Tensor:
        """Return log w_i of every query's features (Q, F), shape (Q, N)."""
        return torch.log_softmax(queries @ self.features.T + self.log_prior, -1)

    def weights(self, queries: Tensor) -> Tensor:
        """Return w_i of every query, shape (Q, N); rows sum to one."""
        return self.log_weights(queries).exp()

    def log_density(self, queries: Tensor) -> Tensor:
        r"""Return log rho(x_i|y) with respect to the prior on the references, shape (Q, N).

        .. math:: \log\rho(x_i|y) = s(x_i, y) - \log \sum_j \pi_j e^{s(x_j, y)}
        """
        return self.log_weights(queries) - self.log_prior

    def mode(self, queries: Tensor) -> Tensor:
        """Return the index of the reference with the largest weight, shape (Q,) (Theorem 4.2)."""
        return self.log_weights(queries).argmax(-1)

    def sample(self, queries: Tensor, num_samples: int, generator: torch.Generator) -> Tensor:
        """Draw reference indices with replacement, shape (Q, num_samples)."""
        return torch.multinomial(self.weights(queries), num_samples, replacement=True, generator=generator)

    def mean(self, queries: Tensor, values: Tensor) -> Tensor:
        """Return the weighted mean of values carried by the references, (N, ...) -> (Q, ...)."""
        return torch.einsum("qn,n...->q...", self.weights(queries), values)

    def variance(self, queries: Tensor, values: Tensor) -> Tensor:
        """Return the weighted variance of values carried by the references, (N, ...) -> (Q, ...)."""
        centred = values - values.mean(0)  # the variance does not see the shift, its rounding errors do
        return (self.mean(queries, centred.square()) - self.mean(queries, centred).square()).clamp(min=0)

    def effective_sample_size(self, queries: Tensor) -> Tensor:
        r"""Return :math:`1 / \sum_i w_i^2` of every query, shape (Q,), between 1 and N."""
        return torch.exp(-torch.logsumexp(2 * self.log_weights(queries), -1)).clamp(1.0, math.inf)
