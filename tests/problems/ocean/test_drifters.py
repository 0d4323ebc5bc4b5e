"""Drifters in gridded currents: closed forms where interpolation is exact, and everything that happens at a coast."""

import math

import pytest
import torch

from pcl.errors import BadInputError
from pcl.problems.ocean.drifters import GriddedCurrents, advect, count_steps
from pcl.problems.ocean.sphere import METRES_PER_DEGREE

DAY_S = 86_400.0


def axis(first, last, num):
    return torch.linspace(first, last, num, dtype=torch.float64)


def gridded(current, time_s, latitude, longitude):
    """Return (2, T, Y, X) of a function of time, longitude and latitude that returns u and v."""
    time, north, east = torch.meshgrid(time_s, latitude, longitude, indexing="ij")
    return torch.stack(
        [torch.as_tensor(part, dtype=torch.float64).expand_as(time) for part in current(time, east, north)]
    )


def follow(current, start, *, days=1.0, steps=24, fields=2, latitude, longitude, records=4, **options):
    time_s = axis(0, days * DAY_S, fields)
    field = gridded(current, time_s, latitude, longitude)
    start = torch.tensor(start, dtype=torch.float64)
    seconds = days * DAY_S
    return advect(
        field, time_s, latitude, longitude, start, step_s=seconds / steps, record_s=seconds / records, **options
    )


def test_a_uniform_current_follows_a_rhumb_line():
    u, v = 0.8, 0.6
    axes = {"latitude": axis(40, 46, 13), "longitude": axis(-20, -10, 21)}
    path, aground = follow(
        lambda t, x, y: (u, v),
        [[-18.0, 41.0]],
        days=4,
        steps=96,
        latitude=axes["latitude"],
        longitude=axes["longitude"],
    )
    latitude = 41 + v * axis(0, 4 * DAY_S, 5) / METRES_PER_DEGREE
    mercator = torch.asinh(torch.tan(latitude.deg2rad())).rad2deg()  # the integral of the secant
    torch.testing.assert_close(path[0, :, 1], latitude, rtol=0, atol=1e-12)
    torch.testing.assert_close(path[0, :, 0], -18 + u / v * (mercator - mercator[0]), rtol=0, atol=1e-10)
    assert not aground.any()


def test_a_shear_moves_each_latitude_by_its_own_speed():
    start = [[0.5, 10.0 + 0.37 * i] for i in range(8)]
    path, _ = follow(
        lambda t, x, y: (0.1 + 0.2 * (y - 10), 0.0), start, latitude=axis(9.9, 14, 12), longitude=axis(0, 3, 7)
    )
    latitude = torch.tensor(start, dtype=torch.float64)[:, 1]
    moved = (0.1 + 0.2 * (latitude - 10)) * DAY_S / (METRES_PER_DEGREE * latitude.deg2rad().cos())
    torch.testing.assert_close(path[:, -1, 0] - path[:, 0, 0], moved, rtol=1e-12, atol=0)
    torch.testing.assert_close(path[:, :, 1], latitude[:, None].expand(-1, 5), rtol=0, atol=0)


TINY = axis(-1e-3, 1e-3, 9)  # degrees around the equator, where the cosine is 1 within 2e-10
TURN = 2 * math.pi / DAY_S


def rotation(time, east, north):
    return -TURN * METRES_PER_DEGREE * north, TURN * METRES_PER_DEGREE * east


def turned(steps, records=8):
    path, _ = follow(rotation, [[5e-4, 0.0], [0.0, 3e-4]], steps=steps, latitude=TINY, longitude=TINY, records=records)
    angle = axis(0, 2 * math.pi, records + 1)
    east = torch.stack([5e-4 * angle.cos(), -3e-4 * angle.sin()])
    north = torch.stack([5e-4 * angle.sin(), 3e-4 * angle.cos()])
    return (path - torch.stack([east, north], -1)).abs().max().item() / 5e-4


@pytest.mark.long
def test_solid_body_rotation_returns_on_a_circle():
    assert turned(800) < 2e-9  # the cosine's share


def test_the_error_falls_with_the_fourth_power_of_the_step():
    assert 15 < turned(48) / turned(96) < 17


def test_a_bilinear_current_is_interpolated_exactly_on_an_irregular_grid():
    latitude = torch.tensor([50.0, 50.3, 51.1, 51.2, 52.0], dtype=torch.float64)
    longitude = torch.tensor([-1.0, 0.0, 0.7, 2.5], dtype=torch.float64)
    field = gridded(lambda t, x, y: (x * (y - 50), 1 - x - 0.3 * (y - 50) * x), axis(0, 60, 2), latitude, longitude)
    places = torch.rand(200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [3.5, 2]
    )
    places += torch.tensor([-1.0, 50.0])
    found = GriddedCurrents(field, 60.0, latitude, longitude).velocity(13.0, places) * METRES_PER_DEGREE
    x, y = places.unbind(-1)
    expected = torch.stack([x * (y - 50) / y.deg2rad().cos(), 1 - x - 0.3 * (y - 50) * x], -1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_time_is_interpolated_exactly_where_currents_are_linear_in_it():
    latitude, longitude = axis(-1, 1, 5), axis(0, 4, 9)
    current = lambda t, x, y: (0.2 + 0.5 * t / DAY_S, 0.0 * t)  # noqa: E731
    path, _ = follow(
        current, [[1.0, 0.0]], days=3, fields=4, steps=36, records=6, latitude=latitude, longitude=longitude
    )
    time = axis(0, 3 * DAY_S, 7)
    torch.testing.assert_close(
        path[0, :, 0], 1 + (0.2 * time + 0.25 * time**2 / DAY_S) / METRES_PER_DEGREE, rtol=1e-14, atol=0
    )


@pytest.mark.long
@pytest.mark.parametrize("decay_s", [math.inf, 5 * DAY_S])
def test_moving_and_decaying_eddies(decay_s):
    """A mean current and an inertial oscillation that decays, uniform in space (the tests of Parcels)."""
    inertial, mean, swirl = 1e-4, 0.02, 0.3
    rate = torch.tensor(complex(-1 / decay_s, -inertial))

    def current(t, x, y):
        turning = swirl * torch.exp(rate * t)
        return mean + turning.real, turning.imag

    near = axis(-0.2, 0.2, 5)
    path, _ = follow(current, [[0.0, 0.0]], days=0.5, fields=721, steps=720, records=6, latitude=near, longitude=near)
    time = axis(0, DAY_S / 2, 7)
    moved = mean * time + swirl * (torch.exp(rate * time) - 1) / rate
    expected = torch.stack([moved.real, moved.imag], -1) / METRES_PER_DEGREE
    torch.testing.assert_close(path[0], expected, rtol=1e-5, atol=1e-6 * expected.abs().max().item())


def test_longitude_runs_on_across_the_dateline():
    path, _ = follow(lambda t, x, y: (1.0, 0.0), [[179.7, 0.0]], latitude=axis(-1, 1, 3), longitude=axis(177, 183, 7))
    steps = path[0, :, 0].diff()
    assert path[0, -1, 0] > 180
    torch.testing.assert_close(steps, torch.full_like(steps, DAY_S / 4 / METRES_PER_DEGREE), rtol=1e-12, atol=0)


def test_the_metric_at_80_north():
    path, _ = follow(lambda t, x, y: (0.5, 0.0), [[0.0, 80.0]], latitude=axis(79, 81, 9), longitude=axis(-1, 6, 15))
    assert path[0, -1, 0].item() == pytest.approx(0.5 * DAY_S / (111_120 * math.cos(math.radians(80))), rel=1e-12)
    north, _ = follow(lambda t, x, y: (0.0, 0.5), [[0.0, 80.0]], latitude=axis(79, 81, 9), longitude=axis(-1, 6, 15))
    assert north[0, -1, 1].item() - 80 == pytest.approx(0.5 * DAY_S / 111_120, rel=1e-12)


def eddy(latitude, longitude, wavelength=2.0):
    """Return a streamfunction and the current along its contours, in m/s."""
    wave = 2 * math.pi / wavelength

    def current(t, x, y):
        u = -0.4 * torch.sin(wave * x) * torch.cos(wave * y)
        return u, 0.4 * torch.cos(wave * x) * torch.sin(wave * y) / y.deg2rad().cos()

    return lambda x, y: torch.sin(wave * x) * torch.sin(wave * y), current


def test_back_in_time_a_drifter_returns():
    latitude, longitude = axis(-2, 2, 41), axis(-2, 2, 41)
    time_s, start = axis(0, 5 * DAY_S, 6), torch.tensor([[0.4, 0.3], [-0.7, 0.9], [1.1, -0.6]], dtype=torch.float64)
    field = gridded(eddy(latitude, longitude)[1], time_s, latitude, longitude) * (1 + time_s[:, None, None] / DAY_S / 5)
    options = {"step_s": 900.0, "record_s": 5 * DAY_S}
    there, _ = advect(field, time_s, latitude, longitude, start, **options)
    back, _ = advect(-field.flip(1), time_s, latitude, longitude, there[:, -1], **options)
    assert (there[:, -1] - start).abs().max() > 0.3
    torch.testing.assert_close(back[:, -1], start, rtol=0, atol=1e-7)


@pytest.mark.long
def test_eddies_and_the_stommel_gyre_conserve_their_streamfunction():
    latitude, longitude = axis(-2, 2, 201), axis(-2, 2, 201)
    streamfunction, current = eddy(latitude, longitude)
    start = [[0.2 + 0.1 * i, 0.55] for i in range(7)]
    path, _ = follow(current, start, days=20, steps=320, records=40, latitude=latitude, longitude=longitude)
    found = streamfunction(path[..., 0], path[..., 1])
    assert (found - found[:, :1]).abs().max() < 1e-6

    width, layer = 10.0, 0.06  # degrees, and the western boundary layer in widths

    def stommel(x, y):
        return (1 - torch.exp(-x / width / layer) - x / width) * math.pi * torch.sin(math.pi * y / width)

    def gyre(t, x, y):
        east = (1 - torch.exp(-x / width / layer) - x / width) * math.pi**2 / width * torch.cos(math.pi * y / width)
        slope = (torch.exp(-x / width / layer) / layer - 1) / width
        return -0.5 * east, 0.5 * slope * math.pi * torch.sin(math.pi * y / width) / y.deg2rad().cos()

    box = axis(0, width, 201)
    start = [[1.0 + 0.8 * i, 5.0] for i in range(8)]
    path, _ = follow(gyre, start, days=30, steps=1200, records=40, latitude=box, longitude=box)
    found = stommel(path[..., 0], path[..., 1])
    assert (path - path[:, :1]).abs().amax((1, 2)).max() > 3
    assert ((found - found[:, :1]) / found[:, :1]).abs().max() < 1e-3


def test_past_a_peninsula_drifters_keep_their_streamfunction():
    radius, centre = 0.6, 2.0

    def streamfunction(x, y):
        return y * (1 - radius**2 / ((x - centre) ** 2 + y**2))

    def current(t, x, y):
        square = (x - centre) ** 2 + y**2
        u = 1 - radius**2 / square + 2 * radius**2 * y**2 / square**2
        v = -2 * radius**2 * (x - centre) * y / square**2 / y.deg2rad().cos()
        dry = torch.where(square < radius**2, torch.nan, 0 * x)
        return 0.5 * u + dry, 0.5 * v + dry

    start = [[0.3, 0.15 + 0.1 * i] for i in range(8)]
    path, aground = follow(
        current, start, days=8, steps=384, records=32, latitude=axis(0, 2, 101), longitude=axis(0, 4.5, 226)
    )
    sizes = (path[..., 0] - centre) ** 2 + path[..., 1] ** 2
    assert (path[:, -1, 0] > centre + 1).all()
    assert (sizes > radius**2).all()
    assert not aground.any()
    found = -streamfunction(path[..., 0], path[..., 1])
    assert (found - found[:, :1]).abs().max() < 1e-4


LATITUDE, LONGITUDE = axis(-1, 1, 5), axis(0, 4, 9)  # every half degree


def coast(from_longitude, u=1.0, v=0.0):
    def current(t, x, y):
        dry = torch.where(x >= from_longitude, torch.nan, 0 * x)
        return u + dry, v + dry

    return current


def test_land_does_not_slow_a_drifter_down():
    along, _ = follow(coast(2.0, u=0.0, v=0.9), [[1.7, -0.9]], latitude=LATITUDE, longitude=LONGITUDE)
    assert along[0, -1, 1].item() + 0.9 == pytest.approx(0.9 * DAY_S / METRES_PER_DEGREE, rel=1e-12)


def test_a_drifter_that_runs_aground_freezes_in_water_and_is_flagged():
    path, aground = follow(coast(2.0), [[1.0, 0.0], [0.0, 0.0]], latitude=LATITUDE, longitude=LONGITUDE, records=24)
    step = DAY_S / 24 / METRES_PER_DEGREE
    taken = int(0.75 / step)  # the nearest point is dry beyond 1.75
    assert path[0, -1, 0].item() == pytest.approx(1 + taken * step, rel=1e-12)
    assert aground[0].tolist() == [number > taken for number in range(25)]
    assert (path[0, taken:] == path[0, taken]).all()
    assert not aground[1].any()
    assert path[1, -1, 0].item() == pytest.approx(24 * step, rel=1e-12)


def test_a_drifter_that_is_dropped_is_missing_from_then_on():
    freeze, aground = follow(coast(2.0), [[1.0, 0.0]], latitude=LATITUDE, longitude=LONGITUDE, records=24)
    drop, flags = follow(coast(2.0), [[1.0, 0.0]], latitude=LATITUDE, longitude=LONGITUDE, records=24, land="drop")
    assert torch.equal(flags, aground)
    assert drop[aground].isnan().all()
    assert torch.equal(drop[~aground], freeze[~aground])


def test_a_step_into_the_midst_of_land_is_not_taken():
    """All corners around a later stage are dry: there is no current, not a zero one."""
    fine = axis(0, 4, 41)
    path, aground = follow(coast(2.0), [[1.94, 0.0]], steps=8, records=8, latitude=axis(-1, 1, 21), longitude=fine)
    assert path[0, -1, 0] == 1.94
    assert aground[0].tolist() == [False] + [True] * 8
    assert path.isfinite().all()


def test_a_drifter_released_on_land_is_aground_at_once():
    path, aground = follow(coast(2.0), [[3.0, 0.0]], latitude=LATITUDE, longitude=LONGITUDE)
    assert aground.all()
    assert (path == torch.tensor([3.0, 0.0])).all()


def test_water_that_vanishes_leaves_a_drifter_aground():
    time_s = axis(0, 2 * DAY_S, 3)
    field = torch.zeros(2, 3, 5, 9, dtype=torch.float64)
    field[:, 1:, :, 4] = torch.nan  # altimetry: masks change in time
    start = torch.tensor([[2.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    path, aground = advect(field, time_s, LATITUDE, LONGITUDE, start, step_s=3600.0, record_s=21600.0)
    assert aground.tolist() == [[False, False, False, True, True, True, True, True, True], [False] * 9]
    assert torch.equal(path, start[:, None].expand_as(path))


def test_a_drifter_beyond_its_bounds_is_lost_for_good():
    bounds = (torch.tensor([0.0, -1.0], dtype=torch.float64), torch.tensor([1.5, 1.0], dtype=torch.float64))
    current = lambda t, x, y: (1.0 - 2 * (t > DAY_S), 0.0 * t)  # noqa: E731  it would come back
    path, aground = follow(
        current,
        [[1.0, 0.0], [9.0, 0.0]],
        days=4,
        steps=96,
        fields=5,
        records=96,
        latitude=LATITUDE,
        longitude=LONGITUDE,
        bounds=bounds,
    )
    lost = path[0].isnan().any(-1)
    assert lost.tolist() == [number > int(0.5 * METRES_PER_DEGREE / 3600) for number in range(97)]
    assert path[0, ~lost, 0].max() <= 1.5
    assert path[1].isnan().all()
    assert not aground.any()


def test_drifters_do_not_know_of_each_other():
    generator = torch.Generator().manual_seed(1)
    start = torch.rand(37, 2, generator=generator, dtype=torch.float64) * torch.tensor([4.0, 2.0]) - torch.tensor(
        [0, 1.0]
    )
    time_s = axis(0, 2 * DAY_S, 3)
    field = torch.randn(2, 3, 5, 9, generator=generator).float() * 0.5
    field[:, :, 1:3, 4:6] = torch.nan

    def paths(chosen):
        path, flags = advect(field, time_s, LATITUDE, LONGITUDE, start[chosen], step_s=3600.0, record_s=7200.0)
        return torch.cat([path.nan_to_num(99.0), flags[..., None]], -1)

    together, order = paths(torch.arange(37)), torch.randperm(37, generator=generator)
    assert torch.equal(paths(order), together[order])
    for size in (1, 2, 3, 5, 8, 13):
        assert torch.equal(paths(torch.arange(7, 7 + size)), together[7 : 7 + size])
    assert 0 < together[:, -1, 2].sum() < 37
    assert (together == 99.0).any()


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (
            (DAY_S, DAY_S, DAY_S, 7000.0),
            "data.ocean.drifters.step_s=7000 does not divide the interval of the fields, 86400 s",
        ),
        (
            (DAY_S, 3600.0, DAY_S, 7200.0),
            "data.ocean.drifters.step_s=7200 does not divide the interval of the fields, 3600 s",
        ),
        (
            (DAY_S, DAY_S, 5400.0, 3600.0),
            "data.ocean.drifters.step_s=3600 does not divide data.ocean.drifters.record_s, 5400 s",
        ),
        ((DAY_S, 3600.0, 7 * 3600.0, 3600.0), "record_s=25200 does not divide the duration of a window, 86400 s"),
        ((DAY_S, DAY_S, DAY_S, -3600.0), "choose a whole fraction of it"),
    ],
)
def test_steps_that_do_not_divide_are_refused(numbers, message):
    with pytest.raises(BadInputError, match=message):
        count_steps(*numbers)


def test_a_current_that_crosses_more_than_a_cell_in_a_step_is_refused():
    with pytest.raises(BadInputError, match=r"crosses 1\.56 cells .*step_s=43200: .* choose 27779 s or less"):
        follow(
            lambda t, x, y: (2.0, 0.0), [[1.0, 0.0]], steps=2, records=2, latitude=axis(0, 0.5, 2), longitude=LONGITUDE
        )
