"""Parts of a training, made of its configuration and its shards: loader, model, loss, kernels, optimisation."""

__all__ = [
    "augmentation_of",
    "finite_modalities",
    "full_experiment",
    "load_shards",
    "loss_of",
    "make_loader",
    "make_source",
    "model_spec",
    "num_steps",
    "optimisation_of",
    "prepare",
]

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pcl.config.identity import data_identity, differing, experiment
from pcl.config.schema import AUGMENT, Config
from pcl.data.augmentation import check_augment, make_augment
from pcl.data.loader import LaneLoader
from pcl.data.manifest import Manifest, load_manifest, manifest_sha256
from pcl.data.sample import sample_pairs
from pcl.data.source import Progress, Source, SourceContext, silently
from pcl.encoders import ENCODERS, OneHot, Standardise
from pcl.encoders.build import ModelSpec, build_model
from pcl.errors import BadInputError
from pcl.kernels import Kernel, on_features
from pcl.objective import LOSSES, FiniteModality, Loss, make_kernel, make_loss
from pcl.problems.problem import problem
from pcl.train.loop import Augmentation, Optimisation, as_they_are

KERNEL_PAIRS = 1000  # of the training split, for the median distance


def make_source(config: Config, progress: Progress = silently) -> Source:
    """Return the source of pairs that a configuration names.

    Args:
        config: the configuration.
        progress: shows how far a long look at the raw data has come.
    """
    chosen, data = problem(config.data.source), config.data
    context = SourceContext(data.seed, Path(data.root), config.build.memory_mb, progress)
    return chosen.source(data.sections.get(chosen.name, chosen.settings()), context)


def load_shards(config: Config) -> Manifest:
    """Load the manifest that a configuration trains on.

    Raises:
        BadInputError: the shards were made from another configuration of the data.
    """
    manifest = load_manifest(Path(config.data.shards))
    if keys := differing({"data": manifest.config}, {"data": data_identity(config)}):
        raise BadInputError(
            f"the shards in {config.data.shards} have another configuration (differing: {', '.join(keys)}): write "
            "shards with this one to another data.shards"
        )
    return manifest


def full_experiment(config: Config) -> dict[str, Any]:
    """Return all that a run is a function of: its configuration and the very shards."""
    return experiment(config) | {"manifest_sha256": manifest_sha256(Path(config.data.shards))}


def make_loader(config: Config, manifest: Manifest, worker_rank: int = 0, num_workers: int = 1) -> LaneLoader:
    """Return the loader of one worker; see ``LaneLoader`` for what it refuses."""
    return LaneLoader(
        Path(config.data.shards),
        manifest,
        "train",
        global_batch=config.train.global_batch,
        num_lanes=config.train.num_lanes,
        shuffle_pairs=config.train.shuffle_pairs,
        seed=config.seed,
        worker_rank=worker_rank,
        num_workers=num_workers,
    )


def prepare(config: Config, num_workers: int) -> tuple[Manifest, LaneLoader]:
    """Check all that can be checked before a worker starts: shards, lanes, model.

    Raises:
        BadInputError: the configuration does not fit the shards or the number of workers.
        DamagedDataError: a shard is missing or has another size.
    """
    manifest = load_shards(config)
    loader = make_loader(config, manifest, num_workers=num_workers)
    model = build_model(model_spec(config, manifest), config.seed)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise BadInputError(
            "the model has nothing to learn: choose another model.encoder_u or encoder_v, or "
            "model.temperature.learned=true"
        )
    loss_of(config, manifest, torch.device("cpu"))
    finite_modalities(config, manifest)
    augmentation_of(config, manifest)
    steps = num_steps(config, loader)
    if config.train.warmup_steps >= steps:
        raise BadInputError(
            f"train.warmup_steps={config.train.warmup_steps} and the training has {steps} steps: warm up for fewer"
        )
    return manifest, loader


def num_steps(config: Config, loader: LaneLoader) -> int:
    """Return the steps of the whole training."""
    return config.train.epochs * loader.steps_per_epoch


def model_spec(config: Config, manifest: Manifest) -> ModelSpec:
    """Return what builds the model, with the statistics of the training split.

    Raises:
        BadInputError: a one-hot encoder has fewer components than there are labels.
    """
    encoders: dict[str, dict[str, Any]] = {}
    for name in "uv":
        kind, own = getattr(config.model, f"encoder_{name}"), getattr(config.model, f"settings_{name}")
        info, statistics = manifest.arrays[name], manifest.statistics[name]
        num_labels = len(statistics.get("counts", ()))
        if kind == "one_hot" and num_labels > config.model.embedding_dim:
            raise BadInputError(
                f"{name} has {num_labels} labels and model.embedding_dim={config.model.embedding_dim}: "
                "the one_hot encoder needs one component for each"
            )
        encoders[name] = {"kind": kind, "shape": list(info.shape), "dtype": info.dtype}
        encoders[name]["scale_factor"] = info.scale_factor
        encoders[name] |= encoder_options(kind, own, config, manifest)
        if config.model.standardise and "mean" in statistics:
            encoders[name] |= {"mean": statistics["mean"], "std": statistics["std"]}
    spec: ModelSpec = {
        "embedding_dim": config.model.embedding_dim,
        "encoder_u": encoders["u"],
        "encoder_v": encoders["v"],
        "tilting": config.model.tilting,
        "temperature": dict(vars(config.model.temperature)),
        "dtype": "float64" if config.train.precision == "float64" else "float32",
    }
    if config.model.share:
        spec["share"] = True
    return spec


def encoder_options(name: str, own: Mapping[str, Any], config: Config, manifest: Manifest) -> dict[str, Any]:
    """Return what a kind of encoder needs beside the shape: settings of its own or shared, and what the data tell.

    Raises:
        BadInputError: the data do not tell what the encoder needs, or have missing values that it does not know.
    """
    kind, source = ENCODERS[name], manifest.source
    if missing := [fact for fact in kind.facts if fact not in source]:
        raise BadInputError(
            f"the {name} encoder needs {' and '.join(missing)} of the data, which {source['name']} does not have: "
            "choose another encoder"
        )
    if problem(source["name"]).has_missing_values and not kind.takes_missing_values:
        known = [other for other, one in ENCODERS.items() if one.takes_missing_values]
        raise BadInputError(
            f"the {name} encoder does not know missing values, which {source['name']} has: choose {' or '.join(known)}"
        )
    shared = vars(config.model.sections[kind.section]) if kind.section else {}
    return {**shared, **own, **{fact: source[fact] for fact in kind.facts}, **kind.pinned(own)}


def finite_modalities(config: Config, manifest: Manifest) -> list[FiniteModality]:
    """Return the modalities whose normaliser is exact, with the frequencies of the training split.

    Raises:
        BadInputError: exact normalisers are asked for and no modality consists of labels.
    """
    if not config.loss.exact_normaliser:
        return []
    counts = {name: manifest.statistics[name].get("counts") for name in ("u", "v")}
    finite = [
        FiniteModality(name, torch.arange(len(count)), torch.tensor(count, dtype=torch.float64).log())
        for name, count in counts.items()
        if count is not None
    ]
    if not finite:
        raise BadInputError(
            f"loss.exact_normaliser=true and neither u nor v of {config.data.source} are labels: only a modality with "
            "few values has an exact normaliser"
        )
    return finite


def loss_of(config: Config, manifest: Manifest, device: torch.device) -> Loss:
    """Return the loss; the kernels of an MMD loss act on standardised data and on labels as one-hot vectors.

    Raises:
        BadInputError: a kernel does not fit the data.
        DamagedDataError: a shard differs from its manifest.
    """
    return make_loss(
        config.loss.kind,
        (config.loss.weight_u_given_v, config.loss.weight_v_given_u),
        exclude_positive=config.loss.exclude_positive,
        mode=config.loss.mode,
        kernels=kernels_of(config, manifest, device) if LOSSES[config.loss.kind].needs_kernels else None,
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
    items = sample_pairs(Path(config.data.shards), manifest, "train", needed, config.seed)
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


def augmentation_of(config: Config, manifest: Manifest) -> Augmentation:
    """Return what augments the pairs of a step.

    Raises:
        BadInputError: what is to be augmented is no image.
    """
    settings = config.data.sections[AUGMENT]
    forms = problem(manifest.source["name"]).forms(manifest)
    check_augment(settings, forms, [manifest.arrays[name].shape for name in "uv"])
    return make_augment(settings, config.seed) or as_they_are


def optimisation_of(config: Config, loader: LaneLoader) -> Optimisation:
    """Return how a model is optimised: the section ``train``, in steps."""
    names = {part.name for part in fields(Optimisation)}
    return Optimisation(
        num_steps=num_steps(config, loader),
        bf16=config.train.precision == "bf16",
        seed=config.seed,
        **{name: value for name, value in vars(config.train).items() if name in names},
    )
