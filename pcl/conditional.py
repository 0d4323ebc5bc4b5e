r"""The learned conditionals on a reference set: weights, mode, draws, moments, log-density.

With references x_1 .. x_N and a query y, :math:`\nu^N_{x|y} = \sum_i w_i(y) \delta_{x_i}`, where
:math:`w(y) = \text{softmax}_i\,(s(x_i, y) + \log\pi_i)` (arXiv:2505.24134, equations 28, C.1, C.2).

References are walked through in blocks: the conditional on all of them is a mixture of the conditionals on the blocks,
and only (Q, N) weights that somebody asks for are ever held. Sums over references are accurate for any number of them:
a sum of 2^22 numbers one after the other loses a hundredth in single precision, which is what ``torch.log_softmax`` and
``torch.multinomial`` do.

Shapes: Q queries, N references, F features.
"""

__all__ = ["Conditional", "draw"]

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pcl.choice import BLOCK_WEIGHTS, draw, uniform
from pcl.entrance import as_generator, checked_tensor, in_kind
from pcl.precision import in_full_precision
from pcl.references import Block, References, relative_scores
from pcl.tilting import check_temperature


@in_full_precision
def _divided(features: Tensor, temperature: float | Tensor) -> Tensor:
    return features / temperature


class Conditional:
    """The conditional of a model given queries, carried by a reference set.

    Arrays of numpy are as good as tensors and are answered in kind; every method checks what it is given. Queries are
    features of the modality that is given, (Q, F). Half precision is computed in single precision, under autocast too.

    Args:
        features: feature maps of the references, shape (N, F).
        temperature: tau > 0.
        log_prior: log weights of the references up to a constant, shape (N,); uniform when None.
        device: where weights are formed, such as ``cuda``; None: where the features are.
        encoder: gives the features of items of the modality that is given; None: ``given`` has none.

    Raises:
        ValueError: there is no reference, tau is not positive and finite, a feature is not finite, or the prior has
            another length, a value that is no log weight, or no weight at all.

    Example:
        >>> labels = Conditional(torch.eye(3), temperature=1.0)
        >>> query = torch.tensor([[5.0, 0.0, 0.0]])
        >>> labels.mode(query), labels.weights(query).sum(-1)
        (tensor([0]), tensor([1.]))
    """

    def __init__(
        self,
        features: Any,
        temperature: float | Tensor,
        log_prior: Any = None,
        device: str | torch.device | None = None,
        encoder: Callable[[Any], Any] | None = None,
    ) -> None:
        self.encoder = encoder
        features = checked_tensor("features of the references", features, ("N", "F"))
        if len(features) == 0:
            raise ValueError("the reference set is empty: give at least one reference")
        check_temperature(temperature)
        self.features = _divided(features, temperature).to(device)
        self.log_prior = self._log_prior(log_prior)
        self.references = References(self.features, self.log_prior)

    def _log_prior(self, log_prior: Any) -> Tensor:
        num_references = len(self.features)
        if log_prior is None:
            return self.features.new_full((num_references,), -math.log(num_references))
        prior = checked_tensor("log_prior", log_prior, (num_references,), finite=False)
        prior = prior.to(self.features.device, torch.float64)
        if not (prior < math.inf).all() or not (prior > -math.inf).any():
            raise ValueError(
                "log_prior holds nan or +inf, or nothing but -inf: give log weights, -inf to leave a reference out"
            )
        return (prior - prior.logsumexp(0)).to(self.features)

    def given(self, items: Any) -> Any:
        """Return the queries of items that are given, as they are stored: their features (Q, F), for all methods.

        Raises:
            ValueError: no model made this conditional, or the items are not what its encoder takes.
        """
        if self.encoder is None:
            raise ValueError("no encoder is known here: queries are features; model.conditional(...) knows its encoder")
        return self.encoder(items)

    def _checked(self, queries: Any) -> Tensor:
        return checked_tensor(
            "queries",
            queries,
            ("Q", self.features.shape[1]),
            self.features,
            remedy="" if self.encoder is None else "encode items first, with conditional.given(items)",
        )

    def _parts(self, queries: Any) -> tuple[Tensor, ...]:
        return self.references.rows(self._checked(queries).detach())

    def _scores(self, queries: Any) -> tuple[Tensor, Tensor]:
        """Return the scores of every query up to a constant, (Q, N), and their log normalisers, (Q, 1)."""
        scores, _ = relative_scores(self._checked(queries), self.features, self.log_prior)
        return scores, torch.logsumexp(scores + self.log_prior, -1, keepdim=True)

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
        return torch.cat([*map(self.references.mode, self._parts(queries))])

    @in_kind
    def best(self, queries: Any, num_best: int) -> tuple[Tensor, Tensor]:
        """Return the references with the largest weights and these weights, the largest first, (Q, num_best) each.

        Raises:
            ValueError: fewer references have a weight, or none is asked for.

        Example:
            >>> Conditional(torch.eye(3), 1.0).best(torch.tensor([[0.0, 2.0, 1.0]]), 2)
            (tensor([[1, 2]]), tensor([[0.6652, 0.2447]]))
        """
        self._check_number("num_best", num_best)
        found = [self.references.best(rows, num_best) for rows in self._parts(queries)]
        indices, weights = (torch.cat(parts) for parts in zip(*found, strict=True))
        return indices, weights.to(self.features.dtype)

    @in_kind
    def weights_of(self, queries: Any, indices: Any, *, temperature: float = 1.0) -> Tensor:
        """Return the weights of some references, such as those drawn, (Q, n) -> (Q, n).

        Args:
            queries: shape (Q, F).
            indices: of references, shape (Q, n).
            temperature: T of the weights, as in ``draw``.

        Example:
            >>> Conditional(torch.eye(3), 1.0).weights_of(torch.tensor([[0.0, 2.0, 1.0]]), torch.tensor([[1, 1]]))
            tensor([[0.6652, 0.6652]])
        """
        check_temperature(temperature)
        parts = self._parts(queries)
        indices = checked_tensor("indices", indices, (sum(map(len, parts)), "n")).to(self.features.device).long()
        weights = [
            self.references.weights_of(*part, temperature)
            for part in zip(parts, self.references.rows(indices), strict=True)
        ]
        return torch.cat(weights).to(self.features.dtype)

    def _check_number(self, name: str, number: int) -> None:
        """Refuse to choose so many different references."""
        most = int((self.log_prior > -math.inf).sum())
        if not 1 <= number <= most:
            raise ValueError(f"{name}={number}: {most} references have a weight, choose 1 to as many")

    def sample(self, queries: Any, num_samples: int, generator: torch.Generator | int) -> Any:
        """Draw reference indices with replacement, shape (Q, num_samples): ``draw`` as it is by default."""
        return self.draw(queries, num_samples, generator)

    @in_kind
    def draw(
        self,
        queries: Any,
        num_samples: int,
        generator: torch.Generator | int,
        *,
        replacement: bool = True,
        temperature: float = 1.0,
    ) -> Tensor:
        r"""Draw reference indices by the weights of every query, shape (Q, num_samples).

        .. math:: P(i) = w_i^{1/T} \Big/ \sum_j w_j^{1/T}

        Without replacement each index is drawn among those that are left, in the order of the draws. The same generator
        gives the same draws, whatever else is drawn from it later.

        Args:
            queries: shape (Q, F).
            num_samples: of each query.
            generator: on any device, or a seed.
            replacement: whether an index may come again.
            temperature: T > 0: below 1 draws keep to the largest weights, above 1 they spread.

        Raises:
            ValueError: there is no sample to draw, fewer references have a weight, or T is not positive and finite.

        Example:
            >>> shuffled = Conditional(torch.zeros(4, 1), 1.0).draw(
            ...     torch.zeros(1, 1), 4, torch.Generator().manual_seed(0), replacement=False)
            >>> shuffled.sort().values
            tensor([[0, 1, 2, 3]])
        """
        check_temperature(temperature)
        parts, generator = self._parts(queries), as_generator(generator)
        if replacement:
            levels = uniform((sum(map(len, parts)), num_samples), generator, self.features.device)
            pairs = zip(parts, self.references.rows(levels), strict=True)
            return torch.cat([self.references.at(*pair, temperature) for pair in pairs])
        self._check_number("without replacement, num_samples", num_samples)
        apart = (
            self.references.apart(query[None], num_samples, generator, temperature) for part in parts for query in part
        )
        return torch.cat([*apart])

    @in_kind
    def mean(self, queries: Any, values: Any) -> Tensor:
        """Return the weighted mean of values carried by the references, (N, ...) -> (Q, ...), summed in float64.

        Values of an integer dtype have means in the dtype of the features.
        """
        values = self._values(values)
        return self._shaped(self._moment(self._checked(queries), values), values)

    @in_kind
    def variance(self, queries: Any, values: Any) -> Tensor:
        """Return the weighted variance of values carried by the references, (N, ...) -> (Q, ...), as for ``mean``."""
        queries, values = self._checked(queries), self._values(values)
        # the variance does not see the shift, its rounding errors do
        shift = _weighted_sum(self.features.new_full((1, len(values)), 1 / len(values)), values)
        mean, square = (self._moment(queries, values, shift, power) for power in (1, 2))
        return self._shaped((square - mean.square()).clamp(min=0), values)

    def _values(self, values: Any) -> Tensor:
        return checked_tensor("values", values, (len(self.features),), more_axes=True).to(self.features.device)

    def _moment(self, queries: Tensor, values: Tensor, shift: float | Tensor = 0.0, power: int = 1) -> Tensor:
        """Return the means of powers of shifted values (N, ...), a row for each query, float64."""

        def of_block(block: Block) -> Tensor:
            return _weighted_sum(block.log_weights.exp(), values[block.places], shift, power)

        return torch.cat([self.references.mixed(rows, of_block) for rows in self.references.rows(queries)])

    def _shaped(self, moments: Tensor, values: Tensor) -> Tensor:
        """Return moments in the shape of values and in a dtype that holds both."""
        dtype = torch.promote_types(self.features.dtype, values.dtype)
        return moments.to(dtype).reshape(len(moments), *values.shape[1:])

    @in_kind
    def effective_sample_size(self, queries: Any, *, temperature: float = 1.0) -> Tensor:
        r"""Return :math:`1 / \sum_i w_i^2` of every query, shape (Q,), between 1 and N.

        Args:
            queries: shape (Q, F).
            temperature: T of the weights, as in ``draw``.
        """
        check_temperature(temperature)
        sizes = torch.cat([self.references.effective_sample_size(rows, temperature) for rows in self._parts(queries)])
        return sizes.clamp(1.0, math.inf).to(self.features.dtype)


def _weighted_sum(weights: Tensor, values: Tensor, shift: float | Tensor = 0.0, power: int = 1) -> Tensor:
    """Return the sums of powers of shifted values (b, ...) by weights (Q, b), in float64, a row for each query."""
    flat = values.reshape(len(values), -1)
    step = max(1, BLOCK_WEIGHTS // (len(weights) + flat.shape[1]))
    total: Tensor = weights.new_zeros(len(weights), flat.shape[1], dtype=torch.float64)
    for block, part in zip(torch.split(weights, step, 1), torch.split(flat, step), strict=True):
        total = total + block.double() @ (part.double() - shift) ** power
    return total
