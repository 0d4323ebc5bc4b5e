"""What results are a function of: the identity of shards and of runs, key by key, and its hash."""

__all__ = ["data_identity", "experiment", "experiment_hash"]

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from pcl.config.schema import Config


def experiment_hash(experiment: Mapping[str, Any]) -> str:
    """Return a short hash of what a run is a function of.

    Example:
        >>> experiment_hash({"seed": 0}) == experiment_hash({"seed": 1})
        False
    """
    return hashlib.sha256(json.dumps(experiment, sort_keys=True).encode()).hexdigest()[:16]


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
    used = _used(asdict(config.data), SECTIONS_OF_SOURCE, [config.data.source])
    ocean = used.get("ocean", {})
    ocean.pop("paths", None)  # where files lie does not matter: their names and sizes do, as provenance
    for key, neutral in NEUTRAL_OCEAN.items():
        if ocean.get(key) == neutral:
            ocean.pop(key, None)  # shards that were written without the key are the same
    return {key: value for key, value in used.items() if key not in {"root", "shards"}}


def experiment(config: Config) -> dict[str, Any]:
    """Return, flat, what a run is a function of: everything but where it runs, lies and is evaluated."""
    content = asdict(config)
    parts = {key: content[key] for key in ("seed", "loss", "train")}
    model = _used(content["model"], SECTIONS_OF_ENCODER, [config.model.encoder_u, config.model.encoder_v])
    return _flatten(parts | {"data": data_identity(config), "model": model})


def _flatten(content: dict[Any, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
