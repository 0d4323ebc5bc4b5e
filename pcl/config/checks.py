"""What a configuration must be: choices, bounds, and values that fit each other."""

__all__ = ["allowed_workers", "check", "check_bounds", "check_name"]

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pcl.config.values import short
from pcl.errors import BadInputError, printable

ENCODER_KINDS = ("linear", "lenet", "one_hot", "identity", "transformer", "linear_inverse", "field", "drifter_set")
CHOICES = {
    "data.source": ("gaussian_process", "mnist", "streamfunction", "ocean"),
    "data.drifters.land": ("freeze", "drop"),
    "model.encoder_u": ENCODER_KINDS,
    "model.encoder_v": ENCODER_KINDS,
    "model.transformer.lift": ("velocity_fourier", "positions"),
    "model.linear_inverse.learned_map": ("none", "linear", "mlp"),
    "model.tilting": ("cosine", "inner_product", "squared_distance"),
    "loss.kind": ("conditional", "joint", "conditional_mmd", "joint_mmd"),
    "loss.mode": ("auto", "plain", "tiled", "one_sided"),
    "loss.kernel.kind": ("gaussian", "polynomial"),
    "loss.kernel.statistic": ("v", "u"),
    "train.schedule": ("cosine", "constant"),
    "train.precision": ("float32", "bf16", "float64"),
    "evaluation.split": ("train", "test"),
    "evaluation.fields.references": ("tile", "all"),
}
NOT_IN_S3 = "?#@*[]"
LONGEST_NAME = 200  # bytes: names that are made of it, such as <name>_theory, fit a file system
HEAD_AT_MOST = {
    "poll_s": 10**6,
    "theory.num_tasks": 10**5,
    "evaluation.at_once": 10**4,
    "attempts": 1000,
    "backoff_s": 10**6,
    "timeout_s": 10**8,
}
HEAD_AT_LEAST = {
    "poll_s": 0.1,
    "theory.num_tasks": 0,
    "evaluation.at_once": 0,
    "attempts": 1,
    "backoff_s": 0,
    "timeout_s": 1,
}
AT_LEAST = {
    "seed": 0,
    "data.seed": 0,
    "data.num_shards": 1,
    "data.record_pairs": 1,
    "data.streamfunction.tolerance": 1e-10,
    "data.ocean.tile_points": 2,
    "data.ocean.tile_stride": 1,
    "data.ocean.minimum_wet": 0,
    "data.ocean.window_steps": 2,
    "data.ocean.window_stride": 1,
    "data.ocean.gap_days": 0,
    "data.drifters.num_drifters": 1,
    "data.drifters.num_releases": 1,
    "data.drifters.halo_degrees": 0,
    "data.drifters.noise_m": 0,
    "model.embedding_dim": 1,
    "loss.weight_u_given_v": 0,
    "loss.weight_v_given_u": 0,
    "loss.kernel.degree": 1,
    "train.epochs": 1,
    "train.global_batch": 2,
    "train.num_lanes": 1,
    "train.shuffle_pairs": 1,
    "train.weight_decay": 0,
    "train.warmup_steps": 0,
    "train.final_factor": 0,
    "train.gradient_clip": 0,
    "train.log_every": 1,
    "train.checkpoint_every": 1,
    "workers.cpus_per_worker": 1,
    "workers.num_checkpoints": 1,
    "workers.max_failures": 0,
    "workers.resources_timeout_s": 0,
    "workers.start_timeout_s": 1,
    "workers.collective_timeout_s": 1,
    "workers.stop_timeout_s": 1,
    "workers.storage_timeout_s": 1,
    "evaluation.block_pairs": 1,
    "evaluation.max_pairs": 0,
    "evaluation.num_examples": 0,
    "evaluation.num_embeddings": 0,
    "evaluation.fields.num_members": 2,
    "evaluation.fields.num_examples": 0,
    "evaluation.fields.seed": 0,
    "build.num_tasks": 0,
    "theory.num_tasks": 0,
}

MOST_STEPS = 10**9
AT_MOST = {  # far beyond what anybody uses: a slip of the finger ends in a line, not in a machine without memory
    "seed": 2**63 - 1,
    "data.seed": 2**63 - 1,
    "data.num_shards": 999_999,  # six digits of a file's name
    "data.record_pairs": 10**7,
    "data.gaussian_process.num_train": 10**10,
    "data.gaussian_process.num_test": 10**10,
    "data.gaussian_process.num_points": 10**4,
    "data.gaussian_process.num_coefficients": 10**4,
    "data.gaussian_process.num_modes": 10**5,
    "data.streamfunction.num_train": 10**10,
    "data.streamfunction.num_test": 10**10,
    "data.streamfunction.num_modes": 2000,
    "data.streamfunction.law_seed": 2**63 - 1,
    "data.streamfunction.num_positions": 10**5,
    "data.ocean.tile_points": 10**4,
    "data.ocean.tile_stride": 10**6,
    "data.ocean.window_steps": 10**6,
    "data.ocean.window_stride": 10**6,
    "data.drifters.num_drifters": 10**6,
    "data.drifters.num_releases": 10**6,
    "model.embedding_dim": 10**5,
    "model.transformer.positions_per_token": 10**6,
    "model.transformer.width": 10**5,
    "model.transformer.depth": 1000,
    "model.transformer.num_heads": 10**4,
    "model.linear_inverse.position_stride": 10**6,
    "model.field_network.width": 10**4,
    "model.field_network.depth": 12,  # the width doubles with each
    "loss.kernel.degree": 100,
    "train.epochs": 10**7,
    "train.global_batch": 10**7,
    "train.num_lanes": 2**16,
    "train.shuffle_pairs": 10**9,
    "train.warmup_steps": MOST_STEPS,
    "train.log_every": MOST_STEPS,
    "train.checkpoint_every": MOST_STEPS,
    "workers.cpus_per_worker": 10**4,
    "workers.num_checkpoints": 10**6,
    "workers.max_failures": 10**6,
    "workers.resources_timeout_s": 10**8,
    "workers.start_timeout_s": 10**8,
    "workers.collective_timeout_s": 10**8,
    "workers.stop_timeout_s": 10**8,
    "workers.storage_timeout_s": 10**8,
    "evaluation.block_pairs": 10**6,
    "evaluation.max_pairs": 10**10,
    "evaluation.num_examples": 1000,
    "evaluation.num_embeddings": 10**6,
    "evaluation.fields.num_members": 10**5,
    "evaluation.fields.num_examples": 1000,
    "evaluation.fields.seed": 2**63 - 1,
    "build.num_tasks": 10**5,
    "theory.num_tasks": 10**5,
}


def _get(config: Any, key: str) -> Any:
    """Return the value of a key, such as ``train.epochs``."""
    return functools.reduce(getattr, key.split("."), config)


def check(config: Any) -> None:
    """Refuse a configuration whose values are impossible or do not fit each other, with ``BadInputError``."""
    if config.data.ocean.max_gap_hours is not None and not 0 <= config.data.ocean.max_gap_hours < math.inf:
        raise BadInputError(
            f"data.ocean.max_gap_hours={config.data.ocean.max_gap_hours}: it must be hours, 0 or more, or null"
        )
    for key, choices in CHOICES.items():
        value = _get(config, key)
        if value not in choices:
            raise BadInputError(f"{key}={printable(short(value))}: choose one of {', '.join(choices)}")
    check_bounds(config, AT_LEAST, AT_MOST)
    if not 0 < config.train.learning_rate < math.inf:
        raise BadInputError(f"train.learning_rate={config.train.learning_rate}: it must be positive and finite")
    total = config.loss.weight_u_given_v + config.loss.weight_v_given_u
    if not 0 < total < math.inf:
        raise BadInputError(
            f"loss.weight_u_given_v={config.loss.weight_u_given_v} and loss.weight_v_given_u="
            f"{config.loss.weight_v_given_u}: both must be finite and one of them positive"
        )
    if config.loss.exact_normaliser and config.loss.kind == "joint_mmd":
        raise BadInputError("loss.exact_normaliser=true: the joint_mmd loss has none, choose another loss.kind")
    if min(config.loss.kernel.bandwidth_u, config.loss.kernel.bandwidth_v, config.loss.kernel.offset) < 0:
        raise BadInputError("loss.kernel: bandwidth_u, bandwidth_v and offset must be at least 0")
    temperature = config.model.temperature
    if not 0 < temperature.minimum <= temperature.initial <= temperature.maximum < math.inf:
        raise BadInputError(
            f"model.temperature.initial={temperature.initial}: it must lie between minimum={temperature.minimum} > 0 "
            f"and maximum={temperature.maximum}"
        )
    recall_at = config.evaluation.recall_at
    if not 1 <= len(recall_at) <= 100 or not 1 <= min(recall_at) <= max(recall_at) <= MOST_STEPS:
        raise BadInputError(
            f"evaluation.recall_at={short(str(recall_at))}: give 1 to 100 K, each from 1 to {MOST_STEPS}"
        )
    check_name(config.name, config.storage)
    if any("://" in path for path in (config.data.root, config.data.shards, *config.data.ocean.paths)):
        raise BadInputError(
            "data.root, data.shards and data.ocean.paths are local or shared folders: only storage may be s3://..."
        )
    if config.train.final_factor > 1 or not config.train.weight_decay < math.inf:
        raise BadInputError(
            f"train.final_factor={config.train.final_factor} and train.weight_decay={config.train.weight_decay}: "
            "the factor must be at most 1 and the decay finite"
        )
    if config.train.precision == "bf16" and config.workers.use_gpu is False:
        raise BadInputError("train.precision=bf16 needs workers.use_gpu=true: on CPUs choose float32")
    steps = config.workers.profile_steps
    if steps and not (len(steps) == 2 and 1 <= steps[0] <= steps[1] <= MOST_STEPS):
        raise BadInputError(
            f"workers.profile_steps={short(str(steps))}: give the first and the last step, such as [20, 24]"
        )
    allowed_workers(config)


def check_bounds(config: Any, at_least: Mapping[str, float], at_most: Mapping[str, float]) -> None:
    """Refuse values that lie outside of their bounds, with ``BadInputError``."""
    for key, least in at_least.items():
        value = _get(config, key)
        if not value >= least:
            raise BadInputError(f"{key}={value}: it must be at least {least}")
    for key, most in at_most.items():
        value = _get(config, key)
        if not value <= most:
            raise BadInputError(f"{key}={value}: it must be at most {most}")


def check_name(name: str, storage: str) -> None:
    """Refuse a name that is no folder of storage; patterns and addresses in S3 have characters of their own."""
    if "/" in name or name in ("", ".", "..") or not name.isprintable() or len(name.encode()) > LONGEST_NAME:
        raise BadInputError(
            f"name={short(name)!r}: it names a folder inside storage: printable characters, no slash, at most "
            f"{LONGEST_NAME} bytes"
        )
    if "://" in storage and set(name) & set(NOT_IN_S3):
        raise BadInputError(f"name={name!r}: in S3 a name holds none of {' '.join(NOT_IN_S3)}")


def allowed_workers(config: Any) -> list[int]:
    """Return the numbers of workers that a run may have, ascending: those asked for that divide the lanes.

    Raises:
        BadInputError: ``workers.num_workers`` is neither a number nor a pair of them, or none divides the lanes.
    """
    asked, lanes = config.workers.num_workers, config.train.num_lanes
    bounds = [asked, asked] if type(asked) is int else list(asked) if isinstance(asked, Sequence) else []
    if len(bounds) != 2 or any(type(bound) is not int for bound in bounds) or not 1 <= bounds[0] <= bounds[1]:
        raise BadInputError(f"workers.num_workers={asked}: give a number, at least 1, or [min, max]")
    small = [w for w in range(1, math.isqrt(lanes) + 1) if lanes % w == 0]
    divisors = sorted({*small, *(lanes // w for w in small)})
    allowed = [w for w in divisors if bounds[0] <= w <= bounds[1]]
    if not allowed:
        raise BadInputError(
            f"{asked} workers do not divide {lanes} lanes: choose workers.num_workers among "
            f"{', '.join(map(str, divisors))}"
        )
    return allowed
