"""From a configuration to a running loop, on one worker; without Ray, so it runs under torchrun or alone."""

__all__ = ["Session", "full_experiment", "load_shards", "make_loader", "model_spec", "num_steps", "prepare"]

import ctypes
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pcl.config.identity import data_identity, experiment, experiment_hash
from pcl.config.load import Config
from pcl.data.loader import LaneLoader
from pcl.data.manifest import Manifest, load_manifest, manifest_sha256
from pcl.data.sample import sample_pairs
from pcl.encoders import OneHot, Standardise
from pcl.errors import BadInputError
from pcl.kernels import Kernel, on_features
from pcl.model import ModelSpec, build_model
from pcl.objective import FiniteModality, Loss, make_kernel, make_loss
from pcl.storage.place import Place
from pcl.storage.stored import differing_keys
from pcl.train.aside import Aside
from pcl.train.checkpoint import checkpoint_content, restore
from pcl.train.clock import Clock
from pcl.train.collectives import broadcast_state, make_workers
from pcl.train.loop import Optimisation, Scalars, TrainingState, make_optimizer, train
from pcl.train.profiler import profiled
from pcl.train.tensorboard import Journal

KERNEL_PAIRS = 1000  # of the training split, for the median distance

Commit = Callable[[int, Scalars, Mapping[str, Any] | None], None]


def load_shards(config: Config) -> Manifest:
    """Load the manifest that a configuration trains on.

    Raises:
        BadInputError: the shards were made from another configuration of the data.
    """
    manifest = load_manifest(Path(config.data.shards))
    differing = differing_keys(manifest.config, data_identity(config))
    if differing:
        raise BadInputError(
            f"the shards in {config.data.shards} have another configuration (differing: data."
            f"{', data.'.join(differing)}): write shards with this one to another data.shards"
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
    for name, kind in (("u", config.model.encoder_u), ("v", config.model.encoder_v)):
        info, statistics = manifest.arrays[name], manifest.statistics[name]
        num_labels = len(statistics.get("counts", ()))
        if kind == "one_hot" and num_labels > config.model.embedding_dim:
            raise BadInputError(
                f"{name} has {num_labels} labels and model.embedding_dim={config.model.embedding_dim}: "
                "the one_hot encoder needs one component for each"
            )
        encoders[name] = {"kind": kind, "shape": list(info.shape), "dtype": info.dtype}
        encoders[name]["scale_factor"] = info.scale_factor
        encoders[name] |= encoder_options(kind, config, manifest)
        if config.model.standardise and "mean" in statistics:
            encoders[name] |= {"mean": statistics["mean"], "std": statistics["std"]}
    temperature = config.model.temperature
    return {
        "embedding_dim": config.model.embedding_dim,
        "encoder_u": encoders["u"],
        "encoder_v": encoders["v"],
        "tilting": config.model.tilting,
        "temperature": {
            "initial": temperature.initial,
            "learned": temperature.learned,
            "minimum": temperature.minimum,
            "maximum": temperature.maximum,
        },
        "dtype": "float64" if config.train.precision == "float64" else "float32",
    }


def encoder_options(kind: str, config: Config, manifest: Manifest) -> dict[str, Any]:
    """Return what a kind of encoder needs beside the shape: its section of the configuration, and what the data tell.

    Raises:
        BadInputError: the data do not tell what the encoder needs.
    """
    sections = {
        "transformer": config.model.transformer,
        "linear_inverse": config.model.linear_inverse,
        "field": config.model.field_network,
        "drifter_set": config.model.field_network,
    }
    facts = {"transformer": ("time_step",), "linear_inverse": ("time_step", "law"), "drifter_set": ("drifters",)}
    if missing := [fact for fact in facts.get(kind, ()) if fact not in manifest.source]:
        raise BadInputError(
            f"the {kind} encoder needs {' and '.join(missing)} of the data, which {manifest.source['name']} does "
            "not have: choose another encoder"
        )
    if "drifters" in manifest.source and kind not in ("field", "drifter_set"):
        raise BadInputError(
            f"the {kind} encoder does not know missing values, which fields and drifters have: choose field or "
            "drifter_set"
        )
    options = dict(vars(sections[kind])) if kind in sections else {}
    return options | {fact: manifest.source[fact] for fact in facts.get(kind, ())}


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
        kernels=kernels_of(config, manifest, device) if config.loss.kind.endswith("mmd") else None,
        statistic=config.loss.kernel.statistic,
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


def keep_freed_memory() -> None:
    """Let glibc keep what is freed: faulting the activations in anew costs up to a fifth of every step on CPUs."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # another C library
        return
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(mmap_threshold, 2**30)


class Session:
    """One worker's training of one run.

    Args:
        config: the resolved configuration, with absolute paths.
        device: of this worker.
        resume_from: directory of the checkpoint to go on from.

    Raises:
        BadInputError: the configuration does not fit the data or the number of workers.
        DamagedDataError: shards or checkpoint differ from what was promised.
    """

    def __init__(self, config: Config, device: torch.device, resume_from: Place | None = None) -> None:
        if device.type == "cpu":
            keep_freed_memory()
        self.config, self.clock = config, Clock(device)
        self.workers = make_workers(self.clock, equal_batches=True)  # as the lanes give
        manifest = load_shards(config)
        self.loader = make_loader(config, manifest, self.workers.worker_rank, self.workers.num_workers)
        self.spec = model_spec(config, manifest)
        self.experiment = full_experiment(config)
        self.experiment_hash = experiment_hash(self.experiment)
        self.optimisation = Optimisation(
            num_steps=num_steps(config, self.loader),
            learning_rate=config.train.learning_rate,
            weight_decay=config.train.weight_decay,
            warmup_steps=config.train.warmup_steps,
            schedule=config.train.schedule,
            final_factor=config.train.final_factor,
            gradient_clip=config.train.gradient_clip,
            bf16=config.train.precision == "bf16",
            seed=config.seed,
        )
        self.loss = loss_of(config, manifest, device)
        self.finite = finite_modalities(config, manifest)
        model = build_model(self.spec, config.seed).to(device)
        broadcast_state(model, self.workers)
        self.state = TrainingState(model, make_optimizer(model, self.optimisation))
        if resume_from is not None:
            restore(self.state, resume_from, self.experiment_hash, self.optimisation.num_steps)

    def run(self, run: Place, commit: Commit, stop: Callable[[], bool] = lambda: False) -> Scalars:
        """Train to the last step, or until some worker is told to stop; a checkpoint is committed there.

        The steps go on while a checkpoint is written and committed; the next one waits for it.

        Args:
            run: the run's directory, for TensorBoard and the progress file of worker 0.
            commit: takes the step, its scalars and, on worker 0, the content of the checkpoint that it must keep
                (``pcl.train.checkpoint``); called in a thread, once at a time.
            stop: returns whether this worker is told to stop.
        """
        leads = self.workers.worker_rank == 0
        journal = Journal(run, self.state.step, self.optimisation.num_steps, self.experiment) if leads else None

        batches, steps = self.loader.batches(self.state.step), self.config.workers.profile_steps
        with ExitStack() as stack:
            aside = stack.enter_context(Aside())
            if steps and leads:
                batches = stack.enter_context(closing(profiled(batches, self.state.step, steps, run)))

            def log(step: int, scalars: Scalars) -> None:
                aside.check()
                if journal:
                    journal.log(step, scalars)

            def report(state: TrainingState, scalars: Scalars) -> None:
                content = checkpoint_content(state, self.spec, self.experiment_hash) if leads else None
                aside.do(partial(commit, state.step, dict(scalars), content))

            return train(
                self.state,
                batches,
                self.loss,
                self.optimisation,
                workers=self.workers,
                global_batch=self.config.train.global_batch,
                log_every=self.config.train.log_every,
                checkpoint_every=self.config.train.checkpoint_every,
                log=log,
                report=report,
                stop=stop,
                finite=self.finite,
                clock=self.clock,
            )
