"""The loss that a configuration names: of feature maps of the pairs, or of the model and what is stored of them."""

__all__ = [
    "KERNELS",
    "LOSSES",
    "Loss",
    "LossContext",
    "LossKind",
    "ModelLoss",
    "make_kernel",
    "make_loss",
    "register_loss",
]

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from pcl.errors import BadInputError
from pcl.kernels import Kernel, gaussian_kernel, median_bandwidth, polynomial_kernel
from pcl.logistic import LogisticSettings, logistic_loss
from pcl.losses import Diagnostics, NotFiniteError, conditional_loss, joint_loss
from pcl.mmd import Kernels, Values, conditional_mmd_loss, joint_mmd_loss
from pcl.settings import is_again
from pcl.workers import Workers

if TYPE_CHECKING:
    from pcl.model import PairModel

KERNELS = ("gaussian", "polynomial")

Loss = Callable[..., tuple[Tensor, Diagnostics]]


@dataclass(frozen=True)
class LossKind:
    """A kind of loss.

    Attributes:
        loss: called with feature maps of u and of v, the temperature, and the options that ``make_loss`` was given; of
            a loss of the model, what makes it of a ``LossContext``.
        arrays: names of stored arrays of the pairs, of a loss of the model (``ModelLoss``); none: of feature maps.
        check: refuses a model that a loss of the model cannot learn, with ``BadInputError``, before a training starts.
        has_weights: whether its two directions have weights.
        needs_kernels: whether it compares the values themselves with kernels.
        has_normaliser: whether it has a normaliser, or a mean over negatives, which can be exact where a modality has
            few values.
        has_bias: whether the model learns a bias of the scores for it (``PairModel.bias``), which then stands where
            others have a normaliser: there is none to leave the positive out of.
        takes_gaussians: whether its normaliser can be that of a modality that a Gaussian carries.
        is_own: whether it takes its own settings alone, and not those that ours share.
        settings: a dataclass of its own settings (``pcl.settings``), given in ``loss.settings``; or None.
    """

    loss: Callable[..., Any]
    arrays: tuple[str, ...] = ()
    check: "Callable[[PairModel], Any] | None" = None
    has_weights: bool = False
    needs_kernels: bool = False
    has_normaliser: bool = True
    has_bias: bool = False
    takes_gaussians: bool = False
    is_own: bool = False
    settings: type | None = None


@dataclass(frozen=True)
class LossContext:
    """What a loss of the model is made of.

    Attributes:
        root: where the shards lie, a ``pcl.storage.place.Place``, which may be read once, a record at a time.
        manifest: its ``pcl.data.manifest.Manifest``.
        settings: those of the loss, ``loss.settings``.
        seed: of every random number that it draws.
    """

    root: Any
    manifest: Any
    settings: Mapping[str, Any]
    seed: int


@dataclass(frozen=True)
class ModelLoss:
    """A loss of the model and of stored arrays of the pairs, for which no feature maps are formed.

    What ``make`` returns is called as ``loss(model, arrays, step=..., workers=...)`` with this worker's rows of the
    arrays by name, (b, ...), and returns its share of the loss, such that the mean over workers is the loss of the
    global batch, and diagnostics. Row i of worker r is pair r b + i of the global batch: random numbers that follow
    from the seed, the step and that number are the same for any number of workers.

    Attributes:
        names: of the arrays.
        make: makes the loss, when it is first called: it may read the shards.
    """

    names: tuple[str, ...]
    make: Callable[[], Loss]

    @cached_property
    def loss(self) -> Loss:
        """The loss itself."""
        return self.make()

    def __call__(
        self, model: "PairModel", batch: Sequence[Tensor], *, step: int, workers: Workers
    ) -> tuple[Tensor, Diagnostics]:
        """Return the loss of a batch whose arrays come in the order of the names.

        Raises:
            NotFiniteError: the loss is NaN or infinite.
        """
        value, diagnostics = self.loss(model, dict(zip(self.names, batch, strict=True)), step=step, workers=workers)
        if not math.isfinite(value.item()):
            raise NotFiniteError(
                f"the loss is {value.item()}: look for values that are not finite in the data, clip gradients or lower "
                "the learning rate"
            )
        return value, diagnostics


LOSSES: dict[str, LossKind] = {
    "conditional": LossKind(conditional_loss, has_weights=True, takes_gaussians=True),
    "joint": LossKind(joint_loss),
    "conditional_mmd": LossKind(conditional_mmd_loss, has_weights=True, needs_kernels=True),
    "joint_mmd": LossKind(joint_mmd_loss, needs_kernels=True, has_normaliser=False),
    "logistic": LossKind(logistic_loss, has_bias=True, settings=LogisticSettings),
}
"""Kinds of losses by name; one that is entered here can be named in a configuration."""


def register_loss(name: str, kind: LossKind) -> None:
    """Register a kind of loss, so that a configuration can name it.

    Raises:
        BadInputError: another kind has the name.
    """
    if name in LOSSES and not is_again(LOSSES[name].loss, kind.loss):
        raise BadInputError(f"two kinds of losses are named {name!r}: give one another name")
    LOSSES[name] = kind


def make_loss(
    kind: str,
    weights: Sequence[float] = (1.0, 1.0),
    *,
    exclude_positive: bool = False,
    mode: str = "auto",
    kernels: Kernels | None = None,
    statistic: str = "v",
    settings: Mapping[str, Any] | None = None,
) -> Loss:
    """Return a loss called as ``loss(features_u, features_v, temperature, workers=..., values=(u, v), **rest)``.

    The rest are atoms of a finite modality, and what the model has learned for its loss (``PairModel.for_loss``).

    Args:
        kind: one of ``LOSSES``.
        weights: (lambda_u, lambda_v) of a conditional loss.
        exclude_positive: leave the positive out of the normaliser, of a loss that has one.
        mode: how scores are formed, see ``pcl.scores.choose_mode``.
        kernels: k_u and k_v of an MMD loss.
        statistic: ``v`` or ``u``, of an MMD loss, see ``pcl.mmd``.
        settings: of a loss that has its own.

    Raises:
        ValueError: the kind is not known, is that of a loss of the model, or an MMD loss has no kernels.

    Example:
        >>> import torch
        >>> loss, _ = make_loss("joint")(torch.zeros(2, 3), torch.zeros(2, 3))
        >>> abs(loss.item()) < 1e-6
        True
    """
    if kind not in LOSSES:
        raise ValueError(f"loss {kind!r} is not known; choose one of {', '.join(LOSSES)}")
    chosen = LOSSES[kind]
    if chosen.arrays:
        raise ValueError(f"the {kind} loss is one of the model, not of feature maps: train it on shards")
    if chosen.is_own:
        return partial(_without_values, partial(chosen.loss, **(settings or {})))
    options: dict[str, Any] = {"mode": mode, **(settings or {})}
    if not chosen.has_bias:
        options["exclude_positive"] = exclude_positive
    if chosen.has_weights:
        options["weights"] = tuple(weights)
    if not chosen.needs_kernels:
        return partial(_without_values, partial(chosen.loss, **options))
    if kernels is None:
        raise ValueError(f"the {kind} loss compares data with kernels: give kernels=(k_u, k_v)")
    return partial(chosen.loss, kernels=kernels, statistic=statistic, **options)


def _without_values(
    loss: Loss, *features: Tensor, values: Values | None = None, **rest: Any
) -> tuple[Tensor, Diagnostics]:
    return loss(*features, **rest)


def make_kernel(kind: str, items: Tensor, *, bandwidth: float = 0.0, degree: int = 2, offset: float = 1.0) -> Kernel:
    """Return a kernel for items like these.

    Args:
        kind: one of ``KERNELS``.
        items: some items of the data, shape (N, ...): for the median distance and the scale.
        bandwidth: of the Gaussian kernel, in the unit of the items; 0: the median distance.
        degree: of the polynomial kernel, whose scale is the root of the mean squared norm of the items.
        offset: of the polynomial kernel.

    Raises:
        ValueError: the kind is not known, or a parameter is out of range.

    Example:
        >>> import torch
        >>> make_kernel("gaussian", torch.tensor([[0.0], [2.0]]))(torch.zeros(1, 1), torch.full((1, 1), 2.0))
        tensor([[0.6065]])
    """
    if kind == "gaussian":
        return gaussian_kernel(bandwidth or median_bandwidth(items))
    if kind == "polynomial":
        scale = items.flatten(1).double().square().sum(1).mean().sqrt().item()
        return polynomial_kernel(degree, offset, scale)
    raise ValueError(f"kernel {kind!r} is not known; choose one of {', '.join(KERNELS)}")
