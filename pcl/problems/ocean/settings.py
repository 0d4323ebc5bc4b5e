"""Settings of the ocean pairs, of their encoders, and of what their evaluation adds."""

__all__ = [
    "REFERENCES",
    "SCORES",
    "DriftersSettings",
    "FieldNetworkSettings",
    "OceanSettings",
    "PosteriorLossSettings",
    "PosteriorSettings",
]

from dataclasses import dataclass

from pcl.settings import setting

REFERENCES = ("tile", "all")
SCORES = ("crps", "density")


@dataclass
class DriftersSettings:
    """``data.ocean.drifters``."""

    num_drifters: int = setting("released in a tile", 8, at_least=1, at_most=10**6)
    num_releases: int = setting(
        "pairs of every tile and window, with drifters of their own", 1, at_least=1, at_most=10**6
    )
    record_s: float = setting("seconds between two recorded positions", 3600.0)
    step_s: float = setting("seconds of a step of the integrator: divides record_s", 3600.0)
    land: str = setting(
        "a drifter that runs aground stays there, or is missing from then on", "freeze", choices=("freeze", "drop")
    )
    halo_degrees: float = setting(
        "degrees around a tile in which drifters are followed; beyond they are missing", 2.0, at_least=0
    )
    noise_m: float = setting("standard deviation of the noise of recorded positions, m", 0.0, at_least=0)
    slip_m_s: float = setting(
        "standard deviation of each component of a drifter's velocity through the water, of its own: windage, m/s",
        0.0,
        at_least=0,
        at_most=10,
        is_neutral=True,
    )
    slip_days: float | None = setting(
        "days over which a drifter's slip changes; null: it is the same along a track", None, above=0, is_neutral=True
    )
    received: float = setting(
        "probability that a recorded position is received: irregular sampling", 1.0, above=0, at_most=1, is_neutral=True
    )
    gap_share: float = setting(
        "share of the time in gaps, in which nothing is received", 0.0, at_least=0, at_most=0.99, is_neutral=True
    )
    gap_hours: float = setting("mean length of a gap, hours", 24.0, above=0, is_neutral=True)
    life_days: float | None = setting(
        "mean days from the release until a drifter is silent for good; null: beyond the window",
        None,
        above=0,
        is_neutral=True,
    )


@dataclass
class OceanSettings:
    """``data.ocean``."""

    paths: list[str] = setting(
        "NetCDF files, globs, folders or Zarr stores, also s3://...; u and v may lie in files of their own",
        [],
        is_input=True,
        is_identity=False,  # where files lie does not matter: their names and sizes do, as provenance
    )
    eastward: str = setting("name of the eastward velocity; empty: by standard_name, then by the usual names", "")
    northward: str = setting("of the northward velocity, likewise", "")
    group: str = setting("of the variables in a NetCDF file or Zarr store; empty: the root", "")
    units: str = setting("of both, where the files state none: m s-1 | cm s-1", "")
    mask: str = setting(
        "name of a variable that is 1 in water and 0 on land; empty: land is what is always missing", ""
    )
    depth_m: float | None = setting("depth to read, metres below the surface; null: the shallowest", None)
    tile_points: int = setting("points of a tile in latitude and in longitude", 16, at_least=2, at_most=10**4)
    tile_stride: int = setting("points between two tiles", 8, at_least=1, at_most=10**6)
    minimum_wet: float = setting("smallest share of water of a tile that is used", 0.5, at_least=0)
    window_steps: int = setting(
        "time steps of the fields in a window: drifters move from the first to the last", 8, at_least=2, at_most=10**6
    )
    window_stride: int = setting(
        "time steps between two training windows; test windows do not overlap", 1, at_least=1, at_most=10**6
    )
    test_fraction: float = setting("last part of the time axis, for testing", 0.2)
    gap_days: float = setting("days between training and test: at least two windows", 30.0, at_least=0)
    max_gap_hours: float | None = setting(
        "a value in water that is missing is interpolated in time if so many hours at most lie from the last known to "
        "the next; null: three time steps; drifters are lost in longer gaps",
        None,
        at_least=0,
        at_most=10**9,
    )
    drifters: DriftersSettings = setting("released in every window", factory=DriftersSettings)


@dataclass
class FieldNetworkSettings:
    """``model.field_network``, of the encoders field and drifter_set."""

    width: int = setting("channels of the first stage", 16, at_most=10**4)
    depth: int = setting("stages; each halves the grid and doubles the channels", 2, at_most=12)


@dataclass
class PosteriorLossSettings:
    """``loss.settings`` of the loss posterior."""

    num_points: int = setting("drawn from a training window, at which the posterior is scored", 100, at_least=1)
    score: str = setting("of each point, or the density of all together", "crps", choices=SCORES)


@dataclass
class PosteriorSettings:
    """``evaluation.ocean``: the posterior of the field given drifters."""

    references: str = setting("training windows that carry it: of the same tile, or all", "tile", choices=REFERENCES)
    num_members: int = setting("members of an ensemble", 50, at_least=2, at_most=10**5)
    num_examples: int = setting(
        "held-out pairs that are drawn as maps and written as CF NetCDF, 0: none", 4, at_least=0, at_most=1000
    )
    seed: int = setting("of the members", 0, at_least=0, at_most=2**63 - 1)
