"""Pages that would drift from the code: sections that are cited, links, files and keys that are named, the version."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import pcl.problems.registry  # noqa: F401  kinds of pairs bring keys
from pcl.commands.reconstruct import keys_of as keys_of_tracks
from pcl.config.chosen import CHOSEN
from pcl.config.layers import keys_of
from pcl.config.schema import Config
from pcl.problems.ocean.reconstruct.settings import ReconstructSettings

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "cluster/**/*.md", "docker/*.md")
    for path in ROOT.glob(pattern)
    if path.is_file()
)
CITING = sorted(
    path
    for pattern in ("pcl/**/*", "configs/*", "tests/**/*.py", "jobs/*", "README.md")
    for path in ROOT.glob(pattern)
    if path.suffix in (".py", ".yaml", ".md", ".html") and path != Path(__file__).resolve()
)
THEORY = (ROOT / "docs" / "theory.md").read_text()
DESIGN = (ROOT / "docs" / "design.md").read_text()
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
RUNS = ("data", "runs", "shards", "evaluations", "tensorboard", "best")  # folders that running makes
TAGS = ("train", "time", "eval", "text", "validation")  # of TensorBoard, such as train/loss
SUFFIXES = (".py", ".md", ".yaml", ".yml", ".toml", ".cff")
MADE_BY_A_RUN = ("config.yaml",)
FILES = (".json", ".safetensors")  # that look like keys
SECTIONS = ("data", "model", "loss", "train", "workers", "evaluation", "build", "theory")  # of the configuration


def citations(text: str, page: str) -> list[str]:
    """Return the sections that a text cites, such as 6.4 of ``THEORY 6.4``.

    Example:
        >>> citations("see THEORY 6.2, and THEORY.md 7.", "THEORY")
        ['6.2', '7']
    """
    return re.findall(rf"\b{page}(?:\.md)?[ ,]+(?:section )?(\d+(?:\.\d+)?)", text)


def headings(text: str) -> list[str]:
    return re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M), re.M)


def anchor(heading: str) -> str:
    """Return the anchor that a heading has on a page.

    Example:
        >>> anchor("6.4 Paths, `W = 1`")
        '64-paths-w--1'
    """
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def plain(text: str) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"^    .*$", "", re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M), flags=re.M)


def is_there(name: str, page: Path) -> bool:
    """Whether a file or folder exists from the root, in pcl or beside the page."""
    variable = re.sub(r"<\w+>|%0\dd|\.\.\.", "*", name)
    places = (ROOT, ROOT / "pcl", page.parent)
    return any(next(place.glob(variable.rstrip("/")), None) is not None for place in places)


def test_there_is_what_to_check():
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "theory.md", "design.md", "scaling.md"} <= {
        path.name for path in PAGES
    }
    assert sum(len(citations(path.read_text(), "THEORY")) for path in CITING) >= 11


def test_sections_that_are_cited_exist():
    sections = {heading.split()[0].rstrip(".") for heading in headings(THEORY)}
    assert {"1", "5.3", "7"} <= sections
    dangling = [
        f"{path.relative_to(ROOT)}: THEORY {section}"
        for path in CITING
        for section in citations(path.read_text(), "THEORY")
        if section not in sections
    ]
    assert dangling == []


def test_decisions_that_are_cited_exist():
    decisions = re.findall(r"^(\d+)\. \*\*", DESIGN, re.M)
    assert decisions == [str(number) for number in range(1, len(decisions) + 1)]
    cited = {(path.name, number) for path in CITING for number in citations(path.read_text(), "DESIGN")}
    assert {(name, number) for name, number in cited if number not in decisions} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in link:
            continue
        place, _, part = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if part:
            assert part in {anchor(heading) for heading in headings(target.read_text())}, link


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_files_that_are_named_exist(page: Path):
    """A changelog tells of files that were; what running makes is not there yet."""
    for name in re.findall(r"`([\w.*<>%][\w./*<>%-]*)`", plain(page.read_text())):
        first, slash, _ = name.partition("/")
        names_a_file = (slash and "." not in first) or name.endswith(SUFFIXES)
        if names_a_file and first not in (*RUNS, *TAGS, "<storage>", "<run>") and name not in MADE_BY_A_RUN:
            assert is_there(name, page), name


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_keys_that_are_named_exist(page: Path):
    """A changelog tells of keys that were."""
    keys, text = [*keys_of(Config), *(key for key, _, _ in keys_of_tracks(ReconstructSettings()))], page.read_text()
    given = re.findall(r"(?<![\w.])([a-z_]+(?:\.[a-z_]+)+)=", text)
    named = re.findall(rf"`((?:{'|'.join(SECTIONS)})\.[a-z_.]+)`", text)
    for name in {re.sub(r"^variants\.\w+\.", "", one) for one in (*given, *named) if not one.endswith(FILES)}:
        is_known = any(key == name or key.startswith(f"{name}.") for key in keys)
        assert is_known or name.startswith(tuple(f"{key}." for key in CHOSEN)), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_name_run_files_and_scripts_that_exist(page: Path):
    for name in re.findall(r"(?<![\w/])((?:jobs|configs|cluster|docker)/[\w./-]*\w\.(?:py|yaml))", page.read_text()):
        if not (page.name == "CHANGELOG.md" and name == "configs/default.yaml"):
            assert (ROOT / name).exists(), name


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert citation["version"] == version
    assert citation["preferred-citation"]["identifiers"][0]["value"] == "arXiv:2505.24134"


def test_the_changelog_has_every_version_once():
    versions = re.findall(r"^## \[(.+?)\]", CHANGELOG, re.M)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert versions[0] == "Unreleased" or versions[0] == version
    assert version in versions
    assert len(set(versions)) == len(versions)


def test_the_workflow_runs_targets_of_the_makefile_and_no_data_is_asked_for():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert commands
    for command in commands:
        assert command.startswith("env -u CI make "), "under CI the tests of original data fail where there are none"
        assert command.split()[-1] in targets
