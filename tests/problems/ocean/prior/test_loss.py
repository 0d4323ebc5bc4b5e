"""The loss of a prior of currents: what it is, that it does not depend on the workers, and that it is learned from."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import stats

from pcl.errors import BadInputError
from pcl.evaluation.splits import read_arrays
from pcl.objective import LossContext
from pcl.problems.ocean.contract import Origin
from pcl.problems.ocean.evaluation.field_scores import gaussian_crps
from pcl.problems.ocean.prior.loss import PosteriorLoss, _scores_of_points
from pcl.problems.ocean.prior.maps import MeasurementMaps, keep_climatology
from pcl.problems.ocean.prior.measurements import measurements_of
from pcl.problems.ocean.prior.model import CurrentPrior
from pcl.workers import OneWorker


@dataclasses.dataclass
class Model:
    """What the loss asks of a model."""

    encoder_v: torch.nn.Module


@pytest.fixture(scope="module")
def shards(ocean_shards):
    root, manifest = ocean_shards
    manifest = dataclasses.replace(manifest, config={"ocean": {"gap_days": 6.0}})
    chosen = torch.arange(0, manifest.num_pairs("train"), 7)[:8]
    return root, manifest, read_arrays(root, manifest, "train", {name: chosen for name in ("u", "v", "origin")})


def model_of(shards):
    root, manifest, _ = shards
    u = manifest.arrays["u"].shape
    torch.manual_seed(0)
    facts = {name: manifest.source[name] for name in ("drifters", "grid")}
    network = MeasurementMaps(manifest.arrays["v"].shape, 3 * u[1] * u[2] * u[3] + 1, **facts)
    keep_climatology(network, root, manifest)
    return Model(network)


def loss_of(shards, **settings):
    root, manifest, _ = shards
    return PosteriorLoss(LossContext(root, manifest, settings, seed=3))


@pytest.mark.long
def test_at_all_points_it_is_the_score_of_the_posterior(shards):
    _, _, arrays = shards
    model, loss = model_of(shards), loss_of(shards, num_points=10**6)
    value, diagnostics = loss(model, arrays, step=0, workers=OneWorker())
    expected = []
    for u, v, origin in zip(*arrays.values(), strict=True):
        place, geometry = Origin.of(origin), loss.geometry
        time_s = place.release_s + geometry.time_s
        climatology = loss.sums.without(float(time_s[0]), float(time_s[-1]), 6 * 86400.0)
        posterior = model.encoder_v.prior.posterior(
            measurements_of(v, origin, geometry),
            centre=(float(place.latitude), float(place.longitude)),
            climatology=climatology,
            table=loss.table_without(float(time_s[0]), float(time_s[-1]), 6 * 86400.0),
        )
        when, north, east = (x.flatten() for x in torch.meshgrid(time_s, *geometry.axes(origin), indexing="ij"))
        crps = posterior.law(north, east, when).crps(u.double().flatten(1))
        expected.append(crps[:, crps.isfinite().all(0)].mean())
    torch.testing.assert_close(value, torch.stack(expected).mean())
    assert diagnostics["crps_m_s"] == diagnostics["loss"] == value


@pytest.mark.long
@pytest.mark.parametrize("score", ["crps", "density"])
def test_workers_share_it_out(shards, score):
    _, _, arrays = shards

    @dataclasses.dataclass
    class Worker:
        worker_rank: int
        num_workers: int = 2

    values, grads = [], []
    for workers in ([OneWorker()], [Worker(0), Worker(1)]):
        model, loss = model_of(shards), loss_of(shards, num_points=20, score=score)
        size = len(arrays["u"]) // len(workers)
        shares = [
            loss(model, {name: a[r * size : (r + 1) * size] for name, a in arrays.items()}, step=5, workers=worker)[0]
            for r, worker in enumerate(workers)
        ]
        value = torch.stack(shares).mean()
        value.backward()
        values.append(value.detach())
        grads.append([p.grad for p in model.encoder_v.prior.parameters() if p.grad is not None])
    torch.testing.assert_close(values[0], values[1])
    assert len(grads[0]) == len(grads[1]) > 6
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)


def test_points_follow_from_the_step(shards):
    _, _, arrays = shards
    model, loss = model_of(shards), loss_of(shards, num_points=5)
    values = [loss(model, arrays, step=step, workers=OneWorker())[0].item() for step in (1, 1, 2)]
    assert values[0] == values[1] != values[2]


@pytest.mark.long
def test_it_is_learned_from(shards):
    _, _, arrays = shards
    model, loss = model_of(shards), loss_of(shards, num_points=50)
    optimizer, values = torch.optim.Adam(model.encoder_v.prior.parameters(), 0.05), []
    for _ in range(8):
        value, _ = loss(model, arrays, step=0, workers=OneWorker())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.97 * values[0]


@pytest.mark.long
def test_how_sure_the_law_is_is_found_in_points_of_a_known_law():
    number, generator = 20000, torch.Generator().manual_seed(0)
    plain, amplitude = (torch.rand(2, number, generator=generator, dtype=torch.float64) + 0.02).unbind(0)
    plain = torch.stack([plain, plain.flip(0)])
    std = torch.sqrt(1.44 * (plain.square() + 0.05 * amplitude.square()))
    drawn = stats.t(6.0, scale=math.sqrt(1 - 2 / 6.0)).rvs((2, number), random_state=np.random.default_rng(1))
    truth, mean = std * torch.from_numpy(drawn), torch.zeros(2, number).double()
    prior = CurrentPrior()
    learned = [prior.log_spread, prior.log_unresolved, prior.log_tail]
    optimizer = torch.optim.Adam(learned, 0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 120)
    for _ in range(120):
        crps, fit = _scores_of_points(mean, plain, truth, amplitude, prior.spread)
        optimizer.zero_grad()
        (crps + fit).backward()
        optimizer.step()
        schedule.step()
    spread = prior.spread
    assert spread.inflation.item() == pytest.approx(1.44, rel=0.05)
    assert spread.unresolved.item() == pytest.approx(0.05, rel=0.1)
    assert spread.degrees.item() == pytest.approx(6.0, rel=0.1)
    place = spread.law(mean, spread.inflation * plain.square(), amplitude).place(truth)
    assert torch.histc(place, 20, 0, 1).div(2 * number / 20).sub(1).abs().max() < 0.1


def test_the_covariance_learns_from_the_score_of_its_own_normal_law():
    mean, plain, truth, amplitude = torch.rand(4, 2, 7, generator=torch.Generator().manual_seed(0)).double().unbind(0)
    mean.requires_grad_()
    plain.requires_grad_()
    crps, fit = _scores_of_points(mean, plain, truth, amplitude[0], CurrentPrior().spread)
    assert fit == 0
    assert torch.autograd.grad(fit, [mean, plain], allow_unused=True, retain_graph=True) == (None, None)
    wanted = torch.autograd.grad(gaussian_crps(mean, plain, truth).mean(), [mean, plain])
    for one, other in zip(torch.autograd.grad(crps, [mean, plain]), wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_a_model_without_a_prior_is_refused(shards):
    _, _, arrays = shards
    with pytest.raises(BadInputError, match=r"choose model\.encoder_v=measurements"):
        loss_of(shards)(Model(torch.nn.Identity()), arrays, step=0, workers=OneWorker())
