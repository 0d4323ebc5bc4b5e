"""Currents of a tile over a window of time against drifters released in it."""

__all__ = ["PROBLEM"]

from pcl.data.source import Source, SourceContext
from pcl.encoders.registry import EncoderKind
from pcl.evaluation.drawing import Drawing
from pcl.evaluation.result import Evaluation
from pcl.evaluation.splits import Splits
from pcl.model import PairModel
from pcl.problems.ocean.evaluation.memory import describe_memory
from pcl.problems.ocean.field import DrifterSet, Field
from pcl.problems.ocean.settings import FieldNetworkSettings, OceanSettings, PosteriorSettings
from pcl.problems.problem import Problem

# what reads files and draws maps is imported where it is used: importing pcl stays quick


def make_source(settings: OceanSettings, context: SourceContext) -> Source:
    """Return tiles and windows of the archive that settings name, with drifters."""
    from pcl.problems.ocean.source import ocean_source

    return ocean_source(settings, context)


def evaluate(evaluation: Evaluation, model: PairModel, splits: Splits) -> None:
    """Add retrieval within tiles, and the posterior of the field given drifters beside the usual methods."""
    from pcl.problems.ocean.evaluation.evaluate import add_fields

    add_fields(evaluation, model, splits)


def drawings(splits: Splits) -> tuple[Drawing, Drawing]:
    """Draw currents as arrows over their speed, and drifters as tracks."""
    from pcl.problems.ocean.pictures import currents, tracks

    return currents(splits.arrays["u"], splits.arrays["wet"].bool()), tracks(splits.arrays["v"])


ENCODERS = {
    "field": EncoderKind(Field, FieldNetworkSettings, "field_network", takes_missing_values=True),
    "drifter_set": EncoderKind(
        DrifterSet, FieldNetworkSettings, "field_network", facts=("drifters",), takes_missing_values=True
    ),
}
PROBLEM = Problem(
    "ocean",
    OceanSettings,
    make_source,
    encoders=ENCODERS,
    evaluation=PosteriorSettings,
    evaluate=evaluate,
    drawings=drawings,
    describe_needs=describe_memory,
    has_missing_values=True,
)
