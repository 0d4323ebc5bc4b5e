"""The script for a GPU: it runs through on a CPU with tiny sizes, and what fails in it is told."""

import json
import time
from pathlib import Path

import pytest
import torch

from pcl.benchmark import gpu, parts
from pcl.benchmark.parts import Bench, Part, Row, is_fine, line, run_part

CPU = Bench(torch.device("cpu"), is_quick=True)


@pytest.mark.long
def test_all_parts_run_through_with_tiny_sizes(tmp_path, capsys):
    out = tmp_path / "found" / "gpu.json"
    assert gpu.main(["--quick", "--cpu", "--out", str(out)]) == 0, capsys.readouterr().out
    table = [row for row in capsys.readouterr().out.splitlines() if row.startswith("|")]
    found = json.loads(out.read_text())
    assert found["quick"]
    assert [part["part"] for part in found["parts"]] == [part.name for part in gpu.PARTS]
    assert all(part["rows"] and part["error"] is None for part in found["parts"])
    assert len(table) == 2 + sum(len(part["rows"]) + 1 for part in found["parts"])
    cases = " ".join(table)
    for case in ("conditional_mmd, float64", "gloo, one rank", "bf16", "fused", "ClipLoss", "stand-in", "lagrangian"):
        assert case in cases


def test_it_takes_less_than_six_minutes():
    assert sum(part.budget_s for part in gpu.PARTS) < 360


def test_without_a_gpu_it_says_what_runs(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    assert "--quick" in capsys.readouterr().out


def broken(bench):
    yield Row("before", {"ms": 1.0}, is_right=True)
    raise RuntimeError("out of order\nand more")


def endless(bench):
    yield Row("before")
    while True:
        time.sleep(0.01)


def wrong(bench):
    yield Row("sum", {"error": 0.5}, is_right=False)


def fine(bench):
    yield Row("rate", {"Tflop/s": 1234.5, "error": 1.2e-7, "GB/s": 12.345}, "as promised", is_right=True)


def test_what_fails_is_told_and_the_rest_goes_on(tmp_path, capsys, monkeypatch):
    names = (("broken", 5), ("endless", 0.2), ("absent", 5), ("wrong", 5), ("fine", 5))
    monkeypatch.setattr(gpu, "PARTS", tuple(Part(name, seconds, __name__) for name, seconds in names))
    monkeypatch.setattr(parts.importlib, "import_module", lambda name: globals_of_this_module())
    assert gpu.main(["--quick", "--cpu", "--out", str(tmp_path / "gpu.json")]) == 1
    found = {part["part"]: part for part in json.loads((tmp_path / "gpu.json").read_text())["parts"]}
    assert found["broken"]["error"] == "RuntimeError: out of order"
    assert found["broken"]["rows"][0]["case"] == found["endless"]["rows"][0]["case"] == "before"
    assert "longer than its 0.2 s" in found["endless"]["error"]
    assert "absent" in found["absent"]["error"]
    assert found["wrong"]["error"] is None
    assert not is_fine(found["wrong"])
    assert is_fine(found["fine"])
    told = capsys.readouterr().out
    assert "| fine | rate | 1,234 Tflop/s, 1.20e-07 error, 12.3 GB/s; as promised | yes |" in told
    assert "| wrong | sum | 0.5 error | NO |" in told
    assert "not right: broken, endless, absent, wrong" in told


def globals_of_this_module():
    class Module:
        pass

    for part in (broken, endless, wrong, fine):
        setattr(Module, part.__name__, staticmethod(part))
    return Module


def test_a_part_leaves_the_timer_of_others_as_it_was():
    import signal

    before = signal.getitimer(signal.ITIMER_REAL)[0]
    run_part(Part("fine", 5, __name__), CPU, lambda row: None)
    after = signal.getitimer(signal.ITIMER_REAL)[0]
    assert (after > 0) == (before > 0)
    assert after <= before


def test_a_row_without_a_promise_says_nothing_of_it():
    assert line("peak", Row("copy", {"GB/s": 3000.0})) == "| peak | copy | 3,000 GB/s |  |"
    assert Path(gpu.__file__).name == "gpu.py"
