"""One place of versions, no secrets, no registries, no listener that the network reaches."""

import re
import tomllib
from pathlib import Path

import pytest
from deployment.pins import FILES, RAY, ROOT

IMAGE = re.compile(r"\b(?:rayproject/ray|pcl):(\d+\.\d+\.\d+|\$\{RAY_VERSION\})-(\S*?)(?=[\s`,\"']|$)")
TAGS = {"py311-cpu", "py311-cu128", "py311-${DEVICE}", "cpu", "cu128", "${PCL_DEVICE:-cpu}"}


def test_there_is_what_to_check():
    assert {path.suffix for path in FILES} == {"", ".md", ".yaml"}
    assert len(FILES) >= 12


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_version_of_ray_is_the_pinned_one(path: Path):
    text = path.read_text()
    versions = re.findall(r"(?:RAY_VERSION[=:]|rayVersion:|[Rr]ay) ?v?(\d+\.\d+\.\d+)", text)
    for version, tag in IMAGE.findall(text):
        assert tag in TAGS
        if not version.startswith("$"):
            versions.append(version)
    assert set(versions) <= {RAY}
    assert not re.search(r"(torch|ray)[=~><]=", text), "versions of packages belong in constraints.txt"


def test_the_images_python_is_one_that_the_package_takes():
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    least = tuple(map(int, required.removeprefix(">=").split(".")))
    tags = {tag for path in FILES for tag in re.findall(r"py3(\d\d)\b", path.read_text())}
    assert tags
    assert all((3, int(tag)) >= least for tag in tags)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_secrets_no_registries(path: Path):
    text = path.read_text()
    assert not re.search(r"\b[0-9a-f]{32,}\b|AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY|redis-password", text)
    hosts = r"pypi|index-url|pythonhosted|download\.pytorch|docker\.io|ghcr|quay|gcr\.io|ecr\.|npmjs|anaconda\.org"
    assert not re.search(hosts, text)
    token_given = r"RAY_AUTH_TOKEN=\S|--from-literal|Bearer (?!\$)"
    assert not re.search(token_given, text)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_containers_with_ports_on_loopback_listen_everywhere(path: Path):
    """What compose publishes is asserted beside its other rules."""
    lines = [line for line in path.read_text().splitlines() if "0.0.0.0" in line]
    if path.name == "compose.yaml":
        assert all("--dashboard-host=" in line or "tensorboard" in line for line in lines)
    else:
        assert not lines
