"""One process of a measurement of chunks: trains in some ways, in turns, and says what they took.

A way is overrides of a configuration. The first steps, which compile and fault memory in, are not counted.
"""

import json
import resource
import sys
import time
from itertools import cycle, islice
from statistics import median

import torch

from pcl.config.load import load_config
from pcl.train.gradient import Step  # noqa: F401 - imported before memory is looked at
from pcl.train.session import Session


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(file: str, overrides: list[str], ways: list[list[str]], rounds: int, steps: int) -> list[dict[str, float]]:
    """Return, for each way, the peak memory above that of a session that has not begun, and seconds of a step."""
    torch.set_num_threads(1)
    often = ("train.checkpoint_every=100000", f"train.log_every={steps}", "train.epochs=1000")
    sessions = [Session(load_config(file, [*overrides, *often, *way]), torch.device("cpu")) for way in ways]
    batches = [list(islice(session.loader.batches(), 2)) for session in sessions]
    before, found = peak_mib(), [{"wall": [], "cpu": []} for _ in ways]
    for number in range(rounds + 1):
        for session, given, seconds in zip(sessions, batches, found, strict=True):
            began, of_cpu, done = time.perf_counter(), time.process_time(), session.state.step
            session.train(
                lambda *_: None,
                lambda *_: None,
                lambda state=session.state, last=done + steps: state.step + 1 >= last,
                cycle(given),
            )
            if number:
                seconds["wall"].append((time.perf_counter() - began) / steps)
                seconds["cpu"].append((time.process_time() - of_cpu) / steps)
    return [
        {"peak_mib": peak_mib() - before, **{name: median(values) for name, values in one.items()}} for one in found
    ]


if __name__ == "__main__":
    print(json.dumps(measure(*json.loads(sys.argv[1]))))  # noqa: T201
