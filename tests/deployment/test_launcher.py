"""The files of Ray's launcher, by Ray's own schema and defaults."""

import copy

import pytest
import yaml
from deployment.pins import ROOT
from jsonschema import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config

NAMES = ("onprem", "aws")


@pytest.fixture(params=NAMES)
def raw(request: pytest.FixtureRequest) -> dict:
    return yaml.safe_load((ROOT / "cluster" / f"{request.param}.yaml").read_text())


def test_rays_schema_takes_it(raw: dict):
    validate_config(prepare_config(copy.deepcopy(raw)))


def test_rays_schema_would_refuse_a_key_that_it_does_not_know(raw: dict):
    config = prepare_config(copy.deepcopy(raw)) | {"max_worker": 3}
    with pytest.raises(ValidationError, match="max_worker"):
        validate_config(config)


def test_nodes_start_behind_the_token_and_the_dashboard_on_loopback(raw: dict):
    head, worker = raw["head_start_ray_commands"][-1], raw["worker_start_ray_commands"][-1]
    for command in (head, worker):
        assert "RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=/home/ray/.pcl/token" in command.replace("$HOME", "/home/ray")
        assert "RAY_AUTH_TOKEN=" not in command
    assert "--dashboard-host=127.0.0.1" in head
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in head
    assert "--address=$RAY_HEAD_IP:6379" in worker
    assert "~/.pcl" in raw["file_mounts"].values()
    assert "." in raw["file_mounts"].values()


def test_the_head_has_no_cpus_and_workers_room_for_evaluations(raw: dict):
    if raw["provider"]["type"] == "local":  # whose resources the launcher leaves to the commands
        assert "--num-cpus=0 --resources='{\"head\": 1}'" in raw["head_start_ray_commands"][-1]
        assert "--resources='{\"background\": 2}'" in raw["worker_start_ray_commands"][-1]
        return
    types = raw["available_node_types"]
    assert types[raw["head_node_type"]]["resources"] == {"CPU": 0, "head": 1}
    assert types["cpu"]["resources"]["background"] == 2
    assert "background" not in types["gpu"]["resources"]


def test_aws_workers_are_spot_bounded_and_reach_only_the_bucket():
    raw = yaml.safe_load((ROOT / "cluster" / "aws.yaml").read_text())
    head, *workers = (raw["available_node_types"][name] for name in ("head", "cpu", "gpu"))
    assert "InstanceMarketOptions" not in head["node_config"]
    for worker in workers:
        assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
        assert worker["node_config"]["IamInstanceProfile"] == {"Name": "pcl-worker"}
        assert 0 <= worker["min_workers"] < worker["max_workers"] <= raw["max_workers"]
    for node in (head, *workers):
        assert node["node_config"]["SecurityGroupIds"], "Ray's own group lets SSH in from everywhere"
        assert node["node_config"]["MetadataOptions"]["HttpTokens"] == "required"
    assert raw["docker"]["image"].endswith("-cpu")
    assert workers[1]["docker"]["worker_image"].endswith("-cu128")
