"""Pages that would drift: commands that name files, and the numbers of docs/scaling.md."""

import math
import re
from typing import Any

import pytest
from deployment.pins import FILES, ROOT

PAGES = [path for path in FILES if path.suffix == ".md"]
SCALING = (ROOT / "docs" / "scaling.md").read_text()


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    namespace: dict[str, Any] = {}
    exec(re.search(r"```python\n(.*?)```", SCALING, re.S)[1], namespace)
    return namespace


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_a_page_names_exist(path):
    text = path.read_text()
    for name in re.findall(r"\b((?:docker|cluster|jobs|configs|pcl)/[\w./-]*\w\.(?:yaml|py|md))", text):
        assert (ROOT / name).exists(), name
    for link in re.findall(r"\]\(([\w./-]+)\)", text):
        assert (path.parent / link).exists(), link


@pytest.mark.parametrize("name", ["docker/README.md", "cluster/README.md", "cluster/kuberay/README.md"])
def test_what_was_not_run_says_so(name: str):
    assert "*Not yet run*" in (ROOT / name).read_text()


def test_the_numbers_of_scaling_are_those_of_its_script(script: dict[str, Any]):
    lines = SCALING.splitlines()
    assert [line for line in lines if re.match(r"\| \d", line)][:10] == script["table"]()
    assert [line for line in lines if re.match(r"\| (loss|embeddings|gradients)[^|]* \| [BWb] = ", line)] == script[
        "limits"
    ]()


def test_a_step_by_hand(script: dict[str, Any]):
    """64 GPUs, 1,024 pairs each, one NIC a node of 40 GB/s: the formulas of the page with its numbers put in."""
    encoders, embeddings, loss, gradients = script["step"](64, 1024, 1)
    assert math.isclose(encoders, 54e9 * 1024 / 395.6e12)
    assert math.isclose(embeddings, 4 * 1030 * 65536 * 63 / 64 / 40e9 + (126 + 36) * 5e-6)
    assert math.isclose(loss, 8 * 1024 * 65536 * 512 / 46.9e12 + 132 * 1024 * 65536 / 2.68e12)
    assert math.isclose(gradients, 8 * 180e6 * 63 / 64 / 40e9 + 12 * 5e-6 * 720e6 / 2**25)


def test_an_overlapping_step_by_hand(script: dict[str, Any]):
    """At 512 GPUs with one NIC a node the network is what the backward pass of 256 pairs waits for."""
    encoders, embeddings, loss, gradients = script["step"](512, 256, 1)
    rows = embeddings * 1024 / 1030 / 2
    vectors = embeddings - 2 * rows
    forward = encoders / 3 + (rows - encoders / 6)
    assert rows + gradients > 2 * encoders / 3
    assert math.isclose(script["seconds"](512, 256, 1), forward + vectors + loss + rows + gradients)
