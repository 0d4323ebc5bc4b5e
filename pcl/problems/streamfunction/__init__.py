"""Flows on the torus against the path of one particle in each (THEORY 6.4)."""

__all__ = ["PROBLEM"]

from pcl.data.source import Source, SourceContext
from pcl.encoders.registry import EncoderKind
from pcl.evaluation.drawing import Drawing, paths, vectors
from pcl.evaluation.result import Evaluation
from pcl.evaluation.splits import Splits
from pcl.model import PairModel
from pcl.problems.problem import Problem
from pcl.problems.streamfunction.linear_inverse import LinearInverse
from pcl.problems.streamfunction.settings import LinearInverseSettings, StreamfunctionSettings, TransformerSettings
from pcl.problems.streamfunction.source import streamfunction_source
from pcl.problems.streamfunction.transformer import Transformer


def make_source(settings: StreamfunctionSettings, context: SourceContext) -> Source:
    """Return flows drawn from the law that settings name, with a step that reaches their tolerance."""
    return streamfunction_source(vars(settings), context.seed)


def evaluate(evaluation: Evaluation, model: PairModel, splits: Splits) -> None:
    """Add the retrieval of the encoder that knows the physics, and a picture of flows."""
    from pcl.problems.streamfunction.evaluation import add_flows  # it draws: importing pcl stays quick

    add_flows(evaluation, splits)


def drawings(splits: Splits) -> tuple[Drawing, Drawing]:
    """Draw coefficients as lines and paths as paths."""
    return vectors(splits.arrays["u"]), paths(splits.arrays["v"])


ENCODERS = {
    "transformer": EncoderKind(Transformer, TransformerSettings, "transformer", facts=("time_step",)),
    "linear_inverse": EncoderKind(LinearInverse, LinearInverseSettings, "linear_inverse", facts=("time_step", "law")),
}
PROBLEM = Problem(
    "streamfunction", StreamfunctionSettings, make_source, encoders=ENCODERS, evaluate=evaluate, drawings=drawings
)
