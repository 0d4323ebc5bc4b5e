r"""The learned conditionals on a reference set: weights, mode, samples, moments, log-density.

With references x_1 .. x_N and a query y, :math:`\nu^N_{x|y} = \sum_i w_i(y) \delta_{x_i}`, where
:math:`w(y) = \text{softmax}_i\,(s(x_i, y) + \log\pi_i)` (arXiv:2505.24134, equations 28, C.1, C.2).

Sums over references are accurate for any number of them: a sum of 2^22 numbers one after the other loses a hundredth
in single precision, which is what ``torch.log_softmax`` and ``torch.multinomial`` do.

Shapes: Q queries, N references, F features.
"""

__all__ = ["Conditional", "draw"]

import math
from typing import Any

import torch
from torch import Tensor

from pcl.entrance import checked_tensor, in_kind
from pcl.precision import in_full_precision
from pcl.tilting import check_temperature

BLOCK_WEIGHTS = 1 << 22  # held in double precision at a time


@in_full_precision
def _divided(features: Tensor, temperature: float | Tensor) -> Tensor:
    return features / temperature


@in_full_precision
def _relative_scores(queries: Tensor, features: Tensor, log_prior: Tensor) -> tuple[Tensor, Tensor]:
    """Return scores less the largest of their row, which keeps digits of large ones, and their log normalisers."""
    scores = queries @ features.T
    scores = scores - (scores + log_prior).detach().amax(-1, keepdim=True)
    return scores, torch.logsumexp(scores + log_prior, -1, keepdim=True)


def draw(weights: Tensor, num_samples: int, generator: torch.Generator) -> Tensor:
    r"""Sample of indices with replacement by given weights: the inverse of their distribution function, in float64.

    .. math:: i = \min \{ k : \sum_{j \le k} w_j > t \sum_j w_j \}, \qquad t \sim U[0, 1)

    Args:
        weights: not negative, one positive in each row, shape (Q, N).
        num_samples: of each row.
        generator: on any device.

    Returns:
        Indices, shape (Q, num_samples).

    Raises:
        ValueError: there is no sample to draw.

    Example:
        >>> draw(torch.tensor([[0.0, 1.0, 0.0]]), 3, torch.Generator().manual_seed(0))
        tensor([[1, 1, 1]])
    """
    if num_samples < 1:
        raise ValueError(f"num_samples={num_samples}: draw at least one")
    drawn = []
    for block in torch.split(weights.detach(), max(1, BLOCK_WEIGHTS // weights.shape[1])):
        distribution = block.double().cumsum(-1)
        total = distribution[:, -1:].contiguous()
        uniform = torch.rand(
            len(block), num_samples, dtype=torch.float64, generator=generator, device=generator.device
        ).to(block.device)
        # the product may round to the total, beyond which there is no index
        below = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
        drawn.append(torch.searchsorted(distribution, below, right=True))
    return torch.cat(drawn)


class Conditional:
    """The conditional of a model given queries, carried by a reference set.

    Arrays of numpy are as good as tensors and are answered in kind; every method checks what it is given. Queries are
    features of the modality that is given, (Q, F). Half precision is computed in single precision, under autocast too.

    Args:
        features: feature maps of the references, shape (N, F).
        temperature: tau > 0.
        log_prior: log weights of the references up to a constant, shape (N,); uniform when None.

    Raises:
        ValueError: there is no reference, tau is not positive and finite, a feature is not finite, or the prior has
            another length, a value that is no log weight, or no weight at all.

    Example:
        >>> labels = Conditional(torch.eye(3), temperature=1.0)
        >>> query = torch.tensor([[5.0, 0.0, 0.0]])
        >>> labels.mode(query), labels.weights(query).sum(-1)
        (tensor([0]), tensor([1.]))
    """

    def __init__(self, features: Any, temperature: float | Tensor, log_prior: Any = None) -> None:
        features = checked_tensor("features of the references", features, ("N", "F"))
        if len(features) == 0:
            raise ValueError("the reference set is empty: give at least one reference")
        check_temperature(temperature)
        self.features = _divided(features, temperature)
        if log_prior is None:
            self.log_prior = self.features.new_full((len(features),), -math.log(len(features)))
            return
        prior = checked_tensor("log_prior", log_prior, (len(features),), finite=False)
        prior = prior.to(self.features.device, torch.float64)
        if not (prior < math.inf).all() or not (prior > -math.inf).any():
            raise ValueError(
                "log_prior holds nan or +inf, or nothing but -inf: give log weights, -inf to leave a reference out"
            )
        self.log_prior = (prior - prior.logsumexp(0)).to(self.features)

    def _scores(self, queries: Any) -> tuple[Tensor, Tensor]:
        """Return the scores of every query up to a constant, (Q, N), and their log normalisers, (Q, 1)."""
        queries = checked_tensor("queries", queries, ("Q", self.features.shape[1]), self.features)
        return _relative_scores(queries, self.features, self.log_prior)

    def _log_weights(self, queries: Any) -> Tensor:
        scores, log_normaliser = self._scores(queries)
        return scores + self.log_prior - log_normaliser

    @in_kind
    def log_weights(self, queries: Any) -> Tensor:
        """Return log w_i of every query's features (Q, F), shape (Q, N)."""
        return self._log_weights(queries)

    @in_kind
    def weights(self, queries: Any) -> Tensor:
        """Return w_i of every query, shape (Q, N); rows sum to one."""
        return self._log_weights(queries).exp()

    @in_kind
    def log_density(self, queries: Any) -> Tensor:
        r"""Return log rho(x_i|y) with respect to the prior on the references, shape (Q, N).

        It is finite where a reference has no weight too: the density is that of x_i, whatever carries the marginal.

        .. math:: \log\rho(x_i|y) = s(x_i, y) - \log \sum_j \pi_j e^{s(x_j, y)}
        """
        scores, log_normaliser = self._scores(queries)
        return scores - log_normaliser

    @in_kind
    def mode(self, queries: Any) -> Tensor:
        """Return the index of the reference with the largest weight, shape (Q,) (Theorem 4.2)."""
        return self._log_weights(queries).argmax(-1)

    @in_kind
    def sample(self, queries: Any, num_samples: int, generator: torch.Generator) -> Tensor:
        """Draw reference indices with replacement, shape (Q, num_samples)."""
        return draw(self._log_weights(queries).exp(), num_samples, generator)

    @in_kind
    def mean(self, queries: Any, values: Any) -> Tensor:
        """Return the weighted mean of values carried by the references, (N, ...) -> (Q, ...), summed in float64.

        Values of an integer dtype have means in the dtype of the features.
        """
        values, weights = self._values(values), self._log_weights(queries).exp()
        return _shaped(_weighted_sum(weights, values), weights, values)

    @in_kind
    def variance(self, queries: Any, values: Any) -> Tensor:
        """Return the weighted variance of values carried by the references, (N, ...) -> (Q, ...), as for ``mean``."""
        values, weights = self._values(values), self._log_weights(queries).exp()
        # the variance does not see the shift, its rounding errors do
        shift = _weighted_sum(weights.new_full((1, len(values)), 1 / len(values)), values)
        mean, square = (_weighted_sum(weights, values, shift, power) for power in (1, 2))
        return _shaped((square - mean.square()).clamp(min=0), weights, values)

    def _values(self, values: Any) -> Tensor:
        return checked_tensor("values", values, (len(self.features),), more_axes=True).to(self.features.device)

    @in_kind
    def effective_sample_size(self, queries: Any) -> Tensor:
        r"""Return :math:`1 / \sum_i w_i^2` of every query, shape (Q,), between 1 and N."""
        return torch.exp(-torch.logsumexp(2 * self._log_weights(queries), -1)).clamp(1.0, math.inf)


def _weighted_sum(weights: Tensor, values: Tensor, shift: float | Tensor = 0.0, power: int = 1) -> Tensor:
    """Return the sums of powers of shifted values (N, ...) by weights (Q, N), in float64, a row for each query."""
    flat = values.reshape(len(values), -1)
    step = max(1, BLOCK_WEIGHTS // (len(weights) + flat.shape[1]))
    total: Tensor = weights.new_zeros(len(weights), flat.shape[1], dtype=torch.float64)
    for block, part in zip(torch.split(weights, step, 1), torch.split(flat, step), strict=True):
        total = total + block.double() @ (part.double() - shift) ** power
    return total


def _shaped(moments: Tensor, weights: Tensor, values: Tensor) -> Tensor:
    """Return moments in the shape of values and in a dtype that holds both."""
    dtype = torch.promote_types(weights.dtype, values.dtype)
    return moments.to(dtype).reshape(len(weights), *values.shape[1:])
