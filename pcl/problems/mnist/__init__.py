"""Images of digits against their labels (THEORY 6.3)."""

__all__ = ["PROBLEM"]

from pcl.data.source import Source, SourceContext
from pcl.encoders.registry import EncoderKind
from pcl.evaluation.drawing import Drawing, images, numbers
from pcl.evaluation.splits import Splits
from pcl.problems.mnist.lenet import LeNet
from pcl.problems.mnist.settings import MnistSettings
from pcl.problems.mnist.source import MnistSource
from pcl.problems.problem import Problem


def make_source(settings: MnistSettings, context: SourceContext) -> Source:
    """Return the digits whose files lie in the folder of raw files."""
    return MnistSource(context.root, copies=context.copies)


def drawings(splits: Splits) -> tuple[Drawing, Drawing]:
    """Draw digits as images and labels as numbers."""
    return images(splits.arrays["u"]), numbers(splits.arrays["v"])


PROBLEM = Problem(
    "mnist",
    MnistSettings,
    make_source,
    encoders={"lenet": EncoderKind(LeNet)},
    forms=lambda manifest: ("image", "labels"),
    drawings=drawings,
)
