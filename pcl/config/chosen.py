"""Settings of what a configuration chooses by name: the encoder of u, that of v, and the loss."""

__all__ = [
    "as_texts",
    "chosen_defaults",
    "chosen_kind",
    "resolve_chosen",
    "unimportant_of_chosen",
    "without_those_of_others",
]

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

from pcl.config.layers import built, keys_of, parsed
from pcl.config.schema import Config, tree
from pcl.encoders.registry import ENCODERS
from pcl.errors import BadInputError
from pcl.objective import LOSSES
from pcl.settings import check_settings

CHOSEN: dict[str, tuple[str, Mapping[str, Any]]] = {
    "model.settings_u": ("model.encoder_u", ENCODERS),
    "model.settings_v": ("model.encoder_v", ENCODERS),
    "loss.settings": ("loss.kind", LOSSES),
}
"""Keys that hold settings: the key that chooses whose, and what it may name."""


def chosen_kind(key: str, name: str) -> type | None:
    """Return the dataclass of the settings that a key holds where a kind is chosen by name, None if it has none."""
    kind = CHOSEN[key][1].get(name)
    is_shared = bool(getattr(kind, "section", ""))  # they have a section of the model
    return None if kind is None or is_shared else kind.settings


def without_those_of_others(layers: Sequence[Mapping[str, Any]], layer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return layers without settings of an encoder or a loss in whose place a further layer chooses another."""
    kept = [dict(one) for one in layers]
    for key, (chooser, _) in CHOSEN.items():
        (section, name), held = chooser.split("."), key.split(".")[1]
        before = next((one[section][name] for one in reversed(kept) if name in one.get(section, {})), None)
        after = layer.get(section, {}).get(name, before)
        if after != before:
            kept = [one | {section: one[section] | {held: {}}} if section in one else one for one in kept]
    return kept


def resolve_chosen(config: Config, absolute: Callable[[Any, str], None]) -> None:
    """Give settings of what is chosen their types and their defaults, in place.

    Args:
        config: whose settings are texts.
        absolute: makes places absolute that settings name.

    Raises:
        BadInputError: a setting is not known, has a wrong value, or is not given and has no default.
    """
    for key, (chooser, _) in CHOSEN.items():
        holder, attribute = getattr(config, key.split(".")[0]), key.split(".")[1]
        given = as_texts(getattr(holder, attribute))
        name = getattr(holder, chooser.split(".")[1])
        kind = chosen_kind(key, name)
        if kind is None:
            if given and name in CHOSEN[key][1]:
                raise BadInputError(f"{key}.{next(iter(given))}: {chooser}={name} has no settings here: leave it out")
            continue
        setattr(holder, attribute, tree(_made(kind, given, key, f"{chooser}={name}", absolute)))


def _made(kind: type, given: Any, key: str, chosen: str, absolute: Callable[[Any, str], None]) -> Any:
    known = keys_of(kind)
    if unknown := [name for name in given if name not in known]:
        raise BadInputError(f"{key}.{unknown[0]}: {chosen} has no such setting: it has {', '.join(known) or 'none'}")
    try:
        values = built(parsed(given, kind, f"{key}."), kind)
    except TypeError as error:
        missing = [part.name for part in fields(kind) if part.name not in given and _has_no_default(part)]
        raise BadInputError(f"{key} does not give {', '.join(missing)}, which {chosen} needs: add them") from error
    except ValueError as error:
        raise BadInputError(str(error)) from error
    absolute(values, f"{key}.")
    check_settings(values, f"{key}.")
    return values


def _has_no_default(part: Any) -> bool:
    return part.default is MISSING and part.default_factory is MISSING


def as_texts(given: Any) -> Any:
    """Return values of a mapping as a run file would give them: those of a configuration in memory have types."""
    if isinstance(given, Mapping):
        return {key: as_texts(value) for key, value in given.items()}
    if isinstance(given, list):
        return [as_texts(value) for value in given]
    return {True: "true", False: "false"}[given] if isinstance(given, bool) else "null" if given is None else str(given)


def chosen_defaults(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults of the settings of what a flat experiment chooses, flat."""
    found: dict[str, Any] = {}
    for key, (chooser, _) in CHOSEN.items():
        kind = chosen_kind(key, str(experiment.get(chooser)))
        for part in fields(kind) if kind is not None else ():
            if not _has_no_default(part):
                found[f"{key}.{part.name}"] = (
                    part.default_factory() if part.default_factory is not MISSING else part.default
                )
    return found


def unimportant_of_chosen(config: Config) -> set[str]:
    """Return the keys of settings of what is chosen on which no result depends."""
    return {
        f"{key}.{part.name}"
        for key, (chooser, _) in CHOSEN.items()
        for kind in [chosen_kind(key, getattr(getattr(config, chooser.split(".")[0]), chooser.split(".")[1]))]
        for part in (fields(kind) if kind is not None else ())
        if not part.metadata.get("is_identity", True)
    }
