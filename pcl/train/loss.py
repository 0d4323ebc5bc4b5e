"""The loss of a training, made of its configuration and its shards: its kind, its kernels, its exact normalisers."""

__all__ = ["check_arrays", "exact_sides", "kernels_of", "known_marginals", "loss_of", "potential_of"]

from functools import partial

import torch
from torch import nn

from pcl.config.schema import Config
from pcl.data.manifest import Manifest
from pcl.data.sample import sample_pairs
from pcl.encoders import OneHot, Standardise
from pcl.encoders.potential import potentials_of
from pcl.errors import BadInputError
from pcl.kernels import Kernel, on_features
from pcl.marginals import FiniteModality, GaussianModality, Marginal
from pcl.objective import LOSSES, Loss, LossContext, ModelLoss, make_kernel, make_loss
from pcl.train.normaliser import gaussian_of, why_not_gaussian

KERNEL_PAIRS = 1000  # of the training split, for the median distance


def potential_of(name: str, config: Config) -> str:
    """Return whether the potential of ``u`` or of ``v`` is learned or zero."""
    weights = config.loss.weight_u_given_v, config.loss.weight_v_given_u
    return potentials_of(config.loss.kind, weights, share=config.model.share)["uv".index(name)]


def exact_sides(config: Config, manifest: Manifest) -> list[str]:
    """Return the modalities whose normaliser is exact, ``u`` or ``v`` or both; none where it is the batch's.

    Raises:
        BadInputError: an exact normaliser is asked for and the data or the model have none.
    """
    if config.loss.normaliser == "batch":
        return []
    if config.loss.normaliser == "atoms":
        if finite := [name for name in "uv" if "counts" in manifest.statistics[name]]:
            return finite
        raise BadInputError(
            f"loss.normaliser=atoms and neither u nor v of {config.data.source} are labels: only a modality with few "
            "values has atoms"
        )
    weights = {"u": config.loss.weight_u_given_v, "v": config.loss.weight_v_given_u}
    reasons = {name: _why_not_gaussian(name, config, manifest) for name, weight in weights.items() if weight > 0}
    if first := next(iter(reasons.values())):
        raise BadInputError(f"loss.normaliser=gaussian: {first}; choose another, or loss.normaliser=batch")
    return [name for name, reason in reasons.items() if not reason]


def _why_not_gaussian(name: str, config: Config, manifest: Manifest) -> str:
    model = config.model
    learns = model.tilting == "potentials" and potential_of(name, config) == "learned"
    encoder = model.encoder_u if name == "u" else model.encoder_v
    return why_not_gaussian(manifest, name, encoder, model.tilting, learns_potential=learns)


def known_marginals(config: Config, manifest: Manifest, device: torch.device) -> list[Marginal]:
    """Return the modalities whose normaliser is exact, with the marginals of the training split.

    Raises:
        BadInputError: see ``exact_sides``; or a modality has values that are not finite.
        DamagedDataError: a shard differs from its manifest.
    """
    known: list[Marginal] = []
    for name in exact_sides(config, manifest):
        if config.loss.normaliser == "atoms":
            counts = torch.tensor(manifest.statistics[name]["counts"], dtype=torch.float64)
            known.append(FiniteModality(name, torch.arange(len(counts)), counts.log()))
        else:
            dtype = torch.float64 if config.train.precision == "float64" else torch.float32
            mean, root = gaussian_of(config.shard_root, manifest, name)
            known.append(GaussianModality(name, mean.to(device, dtype), root.to(device, dtype)))
    return known


def check_arrays(config: Config, manifest: Manifest) -> None:
    """Refuse a loss of the model whose arrays the shards do not hold.

    Raises:
        BadInputError: the message says which.
    """
    needed = LOSSES[config.loss.kind].arrays
    if missing := [name for name in needed if name not in manifest.arrays]:
        raise BadInputError(
            f"loss.kind={config.loss.kind} needs {' and '.join(missing)} of every pair, which {config.data.source} "
            "does not have: choose another loss.kind"
        )


def loss_of(config: Config, manifest: Manifest, device: torch.device) -> Loss:
    """Return the loss; the kernels of an MMD loss act on standardised data and on labels as one-hot vectors.

    Raises:
        BadInputError: a kernel does not fit the data, or the shards lack an array that the loss needs.
        DamagedDataError: a shard differs from its manifest.
    """
    chosen = LOSSES[config.loss.kind]
    if chosen.arrays:
        check_arrays(config, manifest)
        context = LossContext(config.shard_root, manifest, config.loss.settings, config.seed)
        return ModelLoss(chosen.arrays, partial(chosen.loss, context))
    return make_loss(
        config.loss.kind,
        (config.loss.weight_u_given_v, config.loss.weight_v_given_u),
        exclude_positive=config.loss.exclude_positive,
        mode=config.loss.mode,
        kernels=kernels_of(config, manifest, device) if chosen.needs_kernels else None,
        statistic=config.loss.kernel.statistic,
        settings=config.loss.settings,
    )


def kernels_of(config: Config, manifest: Manifest, device: torch.device) -> tuple[Kernel, Kernel]:
    """Return the kernels of u and v: what follows from the data is that of a random sample of the training pairs.

    Raises:
        BadInputError: a kernel does not fit the data.
        DamagedDataError: a shard differs from its manifest.
    """
    kernel, kernels = config.loss.kernel, []
    features = [kernel_features(name, config, manifest) for name in "uv"]
    bandwidths = kernel.bandwidth_u, kernel.bandwidth_v
    needed = 0 if kernel.kind == "gaussian" and all(bandwidths) else KERNEL_PAIRS
    items = sample_pairs(config.shard_root, manifest, "train", needed, config.seed)
    for name, feature_map, some, bandwidth in zip("uv", features, items, bandwidths, strict=True):
        try:
            chosen = make_kernel(
                kernel.kind, feature_map(some), bandwidth=bandwidth, degree=kernel.degree, offset=kernel.offset
            )
        except ValueError as error:
            raise BadInputError(f"loss.kernel for {name}: {error}") from error
        kernels.append(on_features(chosen, feature_map.to(device)))
    return kernels[0], kernels[1]


def kernel_features(name: str, config: Config, manifest: Manifest) -> nn.Module:
    """Return what a kernel acts on: standardised numbers, or labels as one-hot vectors.

    Raises:
        BadInputError: the data are neither.
    """
    info, statistics = manifest.arrays[name], manifest.statistics[name]
    if info.statistics in ("none", "channel"):
        raise BadInputError(
            f"loss.kind={config.loss.kind}: its kernels act on standardised numbers or labels, and {name} of "
            f"{config.data.source} is neither: choose conditional or joint"
        )
    if "counts" in statistics:
        return OneHot(info.shape, len(statistics["counts"]))
    return Standardise(info.scale_factor, statistics["mean"], statistics["std"])
