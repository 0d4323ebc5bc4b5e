"""Fixtures shared by the tests of the ocean."""

import pytest

from pcl.problems.ocean.currents import Currents


@pytest.fixture(scope="session")
def clean_currents(tmp_path_factory: pytest.TempPathFactory) -> Currents:
    """The currents of the clean field, which every other way to write it gives too."""
    from pcl.problems.ocean.reanalysis import open_currents
    from tests.problems.ocean.test_reanalysis import clean_field, write

    return open_currents(write(clean_field(), tmp_path_factory.mktemp("clean") / "clean.nc"))
