"""The image and the cluster of compose.yaml, as far as they can be checked without an engine."""

import fnmatch
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from deployment.pins import RAY, ROOT
from ray._private.runtime_env.packaging import create_package

COMPOSE = ROOT / "docker" / "compose.yaml"
SERVICES = yaml.safe_load(COMPOSE.read_text())["services"]
NODES = {name: service for name, service in SERVICES.items() if service["command"][0] == "ray"}


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "docker" / "Dockerfile").read_text(), flags=re.M).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def test_the_image_is_rays_of_the_pinned_version_and_its_user_is_not_root():
    lines = instructions()
    assert ("ARG", f"RAY_VERSION={RAY}") in lines
    assert ("ARG", "DEVICE=cpu") in lines
    assert [value for name, value in lines if name == "FROM"] == ["rayproject/ray:${RAY_VERSION}-py311-${DEVICE}"]
    assert [value for name, value in lines if name == "USER"][-1].split(":")[0] not in {"0", "root"}


def test_every_pip_of_the_image_is_constrained_or_takes_no_packages():
    pips = [value for name, value in instructions() if name == "RUN" and "pip" in value]
    assert len(pips) == 2
    assert all("-c constraints.txt" in pip or "--no-deps" in pip for pip in pips)
    assert "[s3]" in pips[0]


def test_the_image_copies_named_paths_that_exist_and_dockerignore_lets_only_those_pass():
    lines = instructions()
    assert "ADD" not in {name for name, _ in lines}
    copied = [
        source
        for name, value in lines
        if name == "COPY"
        for source in [word for word in shlex.split(value) if not word.startswith("--")][:-1]
    ]
    assert all((ROOT / source).exists() for source in copied)
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert patterns[0] == "*"
    assert {pattern[1:] for pattern in patterns if pattern[0] == "!"} == set(copied)
    assert not any(fnmatch.fnmatch(source, "*token*") for source in copied)


def test_compose_gives_a_head_without_cpus_two_workers_and_tensorboard():
    assert set(SERVICES) == {"head", "worker", "tensorboard"}
    head, worker = SERVICES["head"]["command"], SERVICES["worker"]["command"]
    assert {"--head", "--num-cpus=0", '--resources={"head": 1}'} <= set(head)
    assert {"--address=head:6379", '--resources={"background": 2}'} <= set(worker)
    assert SERVICES["worker"]["deploy"] == {"replicas": 2}
    assert SERVICES["worker"]["depends_on"] == {"head": {"condition": "service_healthy"}}
    assert "--logdir=/shared/runs" in SERVICES["tensorboard"]["command"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_watched_restarted_bounded_and_locked(name: str):
    service = SERVICES[name]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["restart"] == "unless-stopped"
    assert service["cpus"] > 0
    assert service["mem_limit"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "user", "network_mode", "pid", "cap_add"} & set(service)
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert service["build"]["args"]["RAY_VERSION"] == RAY
    assert service["image"].startswith(f"pcl:{RAY}-")
    assert all(volume.startswith("shared:/shared") for volume in service["volumes"])


@pytest.mark.parametrize("name", NODES)
def test_nodes_read_the_token_from_a_secret(name: str):
    service = NODES[name]
    assert service["secrets"] == ["ray_token"]
    assert service["environment"] == {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": "/run/secrets/ray_token",
    }
    assert int(service["command"][-1].split("=")[1]) < 1e9
    assert service["shm_size"] == "1gb"


def test_what_listens_everywhere_in_its_container_is_published_on_loopback_or_not_at_all():
    for service in SERVICES.values():
        if any("0.0.0.0" in word for word in service["command"]):
            assert service["ports"]


def test_compose_reads_it(tmp_path: Path):
    """It needs no engine; where it is not installed, the tests above are all there is."""
    (tmp_path / "token").write_text("x")
    compose = next(
        (
            command
            for command in (["docker", "compose"], ["docker-compose"])
            if shutil.which(command[0]) and _runs(command)
        ),
        None,
    )
    if compose is None:
        return
    arguments = [*compose, "-f", str(COMPOSE), "config", "-q"]
    done = subprocess.run(arguments, env=os.environ | {"PCL_TOKEN_FILE": str(tmp_path / "token")}, capture_output=True)
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        arguments, env={k: v for k, v in os.environ.items() if k != "PCL_TOKEN_FILE"}, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "docker/README.md" in done.stderr


def _runs(command: list[str]) -> bool:
    return subprocess.run([*command, "version"], capture_output=True).returncode == 0


def test_a_submitted_job_takes_the_code_along_and_leaves_secrets_data_and_history(tmp_path: Path):
    """Ray's own packaging of a working directory, on a tree with all that must stay."""
    code = {"pcl/a.py", "pcl/data/shards.py", "jobs/train.py", "configs/gaussian.yaml", "constraints.txt", "README.md"}
    secret = {".env", "aws.env", "token", "ray_token", "tls.key", "tls.pem", ".pcl/token"}
    large = {"data/a", "shards/a.tar", "runs/r/config.yaml", ".git/config", ".venv/bin/python"}
    other = {"tests/test_a.py", "docker/Dockerfile", "cluster/aws.yaml", "docs/theory.md"}
    root = tmp_path / "project"
    for name in code | secret | large | other:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    shutil.copy(ROOT / ".rayignore", root)
    package = tmp_path / "package.zip"
    create_package(str(root), package, include_gitignore=True, include_parent_dir=False)
    unpacked = tmp_path / "unpacked"
    shutil.unpack_archive(package, unpacked)
    names = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    assert names == code
