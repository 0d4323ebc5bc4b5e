"""Retrieval among 300,000 pairs: its time beside the bare matrix product's, its memory, and its numbers by tasks."""

import subprocess
import sys

import pytest

from tests.typed import ROOT

PROGRAM = """
from tests.evaluation.large import main

if __name__ == "__main__":
    ratio, hashes, memory = main(4)
    assert ratio < 3, ratio
    assert len(hashes) == 1, hashes
    assert memory < 2 << 30, memory
"""


@pytest.mark.slow
def test_it_takes_three_times_the_bare_product_at_most_and_two_gib(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, tmp_path / "program.py"]
    done = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
