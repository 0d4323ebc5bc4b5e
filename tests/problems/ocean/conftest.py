"""Fixtures shared by the tests of the ocean."""

from pathlib import Path

import pytest

from pcl.data.manifest import Manifest
from pcl.problems.ocean.currents import Currents


@pytest.fixture(scope="session")
def clean_currents(tmp_path_factory: pytest.TempPathFactory) -> Currents:
    """The currents of the clean field, which every other way to write it gives too."""
    from pcl.problems.ocean.reanalysis import open_currents
    from tests.problems.ocean.test_reanalysis import clean_field, write

    return open_currents(write(clean_field(), tmp_path_factory.mktemp("clean") / "clean.nc"))


@pytest.fixture(scope="session")
def ocean_shards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """Small shards that tests only read, and their manifest."""
    from tests.problems.ocean.evaluation.ocean_pairs import make_ocean_shards

    return make_ocean_shards(tmp_path_factory.mktemp("ocean"))
