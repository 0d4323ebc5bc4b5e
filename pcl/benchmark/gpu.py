"""Measure on one GPU, without Ray: losses against the CPU, nccl, bf16, trainings, time and memory of the loss.

Each part is alone: one that fails, or takes longer than its time, is told, and the rest goes on.
"""

__all__ = ["PARTS", "main"]

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pcl.benchmark.parts import Bench, Part, Row, is_fine, line, run_part

PARTS = (
    Part("losses", 25, "pcl.benchmark.agreement"),
    Part("nccl", 15, "pcl.benchmark.agreement"),
    Part("bf16", 15, "pcl.benchmark.agreement"),
    Part("peak", 15, "pcl.benchmark.speed"),
    Part("fused", 80, "pcl.benchmark.agreement"),
    Part("cost", 90, "pcl.benchmark.speed"),
    Part("mnist", 40, "pcl.benchmark.trainings"),
    Part("lagrangian", 60, "pcl.benchmark.trainings"),
)
"""What is measured, in this order; in seconds at most 340 in all."""


def main(given: Sequence[str] | None = None) -> int:
    """Measure as a command line says; return 1 if a part failed or found what is not right."""
    options = _parser().parse_args(given)
    device = torch.device("cuda" if torch.cuda.is_available() and not options.cpu else "cpu")
    if device.type == "cpu" and not options.quick:
        say("torch sees no GPU here: choose --quick, which runs through all parts with tiny sizes on the CPU")
        return 2
    data = options.data or os.environ.get("PCL_TEST_DATA")
    bench = Bench(device, options.quick, Path(data).resolve() if data else None)
    about, began, found = _about(device), time.perf_counter(), []
    say(", ".join(f"{name} {value}" for name, value in about.items()))
    say("| part | case | found | right |\n|--|--|--|--|")
    for part in (part for part in PARTS if not options.parts or part.name in options.parts):
        found.append(run_part(part, bench, partial(_tell, part.name)))
        ended = f"ended after {found[-1]['seconds']:.1f} of {part.budget_s:g} s"
        say(line(part.name, Row("all of it", note=found[-1]["error"] or ended, is_right=is_fine(found[-1]))))
        _write(
            options.out, about | {"quick": options.quick, "parts": found}
        )  # a part that kills the process costs itself
    wrong = ", ".join(one["part"] for one in found if not is_fine(one))
    verdict = f"not right: {wrong}" if wrong else "all right"
    say(f"{time.perf_counter() - began:.0f} s, {verdict}; all numbers: {options.out}")
    return 1 if wrong else 0


def say(text: str) -> None:
    """Print at once, so that what is there is seen if the process is killed."""
    print(text, flush=True)  # noqa: T201


def _tell(part: str, row: Row) -> None:
    say(line(part, row))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m pcl.benchmark.gpu", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: everything runs through in seconds")
    parser.add_argument("--cpu", action="store_true", help="with --quick: on the CPU, also where there is a GPU")
    parser.add_argument("--data", help="the folder that holds mnist/ (default: PCL_TEST_DATA); a stand-in without")
    parser.add_argument("--out", default="gpu.json", type=Path, help="file of all numbers (default: gpu.json)")
    names = [part.name for part in PARTS]
    parser.add_argument("--parts", nargs="+", choices=names, metavar="PART", help=f"some of: {' '.join(names)}")
    return parser


def _about(device: torch.device) -> dict[str, Any]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return {"device": name, "torch": torch.__version__, "python": platform.python_version()}


def _write(path: Path, found: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    sys.exit(main())
