"""Parts of a training, made of its configuration and its shards: loader, model, augmentation, optimisation."""

__all__ = [
    "augmentation_of",
    "begin_encoders",
    "first_lines",
    "first_weights",
    "full_experiment",
    "keep_first_weights",
    "load_shards",
    "make_loader",
    "make_source",
    "model_spec",
    "num_steps",
    "optimisation_of",
    "pinned",
    "prepare",
]

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from pcl.config.identity import data_identity, differing, experiment
from pcl.config.schema import AUGMENT, Config
from pcl.data.augmentation import check_augment, make_augment, make_symmetries
from pcl.data.loader import LaneLoader
from pcl.data.manifest import Manifest, load_manifest, manifest_sha256
from pcl.data.source import Progress, Source, SourceContext, silently
from pcl.encoders import ENCODERS
from pcl.encoders.build import ModelSpec, build_model
from pcl.encoders.registry import network_of
from pcl.errors import BadInputError
from pcl.model import PairModel
from pcl.objective import LOSSES
from pcl.problems.problem import problem
from pcl.storage.inputs import input_at
from pcl.storage.place import Place, write_bytes
from pcl.train.first import FIRST_FILE, FirstWeights, begin_with, first_weights_at
from pcl.train.gradient import Augmentation, as_they_are, check_chunks
from pcl.train.loop import Optimisation
from pcl.train.loss import check_arrays, exact_sides, loss_of, potential_of
from pcl.train.model_folder import weights_file
from pcl.train.tried import tried_model, try_loss
from pcl.train.validation import plan_validation


def make_source(config: Config, progress: Progress = silently) -> Source:
    """Return the source of pairs that a configuration names.

    Args:
        config: the configuration.
        progress: shows how far a long look at the raw data has come.
    """
    chosen, data = problem(config.data.source), config.data
    root = input_at(data.root, config.copies)
    folder = root if root.is_remote else Path(root)
    context = SourceContext(data.seed, folder, config.build.memory_mb, progress, config.copies)
    return chosen.source(data.sections.get(chosen.name, chosen.settings()), context)


def load_shards(config: Config) -> Manifest:
    """Load the manifest that a configuration trains on.

    Raises:
        BadInputError: the shards were made from another configuration of the data.
    """
    manifest = load_manifest(config.shard_root)
    if keys := differing({"data": manifest.config}, {"data": data_identity(config)}):
        raise BadInputError(
            f"the shards in {config.data.shards} have another configuration (differing: {', '.join(keys)}): write "
            "shards with this one to another data.shards"
        )
    return manifest


def full_experiment(config: Config) -> dict[str, Any]:
    """Return all that a run is a function of: its configuration and the very shards."""
    return experiment(config) | {"manifest_sha256": manifest_sha256(config.shard_root)}


def first_weights(config: Config, run: Place | None = None) -> FirstWeights | None:
    """Return the weights of another model that a training begins with, None where all are drawn.

    Args:
        config: the configuration.
        run: the run's directory, which may have kept them.

    Raises:
        BadInputError: there are none, or they are others than those that the configuration pins.
        DamagedDataError: they cannot be read.
        OSError: storage refuses.
    """
    address, sha256 = config.train.init_from, config.train.init_from_sha256
    return first_weights_at(address, run / FIRST_FILE if run else None, sha256) if address else None


def pinned(config: Config, run: Place | None = None) -> Config:
    """Return a configuration whose experiment knows its first weights by their hash, whatever their place holds later.

    Raises:
        BadInputError: see ``first_weights``.
    """
    first = first_weights(config, run)
    return replace(config, train=replace(config.train, init_from_sha256=first.sha256)) if first else config


def keep_first_weights(config: Config, run: Place) -> None:
    """Write the first weights of a pinned configuration into its run, where all workers see them, now and later.

    Raises:
        BadInputError: see ``first_weights``.
    """
    first = first_weights(config, run)
    if first is not None and first.origin != str(run / FIRST_FILE):
        write_bytes(run / FIRST_FILE, weights_file(first.tensors))


def first_lines(config: Config, manifest: Manifest, run: Place) -> list[str]:
    """Return a line for each side of the model on what it takes of its first weights, none where all are drawn."""
    first = first_weights(config, run)
    return begin_with(build_model(model_spec(config, manifest), config.seed), first) if first else []


def make_loader(config: Config, manifest: Manifest, worker_rank: int = 0, num_workers: int = 1) -> LaneLoader:
    """Return the loader of one worker; see ``LaneLoader`` for what it refuses."""
    return LaneLoader(
        config.shard_root,
        manifest,
        "train",
        global_batch=config.train.global_batch,
        num_lanes=config.train.num_lanes,
        shuffle_pairs=config.train.shuffle_pairs,
        seed=config.seed,
        worker_rank=worker_rank,
        num_workers=num_workers,
        held_out=config.train.validation_fraction,
        names=LOSSES[config.loss.kind].arrays or ("u", "v"),
    )


def prepare(config: Config, num_workers: int, run: Place | None = None) -> tuple[Manifest, LaneLoader]:
    """Check all that can be checked before a worker starts: shards, lanes, model.

    Args:
        config: the configuration.
        num_workers: W.
        run: the run's directory, which may have kept its first weights.

    Raises:
        BadInputError: the configuration does not fit the shards or the number of workers.
        DamagedDataError: a shard is missing or has another size.
    """
    manifest = load_shards(config)
    check_arrays(config, manifest)
    loader = make_loader(config, manifest, num_workers=num_workers)
    model = tried_model(model_spec(config, manifest), config.seed)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise BadInputError(
            "the model has nothing to learn: choose another model.encoder_u or encoder_v, or "
            "model.temperature.learned=true"
        )
    check_chunks(model, config.train.chunk_pairs)
    if (check := LOSSES[config.loss.kind].check) is not None:
        check(model)
    if (first := first_weights(config, run)) is not None:
        begin_with(model, first)
    plan_validation(manifest, config.train.validation_fraction, config.train.global_batch)
    loss = loss_of(config, manifest, torch.device("cpu"))
    try_loss(config.loss.kind, loss, model_spec(config, manifest), config.train.global_batch // num_workers)
    exact_sides(config, manifest)
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
        encoders[name] |= encoder_options(kind, own, config, manifest, partner="v" if name == "u" else "u")
        if config.model.standardise and "mean" in statistics:
            encoders[name] |= {"mean": statistics["mean"], "std": statistics["std"]}
        if config.model.tilting == "potentials":
            encoders[name]["potential"] = potential_of(name, config)
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
    if LOSSES[config.loss.kind].has_bias:
        spec["bias"] = True
    return spec


def begin_encoders(model: PairModel, config: Config, manifest: Manifest) -> None:
    """Have encoders take from the training split what they keep of it, in place.

    Raises:
        BadInputError: the data do not fit an encoder.
        DamagedDataError: a shard differs from its manifest.
    """
    for kind, encoder in ((config.model.encoder_u, model.encoder_u), (config.model.encoder_v, model.encoder_v)):
        if (begin := ENCODERS[kind].begin) is not None:
            begin(network_of(encoder), config.shard_root, manifest)


def encoder_options(
    name: str, own: Mapping[str, Any], config: Config, manifest: Manifest, partner: str
) -> dict[str, Any]:
    """Return what a kind of encoder needs beside the shape: settings of its own or shared, and what the data tell.

    Data tell the facts of their source, and ``partner_std``, the standard deviations of the other modality.

    Raises:
        BadInputError: the data do not tell what the encoder needs, or have missing values that it does not know.
    """
    kind, source = ENCODERS[name], manifest.source
    told = {**source, **{f"partner_{key}": value for key, value in manifest.statistics[partner].items()}}
    if missing := [fact for fact in kind.facts if fact not in told]:
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
    return {**shared, **own, **{fact: told[fact] for fact in kind.facts}, **kind.pinned(own)}


def augmentation_of(config: Config, manifest: Manifest) -> Augmentation:
    """Return what augments the pairs of a step.

    Raises:
        BadInputError: what is to be augmented is no image, the pairs have no such symmetry, or the loss is one of the
            model, which sees the pairs as they are.
    """
    settings, kind = config.data.sections[AUGMENT], problem(manifest.source["name"])
    if LOSSES[config.loss.kind].arrays and (settings.u or settings.v or settings.pairs):
        raise BadInputError(f"data.augment: the {config.loss.kind} loss sees pairs as they are stored: leave it out")
    check_augment(settings, kind.forms(manifest), [manifest.arrays[name].shape for name in "uv"])
    known = kind.symmetries(manifest.source) if settings.pairs else {}
    symmetries, images = make_symmetries(settings.pairs, known, config.seed), make_augment(settings, config.seed)
    if symmetries and images:
        return lambda u, v, step, workers: images(*symmetries(u, v, step, workers), step, workers)
    return symmetries or images or as_they_are


def optimisation_of(config: Config, loader: LaneLoader) -> Optimisation:
    """Return how a model is optimised: the section ``train``, in steps."""
    names = {part.name for part in fields(Optimisation)}
    return Optimisation(
        num_steps=num_steps(config, loader),
        bf16=config.train.precision == "bf16",
        seed=config.seed,
        **{name: value for name, value in vars(config.train).items() if name in names},
    )
