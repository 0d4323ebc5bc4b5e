"""Probabilistic contrastive learning: encoders of two modalities that tilt the product of their marginals."""

__all__ = [
    "Classifier",
    "Conditional",
    "PairModel",
    "__version__",
    "conditional_loss",
    "encoder",
    "finetune",
    "fit",
    "joint_loss",
    "load",
    "logistic_loss",
    "loss",
    "problem",
    "tokenizer",
]

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pcl.conditional import Conditional
    from pcl.library.classifier import Classifier
    from pcl.library.finetune import finetune
    from pcl.library.fit import fit
    from pcl.logistic import logistic_loss
    from pcl.losses import conditional_loss, joint_loss
    from pcl.model import PairModel
    from pcl.plugins.decorators import encoder, loss, problem, tokenizer
    from pcl.train.runs import load

    __version__: str

PLACES = {
    "Classifier": "pcl.library.classifier",
    "Conditional": "pcl.conditional",
    "PairModel": "pcl.model",
    "conditional_loss": "pcl.losses",
    "encoder": "pcl.plugins.decorators",
    "finetune": "pcl.library.finetune",
    "fit": "pcl.library.fit",
    "joint_loss": "pcl.losses",
    "load": "pcl.train.runs",
    "logistic_loss": "pcl.logistic",
    "loss": "pcl.plugins.decorators",
    "problem": "pcl.plugins.decorators",
    "tokenizer": "pcl.plugins.decorators",
}


def __getattr__(name: str) -> Any:
    """Return what is imported once it is asked for: the command line answers before torch is there."""
    if name in PLACES:
        return getattr(import_module(PLACES[name]), name)
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
