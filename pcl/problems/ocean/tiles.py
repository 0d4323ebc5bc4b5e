"""Where pairs are cut from a gridded archive: tiles in space, windows in time, and a split with a gap between.

A tile is a square of points of the grid, a window a run of equally spaced times. Test windows come from the last part
of the time axis, do not overlap, and begin a gap after the last training window has ended.
"""

__all__ = ["cut_tiles", "cut_windows", "regular_interval", "union_box"]

import numpy as np

from pcl.errors import BadInputError

DAY_S, HOUR_S = 86_400.0, 3600.0
TIME_TOLERANCE = 1e-3  # of an interval: stored times carry rounding, of float32 days for instance


def cut_tiles(
    wet: np.ndarray, tile_points: int, tile_stride: int, minimum_wet: float, periodic: bool = False
) -> np.ndarray:
    """Return the first row and column of every tile with enough water.

    Args:
        wet: where there is water, bool, shape (Y, X).
        tile_points: rows and columns of a tile.
        tile_stride: points from one tile to the next.
        minimum_wet: smallest share of wet points.
        periodic: the first column is the neighbour of the last: tiles go on across the seam.

    Returns:
        Shape (tiles, 2), from row to row.

    Raises:
        BadInputError: a tile is larger than the grid, or none has enough water.

    Example:
        >>> wet = np.ones((4, 6), bool)
        >>> wet[:, :3] = False
        >>> cut_tiles(wet, tile_points=2, tile_stride=2, minimum_wet=0.5).tolist()
        [[0, 2], [0, 4], [2, 2], [2, 4]]
    """
    if tile_points > min(wet.shape):
        raise BadInputError(
            f"data.ocean.tile_points={tile_points} and a grid of {wet.shape[0]} x {wet.shape[1]} points: a tile must "
            "fit in the grid, choose fewer points"
        )
    if periodic:
        wet = np.concatenate([wet, wet[:, : tile_points - 1]], axis=1)
    starts = [range(0, size - tile_points + 1, tile_stride) for size in wet.shape]
    all_tiles = np.array([(row, column) for row in starts[0] for column in starts[1]])
    shares = np.array([wet[row : row + tile_points, column : column + tile_points].mean() for row, column in all_tiles])
    used = (shares >= minimum_wet) & (shares > 0)
    if not used.any():
        raise BadInputError(
            f"the wettest of {len(shares)} tiles has {shares.max():.0%} water and data.ocean.minimum_wet="
            f"{minimum_wet:g}: choose smaller tiles or a smaller share"
        )
    return all_tiles[used]


def union_box(tiles: np.ndarray, tile_points: int) -> tuple[slice, slice]:
    """Return the rows and columns of the smallest box around tiles.

    Args:
        tiles: first row and column of each, shape (tiles, 2).
        tile_points: rows and columns of a tile.

    Example:
        >>> union_box(np.array([[0, 2], [2, 4]]), 2)
        (slice(0, 4, None), slice(2, 6, None))
    """
    (row, column), (last_row, last_column) = tiles.min(0).tolist(), tiles.max(0).tolist()
    return slice(row, last_row + tile_points), slice(column, last_column + tile_points)


def regular_interval(time_s: np.ndarray) -> float:
    """Return the interval that most times are apart, in seconds.

    Args:
        time_s: increasing, shape (N,), at least two.

    Example:
        >>> regular_interval(np.array([0.0, 60.0, 120.0, 600.0]))
        60.0
    """
    return float(np.median(np.diff(time_s)))


def cut_windows(
    time_s: np.ndarray,
    window_steps: int,
    window_stride: int,
    test_fraction: float,
    gap_days: float,
    precision_s: float = 0.0,
) -> dict[str, np.ndarray]:
    """Return the first time index of every window of each split.

    Args:
        time_s: seconds, increasing, shape (N,).
        window_steps: times of a window.
        window_stride: times from one training window to the next.
        test_fraction: last part of the time axis, where test windows lie one after another.
        gap_days: smallest time from the end of a training window to the start of a test window, days.
        precision_s: how exact the times are, seconds: windows may be uneven by that.

    Raises:
        BadInputError: the times do not increase, a window has fewer than two times, the gap is shorter than two
            windows, a split is left without windows.

    Example:
        >>> windows = cut_windows(np.arange(20) * 86400.0, 3, 2, test_fraction=0.4, gap_days=4)
        >>> windows["train"].tolist(), windows["test"].tolist()
        ([0, 2, 4, 6], [12, 15])
    """
    if len(time_s) < 2 or not (np.diff(time_s) > 0).all():
        raise BadInputError(f"{len(time_s)} times: there must be at least two, and they must increase")
    if window_steps < 2 or not 0 < test_fraction < 1:
        raise BadInputError(
            f"data.ocean.window_steps={window_steps} and test_fraction={test_fraction:g}: give at least two steps and "
            "a fraction between 0 and 1"
        )
    interval_s = regular_interval(time_s)
    window_days = (window_steps - 1) * interval_s / DAY_S
    if gap_days < 2 * window_days:
        raise BadInputError(
            f"data.ocean.gap_days={gap_days:g} is a gap shorter than a window and a trajectory, {window_days:g} days "
            "each: both splits would see the same water, choose at least their sum, better the decorrelation time"
        )
    whole = _whole_windows(time_s, window_steps, interval_s, precision_s)
    first_test = len(time_s) - round(len(time_s) * test_fraction)
    last_train_s = time_s[min(first_test, len(time_s) - 1)] - gap_days * DAY_S
    train = [i for i in whole.tolist() if i % window_stride == 0 and time_s[i + window_steps - 1] <= last_train_s]
    test: list[int] = []
    for i in whole[whole >= first_test].tolist():
        if not test or i >= test[-1] + window_steps:
            test.append(i)
    if not train or not test:
        days = (time_s[-1] - time_s[0]) / DAY_S
        uneven = len(whole) < len(time_s) - window_steps + 1
        raise BadInputError(
            f"{len(time_s)} times over {days:g} days leave {len(train)} training and {len(test)} test windows of "
            f"{window_steps} equally spaced times ({window_days:g} days) with a gap of {gap_days:g} days between"
            f"{_intervals(time_s, precision_s) if uneven else ''}: give more fields, or choose a shorter window, a "
            "shorter gap or another test_fraction"
        )
    return {"train": np.array(train), "test": np.array(test)}


def _intervals(time_s: np.ndarray, precision_s: float) -> str:
    """Say how far apart times are."""
    intervals = np.diff(time_s)
    return (
        f" (intervals go from {intervals.min():,.10g} to {intervals.max():,.10g} s, most are "
        f"{regular_interval(time_s):,.10g} s, and times are exact to {max(precision_s, 1e-3):.3g} s)"
    )


def _whole_windows(time_s: np.ndarray, window_steps: int, interval_s: float, precision_s: float) -> np.ndarray:
    """Return the first index of every run of equally spaced times: none spans a hole in the archive."""
    tolerance_s = max(
        TIME_TOLERANCE * interval_s, min(2 * precision_s, interval_s / 4)
    )  # a hole is an interval at least
    uneven = np.abs(np.diff(time_s) - interval_s) > tolerance_s
    holes_before = np.concatenate([[0], np.cumsum(uneven)])
    starts = np.arange(len(time_s) - window_steps + 1)
    return np.compress(holes_before[starts + window_steps - 1] == holes_before[starts], starts)
