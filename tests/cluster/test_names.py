"""A run may have any name: Ray gets one that it can stand, and writes to the run's folder."""

from pathlib import Path

import pytest

import pcl.cluster.worker
from pcl.config.load import load_config
from pcl.storage.place import place

GAUSSIAN = Path(__file__).resolve().parents[2] / "configs" / "gaussian.yaml"


@pytest.mark.parametrize("name", ["base", "bäse", "名前", "a b", "???", "[a]"])
def test_ray_writes_to_the_folder_of_the_run(name, tmp_path):
    config = load_config(GAUSSIAN, [f"name={name}", f"storage={tmp_path}", "workers.use_gpu=false"])
    given = pcl.cluster.worker._run_config(config, place(config.storage) / config.name, controller_failure_limit=-1)
    assert Path(given.storage_context.experiment_fs_path) == tmp_path / name
    assert given.name.isascii(), "Ray's metrics are labelled with it"
    assert (tmp_path / name).is_dir()
