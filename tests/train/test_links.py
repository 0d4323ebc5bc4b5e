"""Two workers with a limited link between them: milliseconds of a step by part, beside those of one worker.

`pytest -m slow -s tests/train/test_links.py` prints the tables of docs/scaling.md. All ways of training take turns in
the same two processes, and medians of blocks of steps are compared, since the speed of a shared machine drifts.
"""

import sys
from pathlib import Path
from statistics import median

import pytest

from pcl.config.identity import data_identity
from pcl.config.load import load_config
from pcl.train.parts import make_source
from tests.links import Link
from tests.shards import build_shards
from tests.train.link_worker import WAYS

pytestmark = [pytest.mark.slow, pytest.mark.process, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]
RATES = {"loopback": None, "1 Gbit/s": "1gbit", "100 Mbit/s": "100mbit"}
PARTS = ("data", "forward", "gather", "loss", "backward", "average", "update")
ROUNDS, STEPS = 5, {"mnist": 40, "lagrangian": 8}
SMALLER = {"lagrangian": ("data.streamfunction.num_train=4096", "data.streamfunction.num_test=64", "data.num_shards=8")}
SLEEPS = {"1 Gbit/s": (5e6, 10e6, 20e6), "100 Mbit/s": (5e5, 1e6, 2e6)}  # bytes of gradients


@pytest.fixture(scope="module", params=["mnist", "lagrangian"])
def trained(request, tmp_path_factory, mnist_root):
    """A configuration, as its file and what is changed of it, whose shards are built."""
    name, folder = request.param, tmp_path_factory.mktemp("shards")
    file = ROOT / "configs" / f"{name}.yaml"
    overrides = (f"data.shards={folder}", *SMALLER.get(name, (f"data.root={mnist_root}",)))
    config = load_config(file, overrides)
    build_shards(folder, make_source(config), config.data.num_shards, config.data.record_pairs, data_identity(config))
    often = ("train.checkpoint_every=100000", "train.validation_fraction=0", "train.validate_every=0")
    return name, str(file), [*overrides, "train.epochs=100", *often]


def say(line):
    sys.stdout.write(f"{line}\n")


def row(way, blocks):
    medians = {key: median(block[key] for block in blocks) for key in blocks[0]}
    cells = [f"{medians[f'time/{part}_ms']:.1f}" for part in PARTS]
    return f"| {way} | {' | '.join(cells)} | {medians['step']:.1f} | {medians['cpu']:.1f} |", medians


@pytest.mark.parametrize("rate", RATES)
def test_time_of_a_step(trained, rate):
    name, file, overrides = trained
    arguments = {"config": file, "overrides": overrides, "rounds": ROUNDS, "steps": STEPS[name]}
    with Link() as link:
        link.limit(RATES[rate])
        first, second = link.results("tests.train.link_worker", arguments, timeout_s=500)
    assert first["same_bits"]
    assert second["same_bits"]
    say(f"\n{name}, {rate}, {first['bytes'] / 1e6:.2f} MB of gradients")
    say(f"| way | {' | '.join(PARTS)} | step | CPU of a worker |\n|{'--|' * (len(PARTS) + 3)}")
    medians = {}
    for way in WAYS:
        line, medians[way] = row(way, first[way])
        say(line)
    alone, apart, after, during = (medians[way]["step"] for way in WAYS)
    say(f"two workers over one: {alone / after:.2f} after, {alone / during:.2f} during, {2 * alone / apart:.2f} apart")
    say(f"hidden of the averaging: {(after - during) / medians['after']['time/average_ms']:.0%}")


@pytest.mark.parametrize("rate", SLEEPS)
def test_what_is_hidden_of_layers_that_take_no_cpu(rate):
    """Encoders as those of a GPU: half of the averaging is hidden at least where it fits the backward pass."""
    say(f"\n{rate}\n| MB | computing | sum alone | after | during | hidden |\n|--|--|--|--|--|--|")
    for num_bytes in SLEEPS[rate]:
        arguments = {"num_layers": 16, "num_bytes": int(num_bytes), "seconds": 0.15, "rounds": 8}
        with Link() as link:
            link.limit(RATES[rate])
            found, _ = link.results("tests.train.link_worker", arguments, timeout_s=100)
        computing, alone, after, during = (median(found[key]) for key in ("computing", "summing", "after", "during"))
        hidden = (after - during) / (after - computing)
        cells = [f"{1e-6 * num_bytes:g}", *(f"{ms:.0f}" for ms in (computing, alone, after, during)), f"{hidden:.0%}"]
        say(f"| {' | '.join(cells)} |")
        assert hidden > (0.5 if alone < 100 else 0.3)
