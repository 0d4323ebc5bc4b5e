"""A plugin as somebody writes it: an encoder, a loss and a kind of pairs."""

import numpy as np
from torch import nn

import pcl


@pcl.encoder("wide")
class Wide(nn.Module):
    """Two layers."""

    def __init__(self, shape, embedding_dim, *, width: int = 16, scale: float = 1.0):
        super().__init__()
        self.scale = scale
        self.layers = nn.Sequential(nn.Linear(shape[0], width), nn.Tanh(), nn.Linear(width, embedding_dim))

    def forward(self, x):
        return self.scale * self.layers(x)


@pcl.loss("margin")
def margin(features_u, features_v, temperature, *, workers, by: float = 0.5):
    scores = features_u @ workers.gather(features_v).T / temperature
    first = workers.worker_rank * len(features_u)
    positives = scores.diagonal(first)
    return (by + scores - positives[:, None]).relu().mean()


@pcl.problem("spiral")
def spiral(context, *, num_pairs: int = 400, turns: float = 2.0):
    generator = np.random.default_rng(context.seed)
    angle = generator.uniform(0, 2 * np.pi * turns, num_pairs)
    points = np.stack([angle * np.cos(angle), angle * np.sin(angle)], 1)
    return points + 0.1 * generator.normal(size=points.shape), np.stack([angle, np.sin(angle)], 1)
