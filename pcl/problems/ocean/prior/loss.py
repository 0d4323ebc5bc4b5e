r"""The loss from which a prior of currents learns: how well its posterior given drifters knows the rest of a window.

At points drawn at random from a training window, the continuous ranked probability score of the posterior at each, or
the negative log-density of all together over their 2 m numbers,

.. math:: \operatorname{mean}_j \operatorname{CRPS}(\nu_j, u_j) \qquad \text{or} \qquad -\log\nu(u_1, \ldots, u_m) / 2m.

The first leaves alone by how much all variances are inflated, what a point varies by beside its covariance and how
heavy its tails are: these three numbers are those under which the points are most likely, each by itself,
:math:`\operatorname{mean}_j -\log t_j(u_j)`; the mean and the covariance do not learn from it. With the second the
inflation is learned from it, and the other two so.

The climatology of a window is that of the training split without the time around it, so that what is learned knows how
wrong a climatology is. The points follow from the seed, the step and the number of the pair in the global batch.

Shapes: b pairs on this worker, m points.
"""

__all__ = ["PosteriorLoss"]

import functools
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pcl.errors import BadInputError
from pcl.losses import Diagnostics
from pcl.model import PairModel
from pcl.objective import LossContext
from pcl.problems.ocean.contract import Origin
from pcl.problems.ocean.evaluation.field_scores import gaussian_crps
from pcl.problems.ocean.evaluation.windows import Geometry
from pcl.problems.ocean.prior.climatology import ClimatologySums
from pcl.problems.ocean.prior.measurements import measurements_of
from pcl.problems.ocean.prior.model import CurrentPrior
from pcl.problems.ocean.prior.pooled import PooledSums
from pcl.problems.ocean.prior.posterior import Spread
from pcl.problems.ocean.settings import PosteriorLossSettings
from pcl.problems.ocean.tiles import DAY_S
from pcl.workers import Workers

LEAST_SPREAD = 1e-4  # m/s: where a posterior is surer, rounding would decide
TABLES = 8  # of a window each, that are kept
SHOWN_POINTS = 50  # of whose joint density something is said where it is not learned from


class PosteriorLoss:
    """A loss of the model and of the arrays u, v and origin; see above.

    Args:
        context: with the shards, whose training split is read once for its climatology.

    Raises:
        DamagedDataError: a shard differs from its manifest.
    """

    def __init__(self, context: LossContext) -> None:
        self.settings, self.seed = PosteriorLossSettings(**context.settings), context.seed
        self.geometry = Geometry.of(context.manifest.source, context.root / "manifest.json")
        self.sums = ClimatologySums.of(context.root, context.manifest)
        self.gap_s = context.manifest.config["ocean"]["gap_days"] * DAY_S
        pooled = PooledSums.of(context.root, context.manifest, self.sums, self.gap_s)
        self.table_without = functools.lru_cache(TABLES)(pooled.without)  # pairs of a window follow each other

    def __call__(
        self, model: PairModel, arrays: Mapping[str, Tensor], *, step: int, workers: Workers
    ) -> tuple[Tensor, Diagnostics]:
        """Return this worker's share of the loss and both scores.

        Args:
            model: whose encoder of v holds a prior of currents.
            arrays: u (b, 2, T, H, W), v (b, D, P, 4) and origin (b, 6), as stored.
            step: of the training.
            workers: of the training.

        Raises:
            BadInputError: the model has no prior of currents.
        """
        prior, first = _prior_of(model), workers.worker_rank * len(arrays["u"])
        scores = []
        for number, (u, v, origin) in enumerate(zip(*(arrays[name] for name in ("u", "v", "origin")), strict=True)):
            state = np.random.SeedSequence([self.seed, step, first + number]).generate_state(1, np.uint64)
            generator = torch.Generator().manual_seed(int(state[0] >> 1))
            scores.append(self._scores(prior, u.cpu(), v.cpu(), origin.cpu(), generator))
        crps, density = torch.stack(scores).mean(0)
        loss = crps if self.settings.score == "crps" else -density
        return loss, {"loss": loss.detach(), "crps_m_s": crps.detach(), "log_density": density.detach()}

    def _scores(self, prior: CurrentPrior, u: Tensor, v: Tensor, origin: Tensor, generator: torch.Generator) -> Tensor:
        """Return the CRPS at points of one pair, m/s, and the log-density of each of their numbers, shape (2,)."""
        place, time_s = Origin.of(origin), Origin.of(origin).release_s + self.geometry.time_s
        climatology = self.sums.without(float(time_s[0]), float(time_s[-1]), self.gap_s)
        posterior = prior.posterior(
            measurements_of(v, origin, self.geometry),
            centre=(float(place.latitude), float(place.longitude)),
            climatology=climatology,
            table=self.table_without(float(time_s[0]), float(time_s[-1]), self.gap_s),
        )
        grid = torch.meshgrid(time_s, *self.geometry.axes(origin), indexing="ij")
        when, north, east = (part.flatten() for part in grid)
        truth = u.double().flatten(1)
        known = torch.isfinite(truth).all(0) & torch.isfinite(climatology.at(north, east)[1])
        chosen = known.nonzero()[:, 0]
        chosen = chosen[torch.randperm(len(chosen), generator=generator)[: self.settings.num_points]]
        mean, variance, amplitude = posterior.resolved(north[chosen], east[chosen], when[chosen])
        plain = variance.sqrt().clamp(min=LEAST_SPREAD) / prior.log_spread.exp()
        is_learned, spread = self.settings.score == "density", prior.spread
        if is_learned:
            spread = replace(spread, inflation=spread.inflation.detach())
        crps, fit = _scores_of_points(mean, plain, truth[:, chosen], amplitude, spread)
        some = chosen if is_learned else chosen[:SHOWN_POINTS]
        with torch.set_grad_enabled(is_learned and torch.is_grad_enabled()):
            density = posterior.log_density(north[some], east[some], when[some], truth[:, some])
        return torch.stack([crps + fit, density / (2 * max(1, len(some))) - fit])


def _scores_of_points(
    mean: Tensor, plain: Tensor, truth: Tensor, amplitude: Tensor, spread: Spread
) -> tuple[Tensor, Tensor]:
    """Return the mean CRPS of points, which teaches the covariance, and zero, which teaches how sure it is.

    The gradient of the first is that under the normal law of the covariance alone, that of the second that of the
    negative log-likelihood under the laws of points, whose mean and covariance it leaves alone.

    Args:
        mean: of the posterior, shape (2, m).
        plain: standard deviation that the covariance gives, not inflated, likewise.
        truth: likewise.
        amplitude: of currents at the points, shape (m,).
        spread: that is learned.
    """
    law = spread.law(mean.detach(), spread.inflation * plain.detach().square(), amplitude.detach())
    crps, fit = gaussian_crps(mean, plain, truth).mean(), -law.log_density(truth).mean()
    return crps - crps.detach() + law.crps(truth).mean(), fit - fit.detach()


def _prior_of(model: PairModel) -> CurrentPrior:
    for part in model.encoder_v.modules():
        if isinstance(part, CurrentPrior):
            return part
    raise BadInputError(
        "loss.kind=posterior learns a prior of currents, and the model has none: choose model.encoder_v=measurements"
    )
