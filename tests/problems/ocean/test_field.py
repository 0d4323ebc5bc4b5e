"""Fields and drifters: the raster against a loop, and what an embedding must not see."""

import itertools
import math

import numpy as np
import pytest
import torch

from pcl.encoders import make_encoder
from pcl.errors import BadInputError
from pcl.problems.ocean.contract import DrifterFacts, read_facts
from pcl.problems.ocean.field import DrifterSet, Field
from pcl.problems.ocean.tracks import DrifterRaster, track_segments

HOUR = 3600.0
ABOUT = {
    "record_s": 6 * HOUR,
    "window_time_s": [0.0, 24 * HOUR, 48 * HOUR],
    "cell_degrees": [0.25, 0.5],
    "height": 6,
    "width": 5,
}
FACTS = read_facts(ABOUT, DrifterFacts)
NUM_POSITIONS = 9


def random_drifters(num_pairs=2, num_drifters=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    steps = 0.06 * torch.randn(num_pairs, num_drifters, NUM_POSITIONS, 2, generator=generator)
    place = torch.randn(num_pairs, num_drifters, 1, 2, generator=generator) + steps.cumsum(2)
    latitude = place[..., 1:] - 35
    return torch.cat([place, latitude, torch.zeros_like(latitude)], -1)


def drifter_set():
    torch.manual_seed(0)
    return DrifterSet((4, NUM_POSITIONS, 4), 6, width=8, depth=2, drifters=ABOUT)


def field():
    torch.manual_seed(0)
    return Field((2, 3, 6, 5), 6, width=8, depth=2)


def naive_raster(drifters, margin=4):
    """Scatter one drifter, piece and corner after another, in float64."""
    times = ABOUT["window_time_s"]
    shape = (len(times), ABOUT["height"] + 2 * margin, ABOUT["width"] + 2 * margin)
    sums = np.zeros((len(drifters), 3, *shape))
    for pair, drifter in itertools.product(range(len(drifters)), range(drifters.shape[1])):
        track = drifters[pair, drifter].double().numpy()
        for piece, (a, b) in enumerate(itertools.pairwise(track)):
            if not np.isfinite([*a, *b]).all() or a[3] or b[3]:
                continue
            cosine = math.cos(math.radians((a[2] + b[2]) / 2))
            velocity = (b[:2] - a[:2]) * 111120 * np.array([cosine, 1]) / ABOUT["record_s"]
            where = (
                (piece + 0.5) * ABOUT["record_s"] / (24 * HOUR),
                (a[1] + b[1]) / 2 / 0.25 + (shape[1] - 1) / 2,
                (a[0] + b[0]) / 2 / 0.5 + (shape[2] - 1) / 2,
            )
            for point in itertools.product(*map(range, shape)):
                share = math.prod(max(0, 1 - abs(x - p)) for x, p in zip(where, point, strict=True))
                sums[pair, :, *point] += share * np.array([*velocity, 1])
    weight = sums[:, 2:]
    mean = np.divide(sums[:, :2], weight, out=np.zeros_like(sums[:, :2]), where=weight > 0)
    return torch.from_numpy(np.concatenate([mean, weight * 0.25], 1))


def test_the_raster_is_that_of_a_loop():
    drifters = random_drifters()
    drifters[0, 1, 5:] = torch.nan
    drifters[1, 2, 4:, 3] = 1
    found = DrifterRaster(FACTS, NUM_POSITIONS)(drifters)
    torch.testing.assert_close(found.double(), naive_raster(drifters), rtol=2e-4, atol=2e-5)


def test_a_uniform_flow_gives_a_constant_raster():
    drifters = torch.zeros(1, 30, NUM_POSITIONS, 4)
    moved = torch.arange(NUM_POSITIONS) * ABOUT["record_s"] * 0.3 / 111120
    drifters[..., :2] = torch.rand(1, 30, 1, 2, generator=torch.Generator().manual_seed(0)) - 0.5
    drifters[..., 1] += moved  # northward at .3 m/s
    raster = DrifterRaster(FACTS, NUM_POSITIONS)(drifters)
    measured = raster[0, 2] > 0
    assert 0 < measured.sum() < measured.numel()
    torch.testing.assert_close(raster[0, 1][measured], torch.full_like(raster[0, 1][measured], 0.3), rtol=1e-3, atol=0)
    assert (raster[0, 0].abs() < 1e-6).all()
    assert (raster[0, :, ~measured] == 0).all()


def test_all_of_a_track_within_the_grid_is_counted_once():
    drifters = random_drifters() * torch.tensor([0.2, 0.1, 0.1, 0])
    weight = DrifterRaster(FACTS, NUM_POSITIONS)(drifters)[:, 2].flatten(1).sum(1)
    torch.testing.assert_close(weight, torch.full((2,), 4 * (NUM_POSITIONS - 1) * 0.25))


def test_what_is_measured_beyond_the_margin_is_left_out():
    drifters = random_drifters()
    drifters[..., 0] += 100
    assert (DrifterRaster(FACTS, NUM_POSITIONS)(drifters) == 0).all()


def test_longer_pieces_have_the_mean_velocity():
    track = random_drifters()[0, 0]
    track[:, 2] = 0  # at one latitude the mean of velocities is that of displacements
    every, second = track_segments(track, 100.0), track_segments(track, 100.0, stride=2)
    torch.testing.assert_close(every.velocity.reshape(4, 2, 2).mean(1), second.velocity, rtol=1e-4, atol=1e-4)


def test_the_order_of_drifters_does_not_matter():
    encoder, drifters = drifter_set(), random_drifters()
    for order in itertools.permutations(range(4)):
        torch.testing.assert_close(encoder(drifters[:, list(order)]), encoder(drifters), rtol=1e-4, atol=1e-5)


def test_missing_and_grounded_drifters_are_as_if_they_were_not_there():
    encoder, drifters = drifter_set(), random_drifters()
    missing, aground = drifters.clone(), drifters.clone()
    missing[:, 3] = torch.nan
    aground[:, 3, :, 3] = 1
    torch.testing.assert_close(encoder(missing), encoder(drifters[:, :3]))
    torch.testing.assert_close(encoder(aground), encoder(drifters[:, :3]))
    assert torch.isfinite(encoder(torch.full_like(drifters, torch.nan))).all()


def test_a_missing_velocity_is_not_calm_water():
    calm, encoder = torch.zeros(1, 2, 3, 6, 5), field()
    land = calm.clone()
    land[..., :2] = torch.nan
    assert not torch.allclose(encoder(calm), encoder(land))


def test_either_component_missing_is_land():
    u = torch.randn(1, 2, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    half, whole = u.clone(), u.clone()
    half[:, 0, :, :2] = torch.nan
    whole[:, :, :, :2] = torch.nan
    assert torch.equal(field()(half), field()(whole))
    assert torch.isfinite(field()(torch.full_like(u, torch.nan))).all()


@pytest.mark.parametrize("kind", ["field", "drifter_set"])
def test_gradients_are_finite_and_reach_every_weight(kind):
    encoder = field() if kind == "field" else drifter_set()
    items = torch.randn(3, 2, 3, 6, 5) if kind == "field" else random_drifters(3)
    items[:, :, 1] = torch.nan
    encoder(items).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("kind", ["field", "drifter_set"])
def test_an_embedding_depends_on_its_item_alone(kind):
    encoder = field() if kind == "field" else drifter_set()
    items = torch.randn(4, 2, 3, 6, 5) if kind == "field" else random_drifters(4)
    torch.testing.assert_close(encoder(items[2:3]), encoder(items)[2:3], rtol=1e-4, atol=1e-5)
    assert encoder(items[:0]).shape == (0, 6)


def test_standardised_land_stays_land():
    statistics = {"mean": [[[[0.1]]], [[[-0.2]]]], "std": [[[[2.0]]], [[[0.5]]]]}
    torch.manual_seed(0)
    encoder = make_encoder("field", (2, 3, 6, 5), 6, width=8, depth=2, **statistics)
    u = torch.randn(2, 2, 3, 6, 5)
    u[..., 0] = torch.nan
    scaled = (u - torch.tensor(statistics["mean"])) / torch.tensor(statistics["std"])
    torch.testing.assert_close(encoder(u), field()(scaled), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("shape", "kind"), [((3, 4, 8, 8), "field"), ((2, 8, 8), "field"), ((5, 1, 4), "drifter_set")])
def test_other_shapes_are_refused(shape, kind):
    options = {"drifters": ABOUT} if kind == "drifter_set" else {}
    with pytest.raises(BadInputError, match=f"the {kind} encoder takes"):
        make_encoder(kind, shape, 4, width=8, depth=2, **options)


@pytest.mark.parametrize("kind", ["field", "drifter_set"])
def test_an_encoder_built_in_double_precision_stays_there(kind):
    torch.set_default_dtype(torch.float64)
    try:
        encoder = field() if kind == "field" else drifter_set()
    finally:
        torch.set_default_dtype(torch.float32)
    items = torch.zeros(2, 2, 3, 6, 5) if kind == "field" else random_drifters()
    assert {t.dtype for t in [*encoder.parameters(), *encoder.buffers()]} == {torch.float64}
    assert encoder(items.double()).dtype == torch.float64
