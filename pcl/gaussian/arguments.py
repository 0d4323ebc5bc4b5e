"""What the functions on linear encoders refuse, and how they say it."""

__all__ = ["LOSSES", "MMD_LOSSES", "TILTINGS", "check_choice", "check_encoders", "check_weights"]

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pcl.gaussian.pair import GaussianPair

LOSSES = ("conditional", "joint")
MMD_LOSSES = ("conditional_mmd", "joint_mmd")
TILTINGS = ("inner_product", "squared_distance")  # the cosine tilting of a Gaussian law is not Gaussian


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a value that is not among the choices.

    Example:
        >>> check_choice("tilting", "cosine", TILTINGS)
        Traceback (most recent call last):
        ValueError: tilting 'cosine' has no closed form here; choose one of inner_product, squared_distance
    """
    if value not in choices:
        raise ValueError(f"{name} {value!r} has no closed form here; choose one of {', '.join(choices)}")


def check_weights(weights: Sequence[float]) -> tuple[float, float]:
    """Return (lambda_u, lambda_v) of a conditional loss, or refuse what is not a pair of weights."""
    numbers = tuple(float(weight) for weight in weights)
    if len(numbers) != 2 or not all(map(math.isfinite, numbers)) or min(numbers) < 0 or max(numbers) == 0:
        raise ValueError(f"loss weights {numbers}: two finite numbers are needed, both >= 0 and one > 0")
    return numbers[0], numbers[1]


def check_encoders(pair: GaussianPair, g: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Return G (E, n) and H (E, m) in double precision, or refuse what does not act on the pair."""
    n, m = len(pair.c_uu), len(pair.c_vv)
    shapes = tuple(g.shape), tuple(h.shape)
    if g.ndim != 2 or h.ndim != 2 or len(g) != len(h) or (g.shape[1], h.shape[1]) != (n, m):
        raise ValueError(
            f"encoders of shapes {shapes[0]} and {shapes[1]}: (E, {n}) and (E, {m}) are needed, E the same"
        )
    if not (torch.isfinite(g).all() and torch.isfinite(h).all()):
        raise ValueError("an encoder holds values that are not finite; check what it was computed from")
    return g.to("cpu", torch.float64), h.to("cpu", torch.float64)
