"""Shards of pictograms as the job writes them: killed, and continued by more tasks, they are the same bytes."""

import hashlib
from pathlib import Path

import yaml

from pcl.data.manifest import load_manifest
from pcl.data.source import SourceContext
from pcl.problems.webdataset.settings import WebdatasetSettings
from pcl.problems.webdataset.source import webdataset_source
from tests.processes import new_processes
from tests.shards import build_shards
from tests.typed import family, finish, here, start, wait_until


def digests(root: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in root.glob("*.tar")}


def test_a_build_that_was_killed_continues_to_the_same_bytes(pictograms, tmp_path):
    chosen = {"paths": [str(pictograms / "*-00000[01].tar")], "u": "noto.png", "v": "txt", "image_size": 32}
    root, run_file = tmp_path / "shards", tmp_path / "run.yaml"
    data = {"source": "webdataset", "shards": str(root), "num_shards": 6, "record_pairs": 10, "webdataset": chosen}
    own = {"model": {"embedding_dim": 8, "encoder_u": "linear", "encoder_v": "linear"}}
    train = {"epochs": 1, "global_batch": 32, "learning_rate": 0.01}
    run_file.write_text(yaml.safe_dump({"name": "pictograms", "data": data, "train": train, **own}))
    first = start("write_shards", "build.num_tasks=1", config=str(run_file))
    wait_until(lambda: len(list(root.glob("*.tar"))) > 1, first)
    for process in reversed(family(first)):
        process.kill()
    finish(first)
    assert not (root / "manifest.json").exists()
    new_processes()
    code, output, errors = here("shards", run_file, "build.num_tasks=2")
    assert code == 0, errors
    assert "samples: 477 in 2 tars, of which 477 are kept as pairs" in output
    source = webdataset_source(WebdatasetSettings(**chosen), SourceContext())
    whole = build_shards(tmp_path / "whole", source, 6, 10)
    assert digests(root) == digests(tmp_path / "whole")
    found = load_manifest(root)
    assert (found.source, found.splits, found.statistics) == (whole.source, whole.splits, whole.statistics)
