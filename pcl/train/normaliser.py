"""The normaliser over a Gaussian: which modalities one carries, and its moments over a training split."""

__all__ = ["gaussian_of", "why_not_gaussian"]

import math

import torch
from torch import Tensor

from pcl.data.loader import iterate_split
from pcl.data.manifest import Manifest
from pcl.encoders.registry import ENCODERS
from pcl.errors import BadInputError
from pcl.problems.problem import problem
from pcl.storage.place import Place

MOST_NUMBERS = 4096  # of an item that a Gaussian carries: its covariance is held
LEAST_VARIANCE = 1e-12  # of the largest: directions with less are rounding


def why_not_gaussian(manifest: Manifest, name: str, encoder: str, tilting: str, *, learns_potential: bool) -> str:
    """Return why no Gaussian carries the embeddings of a modality, nothing where one does.

    Args:
        manifest: of the shards.
        name: of the array.
        encoder: its kind.
        tilting: one of ``pcl.tilting.TILTINGS``.
        learns_potential: whether it has a potential that is learned.
    """
    info, size = manifest.arrays[name], math.prod(manifest.arrays[name].shape)
    if info.statistics not in ("component", "scalar"):
        return f"{name} is {'labels' if info.statistics == 'counts' else 'not plain numbers'}"
    if problem(manifest.source["name"]).has_missing_values:
        return f"{name} may have missing values"
    if size > MOST_NUMBERS:
        return f"an item of {name} has {size:,} numbers, more than {MOST_NUMBERS:,}"
    if not ENCODERS[encoder].is_affine:
        affine = " or ".join(other for other, one in ENCODERS.items() if one.is_affine)
        return f"model.encoder_{name}={encoder} is not affine as {affine} is"
    if tilting == "cosine" or learns_potential:
        return f"model.tilting={tilting} is no Gaussian in {name} as inner_product and squared_distance are"
    return ""


def gaussian_of(root: Place, manifest: Manifest, name: str) -> tuple[Tensor, Tensor]:
    """Return the mean of a modality and a root of its covariance over the training split, float64, as stored.

    Args:
        root: the folder of shards, of which one record is held at a time.
        manifest: its manifest.
        name: of the array, with n numbers an item.

    Returns:
        The mean, shape (...), and columns F of the covariance F F' as items, (r, ...), r at most n.

    Raises:
        BadInputError: a value is not finite.
        DamagedDataError: a shard differs from its manifest.
    """
    shape = manifest.arrays[name].shape
    size, number = math.prod(shape), manifest.num_pairs("train")
    first, total = None, torch.zeros(size, dtype=torch.float64)
    products = torch.zeros(size, size, dtype=torch.float64)
    for (items,) in iterate_split(root, manifest, "train", (name,)):
        rows = items.double().reshape(len(items), size)
        first = rows.mean(0) if first is None else first  # sums about a place near the mean keep their digits
        total += (rows - first).sum(0)
        products += (rows - first).T @ (rows - first)
    mean = total / number
    covariance = products / number - torch.outer(mean, mean)
    if first is None or not bool(torch.isfinite(covariance).all()):
        raise BadInputError(f"loss.normaliser=gaussian: {name} holds values that are not finite; choose batch")
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > LEAST_VARIANCE * values.max()
    root_of = (vectors[:, kept] * values[kept].sqrt()).T
    return (first + mean).reshape(shape), root_of.reshape(-1, *shape)
