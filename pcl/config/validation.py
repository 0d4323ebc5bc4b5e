"""What a configuration must be: choices, bounds, and values that fit each other."""

__all__ = ["allowed_workers", "check", "check_head"]

import math
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

from pcl.config.schema import MOST_SEED, MOST_STEPS, OPEN_CHOICES, Config, HeadConfig
from pcl.config.values import short
from pcl.errors import BadInputError, printable
from pcl.objective import LOSSES
from pcl.settings import Open, check_settings, own_fields

NOT_IN_S3 = "?#@*[]"
LONGEST_NAME = 200  # bytes: names that are made of it, such as <name>_theory, fit a file system


def check(config: Config) -> None:
    """Refuse a configuration whose values are impossible or do not fit each other.

    Raises:
        BadInputError: which value, and the rule.
    """
    check_settings(config)
    for key, choices in OPEN_CHOICES.items():
        section, name = key.split(".")
        value = getattr(getattr(config, section), name)
        if value not in choices:
            raise BadInputError(
                f"{key}={printable(short(value))}: choose one of {_named(choices)}; one of your own needs the file "
                "that registers it, plugins=[that_plugin.py]"
            )
    _check_loss_and_model(config)
    _check_lists(config)
    _check_name(config.name, config.storage)
    _check_local(config.data, "data.")
    if config.train.precision == "bf16" and config.workers.use_gpu is False:
        raise BadInputError("train.precision=bf16 needs workers.use_gpu=true: on CPUs choose float32")
    if config.train.init_from_sha256 and not config.train.init_from:
        raise BadInputError("train.init_from_sha256 without train.init_from: say where the weights are")
    allowed_workers(config)


def _named(choices: Mapping[str, Any]) -> str:
    """Return names of kinds, apart those that are made for special data: of which they need facts or arrays."""
    needs = ("facts", "section", "arrays")
    special = [name for name, kind in choices.items() if any(getattr(kind, need, ()) for need in needs)]
    general = ", ".join(name for name in choices if name not in special)
    return f"{general}, or for special kinds of pairs {', '.join(special)}" if special else general


def check_head(config: HeadConfig) -> None:
    """Refuse a configuration of the head whose values are impossible.

    Raises:
        BadInputError: which value, and the rule.
    """
    check_settings(config)
    _check_name(config.name, config.storage)


def _check_local(section: Any, prefix: str) -> None:
    """Refuse addresses where no data are."""
    for name, inner in section.sections.items() if isinstance(section, Open) else ():
        _check_local(inner, f"{prefix}{name}.")
    for part in own_fields(section):
        value = getattr(section, part.name)
        if is_dataclass(value):
            _check_local(value, f"{prefix}{part.name}.")
        elif part.metadata.get("is_place") and not part.metadata.get("is_input") and "://" in str(value):
            raise BadInputError(
                f"{prefix}{part.name}={printable(short(str(value)))}: give a local or shared folder: only storage may "
                "be s3://..."
            )


def _check_loss_and_model(config: Config) -> None:
    total = config.loss.weight_u_given_v + config.loss.weight_v_given_u
    if not 0 < total < math.inf:
        raise BadInputError(
            f"loss.weight_u_given_v={config.loss.weight_u_given_v} and loss.weight_v_given_u="
            f"{config.loss.weight_v_given_u}: both must be finite and one of them positive"
        )
    kind, normaliser = LOSSES[config.loss.kind], config.loss.normaliser
    if normaliser != "batch" and not kind.has_normaliser:
        raise BadInputError(f"loss.normaliser={normaliser}: the {config.loss.kind} loss has none, choose batch")
    if normaliser == "gaussian" and not kind.takes_gaussians:
        known = " or ".join(name for name, one in LOSSES.items() if one.takes_gaussians)
        raise BadInputError(f"loss.normaliser=gaussian: not of the {config.loss.kind} loss, choose loss.kind={known}")
    if kind.arrays and config.train.precision == "bf16":
        raise BadInputError(f"train.precision=bf16: the {config.loss.kind} loss has no encoders, choose float32")
    if kind.arrays and config.train.compile:
        raise BadInputError(f"train.compile=true: the {config.loss.kind} loss has no encoders, leave it out")
    if config.loss.exclude_positive and kind.has_bias:
        raise BadInputError(
            f"loss.exclude_positive=true: no pair is a negative of itself in the {config.loss.kind} loss: leave it out"
        )
    temperature = config.model.temperature
    if not 0 < temperature.minimum <= temperature.initial <= temperature.maximum < math.inf:
        raise BadInputError(
            f"model.temperature.initial={temperature.initial}: it must lie between minimum={temperature.minimum} > 0 "
            f"and maximum={temperature.maximum}"
        )


def _check_lists(config: Config) -> None:
    recall_at, steps = config.evaluation.recall_at, config.workers.profile_steps
    if not 1 <= len(recall_at) <= 100 or not 1 <= min(recall_at) <= max(recall_at) <= MOST_STEPS:
        raise BadInputError(
            f"evaluation.recall_at={short(str(recall_at))}: give 1 to 100 K, each from 1 to {MOST_STEPS}"
        )
    if steps and not (len(steps) == 2 and 1 <= steps[0] <= steps[1] <= MOST_STEPS):
        raise BadInputError(
            f"workers.profile_steps={short(str(steps))}: give the first and the last step, such as [20, 24]"
        )
    finetune = config.finetune
    for key, values, most, may_be_empty in (
        ("seeds", config.seeds, MOST_SEED, True),
        ("finetune.per_label", finetune.per_label, MOST_STEPS, False),
        ("finetune.seeds", finetune.seeds, MOST_SEED, False),
    ):
        are_bounded = all(0 <= value <= most for value in values)
        if not are_bounded or len(set(values)) < len(values) or not (values or may_be_empty):
            raise BadInputError(
                f"{key}={short(str(values))}: give different whole numbers, each from 0 to {most}, such as [1, 5]"
            )


def _check_name(name: str, storage: str) -> None:
    """Refuse a name that is no folder of storage; patterns and addresses in S3 have characters of their own."""
    if "/" in name or name in ("", ".", "..") or not name.isprintable() or len(name.encode()) > LONGEST_NAME:
        raise BadInputError(
            f"name={short(name)!r}: it names a folder inside storage: printable characters, no slash, at most "
            f"{LONGEST_NAME} bytes"
        )
    if "://" in storage and set(name) & set(NOT_IN_S3):
        raise BadInputError(f"name={name!r}: in S3 a name holds none of {' '.join(NOT_IN_S3)}")


def allowed_workers(config: Config) -> list[int]:
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
