"""Files of tracks, whatever their format."""

__all__ = ["read_fixes"]

from collections.abc import Mapping, Sequence
from pathlib import Path

from pcl.errors import BadInputError
from pcl.problems.ocean.fixes.drifters import named_apart
from pcl.problems.ocean.fixes.fixes import Fixes, joined
from pcl.problems.ocean.fixes.netcdf import read_trajectories
from pcl.problems.ocean.fixes.tables import TABLES, read_table

TRAJECTORIES = (".nc", ".nc4", ".cdf", ".netcdf", ".zarr")
PRESSED = ".gz"


def read_fixes(
    paths: Sequence[Path], columns: Mapping[str, str], *, time_units: str = "", time_zone: str = "UTC"
) -> Fixes:
    r"""Read the fixes of files of drifters: CSV, Parquet, NetCDF, Zarr.

    Args:
        paths: of the files.
        columns: names of columns or variables by role (``drifter``, ``time``, ``latitude``, ``longitude``,
            ``drogue``), where they have no usual name.
        time_units: of numbers that are times and do not say theirs.
        time_zone: of times that do not say theirs.

    Raises:
        BadInputError: a file is not there, has an unknown format, or lacks a column.
        DamagedDataError: a file cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "a.csv")
        ...     _ = file.write_text("id,time,lat,lon\n7,2023-04-20T10:00Z,54.5,10.5\n")
        ...     read_fixes([file], {}).names
        ['7']
    """
    parts = []
    for path in paths:
        if not path.exists():
            raise BadInputError(f"{path} is not there: give files of tracks")
        suffix = Path(path.stem if path.suffix.lower() == PRESSED else path.name).suffix.lower()
        if suffix in TABLES and not path.is_dir():
            parts.append(read_table(path, columns, time_units=time_units, time_zone=time_zone))
        elif suffix in TRAJECTORIES or _is_store(path):
            parts.append(read_trajectories(path, columns, time_units=time_units, time_zone=time_zone))
        elif path.is_dir():
            raise BadInputError(f"{path} is a folder and no store of tracks: name its files, such as {path}/*.csv")
        else:
            raise BadInputError(
                f"{path} is no file of tracks: {', '.join((*TABLES, *TRAJECTORIES))} are read, "
                "and texts compressed by gzip: save it as CSV"
            )
    if not parts:
        raise BadInputError("no file of tracks is given: give one or more")
    return joined(named_apart(parts, paths))


def _is_store(path: Path) -> bool:
    return any((path / name).exists() for name in (".zgroup", ".zmetadata", "zarr.json"))
