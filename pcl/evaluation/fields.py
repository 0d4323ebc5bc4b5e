r"""Fields given drifters: the learned conditional carried by an archive of past windows, as estimates and as CF NetCDF.

.. math:: \hat u(v) = \sum_i w_i(v)\, u^i, \qquad \hat\sigma^2(v) = \sum_i w_i(v)\, (u^i - \hat u(v))^2

with the weights of arXiv:2505.24134, equation 28. At points where some windows of the archive are dry the weights of
the others are renormalised.

Shapes: N windows of the archive, K members, T times, H x W grid points.
"""

__all__ = ["Estimate", "FieldPosterior", "completed", "summarise", "to_dataset"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from pcl.conditional import Conditional
from pcl.errors import BadInputError
from pcl.evaluation.windows import RELEASE_S, Geometry, Windows
from pcl.model import PairModel

REFERENCES = ("tile", "all")


@dataclass(frozen=True)
class Estimate:
    """What is said of a window of velocity.

    Attributes:
        mean: m/s, float64, shape (2, T, H, W).
        std: its standard deviation at every point, likewise; None for a method that gives none.
        members: draws, shape (K, 2, T, H, W); None likewise.
        effective_sample_size: of the weights; None for a method without.
    """

    mean: Tensor
    std: Tensor | None = None
    members: Tensor | None = None
    effective_sample_size: float | None = None


def summarise(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weighted mean and standard deviation of values that may be missing.

    Args:
        values: shape (N, ...), NaN where missing.
        weights: shape (N,), not negative.

    Returns:
        Float64, shape (...): NaN where no value has a weight.

    Example:
        >>> summarise(torch.tensor([[1.0, 3.0], [3.0, torch.nan]]), torch.tensor([0.5, 0.5]))
        (tensor([2., 3.], dtype=torch.float64), tensor([1., 0.], dtype=torch.float64))
    """
    known = torch.isfinite(values).flatten(1).double()
    filled = values.double().nan_to_num().flatten(1)
    total = weights.double() @ known
    mean = weights.double() @ filled / total
    variance = weights.double() @ (known * (filled - mean.nan_to_num()).square()) / total
    return mean.reshape(values.shape[1:]), variance.sqrt().reshape(values.shape[1:])


def completed(estimate: Estimate, prior: Estimate) -> Estimate:
    """Return an estimate with the values of another where it has none: methods must not choose where they are scored.

    Args:
        estimate: to complete.
        prior: with a standard deviation.
    """
    assert prior.std is not None
    return Estimate(
        _fill(estimate.mean, prior.mean),
        None if estimate.std is None else _fill(estimate.std, prior.std),
        None if estimate.members is None else _fill(estimate.members, prior.mean),
        estimate.effective_sample_size,
    )


class FieldPosterior:
    """The learned conditional of the field given drifters, on an archive.

    Args:
        model: with its encoders.
        archive: windows of the past, each field once.
        references: ``tile``: windows of the drifters' own tile; ``all``: of every tile.
        block_pairs: windows encoded at a time.

    Raises:
        BadInputError: the references are not known.
    """

    def __init__(
        self, model: PairModel, archive: Windows, *, references: str = "tile", block_pairs: int = 2048
    ) -> None:
        if references not in REFERENCES:
            raise BadInputError(f"references {references!r} are not known: choose one of {', '.join(REFERENCES)}")
        self.model, self.archive, self.references = model, archive, references
        with torch.no_grad():
            self.features = torch.cat([model.features_u(block) for block in torch.split(archive.u, block_pairs)])
        self.shift = archive.u.nanmean((0, 2, 3, 4), keepdim=True)[0]  # centred values have accurate squares
        known = torch.isfinite(archive.u)
        centred = (archive.u - self.shift).nan_to_num()
        # prepared once, so that the moments of a query are three products with its weights
        self.powers = tuple(part.flatten(1) for part in (known.float(), centred, centred.square()))

    def candidates(self, tile: int) -> Tensor:
        """Return the indices of the windows that may stand for the field of a tile.

        Raises:
            BadInputError: the archive has no window of the tile.
        """
        if self.references == "all":
            return torch.arange(len(self.archive))
        found = (self.archive.tiles == tile).nonzero()[:, 0]
        if len(found) == 0:
            raise BadInputError(
                f"the archive has no window of tile {tile}: choose evaluation.fields.references=all, or write shards "
                "whose training period covers the tile"
            )
        return found

    @torch.no_grad()
    def weights(self, drifters: Tensor, tile: int) -> tuple[Tensor, Conditional, Tensor]:
        """Return the candidates of a tile, the conditional they carry, and the query of drifters (D, P, 4)."""
        candidates = self.candidates(tile)
        conditional = Conditional(self.features[candidates], self.model.temperature())
        return candidates, conditional, self.model.features_v(drifters[None])

    def _moments(self, candidates: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return what ``summarise`` does, for windows of the archive."""
        whole = len(candidates) == len(self.archive)
        total, first, second = (weights @ (part if whole else part[candidates]) for part in self.powers)
        first, second = first / total, second / total
        mean, variance = first.double(), (second - first.square()).clamp(min=0).double()
        shape = self.archive.u.shape[1:]
        return mean.reshape(shape) + self.shift, variance.sqrt().reshape(shape)

    @torch.no_grad()
    def given(self, drifters: Tensor, tile: int, num_members: int, generator: torch.Generator) -> Estimate:
        """Estimate the field of a tile.

        Args:
            drifters: shape (D, P, 4), as stored.
            tile: number of the tile, as in ``Windows.tiles``.
            num_members: K, drawn with replacement.
            generator: of the draws.

        Raises:
            BadInputError: the archive has no window of the tile.
        """
        candidates, conditional, query = self.weights(drifters, tile)
        mean, std = self._moments(candidates, conditional.weights(query)[0])
        drawn = candidates[conditional.sample(query, num_members, generator)[0]]
        members = _fill(self.archive.u[drawn].double(), mean)
        return Estimate(mean, std, members, float(conditional.effective_sample_size(query)[0]))

    @torch.no_grad()
    def best(self, drifters: Tensor, tile: int, mean: Tensor) -> Estimate:
        """Return the window with the largest weight, the mode of the conditional, completed by the posterior mean."""
        candidates, conditional, query = self.weights(drifters, tile)
        return Estimate(_fill(self.archive.u[candidates[conditional.mode(query)[0]]].double(), mean))


def _fill(fields: Tensor, mean: Tensor) -> Tensor:
    """Give the mean where fields have no value: windows of another tile, where they are dry, have no say."""
    return torch.where(torch.isfinite(fields), fields, mean)


VELOCITIES = (("u", "eastward_sea_water_velocity", "eastward"), ("v", "northward_sea_water_velocity", "northward"))
FILL = np.float32(1e20)
_Variable = tuple[str | Sequence[str], np.ndarray, dict[str, Any]]  # dimensions, values, attributes


def to_dataset(
    estimate: Estimate, origin: Tensor, wet: Tensor, geometry: Geometry, about: Mapping[str, Any]
) -> xr.Dataset:
    """Return an estimate as a CF dataset: members first along ``realization``, mean, spread, water mask.

    Args:
        estimate: with members and standard deviation.
        origin: of the window, shape (6,).
        wet: shape (T, H, W).
        geometry: of the tiles.
        about: global attributes: experiment hash, checkpoint, seeds.

    Raises:
        ValueError: the estimate has no members or no standard deviation.

    References:
        CF conventions 1.11, https://cfconventions.org.
    """
    if estimate.members is None or estimate.std is None:
        raise ValueError("the estimate has no members or no standard deviation: only ensembles are written")
    grid = ("time", "latitude", "longitude")
    data: dict[str, _Variable] = {
        "wet_mask": (
            grid,
            wet.numpy().astype(np.int8),
            {
                "standard_name": "sea_binary_mask",
                "long_name": "1 in water, 0 on land",
                "units": "1",
                "flag_values": np.array([0, 1], np.int8),
                "flag_meanings": "land water",
            },
        )
    }
    for component, (name, standard_name, direction) in enumerate(VELOCITIES):
        attributes = {"standard_name": standard_name, "units": "m s-1"}
        for key, dimensions, values, meaning in (
            (name, ("realization", *grid), estimate.members[:, component], "member of the posterior ensemble"),
            (f"{name}_mean", grid, estimate.mean[component], "posterior mean"),
            (f"{name}_std", grid, estimate.std[component], "posterior standard deviation"),
        ):
            label = f"{direction} sea water velocity, {meaning} given drifters"
            stored = torch.where(wet, values, torch.nan).numpy().astype(np.float32)
            data[key] = (dimensions, stored, attributes | _cell_method(key) | {"long_name": label})
    dataset = xr.Dataset(data, _coordinates(len(estimate.members), origin, geometry), _global(estimate, about))
    for variable in (*dataset.data_vars.values(), *dataset.coords.values()):
        missing = variable.dtype == np.float32  # the velocities: coordinates and the mask have no missing values
        variable.encoding = {"_FillValue": FILL if missing else None}
    return dataset


def _cell_method(key: str) -> dict[str, str]:
    kind = {"mean": "mean", "std": "standard_deviation"}.get(key.partition("_")[2])
    return {"cell_methods": f"realization: {kind}"} if kind else {}


def _coordinates(num_members: int, origin: Tensor, geometry: Geometry) -> dict[str, _Variable]:
    latitude, longitude = geometry.axes(origin)
    time = float(origin[RELEASE_S]) + geometry.time_s.numpy()
    return {
        "realization": (
            "realization",
            np.arange(num_members, dtype=np.int32),
            {"standard_name": "realization", "long_name": "member of the ensemble", "units": "1", "axis": "E"},
        ),
        "time": (
            "time",
            time,
            {
                "standard_name": "time",
                "long_name": "time",
                "units": "seconds since 1970-01-01 00:00:00",
                "calendar": geometry.calendar,
                "axis": "T",
            },
        ),
        "latitude": (
            "latitude",
            latitude.numpy(),
            {"standard_name": "latitude", "long_name": "latitude", "units": "degrees_north", "axis": "Y"},
        ),
        "longitude": (
            "longitude",
            longitude.numpy(),
            {"standard_name": "longitude", "long_name": "longitude", "units": "degrees_east", "axis": "X"},
        ),
    }


def _global(estimate: Estimate, about: Mapping[str, Any]) -> dict[str, Any]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    size = {} if estimate.effective_sample_size is None else {"effective_sample_size": estimate.effective_sample_size}
    return {
        "Conventions": "CF-1.11",
        "title": "surface currents given drifters: posterior ensemble of a learned conditional",
        "source": "pcl: windows of the training archive weighted by a contrastively learned conditional",
        "history": f"{now}: written by pcl",
        **size,
        **about,
    }
