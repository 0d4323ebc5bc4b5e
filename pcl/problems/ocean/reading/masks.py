"""Where a mask has water: by what its file says that its values mean."""

__all__ = ["is_water"]

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from pcl.errors import BadInputError, printable
from pcl.problems.ocean.reading.names import text
from pcl.problems.ocean.reading.values import LARGEST_VALUE

OF_LAND = ("land_binary_mask", "land_area_fraction")
STATED = ("sea_binary_mask", "sea_area_fraction", *OF_LAND)
LAND = re.compile(r"(.*_)?(land|dry|continent|island)s?(_.*)?")
WATER = re.compile(r"(.*_)?(sea|water|ocean|wet)s?(_.*)?")


def is_water(values: np.ndarray, attributes: Mapping[Any, Any], where: str) -> np.ndarray:
    """Return where a mask has water: by its flags, else by its standard name, else where it is one.

    Args:
        values: of the mask, NaN where it has none.
        attributes: of its variable.
        where: file and variable, for messages.

    Raises:
        BadInputError: its flags say the contrary of its standard name.

    Example:
        >>> is_water(np.array([0.0, 1.0]), {"flag_values": [0, 1], "flag_meanings": "sea land"}, "a.nc: lsm")
        array([ True, False])
    """
    stated, percent = text(attributes, "standard_name"), text(attributes, "units") in ("%", "percent")
    half = 50.0 if percent else 0.5
    by_name: np.ndarray = values < half if stated in OF_LAND else (values > half) & (values <= LARGEST_VALUE)
    flags = np.atleast_1d(attributes.get("flag_values", ()))
    meanings = text(attributes, "flag_meanings").lower().split()
    is_land = [LAND.fullmatch(one) is not None for one in meanings]
    is_sea = [WATER.fullmatch(one) is not None for one in meanings]
    if len(flags) != len(meanings) or not any(is_land) or is_land == is_sea or not any(is_sea):
        return by_name
    seas = [flag for flag, sea, land in zip(flags, is_sea, is_land, strict=True) if sea and not land]
    found: np.ndarray = np.isin(values, seas)
    if stated in STATED and not (found & by_name).any() and found.any() and by_name.any():
        raise BadInputError(
            printable(
                f"{where} has the standard name {stated} and flag_meanings '{' '.join(meanings)}' for flag_values "
                f"{', '.join(map(str, flags.tolist()))}, which exchange land and sea: repair one of them"
            )
        )
    return found
