"""Flows on the torus against the path of one particle in each (THEORY 6.4)."""

__all__ = ["PROBLEM"]

from typing import TYPE_CHECKING

from torch import Tensor

from pcl.data.source import Source, SourceContext
from pcl.encoders.registry import EncoderKind
from pcl.evaluation.drawing import Drawing, paths, vectors
from pcl.evaluation.result import Evaluation
from pcl.evaluation.splits import Splits
from pcl.model import PairModel
from pcl.problems.problem import Problem
from pcl.problems.streamfunction.law import StreamfunctionLaw
from pcl.problems.streamfunction.learned_inverse import LearnedInverse, learned_inverse_of
from pcl.problems.streamfunction.linear_inverse import LinearInverse
from pcl.problems.streamfunction.meanings import meaning
from pcl.problems.streamfunction.settings import (
    LearnedInverseSettings,
    LinearInverseSettings,
    StreamfunctionSettings,
    TransformerSettings,
)
from pcl.problems.streamfunction.source import streamfunction_source
from pcl.problems.streamfunction.symmetries import symmetries_of
from pcl.problems.streamfunction.transformer import Transformer

if TYPE_CHECKING:
    import xarray as xr


def make_source(settings: StreamfunctionSettings, context: SourceContext) -> Source:
    """Return flows drawn from the law that settings name, with a step that reaches their tolerance."""
    return streamfunction_source(vars(settings), context.seed)


def evaluate(evaluation: Evaluation, model: PairModel, splits: Splits) -> None:
    """Add the retrieval of the encoder that knows the physics, a picture of flows, and the law that was learned."""
    from pcl.problems.streamfunction.evaluation import add_flows  # they draw: importing pcl stays quick
    from pcl.problems.streamfunction.learned_law import add_law

    add_flows(evaluation, model, splits)
    if (inverse := learned_inverse_of(model.encoder_v)) is not None:
        add_law(evaluation, inverse, StreamfunctionLaw(**splits.source["law"]))


def drawings(splits: Splits) -> tuple[Drawing, Drawing]:
    """Draw coefficients as lines and paths as paths."""
    return vectors(splits.arrays["u"]), paths(splits.arrays["v"])


def dataset(splits: Splits, name: str, row: Tensor, weights: Tensor) -> "xr.Dataset":
    """Return drawn flows, or paths, as a dataset."""
    from pcl.problems.streamfunction.drawn import drawn_dataset

    return drawn_dataset(splits, name, row, weights)


ENCODERS = {
    "learned_inverse": EncoderKind(LearnedInverse, LearnedInverseSettings, facts=("time_step", "partner_std")),
    "transformer": EncoderKind(Transformer, TransformerSettings, "transformer", facts=("time_step",)),
    "linear_inverse": EncoderKind(
        LinearInverse, LinearInverseSettings, "linear_inverse", facts=("time_step", "law"), has_potential=True
    ),
}
PROBLEM = Problem(
    "streamfunction",
    StreamfunctionSettings,
    make_source,
    encoders=ENCODERS,
    evaluate=evaluate,
    drawings=drawings,
    symmetries=symmetries_of,
    dataset=dataset,
    meaning=meaning,
)
