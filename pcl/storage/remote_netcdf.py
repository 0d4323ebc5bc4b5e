"""Variables of NetCDF files in object storage, read lazily: no file stays open, so that its copy may go."""

__all__ = ["lazily_fetched"]

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from pcl.storage.local_input import Input

SMALL = 1 << 16  # values that are read at once: coordinates, masks
Open = Callable[[str], AbstractContextManager[xr.Dataset]]


class _Fetched(BackendArray):
    """A variable of a file that is held while a part of it is read."""

    def __init__(self, path: Input, open_file: Open, name: Any, variable: xr.Variable) -> None:
        self.path, self.open_file, self.name = path, open_file, name
        self.shape, self.dtype = variable.shape, variable.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        with self.path.held() as file, self.open_file(str(file)) as dataset:
            return np.asarray(dataset.variables[self.name][key].values)


def lazily_fetched(path: Input, open_file: Open) -> xr.Dataset:
    """Return a dataset that fetches its file again, if it has to, whenever a part of a large variable is read.

    Args:
        path: of the file.
        open_file: opens a copy of it; it travels to other processes.
    """
    with path.held() as file, open_file(str(file)) as dataset:
        variables = {}
        for name, variable in dataset.variables.items():
            if variable.size <= SMALL:
                variables[name] = variable.load()
            else:
                data = indexing.LazilyIndexedArray(_Fetched(path, open_file, name, variable))
                variables[name] = xr.Variable(variable.dims, data, variable.attrs, variable.encoding)
        coordinates = {name: variables.pop(name) for name in dataset.coords}
        found = xr.Dataset(variables, coordinates, dataset.attrs)
        found.encoding = dataset.encoding
        return found
