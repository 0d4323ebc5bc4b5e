r"""Symmetries of flows and paths: pairs that are as likely as the pairs that they are made of.

Translation is :math:`\psi_k \mapsto \psi_k e^{-2 \pi i k \cdot a}, x \mapsto x + a`. Reversal follows the particle back
through the mirrored flow, :math:`\psi_k \mapsto -\overline{\psi_k e^{i \omega_k T}}, x(t) \mapsto -x(T - t)`.
Rotations, reflections and reversal alone are none: the frequencies are fixed, and the same in both directions of time.

Shapes: B pairs, M modes, P positions.
"""

__all__ = ["Reversal", "symmetries_of", "translated"]

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pcl.data.augmentation import Symmetry
from pcl.problems.streamfunction.law import StreamfunctionLaw, half_plane


def symmetries_of(source: Mapping[str, Any]) -> dict[str, Symmetry]:
    """Return the symmetries of pairs by name.

    Args:
        source: of the manifest, with ``law``.
    """
    return {"translate": translated, "reverse": Reversal(StreamfunctionLaw(**source["law"]))}


def translated(u: Tensor, v: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Return flows (B, 2 M) and paths (B, P, 2) that are moved by a random vector of the domain.

    Args:
        u: coefficients.
        v: positions.
        uniform: random numbers from 0 to 1, of which two are used, shape (B, >= 2).
    """
    return _moved(u, v, uniform[:, :2].double())


class Reversal:
    """Half of the pairs with the particle followed back, and moved so that the path starts where all do.

    It needs the frequencies of the law, by which the flow goes on until the end of the path.

    Args:
        law: of the flows.
    """

    def __init__(self, law: StreamfunctionLaw) -> None:
        self.start = torch.tensor(law.start, dtype=torch.float64)
        self.turn = torch.polar(torch.ones(law.num_modes).double(), torch.from_numpy(law.frequencies) * law.duration)

    def __call__(self, u: Tensor, v: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Return flows (B, 2 M) and paths (B, P, 2), where the first random number is below 1/2 reversed."""
        later = -(torch.complex(*u.double().chunk(2, 1)) * self.turn.to(u.device)).conj()
        flows = torch.cat([later.real, later.imag], 1)
        paths = -v.double().flip(1)
        flows, paths = _moved(flows, paths, self.start.to(v.device) - paths[:, 0])
        chosen = uniform[:, 0] < 0.5
        return (
            torch.where(chosen[:, None], flows.to(u.dtype), u),
            torch.where(chosen[:, None, None], paths.to(v.dtype), v),
        )


def _moved(u: Tensor, v: Tensor, by: Tensor) -> tuple[Tensor, Tensor]:
    """Return flows and paths that are moved by vectors (B, 2), in their own dtypes."""
    wavenumbers = torch.from_numpy(half_plane(u.shape[1] // 2)).to(by)
    angles = -2 * math.pi * by @ wavenumbers.T
    flows = torch.complex(*u.double().chunk(2, 1)) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([flows.real, flows.imag], 1).to(u.dtype), (v.double() + by[:, None]).to(v.dtype)
