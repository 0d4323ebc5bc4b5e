"""Configuration: merge, check, save. Values and their meaning are in ``configs/default.yaml``."""

__all__ = [
    "Config",
    "allowed_workers",
    "data_identity",
    "experiment",
    "load_config",
    "load_head_config",
    "resolved_yaml",
]

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from pcl.errors import BadInputError
from pcl.schema import Config, HeadConfig
from pcl.storage import Place, place, read_bytes

DEFAULTS = Path(__file__).resolve().parents[1] / "configs" / "default.yaml"
HEAD_DEFAULTS = DEFAULTS.with_name("head.yaml")
OmegaConf.clear_resolver("oc.env")  # a run file may come from storage: it must not read this process's secrets


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


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Merge defaults, a run file and ``key=value`` overrides, and check the result.

    Args:
        path: the run file, in a folder or at an ``s3://`` address.
        overrides: such as ``train.epochs=3``.

    Raises:
        BadInputError: the file cannot be read, a key is not known or is not given, or a value has the wrong type
            or is out of its range.
        OSError: the run file lies in S3, which refuses.
    """
    merged = _merge(path, overrides, Config, DEFAULTS)
    _check(merged)
    config: Config = OmegaConf.to_object(merged)  # type: ignore[assignment]
    config.storage = _storage(config.storage)
    config.data.root, config.data.shards = (str(place(folder)) for folder in (config.data.root, config.data.shards))
    config.data.ocean.paths = [str(Path(path).expanduser().absolute()) for path in config.data.ocean.paths]
    return config


def load_head_config(path: str | Path, overrides: Sequence[str] = ()) -> HeadConfig:
    """Merge the head's defaults, its file and ``key=value`` overrides, and check the result.

    Raises:
        BadInputError: see ``load_config``.
    """
    merged = _merge(path, overrides, HeadConfig, HEAD_DEFAULTS)
    _check_least(merged, HEAD_AT_LEAST)
    _check_name(merged.name)
    config: HeadConfig = OmegaConf.to_object(merged)  # type: ignore[assignment]
    config.storage = _storage(config.storage)
    return config


def _merge(path: str | Path, overrides: Sequence[str], schema: type, defaults: Path) -> Any:
    """Merge the layers of a configuration, each checked against the schema."""
    file = place(str(path))
    if not file.is_file():
        raise BadInputError(f"{path} does not exist: give a run file such as configs/gaussian.yaml")
    layers: list[tuple[str, Place | None]] = [(str(defaults), defaults), (str(path), file)]
    for override in overrides:
        if "=" not in override:
            raise BadInputError(f"{override!r} is not an override: write key=value, such as train.epochs=3")
        layers.append((override, None))
    merged: Any = OmegaConf.structured(schema)
    for name, layer in layers:
        try:
            loaded = _load(layer) if layer else OmegaConf.from_dotlist([name])
            _check_sections(loaded, schema)
            merged = OmegaConf.merge(merged, loaded)
            OmegaConf.resolve(OmegaConf.merge(merged))
        except (OmegaConfBaseException, YAMLError, ValueError, TypeError, OSError) as error:
            raise BadInputError(
                f"{name}: {_one_line(error)}; every key is explained in configs/{defaults.name}"
            ) from error
    missing = sorted(OmegaConf.missing_keys(merged))
    if missing:
        raise BadInputError(
            f"{path} does not give {', '.join(missing)}: add them, or give {missing[0]}=... after the file"
        )
    return merged


def _load(file: Place) -> Any:
    return OmegaConf.load(io.StringIO((read_bytes(file) or b"").decode()))


def _storage(address: str) -> str:
    try:
        return str(place(address))
    except BadInputError as error:
        raise BadInputError(f"storage={error}") from error


def _check_sections(loaded: Any, schema: type, prefix: str = "") -> None:
    """Refuse a value where a section belongs: OmegaConf would not name the key."""
    if not OmegaConf.is_dict(loaded):
        raise TypeError(f"{prefix.rstrip('.') or 'the file'} holds {loaded!r}: it must be a mapping of keys")
    for section in fields(schema):
        if isinstance(section.default_factory, type) and section.name in loaded:
            _check_sections(loaded[section.name], section.default_factory, f"{prefix}{section.name}.")


def _one_line(error: Exception) -> str:
    key = getattr(error, "full_key", None)
    first = " ".join(str(error).split("full_key")[0].split())
    return f"{key}: {first}" if key else first


def _check(config: Any) -> None:
    if config.data.ocean.max_gap_hours is not None and not 0 <= config.data.ocean.max_gap_hours < math.inf:
        raise BadInputError(
            f"data.ocean.max_gap_hours={config.data.ocean.max_gap_hours}: it must be hours, 0 or more, or null"
        )
    for key, choices in CHOICES.items():
        value = OmegaConf.select(config, key)
        if value not in choices:
            raise BadInputError(f"{key}={value}: choose one of {', '.join(choices)}")
    _check_least(config, AT_LEAST)
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
    if not config.evaluation.recall_at or min(config.evaluation.recall_at) < 1:
        raise BadInputError(f"evaluation.recall_at={list(config.evaluation.recall_at)}: give at least one K >= 1")
    _check_name(config.name)
    if any("://" in path for path in (config.data.root, config.data.shards, *config.data.ocean.paths)):
        raise BadInputError(
            "data.root, data.shards and data.ocean.paths are local or shared folders: only storage may be s3://..."
        )
    if config.train.final_factor > 1 or not config.train.weight_decay < math.inf:
        raise BadInputError(
            f"train.final_factor={config.train.final_factor} and train.weight_decay={config.train.weight_decay}: "
            "the factor must be at most 1 and the decay finite"
        )
    if max(config.seed, config.data.seed) >= 2**63:
        raise BadInputError(f"seed={config.seed}, data.seed={config.data.seed}: seeds must be less than 2^63")
    if config.train.precision == "bf16" and config.workers.use_gpu is False:
        raise BadInputError("train.precision=bf16 needs workers.use_gpu=true: on CPUs choose float32")
    steps = config.workers.profile_steps
    if steps and not (len(steps) == 2 and 1 <= steps[0] <= steps[1]):
        raise BadInputError(f"workers.profile_steps={list(steps)}: give the first and the last step, such as [20, 24]")
    allowed_workers(config)


def _check_least(config: Any, bounds: dict[str, float]) -> None:
    for key, least in bounds.items():
        value = OmegaConf.select(config, key)
        if not value >= least:
            raise BadInputError(f"{key}={value}: it must be at least {least}")


def _check_name(name: str) -> None:
    if "/" in name or name in ("", ".", "..") or not name.isprintable():
        raise BadInputError(f"name={name!r}: it names a folder inside storage and holds no slash")


def allowed_workers(config: Any) -> list[int]:
    """Return the numbers of workers that a run may have, ascending: those asked for that divide the lanes.

    Raises:
        BadInputError: ``workers.num_workers`` is neither a number nor a pair of them, or none divides the lanes.
    """
    asked, lanes = config.workers.num_workers, config.train.num_lanes
    bounds = [asked, asked] if type(asked) is int else list(asked) if isinstance(asked, Sequence) else []
    if len(bounds) != 2 or any(type(bound) is not int for bound in bounds) or not 1 <= bounds[0] <= bounds[1]:
        raise BadInputError(f"workers.num_workers={asked}: give a number, at least 1, or [min, max]")
    divisors = [w for w in range(1, lanes + 1) if lanes % w == 0]
    allowed = [w for w in divisors if bounds[0] <= w <= bounds[1]]
    if not allowed:
        raise BadInputError(
            f"{asked} workers do not divide {lanes} lanes: choose workers.num_workers among "
            f"{', '.join(map(str, divisors))}"
        )
    return allowed


def resolved_yaml(config: Config) -> str:
    """Return the whole configuration as YAML."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


SECTIONS_OF_SOURCE = {
    "gaussian_process": {"gaussian_process"},
    "streamfunction": {"streamfunction"},
    "ocean": {"ocean", "drifters"},
}
NEUTRAL_OCEAN = {"group": "", "max_gap_hours": None}
SECTIONS_OF_ENCODER = {
    "transformer": {"transformer"},
    "linear_inverse": {"linear_inverse"},
    "field": {"field_network"},
    "drifter_set": {"field_network"},
}


def _used(content: dict[Any, Any], sections: dict[str, set[str]], chosen: Iterable[str]) -> dict[str, Any]:
    """Leave out the sections of what is not chosen: they do not matter."""
    unused = set().union(*sections.values()) - set().union(*(sections.get(name, set()) for name in chosen))
    return {key: value for key, value in content.items() if key not in unused}


def data_identity(config: Config) -> dict[str, Any]:
    """Return what the shards are a function of: the data but not where they lie."""
    content = OmegaConf.to_container(OmegaConf.structured(config.data))
    assert isinstance(content, dict)
    used = _used(content, SECTIONS_OF_SOURCE, [config.data.source])
    ocean = used.get("ocean", {})
    ocean.pop("paths", None)  # where files lie does not matter: their names and sizes do, as provenance
    for key, neutral in NEUTRAL_OCEAN.items():
        if ocean.get(key) == neutral:
            ocean.pop(key, None)  # shards that were written without the key are the same
    return {key: value for key, value in used.items() if key not in {"root", "shards"}}


def experiment(config: Config) -> dict[str, Any]:
    """Return, flat, what a run is a function of: everything but where it runs, lies and is evaluated."""
    content = OmegaConf.to_container(OmegaConf.structured(config))
    assert isinstance(content, dict)
    parts = {key: content[key] for key in ("seed", "loss", "train")}
    model = _used(content["model"], SECTIONS_OF_ENCODER, [config.model.encoder_u, config.model.encoder_v])
    return _flatten(parts | {"data": data_identity(config), "model": model})


def _flatten(content: dict[Any, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
