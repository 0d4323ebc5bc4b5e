"""The score of feature maps against sums over what drifters measured, and retrieval by it with nothing learned."""

import dataclasses

import pytest
import torch

from pcl.errors import BadInputError
from pcl.evaluation.splits import read_arrays
from pcl.problems.ocean.contract import DrifterFacts, Origin, read_facts
from pcl.problems.ocean.prior.maps import FieldPoints, MeasurementMaps, keep_climatology
from pcl.problems.ocean.tracks import DrifterRaster


@pytest.fixture(scope="module")
def pairs(ocean_shards):
    root, manifest = ocean_shards
    manifest = dataclasses.replace(manifest, config={"ocean": {"gap_days": 6.0}})
    every = torch.arange(manifest.num_pairs("test"))
    return root, manifest, read_arrays(root, manifest, "test", {name: every for name in ("u", "v", "origin")})


def encoders(manifest):
    u, v = manifest.arrays["u"].shape, manifest.arrays["v"].shape
    size = 3 * u[1] * u[2] * u[3] + 1
    facts = {name: manifest.source[name] for name in ("drifters", "grid")}
    return FieldPoints(u, size), MeasurementMaps(v, size, **facts)


@pytest.mark.long
def test_the_score_is_minus_the_mean_square_of_what_field_and_measurements_differ_by(pairs):
    _, manifest, arrays = pairs
    of_u, of_v = encoders(manifest)
    u, v = arrays["u"][:6], arrays["v"][:4]
    raster = DrifterRaster(read_facts(manifest.source["drifters"], DrifterFacts), v.shape[2], margin=0)(v)
    mean, weight = raster[:, :2], raster[:, 2]
    field = torch.where(u.isfinite().all(1, keepdim=True), u, 0.0)
    for i in range(6):
        for j in range(4):
            square = (field[i] - mean[j]).square().sum(0)
            expected = -(weight[j] * square).sum() / weight[j].sum() / 2
            torch.testing.assert_close(of_u(u)[i] @ of_v(v)[j], expected, rtol=1e-4, atol=1e-6)


def test_with_nothing_learned_pairs_find_each_other(pairs):
    _, manifest, arrays = pairs
    of_u, of_v = encoders(manifest)
    scores = of_u(arrays["u"]) @ of_v(arrays["v"]).T
    truth = torch.arange(len(scores))
    assert (scores.argmax(0) == truth).float().mean() == 1.0
    assert (scores.argmax(1) == truth).float().mean() == 1.0


def test_the_prior_keeps_the_climatology_of_the_training_split_in_what_is_saved(pairs):
    root, manifest, arrays = pairs
    _, network = encoders(manifest)
    keep_climatology(network, root, manifest)
    other = encoders(manifest)[1]
    other.load_state_dict(network.state_dict())
    place = Origin.of(arrays["origin"][0])
    at = (place.latitude + torch.zeros(1)).double(), (place.longitude + torch.zeros(1)).double()
    assert other.prior.climatology.at(*at)[1].isfinite().all()
    assert float(other.prior.kernel.level) == float(network.prior.kernel.level) != 1.0


def test_what_an_embedding_has_beyond_its_size_is_zero(pairs):
    _, manifest, arrays = pairs
    large = FieldPoints(manifest.arrays["u"].shape, 1000)(arrays["u"][:2])
    assert torch.equal(large[:, :769], encoders(manifest)[0](arrays["u"][:2]))
    assert not large[:, 769:].any()


def test_drifters_of_which_nothing_is_known_are_zero(pairs):
    _, manifest, arrays = pairs
    of_v = encoders(manifest)[1]
    assert torch.equal(
        of_v(torch.full_like(arrays["v"][:1], torch.nan)), torch.zeros(1, of_v(arrays["v"][:1]).shape[1])
    )


@pytest.mark.parametrize("kind", [FieldPoints, MeasurementMaps])
def test_the_embedding_must_be_large_enough(pairs, kind):
    _, manifest, _ = pairs
    u, v = manifest.arrays["u"].shape, manifest.arrays["v"].shape
    facts = {name: manifest.source[name] for name in ("drifters", "grid")}
    given = (u,) if kind is FieldPoints else (v,)
    with pytest.raises(BadInputError, match="set it to 769"):
        kind(*given, 64, **({} if kind is FieldPoints else facts))
