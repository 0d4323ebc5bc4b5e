"""How ocean files name their velocities, their axes, their mask and their units."""

__all__ = [
    "Velocity",
    "find_axis",
    "find_mask",
    "find_time",
    "find_velocity",
    "horizontal_kind",
    "text",
    "units_per_metre_per_second",
]

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import xarray as xr

from pcl.errors import BadInputError

# in the order of preference, with {} for eastward or northward
STANDARD_NAMES = (
    "{}_sea_water_velocity",
    "surface_{}_sea_water_velocity",
    "(surface_)?geostrophic_{}_sea_water_velocity",
    "(surface_)?(geostrophic_)?{}_sea_water_velocity_assuming_.*",
)
ALIASES = (
    ("uo", "vo"),
    ("water_u", "water_v"),
    ("eastward_eulerian_current_velocity", "northward_eulerian_current_velocity"),
    ("eastward_velocity", "northward_velocity"),
    ("ugos", "vgos"),
    ("vozocrtx", "vomecrty"),
    ("uvel", "vvel"),
    ("ssu", "ssv"),
    ("u", "v"),
)
# along the lines of a grid, which need not run east and north: sea_water_x_velocity, grid_eastward_..., x_sea_...
ALONG_GRID = re.compile(r"(.*_)?[xy]_(.*_)?velocity.*|(.*_)?grid_(east|north)ward_.*")
DEPTHS = ("depth", "depth_coord", "deptht", "depthu", "depthv", "lev", "level", "z", "z_t", "s_rho", "sigma", "layer")
# CF 4.1 and 4.2 (degrees_north, degree_N, degreesE, ...), and the usual names, those of staggered grids among them
NORTH = re.compile(r"degrees?_?(north|n)", re.IGNORECASE)
EAST = re.compile(r"degrees?_?(east|e)", re.IGNORECASE)
LATITUDE = re.compile(r"(nav_|t|u|g)?lat(itude)?(_?[cuvft]|_rho|_psi)?|geolat(_[cutv])?|gphi[tuvf]", re.IGNORECASE)
LONGITUDE = re.compile(r"(nav_|t|u|g)?lon(g?itude)?(_?[cuvft]|_rho|_psi)?|geolon(_[cutv])?|glam[tuvf]", re.IGNORECASE)
PART = re.compile(r".*(westward|southward|due_to|at_sea_floor|barotropic|baroclinic|stokes).*")  # of a current
# what is no current though it has its names: by cell methods, and by the long name where there is no standard one
STATISTIC = re.compile(r".*\b(standard_deviation|variance|maximum|minimum|range|root_mean_square|sum_of_squares)\b.*")
ELSE = re.compile(
    r".*\b(winds?(?![ -]*driven)|stokes|waves?|stress|ice (drift|velocity|motion)|errors?|deviation|std|variance|"
    r"uncertainty|rms)\b.*",
    re.IGNORECASE,
)
TIMES = ("time", "mt", "time_counter", "ocean_time", "t")
MASKS = ("sea_binary_mask", "land_binary_mask")
SPEED = re.compile(
    r"(?P<centi>c|centi)?(m|met(er|re)s?)"
    r"(\s*(/|\bper\b)\s*(s|secs?|seconds?)|[\s.*·]*(s|secs?|seconds?)\s*(\^|\*\*)?[({]?-1[)}]?)"
)


def units_per_metre_per_second(units: str) -> float | None:
    """Return how many of the units make 1 m s-1, or None if they are no spelling of m s-1 or cm s-1.

    Example:
        >>> units_per_metre_per_second("centimeter/s"), units_per_metre_per_second("m s**-1")
        (100.0, 1.0)
    """
    found = SPEED.fullmatch(units.strip().lower().replace("⁻¹", "-1"))
    return None if found is None else 100.0 if found["centi"] else 1.0


@dataclass(frozen=True)
class Velocity:
    """One component of the current in a file.

    Attributes:
        name: of the variable.
        kind: its standard name, or what its usual name stands for: equal kinds are the same quantity.
        named: whether the configuration names it: then it points where the configuration says.
    """

    name: str
    kind: str
    named: bool

    @property
    def is_along_grid(self) -> bool:
        """Whether it points along the lines of the grid, as far as the file says."""
        return not self.named and ALONG_GRID.fullmatch(self.kind) is not None


def text(attributes: Mapping[Any, Any], key: str) -> str:
    """Return an attribute as text, whatever its type, empty where there is none.

    Example:
        >>> text({"units": 5}, "units"), text({}, "units")
        ('5', '')
    """
    return str(attributes.get(key, "")).strip()


def _standard_name(dataset: xr.Dataset, name: str) -> str:
    return text(dataset.variables[name].attrs, "standard_name")


def _velocities(dataset: xr.Dataset) -> list[str]:
    """Return the variables that could be a component of the current: at least latitude by longitude, or many nodes."""
    return [str(name) for name, values in dataset.variables.items() if values.ndim >= 1 and name not in dataset.dims]


def _known_pairs(dataset: xr.Dataset) -> list[tuple[list[str], list[str]]]:
    """Return the variables that each pair of usual names matches, the most telling pair first."""
    names = [name for name in _velocities(dataset) if not _is_else(dataset.variables[name].attrs)]
    pairs = [
        tuple([name for name in names if re.fullmatch(form.format(towards), _standard_name(dataset, name))])
        for form in STANDARD_NAMES
        for towards in ("eastward", "northward")
    ]
    # a name as short as u may also be wind: then the standard name says so
    stated = {name: _standard_name(dataset, name) for name in names}
    named = [name for name, kind in stated.items() if kind == "" or ("sea_water" in kind and not PART.fullmatch(kind))]
    aliases = [tuple(name for name in named if name.lower() == alias) for pair in ALIASES for alias in pair]
    found = [list(matches) for matches in (*pairs, *aliases)]
    return list(zip(found[::2], found[1::2], strict=True))


def _is_else(attributes: Mapping[Any, Any]) -> bool:
    """Return whether a variable is no current, whatever its name, but its spread, or the wind: it says so."""
    stated = text(attributes, "standard_name")
    is_modified = len(stated.split()) > 1  # CF 3.3: standard_error, number_of_observations, status_flag
    of_another = not stated and ELSE.fullmatch(text(attributes, "long_name")) is not None
    return is_modified or of_another or STATISTIC.fullmatch(text(attributes, "cell_methods")) is not None


def _only(path: str, towards: str, names: list[str]) -> str:
    """Return the variable that a standard name belongs to; of several, the one with a usual name."""
    usual = [name for name in names if any(name.lower() in pair for pair in ALIASES)]
    if len(names) > 1 and len(usual) != 1:
        raise BadInputError(
            f"{path} holds several {towards} velocities, {', '.join(names)}: name one in data.ocean.{towards}"
        )
    return usual[0] if len(names) > 1 else names[0]


def find_velocity(
    dataset: xr.Dataset, path: str, eastward: str = "", northward: str = ""
) -> tuple[dict[str, Velocity], str]:
    """Return the components of the current: those named, else by standard name, else by the usual names.

    Args:
        dataset: content of the file.
        path: of the file, for messages.
        eastward: name of the eastward component, or empty.
        northward: name of the northward component, or empty.

    Returns:
        What there is of ``eastward`` and ``northward``, and what to say if the one that is missing is nowhere else.

    Raises:
        BadInputError: there is neither component, or several of one.

    Example:
        >>> names = {"water_u": (("lat", "lon"), [[0.1]]), "water_v": (("lat", "lon"), [[0.2]])}
        >>> found, _ = find_velocity(xr.Dataset(names), "hycom.nc")
        >>> found["northward"].name, found["northward"].kind
        ('water_v', 'northward_sea_water_velocity')
    """
    given = {"eastward": eastward, "northward": northward}
    present = {towards: name for towards, name in given.items() if name in dataset.variables}
    best: dict[str, list[str]] = {towards: [name] for towards, name in present.items()}
    for pair in _known_pairs(dataset):
        matches = {
            towards: [present[towards]] if towards in present else found if not given[towards] else []
            for towards, found in zip(given, pair, strict=True)
        }
        best = max(best, matches, key=lambda candidate: sum(map(bool, candidate.values())))
        if len(best) == len(given) and all(best.values()):
            break
    names = {towards: _only(path, towards, found) for towards, found in best.items() if found}
    lack = _lack(dataset, path, given, names)
    if not names:
        raise BadInputError(lack)
    return {towards: _velocity(dataset, name, towards, bool(given[towards])) for towards, name in names.items()}, lack


def _velocity(dataset: xr.Dataset, name: str, towards: str, named: bool) -> Velocity:
    stated = _standard_name(dataset, name)
    geostrophic = "surface_geostrophic_" if name.lower() in ("ugos", "vgos") else ""
    return Velocity(name, stated or f"{geostrophic}{towards}_sea_water_velocity", named)


def _lack(dataset: xr.Dataset, path: str, given: Mapping[str, str], names: Mapping[str, str]) -> str:
    """Say which component a file lacks, empty if none."""
    lacking = [towards for towards in given if towards not in names]
    for towards in lacking:
        if given[towards]:
            return (
                f"{path} has no variable {given[towards]}, but {_listed(dataset)}: data.ocean.{towards} must name "
                "one of them"
            )
    has = "".join(f" beside {name}" for name in names.values())
    keys = " and ".join(f"data.ocean.{towards}" for towards in lacking)
    return (
        f"{path} has no {' and no '.join(lacking)} velocity{has}, but {_listed(dataset)}: "
        f"merge what is missing into the file, add the files that hold it, or name the variable in {keys}"
        if lacking
        else ""
    )


def _listed(dataset: xr.Dataset) -> str:
    return ", ".join(map(str, dataset.variables)) or "no variables"


def _along(dataset: xr.Dataset, name: str, is_axis: Callable[[xr.Variable, str], bool]) -> list[str]:
    """Return the variables of a kind whose dimensions are all dimensions of a variable."""
    dims = set(dataset.variables[name].dims)
    return [
        str(other)
        for other, values in dataset.variables.items()
        if set(values.dims) <= dims and is_axis(values, str(other).lower())
    ]


def horizontal_kind(values: xr.Variable, name: str) -> str:
    """Return ``latitude`` or ``longitude`` by standard name, units or usual name, empty for any other variable.

    Example:
        >>> horizontal_kind(xr.Variable("y", [1.0], {"units": "degreesN"}), "yq")
        'latitude'
    """
    stated, units = text(values.attrs, "standard_name"), text(values.attrs, "units")
    if stated in ("latitude", "longitude"):
        return stated
    if stated.startswith(("grid_", "projection_")):  # of a rotated or projected grid
        return ""
    for what, latitude, longitude in ((name, LATITUDE, LONGITUDE), (units, NORTH, EAST)):
        if latitude.fullmatch(what) or longitude.fullmatch(what):
            return "latitude" if latitude.fullmatch(what) else "longitude"
    return ""


def find_axis(dataset: xr.Dataset, name: str, axis: str) -> str | None:
    """Return the coordinate variable of a velocity: 1-D if there is one, else what else carries its name.

    Args:
        dataset: content of a file.
        name: of the velocity.
        axis: ``latitude``, ``longitude`` or ``depth``.

    Example:
        >>> grid = {"nav_lat": ("y", [1.0]), "u": (("y", "x"), [[0.1]])}
        >>> find_axis(xr.Dataset(grid), "u", "latitude")
        'nav_lat'
    """

    def is_axis(values: xr.Variable, lower_name: str) -> bool:
        if axis != "depth":
            return horizontal_kind(values, lower_name) == axis
        stated = text(values.attrs, "standard_name")
        vertical = text(values.attrs, "axis") == "Z" or "positive" in values.attrs
        known = stated == "depth" or stated.startswith("ocean_") or vertical or lower_name in DEPTHS
        other = horizontal_kind(values, lower_name) or " since " in text(values.attrs, "units").lower()
        return known and not other and values.ndim < 2  # depth on latitude and longitude is that of the sea floor

    def preference(other: str) -> tuple[bool, bool, bool]:
        values = dataset.variables[other]
        other_kind = axis == "depth" and text(values.attrs, "standard_name") != "depth"
        return values.ndim != 1, other_kind, other not in dataset.dims

    found = [other for other in _along(dataset, name, is_axis) if other != name]
    return min(found, key=preference) if found else None


def find_time(dataset: xr.Dataset, name: str) -> str | None:
    """Return the variable that dates a velocity: along one of its dimensions, else a scalar.

    Example:
        >>> dated = {"MT": ((), 1.5, {"units": "days since 1900-12-31"}), "u": (("y", "x"), [[0.1]])}
        >>> find_time(xr.Dataset(dated), "u")
        'MT'
    """

    def is_time(values: xr.Variable, lower_name: str) -> bool:
        run = text(values.attrs, "standard_name") == "forecast_reference_time"  # when the forecast began
        return values.ndim <= 1 and " since " in text(values.attrs, "units").lower() and not run

    def preference(other: str) -> tuple[bool, bool, bool, bool]:
        attributes = dataset.variables[other].attrs
        stated, axis = text(attributes, "standard_name"), text(attributes, "axis")
        scalar = dataset.variables[other].ndim == 0
        return scalar, stated != "time", axis != "T", other.lower() not in TIMES

    found = _along(dataset, name, is_time)
    return min(found, key=preference) if found else None


def find_mask(dataset: xr.Dataset) -> str | None:
    """Return the variable with the standard name of a land-sea mask.

    Example:
        >>> find_mask(xr.Dataset({"tmask": ("x", [1], {"standard_name": "sea_binary_mask"})}))
        'tmask'
    """
    return next((str(name) for name in dataset.variables if _standard_name(dataset, str(name)) in MASKS), None)
