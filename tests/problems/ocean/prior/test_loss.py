"""The loss of a prior of currents: what it is, that it does not depend on the workers, and that it is learned from."""

import dataclasses

import pytest
import torch

from pcl.errors import BadInputError
from pcl.evaluation.splits import read_arrays
from pcl.objective import LossContext
from pcl.problems.ocean.contract import Origin
from pcl.problems.ocean.evaluation.field_scores import gaussian_crps
from pcl.problems.ocean.prior.loss import PosteriorLoss, _calibrating
from pcl.problems.ocean.prior.maps import MeasurementMaps, keep_climatology
from pcl.problems.ocean.prior.measurements import measurements_of
from pcl.workers import OneWorker
from tests.problems.ocean.evaluation.ocean_pairs import make_ocean_shards


@dataclasses.dataclass
class Model:
    """What the loss asks of a model."""

    encoder_v: torch.nn.Module


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    root, manifest = make_ocean_shards(tmp_path_factory.mktemp("loss"))
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
        mean, std = posterior.mean_and_std(north, east, when)
        crps = gaussian_crps(mean, std, u.double().flatten(1))
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


def test_the_inflation_balances_what_intervals_hold():
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(2, 20000, generator=generator).double() * (1 + torch.rand(2, 20000, generator=generator))
    mean, own = torch.zeros(2, 20000).double(), torch.full((2, 20000), 0.8).double()
    log_spread, log_own = (torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in range(2))
    optimizer = torch.optim.Adam([log_spread], 0.02)
    for _ in range(150):
        spread = log_spread.exp()
        value = _calibrating(mean, own * log_own.exp() * spread, truth, spread)
        torch.testing.assert_close(value, gaussian_crps(mean, own * spread, truth).mean())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    held = [(truth.abs() < half * own * log_spread.exp()).double().mean().item() for half in (0.6745, 1.6449)]
    assert sum(held) == pytest.approx(1.4, abs=0.01)
    crps = gaussian_crps(mean, own * (scale := torch.ones((), dtype=torch.float64, requires_grad=True)), truth).mean()
    crps.backward()
    log_own.grad = None
    _calibrating(mean, own * log_own.exp() * 1.3, truth, torch.tensor(1.3).double()).backward()
    assert log_own.grad.item() == pytest.approx(scale.grad.item())  # what is not the inflation learns from the CRPS


def test_a_model_without_a_prior_is_refused(shards):
    _, _, arrays = shards
    with pytest.raises(BadInputError, match=r"choose model\.encoder_v=measurements"):
        loss_of(shards)(Model(torch.nn.Identity()), arrays, step=0, workers=OneWorker())
