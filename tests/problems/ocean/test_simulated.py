"""Drifters as people own them: their slip and reception against laws in closed form; what is neutral changes no bit."""

import json
import math
from dataclasses import fields

import numpy as np
import pytest
import torch

from pcl.config.identity import data_identity, differing
from pcl.config.load import load_config
from pcl.data.manifest import SPLITS
from pcl.data.source import SourceContext
from pcl.errors import BadInputError
from pcl.problems.ocean.drifters import advect, release
from pcl.problems.ocean.real_tracks import received, slips
from pcl.problems.ocean.settings import DriftersSettings, OceanSettings
from pcl.problems.ocean.source import ocean_source
from pcl.problems.ocean.sphere import METRES_PER_DEGREE
from tests.problems.ocean.archives import DAY_S, make_archive, write_archive
from tests.typed import ROOT

NEUTRAL = {part.name: part.default for part in fields(DriftersSettings) if part.metadata["is_neutral"]}
REAL = {"slip_m_s": 0.08, "slip_days": 2.0, "received": 0.6, "gap_share": 0.2, "gap_hours": 12.0, "life_days": 4.0}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return write_archive(tmp_path_factory.mktemp("simulated") / "archive.nc", make_archive(days=40))


def source_of(path, seed=3, **drifters):
    chosen = DriftersSettings(**{"num_drifters": 4, "record_s": 10_800.0, "halo_degrees": 1.0} | drifters)
    settings = OceanSettings([str(path)], tile_points=8, tile_stride=8, window_steps=4, gap_days=8.0, drifters=chosen)
    return ocean_source(settings, SourceContext(seed))


def test_neutral_drifters_are_those_that_are_released_and_followed_to_the_bit(archive):
    source = source_of(archive, **NEUTRAL)
    pairs, cut = source.pairs("train", 5, 8), source.cut
    for number, v in zip((5, 6, 7), pairs["v"], strict=True):
        tile, first = cut.tiles[number % len(cut.tiles)][None], cut.windows["train"][number // len(cut.tiles)]
        (box, halo), generator = (cut.box(tile), cut.box_with_halo(tile)), np.random.default_rng([3, 0, number])
        field, (latitude, longitude) = cut.bridged(first, halo, cut.water(halo)), map(torch.tensor, cut.axes(halo))
        known = np.isfinite(cut.bridged(first, box, cut.water(box))).all(0)[0]
        start = torch.tensor(release(generator, known, *cut.axes(box), 4))
        time_s = DAY_S * torch.arange(4.0)
        path, aground = advect(
            torch.tensor(field), time_s, latitude, longitude, start, step_s=3600.0, record_s=10_800.0
        )
        north, east = (axis[[0, -1]].mean() for axis in cut.axes(box))
        wanted = np.stack([path[..., 0] - east, path[..., 1] - north, path[..., 1], aground], -1)
        wanted[path[..., 0].isnan().numpy()] = np.nan
        np.testing.assert_array_equal(v, wanted.astype(np.float32))


def test_records_do_not_hold_what_is_neutral():
    """So manifests and experiments of configurations that do not use it stay as they are, byte for byte."""
    config = load_config(ROOT / "configs" / "ocean.yaml")
    told = data_identity(config)
    assert NEUTRAL.keys() == REAL.keys()
    assert not NEUTRAL.keys() & told["ocean"]["drifters"].keys()
    given = [f"data.ocean.drifters.{key}={json.dumps(value)}" for key, value in NEUTRAL.items()]
    assert json.dumps(data_identity(load_config(ROOT / "configs" / "ocean.yaml", given))) == json.dumps(told)
    given = [f"data.ocean.drifters.{key}={value}" for key, value in REAL.items() if key != "gap_hours"]
    other = data_identity(load_config(ROOT / "configs" / "ocean.yaml", [*given, "data.ocean.drifters.gap_hours=12"]))
    assert {key: other["ocean"]["drifters"][key] for key in REAL} == REAL
    keys = sorted(f"data.ocean.drifters.{key}" for key in REAL)
    assert differing({"data": told}, {"data": other}) == differing({"data": other}, {"data": told}) == keys


def test_what_is_not_received_is_all_that_reception_changes(archive):
    everything, heard = (source_of(archive, **some).pairs("train", 0, 12) for some in ({}, REAL | {"slip_m_s": 0.0}))
    missing = np.isnan(heard["v"])
    assert 0.4 < missing.mean() < 0.95
    assert (missing == missing[..., :1]).all()
    np.testing.assert_array_equal(heard["v"][~missing], everything["v"][~missing])
    np.testing.assert_array_equal(heard["u"], everything["u"])


def test_a_pair_depends_on_its_number_only(archive):
    source = source_of(archive, **REAL, noise_m=100.0)
    for split in SPLITS:
        whole = source.pairs(split, 0, 9)
        for start, stop in ((0, 2), (3, 4), (5, 9)):
            part = source.pairs(split, start, stop)
            for name, values in part.items():
                np.testing.assert_array_equal(values, whole[name][start:stop])
    assert not np.array_equal(source_of(archive, seed=4, **REAL).pairs("train", 0, 1)["v"], whole["v"][:1])


def test_slip_moves_a_drifter_through_water_at_rest():
    axis = torch.linspace(-1, 1, 9, dtype=torch.float64)
    slip = torch.tensor([[[0.1, -0.2]] * 12 + [[-0.3, 0.05]] * 12, [[0.0, 0.0]] * 24], dtype=torch.float64)
    start, still = torch.zeros(2, 2, dtype=torch.float64), torch.zeros(2, 2, 9, 9)
    path, _ = advect(still, torch.tensor([0.0, DAY_S]), axis, axis, start, step_s=3600.0, record_s=DAY_S / 2, slip=slip)
    metres = (path * METRES_PER_DEGREE)[0]
    moved = slip[0].reshape(2, 12, 2).sum(1).cumsum(0) * 3600
    torch.testing.assert_close(metres[1:, 1], moved[:, 1])
    torch.testing.assert_close(metres[1:, 0], moved[:, 0], rtol=1e-4, atol=0)  # the cosine of a tenth of a degree
    assert (path[1] == 0).all()


def test_slip_is_normal_and_forgotten_over_days():
    settings = DriftersSettings(num_drifters=20_000, slip_m_s=0.1, slip_days=0.25)
    drawn = slips(np.random.default_rng(0), settings, 13)
    np.testing.assert_allclose(drawn.std((0, 2)), 0.1, rtol=0.02)
    assert abs((drawn**4).mean() / 1e-4 - 3) < 0.1
    for hours in (1, 6, 12):
        found = (drawn[:, 0] * drawn[:, hours]).mean() / 0.01
        assert found == pytest.approx(math.exp(-hours / 6), abs=0.02)
    constant = slips(np.random.default_rng(0), DriftersSettings(num_drifters=20_000, slip_m_s=0.1), 13)
    assert (constant == constant[:, :1]).all()
    np.testing.assert_array_equal(constant[:, 0], drawn[:, 0])
    assert slips(np.random.default_rng(0), DriftersSettings(), 13) is None


def test_positions_are_received_by_chance_between_gaps_and_until_death():
    many = {"num_drifters": 20_000, "record_s": 3600.0}

    def heard(**chosen):
        return received(np.random.default_rng(0), DriftersSettings(**many, **chosen), 60)

    assert heard().all()
    np.testing.assert_allclose(heard(received=0.3).mean(0), 0.3, atol=0.02)
    np.testing.assert_allclose(heard(life_days=1.0).mean(0), np.exp(-np.arange(60) / 24), atol=0.02)
    alive = heard(life_days=1.0)
    assert (alive[:, 1:] <= alive[:, :-1]).all()
    gaps = ~heard(gap_share=0.25, gap_hours=6.0)
    np.testing.assert_allclose(gaps.mean(0), 0.25, atol=0.02)
    for hours in (1, 3, 12):  # the chain in continuous time, whose gaps have the mean length 6 h
        both = (gaps[:, :-hours] & gaps[:, hours:]).mean()
        assert both == pytest.approx(0.25 * (0.25 + 0.75 * math.exp(-hours / 6 / 0.75)), abs=0.005)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("received=0", r"received=0.*: it must be more than 0"),
        ("received=1.5", r"received=1\.5: it must be at most 1"),
        ("gap_share=1", r"gap_share=1.*: it must be at most 0\.99"),
        ("slip_days=0", r"slip_days=0.*: it must be more than 0"),
        ("slip_m_s=-1", r"slip_m_s=-1.*: it must be at least 0"),
    ],
)
def test_impossible_drifters_are_refused(given, message):
    with pytest.raises(BadInputError, match=message):
        load_config(ROOT / "configs" / "ocean.yaml", [f"data.ocean.drifters.{given}"])
