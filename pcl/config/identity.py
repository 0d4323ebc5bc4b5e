"""What results are a function of: the identity of shards and of runs, key by key, and how records of it are compared.

Records outlive code: a key that a record lacks counts as its default, and a key that has another name by now counts as
that. Keys that change no number are no part of an identity, whatever a record says of them.
"""

__all__ = ["data_identity", "differing", "experiment", "experiment_hash", "flatten", "renamed"]

import hashlib
import json
from collections.abc import Mapping
from dataclasses import Field, fields, is_dataclass
from typing import Any

from pcl.config.chosen import chosen_defaults, unimportant_of_chosen
from pcl.config.layers import DEFAULTS, decoded, defaults_of
from pcl.config.schema import AUGMENT, Config, is_section, kinds_of
from pcl.encoders.registry import ENCODERS
from pcl.plugins.loading import hashes
from pcl.problems.problem import PROBLEMS
from pcl.settings import Open, own_fields

RENAMED = {
    "data.drifters": "data.ocean.drifters",
    "evaluation.fields": "evaluation.ocean",
    "loss.exact_normaliser": "loss.normaliser",
}
VALUES = {"loss.exact_normaliser": {"true": "atoms", "false": "batch"}}  # by their present names, as texts
ABSENT = object()


def experiment_hash(experiment: Mapping[str, Any]) -> str:
    """Return a short hash of what a run is a function of.

    Example:
        >>> experiment_hash({"seed": 0}) == experiment_hash({"seed": 1})
        False
    """
    return hashlib.sha256(json.dumps(experiment, sort_keys=True).encode()).hexdigest()[:16]


def data_identity(config: Config) -> dict[str, Any]:
    """Return what the shards are a function of: the data but not where they lie."""
    plugin = PROBLEMS[config.data.source].plugin
    return _identity(config.data, {config.data.source}) | ({"plugin": plugin} if plugin else {})


def experiment(config: Config) -> dict[str, Any]:
    """Return, flat, what a run is a function of: everything but where it runs, lies, is logged and is evaluated."""
    chosen = (config.model.encoder_u, config.model.encoder_v)
    used = {ENCODERS[name].section or name for name in chosen if name in ENCODERS}
    parts = {"seed": config.seed, "loss": _identity(config.loss), "train": _identity(config.train)}
    parts |= {"data": _identity(config.data, {config.data.source, AUGMENT}), "model": _identity(config.model, used)}
    whole = flatten(parts | {"plugins": hashes(config.plugins)})
    return {key: value for key, value in whole.items() if key not in unimportant_of_chosen(config)}


def is_part(part: Field[Any]) -> bool:
    """Return whether results depend on a field of settings."""
    return bool(part.metadata.get("is_identity", True))


def _is_told(part: Field[Any], value: Any) -> bool:
    """Return whether a record of an identity holds a value: not where it is a default that changes nothing."""
    return is_part(part) and not (part.metadata.get("is_neutral", False) and value == part.default)


def _identity(section: Any, used: set[str] = frozenset()) -> dict[str, Any]:  # type: ignore[assignment]
    """Return what of a section results depend on, of registered sections within it those that are used."""
    held = section.sections if isinstance(section, Open) else {}
    values = ((part, getattr(section, part.name)) for part in own_fields(section))
    own = {part.name: value for part, value in values if _is_told(part, value)}
    used_ones = {name: one for name, one in held.items() if name in used}
    return {name: _identity(value) if is_dataclass(value) else value for name, value in (own | used_ones).items()}


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, whose keys are joined by dots.

    Example:
        >>> flatten({"train": {"epochs": 3}, "seed": 0})
        {'train.epochs': 3, 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def renamed(given: Any) -> Any:
    """Return nested keys, and what they hold, by their present names.

    Example:
        >>> renamed({"loss": {"exact_normaliser": True}})
        {'loss': {'normaliser': 'atoms'}}
        >>> renamed({"data": {"drifters": {"noise_m": 1.0}}})
        {'data': {'ocean': {'drifters': {'noise_m': 1.0}}}}
    """
    for old, name in RENAMED.items():
        *outer, last = old.split(".")
        holder = given
        for part in outer:
            holder = holder.get(part) if isinstance(holder, dict) else None
        if not isinstance(holder, dict) or last not in holder:
            continue
        kept = {key: value for key, value in holder.items() if key != last}
        moved: Any = VALUES.get(old, {}).get(str(holder[last]).lower(), holder[last])
        for part in reversed(name.split(".")[len(outer) :]):
            moved = {part: moved}
        given = _put(given, outer, _merged(kept, moved))
    return given


def _put(content: Any, path: list[str], value: Any) -> Any:
    return value if not path else content | {path[0]: _put(content[path[0]], path[1:], value)}


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return two nested mappings as one; what both give is that of the first."""
    merged = dict(one)
    for key, value in other.items():
        if isinstance(merged.get(key), dict) and isinstance(value, dict):
            merged[key] = _merged(merged[key], value)
        else:
            merged.setdefault(key, value)
    return merged


def differing(recorded: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return the keys in which a recorded identity differs from that of a configuration, each nested or flat.

    Args:
        recorded: as some version of this program wrote it.
        wanted: of today's configuration.

    Example:
        >>> differing({"train.epochs": 3, "train.log_every": 5}, {"train.epochs": 4, "loss.mode": "auto"})
        ['train.epochs']
    """
    given: dict[str, Any] = {}
    for key, value in flatten(recorded).items():
        *outer, last = key.split(".")
        inner: dict[str, Any] = {last: value}
        for part in reversed(outer):
            inner = {part: inner}
        given = _merged(given, inner)
    found, wanted = flatten(renamed(given)), flatten(wanted)
    unimportant, defaults = _unimportant(Config), _default_values() | chosen_defaults(wanted)
    return [
        key
        for key in sorted({*found, *wanted} - unimportant)
        if found.get(key, defaults.get(key, ABSENT)) != wanted.get(key, defaults.get(key, ABSENT))
    ]


def _default_values() -> dict[str, Any]:
    return flatten(decoded(defaults_of(Config, DEFAULTS)))


def _unimportant(schema: type, prefix: str = "") -> set[str]:
    """Return the keys on which no result depends, among those of the sections that are part of an identity."""
    keys = {f"{prefix}{part.name}" for part in fields(schema) if not is_part(part)}
    for name, kind in kinds_of(schema).items():
        if is_section(kind):
            keys |= _unimportant(kind, f"{prefix}{name}.")
    return keys
