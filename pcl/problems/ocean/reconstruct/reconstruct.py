"""A reconstruction from tracks to files: everything is made before anything is written."""

__all__ = ["COMPLETE", "FILES", "Priors", "reconstruct"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from pcl.errors import BadInputError
from pcl.evaluation.page import Picture, png_of
from pcl.problems.ocean.fixes.cleaning import Box
from pcl.problems.ocean.prior.climatology import GridClimatology
from pcl.problems.ocean.prior.measurements import of_pieces
from pcl.problems.ocean.prior.model import CurrentPrior
from pcl.problems.ocean.reconstruct.dataset import maps_dataset
from pcl.problems.ocean.reconstruct.estimate import estimate
from pcl.problems.ocean.reconstruct.grid import clipped, map_grid, region_of
from pcl.problems.ocean.reconstruct.leave_out import leave_out
from pcl.problems.ocean.reconstruct.model import Model
from pcl.problems.ocean.reconstruct.report import Results, page_of
from pcl.problems.ocean.reconstruct.settings import ReconstructSettings
from pcl.problems.ocean.reconstruct.tracks import Tracks, tracks_of

COMPLETE = "reconstruction.json"  # written last: the mark that all is there
FILES = (
    "index.html",
    "maps.nc",
    "maps.png",
    "tracks.png",
    "scores.png",
    "animation.gif",
)  # beside it, if there are any
MOST_NUMBERS = 2 * 10**8  # of the members


@dataclass(frozen=True, eq=False)
class Priors:
    """Where a prior is from.

    Attributes:
        prior: of currents.
        is_generic: whether it is the generic one.
        about: what it is, a sentence.
        first_s: when the archive begins that it was learned from, seconds since 1970-01-01; None: there is none.
        last_s: when it ends.
    """

    prior: CurrentPrior
    is_generic: bool
    about: str
    first_s: float | None = None
    last_s: float | None = None


def reconstruct(
    files: Sequence[Path],
    priors: Priors,
    settings: ReconstructSettings,
    box: Box | None,
    first_s: float | None,
    last_s: float | None,
    about: dict[str, str | float | int],
    say: Callable[[str], Any] = print,
) -> tuple[Results, dict[str, bytes]]:
    """Return a reconstruction, and the files that show it by name.

    Args:
        files: of tracks.
        priors: the prior, and where it is from.
        settings: of the reconstruction.
        box: of the map; None: around the tracks.
        first_s: seconds since 1970-01-01 UTC; None: the first measurement.
        last_s: likewise.
        about: attributes of what is written.
        say: is told how far it is.

    Raises:
        BadInputError: tracks and prior do not fit, or there is only one drifter to judge by.
        DamagedDataError: a file cannot be read.
    """
    climatology = priors.prior.climatology
    is_land = None if climatology is None else land_of(climatology)
    archive = None if climatology is None else _box_of(climatology)
    most = settings.most_measurements
    tracks = tracks_of(files, settings.tracks, box, first_s, last_s, is_land, most, archive)
    notes = check(tracks, priors, settings)
    say(f"{len(tracks.pieces):,} velocities of {len(tracks.names)} drifters")
    times = tracks.pieces.time_s
    first, last = (
        given if given is not None else found for given, found in ((first_s, times.min()), (last_s, times.max()))
    )
    region = box or region_of(tracks.fixes, settings.margin_km)
    region = clipped(region, archive) if archive else region
    grid = map_grid(region, first, last, settings.num_points, settings.num_times)
    if 2 * settings.num_members * np.prod(grid.shape) > MOST_NUMBERS:
        raise BadInputError(
            f"{settings.num_members} members of {' x '.join(map(str, grid.shape))} points take more memory than is "
            "sensible: choose fewer num_members, num_points or num_times"
        )
    measurements = of_pieces(tracks.pieces)
    names = tracks.pieces.name
    model = Model.of(priors.prior, measurements, names, grid.centre, generic=priors.is_generic, adapt=settings.adapt)
    say("the prior is fitted to the tracks" if settings.adapt else "the prior is as it was learned")
    maps = estimate(model, measurements, grid, settings.num_members, settings.seed, is_land)
    say(f"{settings.num_members} members of {' x '.join(map(str, grid.shape))} points")
    judged = leave_out(model, measurements, names, settings.most_left_out) if settings.score else None
    say("judged on drifters that were left out" if judged else "not judged")
    results = Results(files, tracks, model, maps, judged, priors.about, notes)
    return results, _files(results, about)


def check(tracks: Tracks, priors: Priors, settings: ReconstructSettings) -> list[str]:
    """Return what a reader should know of tracks and prior before the rest.

    Raises:
        BadInputError: they do not fit.
    """
    if settings.score and len(tracks.names) < 2:
        raise BadInputError(
            f"only one drifter, {tracks.names[0]}, is left: nothing could say whether to trust a map, for none can be "
            "left out; give more tracks, or score=false for a map that is not judged"
        )
    first, last = float(tracks.pieces.time_s.min()), float(tracks.pieces.time_s.max())
    begin, end = (None if t is None else np.datetime64(round(t), "s") for t in (priors.first_s, priors.last_s))
    if priors.first_s is not None and last < priors.first_s and not settings.before_archive:
        raise BadInputError(
            f"the tracks end {np.datetime64(round(last), 's')}, before the archive of the run begins, {begin}: its "
            "climatology may not hold; give before_archive=true to take it, or --prior generic"
        )
    notes = []
    if priors.first_s is not None and (last < priors.first_s or first > (priors.last_s or np.inf)):
        notes.append(
            f"The tracks are of another time than the archive, {begin} to {end}: its climatology may not hold."
        )
    if priors.is_generic:
        notes.append("The prior is the generic one, not learned from an archive of this sea.")
    if priors.prior.climatology is None:
        notes.append("Nothing is known of land: no coast is drawn, and currents are estimated there too.")
    return notes


def land_of(climatology: GridClimatology) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return which places of an archive have no current at any of the points around them."""

    def is_land(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
        mean, amplitude = climatology.at(torch.tensor(latitude), torch.tensor(longitude))
        found: np.ndarray = (~torch.isfinite(mean).all(0) | ~torch.isfinite(amplitude)).numpy()
        return found

    return is_land


def _box_of(climatology: GridClimatology) -> Box:
    """Return the region of an archive, half a cell beyond its points."""
    latitude, longitude = (axis.double() for axis in (climatology.latitude, climatology.longitude))
    edges = []
    for axis in (latitude, longitude):
        half = float(axis.diff().median()) / 2 if len(axis) > 1 else 0.5
        edges += [float(axis[0]) - half, float(axis[-1]) + half]
    south, north, west, east = edges
    east = min(east, west + 360)
    return Box(max(south, -90.0), min(north, 90.0), west, east)


def _files(results: Results, about: dict[str, str | float | int]) -> dict[str, bytes]:
    """Return what is written, by name."""
    from pcl.problems.ocean.reconstruct.pictures import animation, maps_figure, scores_figure, tracks_figure

    maps, tracks = results.maps, results.tracks
    found = {"maps.png": png_of(maps_figure(maps, tracks)), "tracks.png": png_of(tracks_figure(maps, tracks))}
    if results.judged is not None:
        found["scores.png"] = png_of(scores_figure(results.judged))
    found["animation.gif"] = animation(maps, tracks)
    used = results.model.law(of_pieces(tracks.pieces)).used
    with TemporaryDirectory() as folder:
        file = Path(folder) / "maps.nc"
        maps_dataset(maps, tracks, used, about).to_netcdf(file)
        found["maps.nc"] = file.read_bytes()
    captions = {
        "scores.png": "Velocities of drifters that were left out, predicted from the others.",
        "maps.png": "Mean, spread and one member at some times.",
        "tracks.png": "Tracks; a dot where each begins.",
    }
    pictures = [Picture(found[name], caption) for name, caption in captions.items() if name in found]
    moving = Picture(found["animation.gif"], "Mean and spread over time, with the drifters that are under way.")
    found["index.html"] = page_of(results, pictures, moving).encode()
    return found
