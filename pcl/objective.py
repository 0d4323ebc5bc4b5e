"""The loss that a configuration names, and the finite modality whose normaliser can be exact."""

__all__ = ["KERNELS", "LOSSES", "FiniteModality", "Loss", "LossKind", "make_kernel", "make_loss", "register_loss"]

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pcl.errors import BadInputError
from pcl.kernels import Kernel, gaussian_kernel, median_bandwidth, polynomial_kernel
from pcl.losses import Diagnostics, conditional_loss, joint_loss
from pcl.mmd import Kernels, Values, conditional_mmd_loss, joint_mmd_loss
from pcl.scores import Atoms
from pcl.settings import is_again

KERNELS = ("gaussian", "polynomial")

Loss = Callable[..., tuple[Tensor, Diagnostics]]


@dataclass(frozen=True)
class LossKind:
    """A kind of loss.

    Attributes:
        loss: called with feature maps of u and of v, the temperature, and the options that ``make_loss`` was given.
        has_weights: whether its two directions have weights.
        needs_kernels: whether it compares the values themselves with kernels.
        has_normaliser: whether it has a normaliser, which can be exact where a modality has few values.
        is_own: whether it takes its own settings alone, and not those that ours share.
        settings: a dataclass of its own settings (``pcl.settings``), given in ``loss.settings``; or None.
    """

    loss: Loss
    has_weights: bool = False
    needs_kernels: bool = False
    has_normaliser: bool = True
    is_own: bool = False
    settings: type | None = None


LOSSES: dict[str, LossKind] = {
    "conditional": LossKind(conditional_loss, has_weights=True),
    "joint": LossKind(joint_loss),
    "conditional_mmd": LossKind(conditional_mmd_loss, has_weights=True, needs_kernels=True),
    "joint_mmd": LossKind(joint_mmd_loss, needs_kernels=True, has_normaliser=False),
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
    """Return a loss called as ``loss(features_u, features_v, temperature, workers=..., values=(u, v), **atoms)``.

    Args:
        kind: one of ``LOSSES``.
        weights: (lambda_u, lambda_v) of a conditional loss.
        exclude_positive: leave the positive out of the normaliser.
        mode: how scores are formed, see ``pcl.scores.choose_mode``.
        kernels: k_u and k_v of an MMD loss.
        statistic: ``v`` or ``u``, of an MMD loss, see ``pcl.mmd``.
        settings: of a loss that has its own.

    Raises:
        ValueError: the kind is not known, or an MMD loss has no kernels.

    Example:
        >>> loss, _ = make_loss("joint")(torch.zeros(2, 3), torch.zeros(2, 3))
        >>> abs(loss.item()) < 1e-6
        True
    """
    if kind not in LOSSES:
        raise ValueError(f"loss {kind!r} is not known; choose one of {', '.join(LOSSES)}")
    chosen = LOSSES[kind]
    if chosen.is_own:
        return partial(_without_values, partial(chosen.loss, **(settings or {})))
    options = dict[str, Any](exclude_positive=exclude_positive, mode=mode)
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
        >>> make_kernel("gaussian", torch.tensor([[0.0], [2.0]]))(torch.zeros(1, 1), torch.full((1, 1), 2.0))
        tensor([[0.6065]])
    """
    if kind == "gaussian":
        return gaussian_kernel(bandwidth or median_bandwidth(items))
    if kind == "polynomial":
        scale = items.flatten(1).double().square().sum(1).mean().sqrt().item()
        return polynomial_kernel(degree, offset, scale)
    raise ValueError(f"kernel {kind!r} is not known; choose one of {', '.join(KERNELS)}")


@dataclass(frozen=True)
class FiniteModality:
    """A modality with few values and known frequencies, such as labels.

    Attributes:
        name: ``u`` or ``v``.
        items: every value once, as stored, shape (K, ...).
        log_prior: log frequencies up to a constant, shape (K,).
    """

    name: str
    items: Tensor
    log_prior: Tensor

    def atoms(
        self, features_u: Callable[[Tensor], Tensor], features_v: Callable[[Tensor], Tensor], device: torch.device
    ) -> tuple[str, Atoms]:
        """Return the name and value of a loss's argument, ``atoms_u`` or ``atoms_v``, with this step's features."""
        items = self.items.to(device)
        features = (features_u if self.name == "u" else features_v)(items)
        return f"atoms_{self.name}", Atoms(features, self.log_prior.to(device), items)
