"""An evaluation in a process of its own holds no training fields, and stays within what it said."""

import os
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest

from pcl.problems.ocean.evaluation.memory import describe_memory, memory_needed
from tests.problems.ocean.evaluation.ocean_pairs import HOUR_S, ROOT, MadePairs, write_pairs

CONFIGS = ("ocean", "ocean_networks")
MEASURE = """
import os, sys
from pathlib import Path
import torch
import pcl.problems.ocean.evaluation.evaluate, pcl.problems.ocean.pictures  # what they import is the program's
from pcl.config.load import load_config
from pcl.data.manifest import load_manifest
from pcl.encoders.build import build_model
from pcl.evaluation.evaluate import evaluate
from pcl.evaluation.splits import EvaluationOptions
from pcl.problems.ocean.settings import PosteriorSettings
from pcl.problems.problem import problem
from pcl.train.parts import model_spec
torch.set_num_threads(1)
pcl.problems.ocean.evaluation.evaluate.NUM_TUNING = 2  # time, not memory
root, *names = sys.argv[1:]

def kib(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))

def measure(name):
    config, manifest = load_config(Path(f"configs/{name}.yaml"), []), load_manifest(Path(root))
    model = build_model(model_spec(config, manifest)).eval()
    baseline = kib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    own = PosteriorSettings(references="all")
    options = EvaluationOptions([1], max_pairs=4, num_examples=2, num_embeddings=50, own=own)
    kind = problem("ocean")
    result = evaluate(model, Path(root), manifest, "test", options, kind.drawings, kind.evaluate)
    assert len(result.datasets) == 4 and "field_posterior_rmse_m_s" in result.metrics
    print((kib("VmHWM") - baseline) * 1024, flush=True)

for name in names:  # each in a process of its own, none of which has evaluated before
    if os.fork() == 0:
        measure(name)
        os._exit(0)
    assert os.wait()[1] == 0
"""


@dataclass
class Noise(MadePairs):
    """Pairs whose fields are noise, which is soon made, and drifters in plenty."""

    def pairs(self, split, start, stop):
        found = super().pairs(split, start, start + 1)
        found = {name: np.repeat(part, stop - start, 0) for name, part in found.items()}
        generator = np.random.default_rng([split == "test", start])
        noise = generator.standard_normal(found["u"].shape, dtype=np.float32)
        found["u"] = np.where(np.isfinite(found["u"]), 0.3 * noise, np.nan).astype(np.float32)
        number = np.arange(start, stop)
        found["origin"][:, 3:] = np.column_stack([np.array(self.origins)[number % len(self.origins)], number])
        return found


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """100 MB of training fields of two tiles; the drifters weigh as much."""
    root = tmp_path_factory.mktemp("large")
    source = Noise({"train": 6104, "test": 16}, ((0, 0), (8, 8)), 16, 8, record_s=HOUR_S / 2, num_drifters=4)
    return root, write_pairs(source, root, record_pairs=100)


@pytest.fixture(scope="module")
def peaks(large):
    """The most memory that an evaluation of four pairs takes, by its configuration."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", MEASURE, str(large[0]), *CONFIGS]
    process = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, timeout=500, stdout=subprocess.PIPE, text=True
    )
    return dict(zip(CONFIGS, map(int, process.stdout.split()), strict=True))


@pytest.mark.process
@pytest.mark.timeout(600)
@pytest.mark.parametrize("config", CONFIGS)
def test_an_evaluation_stays_within_one_and_a_half_times_the_training_fields(large, peaks, config):
    """It takes about as much as the fields; were they, or the drifters, held beside it, it would be twice as much."""
    peak, fields = peaks[config], 6104 * 2 * 8 * 16 * 16 * 4
    assert peak < 1.5 * fields, peak / fields
    assert peak < memory_needed(large[1], "test") < 5 * peak


def test_what_is_needed_is_told_from_the_manifest(large):
    _, manifest = large
    (line,) = describe_memory(manifest, "test")
    assert "the training fields, 100 MB, stay in the shards" in line
    assert f"at most {memory_needed(manifest, 'test') / 1e6:,.0f} MB" in line
    assert describe_memory(manifest, "train") == []
    pair = 2 * 8 * 16 * 16 * 4 + 8 * 16 * 16 + 4 * 337 * 4 * 4 + 6 * 8
    assert memory_needed(manifest, "test") - memory_needed(manifest, "test", max_pairs=10) == 6 * pair


def test_training_fields_are_not_held(tmp_path):
    """More windows need more features and numbers of windows, no fields."""
    few, many = (
        memory_needed(write_pairs(MadePairs({"train": number, "test": 4}), tmp_path / str(number)), "test")
        for number in (500, 1500)
    )
    assert many - few == 1000 * 600
