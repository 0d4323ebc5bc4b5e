"""What a plugin registers in a test is gone in the next one, whichever process runs both."""

from pathlib import Path

import pytest

from pcl.encoders.registry import ENCODERS
from pcl.plugins.loading import load_plugins
from tests.registries import left_as_they_are, plugin_modules

MINE = Path(__file__).parent / "plugins" / "mine.py"


def loaded_here():
    assert "wide" not in ENCODERS
    assert not plugin_modules()
    load_plugins(MINE)
    assert "wide" in ENCODERS


@pytest.mark.parametrize("_", range(2))
def test_a_test_finds_nothing_of_the_one_before_it(_):
    loaded_here()


def test_all_of_a_plugin_goes():
    for _ in range(2):
        with left_as_they_are():
            loaded_here()
    assert "wide" not in ENCODERS
