r"""Show that the one-sided conditional loss is the NRE-B loss of sbi, minus log B.

NRE-B (Durkan, Murray, Papamakarios 2020, arXiv:2002.03712) tells the parameters theta of an observation x from K - 1
other parameters of the batch. With K = B atoms these are all others, in an order that does not matter. Where the logits
of its network are our log tilting s,

.. math::
    L_{\text{NRE-B}} = -\tfrac1B \sum_i \log \frac{e^{s(\theta_i, x_i)}}{\sum_j e^{s(\theta_j, x_i)}}
    = L_{\theta | x} + \log B.

Its loss and gradient are those of sbi's own trainer, in float64. Run this by hand in an environment of its own::

    python3.11 -m venv sbi-venv
    sbi-venv/bin/pip install -c constraints.txt torch sbi
    sbi-venv/bin/pip install --no-deps -e .
    sbi-venv/bin/python tests/golden/check_sbi.py
"""

# Expected output (deviations differ between machines by rounding; the exit code is 1 if one is above TOLERANCE):
#
# sbi 0.27.0, B = 600
# cosine           u_given_v  loss -1.561648 deviates by 5.7e-16, its gradient by 3.9e-16
# cosine           v_given_u  loss -1.626181 deviates by 8.2e-16, its gradient by 4.0e-16
# inner_product    u_given_v  loss  9.406097 deviates by 1.9e-16, its gradient by 1.9e-15
# inner_product    v_given_u  loss  8.241409 deviates by 0.0e+00, its gradient by 3.0e-15
# squared_distance u_given_v  loss -0.212467 deviates by 2.6e-16, its gradient by 2.0e-15
# squared_distance v_given_u  loss  2.760484 deviates by 6.4e-16, its gradient by 1.4e-15
# largest deviation 3.0e-15

import math
import sys
from unittest.mock import Mock

import sbi
import torch
from sbi.inference import NRE_B
from sbi.neural_nets.ratio_estimators import RatioEstimator

from pcl.losses import conditional_loss
from pcl.tilting import TILTINGS, feature_maps

BATCH, DIM, TEMPERATURE, TOLERANCE = 600, 8, 0.3, 1e-12
WEIGHTS = {"u_given_v": (2.0, 0.0), "v_given_u": (0.0, 2.0)}


class LogTilting(torch.nn.Module):
    """The network of sbi whose logit of a pair (theta, x), side by side in a row, is their log tilting."""

    def __init__(self, tilting):
        super().__init__()
        self.tilting = tilting

    def forward(self, pairs):
        theta, x = feature_maps(*pairs.split(DIM, 1), self.tilting)
        return (theta * x).sum(1, keepdim=True) / TEMPERATURE


def theirs(u, v, tilting, direction):
    theta, x = (u, v) if direction == "u_given_v" else (v, u)
    trainer = NRE_B(tracker=Mock())  # the default one makes a folder
    trainer._neural_net = RatioEstimator(LogTilting(tilting), (DIM,), (DIM,))
    return trainer._loss(theta, x, num_atoms=BATCH) - math.log(BATCH)


def ours(u, v, tilting, direction):
    return conditional_loss(*feature_maps(u, v, tilting), TEMPERATURE, weights=WEIGHTS[direction])[0]


def value_and_gradients(loss, embeddings, *case):
    """Return the loss and its gradient in both embeddings, flat."""
    leaves = [part.clone().requires_grad_() for part in embeddings]
    value = loss(*leaves, *case)
    return value.detach(), torch.cat(torch.autograd.grad(value, leaves)).flatten()


def main():
    """Print the deviations of every tilting and direction relative to what sbi returns, and return the largest."""
    generator, largest = torch.Generator().manual_seed(0), 0.0
    print(f"sbi {sbi.__version__}, B = {BATCH}")  # noqa: T201
    for tilting in TILTINGS:
        for direction in WEIGHTS:
            embeddings = torch.randn(2, BATCH, DIM, generator=generator, dtype=torch.float64)
            embeddings[1] += embeddings[0]  # pairs that belong together
            found, expected = (value_and_gradients(loss, embeddings, tilting, direction) for loss in (ours, theirs))
            deviations = [(torch.dist(a, b) / b.norm()).item() for a, b in zip(found, expected, strict=True)]
            largest = max(largest, *deviations)
            text = "loss {:9.6f} deviates by {:.1e}, its gradient by {:.1e}".format(found[0], *deviations)
            print(f"{tilting:16} {direction}  {text}")  # noqa: T201
    print(f"largest deviation {largest:.1e}")  # noqa: T201
    return largest


if __name__ == "__main__":
    sys.exit(not main() < TOLERANCE)
