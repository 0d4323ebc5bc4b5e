"""Drawn windows and drifters as datasets: what lies at a place and time is what the file of the currents has there."""

import numpy as np
import pytest
import torch
import xarray as xr

from pcl.evaluation.splits import EvaluationOptions, Splits, read_arrays
from pcl.problems.ocean.drawn import drawn_dataset, of_one_tile


@pytest.fixture(scope="module")
def splits(ocean_shards):
    root, manifest = ocean_shards
    pairs = torch.arange(min(40, manifest.num_pairs("train")))
    arrays = read_arrays(root, manifest, "train", dict.fromkeys(manifest.arrays, pairs))
    nothing = torch.zeros(len(pairs), 0)
    return Splits(root, manifest, "train", arrays, (nothing, nothing), EvaluationOptions())


@pytest.mark.long
def test_drawn_currents_are_those_of_their_place_and_time(splits, tmp_path):
    row = torch.tensor([3, 0, 3, 39])
    drawn_dataset(splits, "u", row, torch.tensor([0.5, 0.25, 0.5, 0.1])).to_netcdf(tmp_path / "drawn.nc")
    with xr.open_dataset(tmp_path / "drawn.nc") as found, xr.open_dataset(splits.root.parent / "currents.nc") as file:
        assert found.weight.values.tolist() == pytest.approx([0.5, 0.25, 0.5, 0.1])
        for draw in range(4):
            one = found.isel(draw=draw)
            place = {name: one[name].values for name in ("time", "latitude", "longitude")}
            for name in "uv":
                expected = file[name].sel(place).values
                np.testing.assert_array_equal(one[name].values, expected)
            np.testing.assert_allclose(
                file.latitude.sel(latitude=place["latitude"], method="nearest"), place["latitude"]
            )
        assert found.u.attrs["standard_name"] == "eastward_sea_water_velocity"


def test_drawn_drifters_are_in_degrees(splits, tmp_path):
    drawn_dataset(splits, "v", torch.tensor([5, 1]), torch.ones(2)).to_netcdf(tmp_path / "drawn.nc")
    stored, origin = splits.arrays["v"][5].double().numpy(), splits.arrays["origin"][5].numpy()
    with xr.open_dataset(tmp_path / "drawn.nc", decode_times=False) as found:
        np.testing.assert_allclose(found.longitude[0], stored[..., 0] + origin[1])
        np.testing.assert_allclose(found.latitude[0], stored[..., 2])
        np.testing.assert_allclose(found.latitude[0], stored[..., 1] + origin[2], atol=1e-4)
        step = splits.source["drifters"]["record_s"]
        np.testing.assert_allclose(found.time[0], origin[0] + step * np.arange(stored.shape[1]))


def test_windows_of_a_tile_stand_for_each_other(splits):
    origins = splits.arrays["origin"]
    expected = [one[3:5].tolist() == origins[7, 3:5].tolist() for one in origins]
    assert of_one_tile(origins, origins[7:8]).tolist() == expected
    assert 0 < sum(expected) < len(expected)
