"""The promised size of classic NetCDF files, against files that the NetCDF library writes."""

import netCDF4
import numpy as np
import pytest

from pcl.problems.ocean.reading.classic_netcdf import missing_bytes


@pytest.mark.parametrize("kind", ["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA"])
@pytest.mark.parametrize("records", [(), ("a",), ("a", "b")])
def test_a_byte_less_is_noticed(tmp_path, kind, records):
    path = tmp_path / "a.nc"
    with netCDF4.Dataset(path, "w", format=kind) as file:
        file.createDimension("time", None)
        file.createDimension("x", 3)
        file.title = "five "
        fixed = file.createVariable("fixed", "i2", ("x",))
        fixed.valid_range = np.array([1, 2], np.int16)
        fixed[:] = 1
        for name in records:
            file.createVariable(name, "i2", ("time", "x"))[:] = np.ones((5, 3), np.int16)
    content = path.read_bytes()
    assert missing_bytes(str(path)) == 0
    path.write_bytes(content[:-4])  # the last two may be padding
    assert 0 < missing_bytes(str(path)) <= 4
    path.write_bytes(content[:60])
    with pytest.raises(ValueError, match="header"):
        missing_bytes(str(path))


def test_other_files_promise_nothing(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("CD")
    assert missing_bytes(str(path)) == 0
