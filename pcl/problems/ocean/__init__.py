"""Currents of a tile over a window of time against drifters released in it."""

__all__ = ["PROBLEM"]

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from pcl.data.manifest import Manifest
from pcl.data.source import Source, SourceContext
from pcl.encoders.registry import EncoderKind
from pcl.evaluation.drawing import Drawing
from pcl.evaluation.result import Evaluation
from pcl.evaluation.splits import Splits
from pcl.model import PairModel
from pcl.objective import Loss, LossContext, LossKind
from pcl.problems.ocean.evaluation.memory import describe_memory
from pcl.problems.ocean.field import DrifterSet, Field
from pcl.problems.ocean.meanings import meaning
from pcl.problems.ocean.settings import (
    FieldNetworkSettings,
    OceanSettings,
    PosteriorLossSettings,
    PosteriorSettings,
)
from pcl.problems.problem import Problem
from pcl.storage.place import Place

if TYPE_CHECKING:
    import xarray as xr

# what reads files and draws maps is imported where it is used: importing pcl stays quick


def make_source(settings: OceanSettings, context: SourceContext) -> Source:
    """Return tiles and windows of the archive that settings name, with drifters."""
    from pcl.problems.ocean.source import ocean_source

    return ocean_source(settings, context)


def evaluate(evaluation: Evaluation, model: PairModel, splits: Splits) -> None:
    """Add retrieval within tiles, the posterior of the field given drifters beside the usual methods, and the prior."""
    from pcl.problems.ocean.evaluation.evaluate import add_fields
    from pcl.problems.ocean.evaluation.learned import prior_of

    add_fields(evaluation, model, splits)
    if (prior := prior_of(model)) is not None:
        from pcl.problems.ocean.prior.pictures import add_prior

        add_prior(evaluation, prior)


def drawings(splits: Splits) -> tuple[Drawing, Drawing]:
    """Draw currents as arrows over their speed, and drifters as tracks."""
    from pcl.problems.ocean.pictures import currents, tracks

    return currents(splits.arrays["u"], splits.arrays["wet"].bool()), tracks(splits.arrays["v"])


def dataset(splits: Splits, name: str, row: Tensor, weights: Tensor) -> "xr.Dataset":
    """Return drawn currents, or drifters, as a dataset."""
    from pcl.problems.ocean.drawn import drawn_dataset

    return drawn_dataset(splits, name, row, weights)


def of_one_tile(origins: Tensor, origin: Tensor) -> Tensor:
    """Return which windows are of the tile of another one."""
    from pcl.problems.ocean.drawn import of_one_tile

    return of_one_tile(origins, origin)


def field_points(shape: Sequence[int], embedding_dim: int, **facts: Any) -> nn.Module:
    """Return the encoder of a field by its points."""
    from pcl.problems.ocean.prior.maps import FieldPoints

    return FieldPoints(shape, embedding_dim)


def measurements(shape: Sequence[int], embedding_dim: int, **facts: Any) -> nn.Module:
    """Return the encoder of drifters as measurements, with a prior of currents."""
    from pcl.problems.ocean.prior.maps import MeasurementMaps

    return MeasurementMaps(shape, embedding_dim, **facts)


def begin_measurements(network: nn.Module, root: Place, manifest: Manifest) -> None:
    """Have its prior keep the climatology of the training split."""
    from pcl.problems.ocean.prior.maps import keep_climatology

    keep_climatology(network, root, manifest)


def posterior_loss(context: LossContext) -> Loss:
    """Return the loss from which a prior of currents learns."""
    from pcl.problems.ocean.prior.loss import PosteriorLoss

    return PosteriorLoss(context)


ENCODERS = {
    "field": EncoderKind(Field, FieldNetworkSettings, "field_network", takes_missing_values=True),
    "drifter_set": EncoderKind(
        DrifterSet, FieldNetworkSettings, "field_network", facts=("drifters",), takes_missing_values=True
    ),
    "field_points": EncoderKind(field_points, takes_missing_values=True, facts=("drifters",)),
    "measurements": EncoderKind(
        measurements, takes_missing_values=True, facts=("drifters", "grid"), begin=begin_measurements
    ),
}
LOSSES = {
    "posterior": LossKind(
        posterior_loss, arrays=("u", "v", "origin"), has_normaliser=False, settings=PosteriorLossSettings
    )
}
PROBLEM = Problem(
    "ocean",
    OceanSettings,
    make_source,
    encoders=ENCODERS,
    losses=LOSSES,
    evaluation=PosteriorSettings,
    evaluate=evaluate,
    drawings=drawings,
    describe_needs=describe_memory,
    has_missing_values=True,
    dataset=dataset,
    stands_for=("origin", of_one_tile),
    meaning=meaning,
)
