"""What the functions on linear encoders refuse, and how they say it."""

__all__ = [
    "LOSSES",
    "MMD_LOSSES",
    "TILTINGS",
    "check_choice",
    "check_encoders",
    "check_potentials",
    "check_weights",
]

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pcl.gaussian.pair import GaussianPair

LOSSES = ("conditional", "joint")
MMD_LOSSES = ("conditional_mmd", "joint_mmd")
TILTINGS = ("inner_product", "squared_distance", "potentials")  # the cosine tilting of a Gaussian law is not Gaussian


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a value that is not among the choices.

    Example:
        >>> check_choice("tilting", "cosine", TILTINGS)
        Traceback (most recent call last):
        ValueError: tilting 'cosine' has no closed form here; choose one of inner_product, squared_distance, potentials
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


def check_potentials(
    pair: GaussianPair, g: Tensor, h: Tensor, tilting: str, potentials: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return Q (., n) and R (., m) of a tilting: no rows, those of the encoders, or what was given."""
    if len(potentials) != (2 if tilting == "potentials" else 0):
        raise ValueError(
            f"{len(potentials)} potentials for the tilting {tilting!r}: give Q and R to 'potentials', none to others"
        )
    if tilting == "squared_distance":
        return g, h
    q, r = potentials or (g[:0], h[:0])
    n, m = len(pair.c_uu), len(pair.c_vv)
    if q.ndim != 2 or r.ndim != 2 or (q.shape[1], r.shape[1]) != (n, m):
        raise ValueError(
            f"potentials of shapes {tuple(q.shape)} and {tuple(r.shape)}: (., {n}) and (., {m}) are needed"
        )
    if not (torch.isfinite(q).all() and torch.isfinite(r).all()):
        raise ValueError("a potential holds values that are not finite; check what it was computed from")
    return q.to("cpu", torch.float64), r.to("cpu", torch.float64)
