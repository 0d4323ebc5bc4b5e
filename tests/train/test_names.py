"""A run may have any name: Ray gets one that it can stand, and writes to the run's folder."""

from pathlib import Path
from typing import Any

import pytest
import ray.train

import pcl.cluster.worker
from pcl.config.load import load_config
from pcl.storage.place import place

GAUSSIAN = Path(__file__).resolve().parents[2] / "configs" / "gaussian.yaml"


class Trainer:
    """Stands for Ray's, and keeps what it is given."""

    given: ray.train.RunConfig

    def __init__(self, *arguments: Any, run_config: ray.train.RunConfig, **options: Any) -> None:
        Trainer.given = run_config

    def fit(self) -> None:
        """Train nothing."""


@pytest.mark.parametrize("name", ["base", "bäse", "名前", "a b", "???", "[a]"])
def test_ray_writes_to_the_folder_of_the_run(name, tmp_path, monkeypatch):
    monkeypatch.setattr(pcl.cluster.worker, "LaneTrainer", Trainer)
    config = load_config(GAUSSIAN, [f"name={name}", f"storage={tmp_path}", "workers.use_gpu=false"])
    pcl.cluster.worker.fit(config, place(config.storage) / config.name)
    context = Trainer.given.storage_context
    assert Path(context.experiment_fs_path) == tmp_path / name
    assert Trainer.given.name.isascii(), "Ray's metrics are labelled with it"
    assert (tmp_path / name).is_dir()
