"""Drawn flows and paths as datasets."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import xarray as xr

from pcl.evaluation.splits import EvaluationOptions, Splits
from pcl.problems.streamfunction.drawn import drawn_dataset
from pcl.problems.streamfunction.law import StreamfunctionLaw

LAW = StreamfunctionLaw(num_modes=4, num_positions=51)
U = torch.from_numpy(LAW.sample(5, np.random.default_rng(0))).float()
V = LAW.paths(U.double(), 2).float()


def dataset(name, row):
    manifest = SimpleNamespace(source={"law": {"num_modes": 4, "num_positions": 51}})
    arrays, nothing = {"u": U, "v": V}, torch.zeros(5, 0)
    splits = Splits(Path(), manifest, "test", arrays, (nothing, nothing), EvaluationOptions())
    return drawn_dataset(splits, name, torch.tensor(row), torch.full((len(row),), 0.2))


def test_drawn_flows_have_their_streamfunction(tmp_path):
    dataset("u", [4, 0, 4]).to_netcdf(tmp_path / "drawn.nc")
    with xr.open_dataset(tmp_path / "drawn.nc") as found:
        np.testing.assert_array_equal(found.coefficient, U[[4, 0, 4]])
        x1, x2 = 0.25, 0.75
        place = found.streamfunction.interp(x1=x1, x2=x2, method="nearest")
        nearest = torch.tensor([[float(place.x1), float(place.x2)]], dtype=torch.float64)
        nearest = (nearest * 63).round() / 63  # of the grid
        time = torch.tensor([LAW.duration / 2], dtype=torch.float64)
        expected = [float(LAW.streamfunction(one.double(), nearest, time)) for one in U[[4, 0, 4]]]
        np.testing.assert_allclose(place, expected, rtol=1e-5)


def test_drawn_paths_have_times():
    found = dataset("v", [1])
    np.testing.assert_array_equal(found.position[0], V[1])
    np.testing.assert_allclose(found.time, np.linspace(0, LAW.duration, 51))
