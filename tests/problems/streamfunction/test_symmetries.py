"""Symmetries of flows and paths: against particles that are followed through the other flow."""

import numpy as np
import pytest
import torch

from pcl.data.augmentation import Symmetries, make_symmetries
from pcl.errors import BadInputError
from pcl.problems.streamfunction.law import StreamfunctionLaw
from pcl.problems.streamfunction.symmetries import symmetries_of
from pcl.workers import OneWorker

SETTINGS = {"num_modes": 8, "num_positions": 101, "mean_path": 2.0}
LAW = StreamfunctionLaw(**SETTINGS)
KNOWN = symmetries_of({"law": SETTINGS})


def pairs(count):
    u = torch.from_numpy(LAW.sample(count, np.random.default_rng(0)))
    return u, LAW.paths(u, 4)


def uniform(count, *, seed=1):
    return torch.from_numpy(np.random.default_rng(seed).random((count, 3)))


def test_a_particle_in_a_moved_flow_moves_along():
    (u, v), numbers = pairs(3), uniform(3)
    flows, paths = KNOWN["translate"](u, v, numbers)
    for flow, path, a in zip(flows, paths, numbers[:, :2].tolist(), strict=True):
        moved = StreamfunctionLaw(**SETTINGS, start=(LAW.start[0] + a[0], LAW.start[1] + a[1]))
        torch.testing.assert_close(moved.paths(flow[None], 4)[0], path, rtol=0, atol=1e-9)


def test_a_particle_in_a_reversed_flow_goes_back_and_starts_where_all_do():
    (u, v), numbers = pairs(8), uniform(8)
    flows, paths = KNOWN["reverse"](u, v, numbers)
    torch.testing.assert_close(LAW.paths(flows, 4), paths, rtol=0, atol=1e-6)  # the error of the integrator
    reversed_ones = numbers[:, 0] < 0.5
    assert 0 < reversed_ones.sum() < 8
    torch.testing.assert_close(paths[reversed_ones].diff(dim=1), v[reversed_ones].diff(dim=1).flip(1))
    assert torch.equal(paths[~reversed_ones], v[~reversed_ones])
    assert torch.equal(flows[~reversed_ones], u[~reversed_ones])


def test_a_reversed_flow_is_as_likely():
    u = torch.from_numpy(LAW.sample(2000, np.random.default_rng(0)))
    flows, _ = KNOWN["reverse"](u, LAW.paths(u), torch.zeros(2000, 3))
    deviations = torch.from_numpy(LAW.standard_deviations)
    covariance = torch.cov((flows / deviations).T)
    torch.testing.assert_close(covariance, torch.eye(16, dtype=torch.float64), rtol=0, atol=0.12)


def test_pairs_keep_their_dtype_and_workers_their_numbers():
    u, v = (part.float() for part in pairs(6))
    whole = Symmetries(list(KNOWN.values()), seed=5)
    expected = whole(u, v, 7, OneWorker())
    assert [part.dtype for part in expected] == [torch.float32] * 2
    for rank in range(2):
        worker = OneWorker()
        worker.worker_rank, worker.num_workers = rank, 2
        own = slice(3 * rank, 3 * rank + 3)
        for found, part in zip(whole(u[own], v[own], 7, worker), expected, strict=True):
            torch.testing.assert_close(found, part[own], rtol=1e-6, atol=1e-6)
    assert not torch.equal(whole(u, v, 8, OneWorker())[1], expected[1])


def test_a_symmetry_that_pairs_do_not_have_is_refused():
    assert make_symmetries([], KNOWN, 0) is None
    with pytest.raises(BadInputError, match="'rotate' is no symmetry of these pairs; choose among translate, reverse"):
        make_symmetries(["rotate"], KNOWN, 0)
    with pytest.raises(BadInputError, match="these pairs have none"):
        make_symmetries(["translate"], {}, 0)
