r"""Simulation-based calibration: does the truth rank uniformly among draws from the learned conditional?

For a pair (x, y) of the true law and draws :math:`x_1 \dots x_L \sim \nu_{x|y}`, the rank
:math:`r = \#\{l : x_l < x\}` of the truth, pooled over many pairs, is uniform on 0 .. L where the learned conditional
is the true one. Ranks heap up in the middle where it is too wide, at both ends where it is too narrow, at one end where
it is shifted. The converse fails: the law of x given *less* than y (a dropped canonical pair, or the marginal, which
ignores y) is calibrated too, only less sharp, so calibration is read beside the loss or the error of the means.

Shapes: Q pairs, L draws, d components of the predicted modality, N references.
"""

__all__ = ["Calibration", "calibrate", "calibration_ranks", "gaussian_samples", "ranked"]

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pcl.conditional import Conditional
from pcl.entrance import as_generator
from pcl.gaussian import AffineMap
from pcl.gaussian.pair import DIRECTIONS
from pcl.model import PairModel


def _check_finite(name: str, values: Tensor) -> None:
    if not torch.isfinite(values).all():
        raise ValueError(f"the {name} hold values that are not finite, which have no rank: leave them out")


def _check_positive(name: str, count: int) -> None:
    if count < 1:
        raise ValueError(f"{name} is {count}: at least 1 is needed")


def calibration_ranks(samples: Tensor, truths: Tensor, generator: torch.Generator | int) -> Tensor:
    r"""Return the rank of every truth among its draws, component by component.

    .. math:: r = \#\{l : x_l < x\} + k, \qquad k \text{ uniform on } 0 \dots \#\{l : x_l = x\}

    Ties, as reference sets have them, are broken at random, so that ranks of exchangeable values stay uniform.

    Args:
        samples: draws from the learned conditional of every pair, shape (Q, L, d).
        truths: the predicted item of every pair, shape (Q, d).
        generator: breaks the ties, or a seed.

    Returns:
        Integers 0 .. L of shape (Q, d).

    Raises:
        ValueError: the shapes do not fit, a dimension is empty, or a value is not finite.

    References:
        Talts et al. (2018), arXiv:1804.06788, theorem 1.

    Example:
        >>> draws = torch.arange(9.0).reshape(1, 9, 1)
        >>> calibration_ranks(draws, torch.tensor([[3.5]]), torch.Generator())
        tensor([[4]])
    """
    if samples.ndim != 3 or truths.shape != (samples.shape[0], samples.shape[2]):
        raise ValueError(
            f"samples of shape {tuple(samples.shape)} and truths of shape {tuple(truths.shape)}: "
            "they must be (Q, L, d) and (Q, d)"
        )
    if samples.numel() == 0:
        raise ValueError(f"samples of shape {tuple(samples.shape)}: give at least one pair, one draw and one component")
    _check_finite("samples", samples)
    _check_finite("truths", truths)
    below = (samples < truths[:, None]).sum(1)
    equal = (samples == truths[:, None]).sum(1)
    uniform = torch.rand(truths.shape, generator=as_generator(generator), dtype=torch.float64)
    return below + (uniform * (equal + 1)).long()


@dataclass(frozen=True)
class Calibration:
    """The ranks of Q truths among L draws each, and what they tell.

    Attributes:
        ranks: integers 0 .. L of independent pairs, shape (Q, d).
        num_draws: L.

    Raises:
        ValueError: there is no rank, no draw, or a rank outside 0 .. L.

    Example:
        >>> wide = Calibration(torch.arange(25, 75)[:, None], num_draws=99)
        >>> {name: round(value, 3) for name, value in wide.metrics("u_given_v").items()}
        {'u_given_v_coverage_50': 1.0, 'u_given_v_coverage_90': 1.0,
         'u_given_v_calibration_p_value': 0.004, 'u_given_v_calibration_dispersion': 0.5}
    """

    ranks: Tensor
    num_draws: int

    def __post_init__(self) -> None:
        _check_positive("num_draws", self.num_draws)
        if self.ranks.ndim != 2 or self.ranks.numel() == 0 or self.ranks.is_floating_point():
            raise ValueError(
                f"ranks are {self.ranks.dtype} of shape {tuple(self.ranks.shape)}: they must be integers of shape "
                "(Q, d) with at least one pair and one component"
            )
        low, high = int(self.ranks.min()), int(self.ranks.max())
        if low < 0 or high > self.num_draws:
            raise ValueError(f"ranks go from {low} to {high}: among {self.num_draws} draws they are 0 .. L")

    @property
    def ecdf_difference(self) -> Tensor:
        r"""Share of the ranks up to k less that of the uniform law, :math:`(k + 1) / (L + 1)`, shape (L + 1, d)."""
        num_ranks = self.num_draws + 1
        counts = torch.stack([torch.bincount(column, minlength=num_ranks) for column in self.ranks.long().T], 1)
        uniform = torch.arange(1, num_ranks + 1, dtype=torch.float64) / num_ranks
        return counts.double().cumsum(0) / len(self.ranks) - uniform[:, None]

    @property
    def p_values(self) -> Tensor:
        r"""The p-value of uniform ranks of every component, shape (d,): the Kolmogorov-Smirnov test.

        .. math:: p = \min(1,\; 2 e^{-2 Q D^2}), \qquad D = \max_k |F_Q(k) - \tfrac{k + 1}{L + 1}|

        The inequality of Dvoretzky, Kiefer, Wolfowitz and Massart holds for every Q and L: p errs upwards, by little
        where it is small and L is 100 or more.

        References:
            Massart (1990), Annals of Probability 18(3), corollary 1.
        """
        distance = self.ecdf_difference.abs().amax(0)
        return (2 * torch.exp(-2 * len(self.ranks) * distance.square())).clamp(max=1)

    @property
    def p_value(self) -> float:
        """The p-value of uniform ranks of all components together, by Bonferroni's correction."""
        return min(1.0, self.ranks.shape[1] * self.p_values.min().item())

    def band(self, probability: float = 0.99) -> float:
        """Return the half-width that ``ecdf_difference`` keeps to everywhere, with at least this probability.

        It leaves the band where ``p_value`` is less than one minus the probability.

        References:
            Säilynoja, Bürkner, Vehtari (2022), arXiv:2103.10522, for the picture.
        """
        return math.sqrt(math.log(2 * self.ranks.shape[1] / (1 - probability)) / (2 * len(self.ranks)))

    @property
    def dispersion(self) -> Tensor:
        """Standard deviation of the ranks over that of uniform ones, shape (d,).

        Less than 1: the learned conditional is too wide. More than 1: it is too narrow.
        """
        uniform = math.sqrt(((self.num_draws + 1) ** 2 - 1) / 12)
        return self.ranks.double().std(0, correction=0) / uniform

    def coverage(self, levels: Sequence[float]) -> tuple[Tensor, Tensor]:
        r"""Return how often the central interval of every level holds the truth, and the binomial standard errors.

        Rank r stands for the cell :math:`[r, r + 1] / (L + 1)` and counts by the share of it that lies between the
        quantiles (1 - level)/2 and (1 + level)/2, so that calibrated ranks cover the level exactly for any L. To see
        what other ranks cover, L must be several times 1 / (1 - level).

        Args:
            levels: probabilities in (0, 1), K of them.

        Returns:
            Coverages and standard errors, shapes (K, d).

        Raises:
            ValueError: a level is not in (0, 1).

        Example:
            >>> Calibration(torch.arange(10)[:, None], num_draws=9).coverage([0.9])[0]
            tensor([[0.9000]], dtype=torch.float64)
        """
        if not all(0 < level < 1 for level in levels):
            raise ValueError(f"levels {list(levels)}: the probability of a central interval lies in (0, 1)")
        ranks, num_ranks, num_pairs = self.ranks.double(), self.num_draws + 1, len(self.ranks)
        tails = [(1 - level) / 2 * num_ranks for level in levels]
        inside = [((ranks + 1).clamp(max=num_ranks - t) - ranks.clamp(min=t)).clamp(min=0) for t in tails]
        coverage = torch.stack([share.mean(0) for share in inside])
        # half a pair on either side: the standard error of "all of 100" is not zero
        smoothed = (num_pairs * coverage + 0.5) / (num_pairs + 1)
        return coverage, (smoothed * (1 - smoothed) / num_pairs).sqrt()

    def metrics(self, name: str) -> dict[str, float]:
        """Return coverage and dispersion as means over the components, and the p-value of all of them.

        Args:
            name: of the conditional, which every key starts with.
        """
        coverage, _ = self.coverage((0.5, 0.9))
        return {
            f"{name}_coverage_50": coverage[0].mean().item(),
            f"{name}_coverage_90": coverage[1].mean().item(),
            f"{name}_calibration_p_value": self.p_value,
            f"{name}_calibration_dispersion": self.dispersion.mean().item(),
        }


def gaussian_samples(
    mean: AffineMap, covariance: Tensor, conditioning: Tensor, num_draws: int, generator: torch.Generator
) -> Tensor:
    """Draw from a Gaussian conditional, such as ``model_conditional`` gives for linear encoders.

    Args:
        mean: the conditional mean, from m to n components.
        covariance: shape (n, n).
        conditioning: what to condition on, shape (Q, m).
        num_draws: L, for each of them.
        generator: of the draws.

    Returns:
        Shape (Q, L, n), float64.

    Raises:
        ValueError: there is no draw, the shapes do not fit, or the covariance is not positive definite.

    Example:
        >>> mean = AffineMap(torch.ones(2, 1).double(), torch.zeros(2).double())
        >>> gaussian_samples(mean, torch.eye(2), torch.tensor([[5.0]]), 1000, torch.Generator()).mean(1).round()
        tensor([[5., 5.]], dtype=torch.float64)
    """
    _check_positive("num_draws", num_draws)
    n, m = mean.matrix.shape
    if covariance.shape != (n, n) or conditioning.ndim != 2 or conditioning.shape[1] != m:
        raise ValueError(
            f"covariance of shape {tuple(covariance.shape)} and conditioning of shape {tuple(conditioning.shape)}: "
            f"for a mean from {m} to {n} components they must be ({n}, {n}) and (Q, {m})"
        )
    root, failed = torch.linalg.cholesky_ex(covariance.double())
    if failed or not torch.isfinite(root).all():
        raise ValueError("the covariance is not positive definite: nothing can be drawn from it")
    noise = torch.randn(len(conditioning), num_draws, n, generator=generator, dtype=torch.float64)
    samples: Tensor = mean(conditioning.double())[:, None] + noise @ root.T
    return samples


def _check_pairs(direction: str, u: Tensor, v: Tensor, references: Tensor) -> None:
    if direction not in DIRECTIONS:
        raise ValueError(f"direction {direction!r} is not known; choose one of {', '.join(DIRECTIONS)}")
    if len(u) != len(v) or len(u) == 0:
        raise ValueError(f"{len(u)} u and {len(v)} v: pairs need as many of each, and at least one")
    predicted = direction[0]
    shape = (u if predicted == "u" else v).shape[1:]
    if references.shape[1:] != shape:
        raise ValueError(
            f"references of shape {tuple(references.shape)}: for {direction} they must be items of {predicted}, "
            f"of shape (N, {', '.join(map(str, shape))})"
        )


def _components(items: Tensor, projections: Tensor | None) -> Tensor:
    """Flatten items (N, ...) to (N, d), or project them to (N, k)."""
    flat = items.reshape(len(items), -1)
    if projections is None:
        return flat
    if projections.ndim != 2 or len(projections) != flat.shape[1]:
        raise ValueError(
            f"projections have shape {tuple(projections.shape)}: for items of {flat.shape[1]} components they must be "
            f"({flat.shape[1]}, k)"
        )
    projected: Tensor = flat.to(projections.dtype) @ projections
    return projected


@torch.no_grad()
def calibrate(
    model: PairModel,
    direction: str,
    u: Tensor,
    v: Tensor,
    references: Tensor,
    num_draws: int,
    generator: torch.Generator,
    block_pairs: int = 256,
    projections: Tensor | None = None,
    log_prior: Tensor | None = None,
) -> Calibration:
    """Calibrate a learned conditional, drawing from the reference set that carries it.

    The references stand for the marginal: take independent items, **none of them from the tested pairs** (a truth that
    ties with itself hides that a conditional is too narrow), and many more than the tested pairs, which all share the
    error of the reference set.

    Args:
        model: any encoders and tilting.
        direction: ``u_given_v`` (u are the truths, references are u) or ``v_given_u``.
        u: of the tested pairs, shape (Q, ...).
        v: of the tested pairs, shape (Q, ...).
        references: items of the predicted modality, shape (N, ...).
        num_draws: L.
        generator: of the draws and the ties.
        block_pairs: pairs at a time, B: B x N weights and B x L x d drawn values are held.
        projections: directions (d, k) along which to calibrate, in place of all components of the flattened items.
        log_prior: log weights of the references up to a constant, shape (N,); uniform when None.

    Raises:
        ValueError: the direction is not known, shapes or counts do not fit, or data or scores are not finite.

    References:
        arXiv:2505.24134, equation 28; Talts et al. (2018), arXiv:1804.06788.

    Example:
        >>> from pcl.encoders.build import build_model
        >>> linear = {"kind": "linear", "shape": [1]}
        >>> tau = {"initial": 1.0, "learned": False, "minimum": 0.1, "maximum": 10.0}
        >>> model = build_model({"embedding_dim": 1, "encoder_u": linear, "encoder_v": linear,
        ...     "tilting": "squared_distance", "temperature": tau, "dtype": "float32"})
        >>> generator = torch.Generator().manual_seed(0)
        >>> x = torch.randn(1100, 1, generator=generator)
        >>> calibrate(model, "u_given_v", x[:100], x[:100], x[100:], 19, generator).ranks.shape
        torch.Size([100, 1])
    """
    _check_positive("num_draws", num_draws)
    _check_positive("block_pairs", block_pairs)
    _check_pairs(direction, u, v, references)
    conditional = model.conditional(direction, references, log_prior)
    truths, queries, features = (u, v, model.features_v) if direction == "u_given_v" else (v, u, model.features_u)
    values, truths = _components(references, projections), _components(truths, projections)
    ranks = []
    for truth, query in zip(torch.split(truths, block_pairs), torch.split(queries, block_pairs), strict=True):
        ranks.append(ranked(conditional, features(query), truth, values, num_draws, generator)[0])
    return Calibration(torch.cat(ranks), num_draws)


def ranked(
    conditional: Conditional,
    queries: Tensor,
    truths: Tensor,
    values: Tensor,
    num_draws: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return the ranks (Q, d) of truths among draws from a conditional, and the values (Q, L, d) that are drawn.

    Args:
        conditional: on the references.
        queries: features of what is given, shape (Q, F).
        truths: the predicted item of every pair, shape (Q, d).
        values: of the references, shape (N, d).
        num_draws: L.
        generator: of the draws and the ties.

    Raises:
        ValueError: a feature or a value is not finite.
    """
    _check_finite("features of the queries", queries)
    drawn = values[conditional.sample(queries, num_draws, generator)]
    return calibration_ranks(drawn, truths, generator), drawn
