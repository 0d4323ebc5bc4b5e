"""Columns of tables: Parquet, read some row groups at a time, and CSV, held in memory."""

__all__ = ["open_csv", "open_parquet"]

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pcl.errors import BadInputError, printable
from pcl.problems.arrays.reading.address import Address, choose
from pcl.problems.arrays.reading.stored import Coordinate, Held, Stored, damaged, merged_edges
from pcl.storage.inputs import Input

if TYPE_CHECKING:
    import pyarrow as pa

LARGEST_BLOCK = 2**31 - 1  # bytes of a CSV file whose types pyarrow finds out at once
PATTERN = set("*?[")


@dataclass(frozen=True, kw_only=True)
class Columns(Stored):
    """Columns of a Parquet file.

    Attributes:
        path: of the file.
        groups: rows at which its row groups begin, and n.
    """

    path: Input
    groups: np.ndarray
    copies: ClassVar[int] = 6

    @cached_property
    def kept(self) -> Any:
        """The file of this machine, of which nothing is read."""
        return _parquet(self.path)

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """Give the file: one in object storage is open only as long as it is read, so that its copy may go."""
        if not self.path.is_remote:
            yield self.kept
            return
        with self.path.held() as file, _parquet(file) as opened:
            yield opened

    def load(self, start: int, stop: int) -> np.ndarray:
        """Return rows start .. stop - 1."""
        wanted = range(*np.searchsorted(self.groups, [start, stop]).tolist())
        with self.opened() as opened:
            table = opened.read_row_groups(list(wanted), columns=list(self.names))
        return _joined(table, self.names, self.dtype, is_vector=len(self.shape) > 1)

    def coordinate(self) -> Coordinate | None:
        """Return the index of the table of pandas that the file holds."""
        with damaged(self.label), self.opened() as opened:
            indices = (opened.schema_arrow.pandas_metadata or {}).get("index_columns", [])
            if len(indices) != 1:
                return None
            index: Any = indices[0]
            if isinstance(index, str):
                values = opened.read(columns=[index]).column(0).to_numpy()
            else:
                index, values = str(index.get("name") or ""), np.arange(index["start"], index["stop"], index["step"])
            return Coordinate(self.label, "" if index.startswith("__index_level_") else index, values, is_of_table=True)


def open_parquet(address: Address) -> Stored:
    """Open columns of a Parquet file.

    Args:
        address: ``file.parquet:column``, the items are numbers; ``file.parquet:a,b`` or ``file.parquet:temp_*``, they
            are vectors.

    Raises:
        BadInputError: there are no such columns, or pyarrow is not installed.
        DamagedDataError: the file is no Parquet.
    """
    _require_pyarrow(address)
    with damaged(address.label), address.path.held() as held, _parquet(held) as file:
        names, is_vector = _chosen(address, file.schema_arrow.names)
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        groups = np.array([0, *itertools.accumulate(sizes)])
        dtypes = [
            _numpy_type(file.schema_arrow.field(name).type, has_missing=_has_missing(file, name)) for name in names
        ]
    dtype = _common(address, names, dtypes)
    shape = (int(groups[-1]), len(names)) if is_vector else (int(groups[-1]),)
    edges = merged_edges(groups, dtype.itemsize * len(names))
    return Columns(
        label=address.label, shape=shape, dtype=dtype, edges=edges, names=names, path=address.path, groups=groups
    )


def open_csv(address: Address, most_bytes: float) -> Stored:
    """Read columns of a CSV file, whose first line names them; ``.tsv`` is separated by tabs.

    Args:
        address: see ``open_parquet``.
        most_bytes: of the file, and of the values that are held.

    Raises:
        BadInputError: there are no such columns, the file is too large, or pyarrow is not installed.
        DamagedDataError: the file is no CSV.
    """
    _require_pyarrow(address)
    from pyarrow import csv

    if (size := address.path.num_bytes) > min(most_bytes, LARGEST_BLOCK):
        raise BadInputError(
            f"{address.path} has {size / 1e6:,.0f} MB, and a CSV file is held in memory, of which build.memory_mb="
            f"{most_bytes / 1e6:g}: give more, or convert it to Parquet, which is read a block at a time"
        )
    parse = csv.ParseOptions(delimiter="\t" if address.path.suffix == ".tsv" else ",")
    whole = csv.ReadOptions(block_size=max(size, 1), use_threads=False)  # types are those of all rows, not the first
    with damaged(address.label), address.path.held() as file:
        known = csv.open_csv(file, whole, parse).schema.names
        names, is_vector = _chosen(address, known)
        chosen = csv.ConvertOptions(include_columns=list(names), strings_can_be_null=True)
        table = csv.read_csv(file, whole, parse, chosen)
        dtypes = [_numpy_type(column.type, has_missing=column.null_count > 0) for column in table.columns]
    dtype = _common(address, names, dtypes)
    return Held.of(address.label, _joined(table, names, dtype, is_vector=is_vector), names)


def _parquet(path: Any) -> Any:
    from pyarrow.parquet import ParquetFile

    return ParquetFile(path)


def _require_pyarrow(address: Address) -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise BadInputError(f"{address.path} is a table, which needs pyarrow: pip install pyarrow") from error


def _chosen(address: Address, known: Sequence[str]) -> tuple[tuple[str, ...], bool]:
    """Return the names of the columns, and whether an item is a vector of them rather than a number."""
    if address.name in known or not set(address.name) & (PATTERN | {","}):
        return (choose(address, known, "column"),), False
    names: list[str] = []
    for part in filter(None, map(str.strip, address.name.split(","))):
        is_pattern = part not in known and bool(set(part) & PATTERN)
        found = [one for one in known if fnmatchcase(one, part)] if is_pattern else []
        names += found or [choose(Address(address.path, part), known, "column")]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise BadInputError(printable(f"{address.label} names the column {twice} twice: name it once"))
    return tuple(names), True


def _has_missing(file: Any, name: str) -> bool:
    """Return whether a column of a Parquet file lacks values."""
    index = file.schema_arrow.names.index(name)
    for group in range(file.metadata.num_row_groups):
        try:
            found = file.metadata.row_group(group).column(index).statistics
        except IndexError:  # nested columns before it: it is read
            found = None
        if found is not None and found.has_null_count:
            if found.null_count:
                return True
        elif file.read_row_group(group, columns=[name]).column(0).null_count:
            return True
    return False


def _numpy_type(kind: "pa.DataType", *, has_missing: bool) -> np.dtype[Any]:
    """Return the type of a column's values: where some are missing they are NaN, among floats."""
    from pyarrow import types

    has_integers = types.is_integer(kind) or types.is_boolean(kind)
    if types.is_null(kind) or (has_integers and has_missing):
        return np.dtype(np.float64)
    if has_integers or types.is_floating(kind):
        of_numbers: np.dtype[Any] = np.dtype(kind.to_pandas_dtype())
        return of_numbers
    if types.is_string(kind) or types.is_large_string(kind):
        return np.dtype(np.str_)
    return np.dtype("M8[s]" if types.is_temporal(kind) else object)


def _common(address: Address, names: Sequence[str], dtypes: Sequence[np.dtype[Any]]) -> np.dtype[Any]:
    """Return the type of an item of several columns."""
    for name, dtype in zip(names, dtypes, strict=True):
        if len(names) > 1 and dtype.kind not in "biuf":
            what = {"U": "texts", "M": "dates"}.get(dtype.kind, "no numbers")
            raise BadInputError(printable(f"{address.label}: the column {name} holds {what}: leave it out"))
    found: np.dtype[Any] = np.result_type(*dtypes)
    return found


def _joined(table: "pa.Table", names: Sequence[str], dtype: np.dtype[Any], *, is_vector: bool) -> np.ndarray:
    import pyarrow as pa

    def values(name: str) -> np.ndarray:
        column = table.column(name)
        if column.null_count and not pa.types.is_floating(column.type):
            column = column.cast(pa.float64(), safe=False)
        found = np.asarray(column.to_numpy())
        return found if dtype.kind in "UMO" else found.astype(dtype)

    return np.stack([values(name) for name in names], 1) if is_vector else values(names[0])
