r"""The loss from which a prior of currents learns: how well its posterior given drifters knows the rest of a window.

At points drawn at random from a training window, the continuous ranked probability score of the posterior at each, or
the negative log-density of all together over their 2 m numbers,

.. math:: \operatorname{mean}_j \operatorname{CRPS}(\nu_j, u_j) \qquad \text{or} \qquad -\log\nu(u_1, \ldots, u_m) / 2m.

The inflation of all spreads, which the first leaves alone, is that with which the normal intervals of 50 and 90 % hold
as much of the truth as they say, as far as one number can: the quantile loss, at both levels, of
:math:`|u_j - m_j| / \sigma_j` over the quantile of a normal law.

The climatology of a window is that of the training split without the time around it, so that what is learned knows how
wrong a climatology is. The points follow from the seed, the step and the number of the pair in the global batch.

Shapes: b pairs on this worker, m points.
"""

__all__ = ["PosteriorLoss"]

import functools
from collections.abc import Mapping

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
from pcl.problems.ocean.settings import PosteriorLossSettings
from pcl.problems.ocean.tiles import DAY_S
from pcl.workers import Workers

LEAST_SPREAD = 1e-4  # m/s: where a posterior is surer, rounding would decide
INTERVALS = {0.5: 0.6744897501960817, 0.9: 1.6448536269514722}  # half a normal interval that holds so much
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
        mean, std = posterior.mean_and_std(north[chosen], east[chosen], when[chosen])
        crps = _calibrating(mean, std.clamp(min=LEAST_SPREAD), truth[:, chosen], prior.log_spread.exp())
        is_learned = self.settings.score == "density"
        some = chosen if is_learned else chosen[:SHOWN_POINTS]
        with torch.set_grad_enabled(is_learned and torch.is_grad_enabled()):
            density = posterior.log_density(north[some], east[some], when[some], truth[:, some])
        return torch.stack([crps, density / (2 * max(1, len(some)))])


def _calibrating(mean: Tensor, std: Tensor, truth: Tensor, spread: Tensor) -> Tensor:
    """Return the mean CRPS; its gradient is that of the law before it was inflated, and of the inflation that it needs.

    Args:
        mean: of the posterior, shape (2, m).
        std: likewise, inflated.
        truth: likewise.
        spread: by which standard deviations were inflated, a scalar.
    """
    plain = gaussian_crps(mean, std / spread, truth).mean()
    off = ((truth - mean).abs() / std * spread).detach()
    losses = [(1 - share) * spread + (off / half - spread).clamp(min=0).mean() for share, half in INTERVALS.items()]
    learned = plain + torch.stack(losses).sum()
    return learned - learned.detach() + gaussian_crps(mean, std, truth).mean().detach()


def _prior_of(model: PairModel) -> CurrentPrior:
    for part in model.encoder_v.modules():
        if isinstance(part, CurrentPrior):
            return part
    raise BadInputError(
        "loss.kind=posterior learns a prior of currents, and the model has none: choose model.encoder_v=measurements"
    )
