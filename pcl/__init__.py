"""Probabilistic contrastive learning: encoders of two modalities that tilt the product of their marginals."""

__all__ = ["__version__", "load"]

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pcl.train.runs import load

    __version__: str


def __getattr__(name: str) -> Any:
    """Return what is imported once it is asked for: the command line answers before torch is there."""
    if name == "load":
        from pcl.train.runs import load

        return load
    if name == "__version__":
        return _version()
    raise AttributeError(f"module 'pcl' has no attribute {name!r}")


def _version() -> str:
    """Return the number that pyproject.toml gives: that of the checkout, or else of the installed package."""
    import tomllib
    from importlib.metadata import version
    from pathlib import Path

    project = Path(__file__).resolve().parents[1] / "pyproject.toml"
    return tomllib.loads(project.read_text())["project"]["version"] if project.is_file() else version("pcl")
