"""How ocean files name their velocities, their axes, their mask and their units."""

__all__ = ["find_axis", "find_mask", "find_time", "find_velocity", "units_per_metre_per_second"]

import re
from collections.abc import Callable

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
AXES = {
    "latitude": ("latitude", "lat", "nav_lat", "degrees_north"),
    "longitude": ("longitude", "lon", "nav_lon", "degrees_east"),
    "depth": ("depth", "depth_coord", "deptht", "depthu", "depthv", "lev", "level", "z", "z_t"),
}
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


def _standard_name(dataset: xr.Dataset, name: str) -> str:
    return str(dataset.variables[name].attrs.get("standard_name", ""))


def _velocities(dataset: xr.Dataset) -> list[str]:
    """Return the variables that could be a component of the current: at least latitude by longitude."""
    return [str(name) for name, values in dataset.variables.items() if values.ndim >= 2]


def _known_pairs(dataset: xr.Dataset) -> list[tuple[list[str], list[str]]]:
    """Return the variables that each pair of usual names matches, the most telling pair first."""
    names = _velocities(dataset)
    pairs = [
        tuple([name for name in names if re.fullmatch(form.format(towards), _standard_name(dataset, name))])
        for form in STANDARD_NAMES
        for towards in ("eastward", "northward")
    ]
    # a name as short as u may also be wind: then the standard name says so
    named = [
        name for name in names if _standard_name(dataset, name) == "" or "sea_water" in _standard_name(dataset, name)
    ]
    aliases = [tuple(name for name in named if name.lower() == alias) for pair in ALIASES for alias in pair]
    found = [list(matches) for matches in (*pairs, *aliases)]
    return list(zip(found[::2], found[1::2], strict=True))


def _only(path: str, towards: str, names: list[str]) -> str:
    """Return the variable that a standard name belongs to; of several, the one with a usual name."""
    usual = [name for name in names if any(name.lower() in pair for pair in ALIASES)]
    if len(names) > 1 and len(usual) != 1:
        raise BadInputError(
            f"{path} holds several {towards} velocities, {', '.join(names)}: name one in data.ocean.{towards}"
        )
    return usual[0] if len(names) > 1 else names[0]


def find_velocity(dataset: xr.Dataset, path: str, eastward: str = "", northward: str = "") -> tuple[str, str]:
    """Return the names of both components: those given, else by standard name, else by the usual names.

    Args:
        dataset: content of the file.
        path: of the file, for messages.
        eastward: name of the eastward component, or empty.
        northward: name of the northward component, or empty.

    Raises:
        BadInputError: a component is missing, or there are several.

    Example:
        >>> names = {"water_u": (("lat", "lon"), [[0.1]]), "water_v": (("lat", "lon"), [[0.2]])}
        >>> find_velocity(xr.Dataset(names), "hycom.nc")
        ('water_u', 'water_v')
    """
    given = {"eastward": eastward, "northward": northward}
    for towards, name in given.items():
        if name and name not in dataset.variables:
            raise BadInputError(
                f"{path} has no variable {name}, but {_listed(dataset)}: data.ocean.{towards} must name one of them"
            )
    best: dict[str, list[str]] = {towards: [name] if name else [] for towards, name in given.items()}
    for pair in _known_pairs(dataset):
        matches = {
            towards: [name] if name else found for (towards, name), found in zip(given.items(), pair, strict=True)
        }
        if all(matches.values()):
            return tuple(_only(path, towards, names) for towards, names in matches.items())  # type: ignore[return-value]
        best = max(best, matches, key=lambda candidate: sum(map(bool, candidate.values())))
    lacking = [towards for towards in given if not best[towards]]
    has = "".join(f" beside {names[0]}" for names in best.values() if names)
    keys = " and ".join(f"data.ocean.{towards}" for towards in lacking)
    raise BadInputError(
        f"{path} has no {' and no '.join(lacking)} velocity{has}, but {_listed(dataset)}: "
        f"merge what is missing into the file, or name the variable in {keys}"
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
        attributes = values.attrs
        stated = attributes.get("standard_name") == axis or attributes.get("units") in AXES[axis]
        vertical = axis == "depth" and (attributes.get("axis") == "Z" or "positive" in attributes)
        return bool(stated or vertical or lower_name in AXES[axis])

    found = _along(dataset, name, is_axis)
    found.sort(key=lambda other: (dataset.variables[other].ndim != 1, other not in dataset.dims))
    return found[0] if found else None


def find_time(dataset: xr.Dataset, name: str) -> str | None:
    """Return the variable that dates a velocity: along one of its dimensions, else a scalar.

    Example:
        >>> dated = {"MT": ((), 1.5, {"units": "days since 1900-12-31"}), "u": (("y", "x"), [[0.1]])}
        >>> find_time(xr.Dataset(dated), "u")
        'MT'
    """

    def is_time(values: xr.Variable, lower_name: str) -> bool:
        run = values.attrs.get("standard_name") == "forecast_reference_time"  # when the forecast began
        return values.ndim <= 1 and " since " in str(values.attrs.get("units", "")) and not run

    def preference(other: str) -> tuple[bool, bool, bool, bool]:
        attributes = dataset.variables[other].attrs
        stated = attributes.get("standard_name") == "time"
        return dataset.variables[other].ndim == 0, not stated, attributes.get("axis") != "T", other.lower() not in TIMES

    found = _along(dataset, name, is_time)
    return min(found, key=preference) if found else None


def find_mask(dataset: xr.Dataset) -> str | None:
    """Return the variable with the standard name of a land-sea mask.

    Example:
        >>> find_mask(xr.Dataset({"tmask": ("x", [1], {"standard_name": "sea_binary_mask"})}))
        'tmask'
    """
    return next((str(name) for name in dataset.variables if _standard_name(dataset, str(name)) in MASKS), None)
