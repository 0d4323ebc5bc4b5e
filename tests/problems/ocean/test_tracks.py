"""Longitudes of tracks: whatever the convention, the same places and velocities."""

import numpy as np
import pytest
import torch

from pcl.problems.ocean.contract import DrifterFacts, read_facts
from pcl.problems.ocean.field import DrifterSet
from pcl.problems.ocean.fixes.fixes import Fixes
from pcl.problems.ocean.fixes.pieces import pieces_of
from pcl.problems.ocean.tracks import DrifterRaster, track_pieces, track_segments, within_half_turn

ABOUT = {
    "record_s": 21_600.0,
    "window_time_s": [0.0, 86_400.0, 172_800.0],
    "cell_degrees": [0.25, 0.25],
    "height": 8,
    "width": 8,
}
FACTS = read_facts(ABOUT, DrifterFacts)


def tracks(dtype=torch.float64):
    """Drifters around the centre of a tile, on a lattice that float32 holds also 720 degrees away."""
    generator = torch.Generator().manual_seed(0)
    place = torch.randint(-4096, 4097, (3, 4, 9, 2), generator=generator).cumsum(2) / 2**14
    latitude = place[..., 1:] - 35
    return torch.cat([place, latitude, torch.zeros_like(latitude)], -1).to(dtype)


def shifted(drifters, turns):
    """Move whole tracks, or records from the fourth on, by turns."""
    moved = drifters.clone()
    moved[..., 0] += 360 * turns
    return moved


def jumping(drifters, turns):
    moved = drifters.clone()
    moved[..., 4:, 0] += 360 * turns
    return moved


@pytest.mark.parametrize("turns", [-2, -1, 1, 2])
@pytest.mark.parametrize("change", [shifted, jumping])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_turns_change_nothing(dtype, change, turns):
    drifters = tracks(dtype)
    moved = change(drifters, turns)
    assert not torch.equal(moved, drifters)
    for stride in (1, 3):
        for found, wanted in zip(
            track_segments(moved, 3600.0, stride), track_segments(drifters, 3600.0, stride), strict=True
        ):
            assert torch.equal(found, wanted)
    raster = DrifterRaster(FACTS, 9)
    assert torch.equal(raster(moved), raster(drifters))
    encoder = DrifterSet((4, 9, 4), 6, width=8, depth=2, drifters=ABOUT).to(dtype)
    assert torch.equal(encoder(moved), encoder(drifters))
    assert raster(moved)[:, 2].sum() > 0


def test_values_within_half_a_turn_keep_every_bit():
    values = torch.cat([torch.linspace(-180, 180, 1001), torch.randn(1000), torch.tensor([1e-30, -0.0])])
    assert within_half_turn(values).view(torch.int32).equal(values.view(torch.int32))


def test_it_is_the_angle_of_numpy():
    degrees = np.random.default_rng(0).uniform(-2000, 2000, 1000)
    wanted = np.degrees(np.angle(np.exp(1j * np.radians(degrees))))
    np.testing.assert_allclose(within_half_turn(torch.from_numpy(degrees)), wanted, atol=1e-9)


def test_pieces_are_those_of_before_where_nothing_is_to_be_turned():
    """The plain difference and mean, to the bit."""
    drifters = tracks(torch.float32) + 0.1
    drifters[..., 3] = 0
    drifters[0, 1, 5:] = torch.nan
    found = track_segments(drifters, 3600.0)
    before, after = drifters[..., :-1, :], drifters[..., 1:, :]
    valid = found.valid
    assert torch.equal(valid, torch.isfinite(after - before).all(-1))
    assert torch.equal(found.middle[valid], ((after + before) / 2)[..., :2][valid])
    cosine = torch.cos(torch.deg2rad(((after + before) / 2)[..., 2]))
    east = (after - before)[..., 0] * cosine * 111_120.0 / 3600.0
    torch.testing.assert_close(found.velocity[..., 0][valid], east[valid])


def test_a_drifter_on_the_other_side_of_the_globe_is_not_in_the_tile():
    """It crosses 180 degrees from the centre: the mean of its two longitudes is the centre, its place is not."""
    track = torch.tensor([[179.9, 0.0, 0.0, 0.0], [-179.9, 0.0, 0.0, 0.0]], dtype=torch.float64)
    piece = track_segments(track, 3600.0)
    torch.testing.assert_close(piece.middle.abs()[0, 0], torch.tensor(180.0).double())
    torch.testing.assert_close(piece.velocity[0, 0], torch.tensor(0.2 * 111_120 / 3600).double())
    assert DrifterRaster(FACTS, 2)(track[None, None]).abs().sum() == 0


def test_what_is_missing_stays_missing_and_gradients_are_finite():
    drifters = shifted(tracks(), 1)
    drifters[0, 0, 3] = torch.nan
    drifters[1, 1, :, 0] = torch.inf
    drifters.requires_grad_()
    pieces = track_segments(drifters, 3600.0)
    assert not pieces.valid[0, 0, 2:4].any()
    assert not pieces.valid[1, 1].any()
    assert all(torch.isfinite(part).all() for part in pieces[:2])


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_pieces_of_tracks_without_gaps_are_segments_to_the_bit(stride):
    drifters = tracks()
    drifters[0, 0, 5:, 3] = 1
    drifters[1, 2, 6:] = torch.nan
    found, wanted = track_pieces(drifters, 3600.0, stride), track_segments(drifters, 3600.0, stride)
    ends = slice(stride - 1, None, stride)
    for part, segments in zip(found[:3], wanted, strict=True):
        assert torch.equal(part.movedim(2, 0)[ends], segments.movedim(2, 0))
    middles = (torch.arange(8 // stride) + 0.5) * stride * 3600.0
    assert torch.equal(found.time_s[..., ends][wanted.valid], middles.expand(wanted.valid.shape)[wanted.valid].float())
    assert (found.duration_s[found.valid] == stride * 3600).all()


@pytest.mark.parametrize(("stride", "longest"), [(1, None), (1, 2), (2, 3), (3, 8), (3, 3)])
def test_pieces_of_tracks_with_gaps_are_those_of_real_fixes(stride, longest):
    """The pieces that are made of fixes of real drifters, which are a list and not a lattice."""
    drifters = tracks()
    drifters[torch.rand(drifters.shape[:-1], generator=torch.Generator().manual_seed(1)) < 0.35] = torch.nan
    pair, drifter, position = drifters[..., 0].isfinite().nonzero().T
    names = np.array([f"{a}-{b}" for a, b in zip(pair.tolist(), drifter.tolist(), strict=True)])
    known = drifters[pair, drifter, position]
    fixes = Fixes(names, position.numpy() * 3600.0, known[:, 2].numpy(), known[:, 0].numpy())
    limit_s = 3600.0 * (9 if longest is None else longest)
    wanted = pieces_of(fixes, every_s=3600.0 * stride, longest_s=limit_s)
    found = track_pieces(drifters, 3600.0, stride, longest)
    assert len(wanted) == found.valid.sum() > 0
    for part, fitting in (
        (found.velocity, wanted.velocity),
        (found.middle[..., 0], wanted.longitude),
        (found.middle[..., 1] - 35, wanted.latitude),
        (found.time_s, wanted.time_s),
        (found.duration_s, wanted.duration_s),
    ):
        np.testing.assert_allclose(part[found.valid], fitting, rtol=1e-9)
    assert (found.velocity[~found.valid] == 0).all()


def test_a_piece_of_a_track_with_gaps_does_not_end_aground():
    drifters = tracks()
    drifters[:, :, 3] = torch.nan
    drifters[:, :, 4:, 3] = 1
    found = track_pieces(drifters, 3600.0)
    assert found.valid.sum(-1).eq(2).all()
