"""The example of a search runs, in a process of its own, and tells the best of its trials."""

import os
import re
import sys

import pytest

from tests import forked
from tests.docs.page import EXAMPLES, ROOT


@pytest.mark.timeout(600)  # of a machine that does much else: Ray and its workers start
def test_a_search_tells_the_best_setting(shared_ray):
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    command = [sys.executable, str(EXAMPLES / "tune.py"), "--trials", "2", "--pairs", "400", "--epochs", "1"]
    done = forked.run(command, cwd=ROOT, env=kept | shared_ray, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    last = done.stdout.strip().splitlines()[-1]
    found = re.fullmatch(r"loss ([\d.]+), learning_rate ([\d.e-]+), embedding_dim (4|8|16|32)", last)
    assert found, done.stdout
    assert 3e-4 <= float(found[2]) <= 3e-2
