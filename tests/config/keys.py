"""Keys of a configuration, with their types, bounds and values, for tests that go through all of them."""

import dataclasses
from typing import Any, get_origin

from pcl.config.schema import Config, is_section, kinds_of, sections_of, tree


def kinds(schema: type, prefix: str = "") -> dict[str, Any]:
    """Return the types of all keys."""
    found: dict[str, Any] = {}
    for name, kind in kinds_of(schema).items():
        found |= kinds(kind, f"{prefix}{name}.") if is_section(kind) else {f"{prefix}{name}": kind}
    return found


def at_most(schema: type, prefix: str = "") -> dict[str, float]:
    """Return the upper bounds of the keys that have one."""
    found: dict[str, float] = {}
    for part in dataclasses.fields(schema):
        bound = part.metadata.get("bounds", {}).get("at_most")
        found |= {} if bound is None else {f"{prefix}{part.name}": bound}
    for name, kind in kinds_of(schema).items():
        found |= at_most(kind, f"{prefix}{name}.") if is_section(kind) else {}
    return found


def value(config: Any, key: str) -> Any:
    """Return the value of a key."""
    return plain(tree(config))[key]


def plain(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one by their keys, but for mappings that are the value of a key."""
    found: dict[str, Any] = {}
    for name, inner in content.items():
        is_value = not isinstance(inner, dict) or get_origin(KINDS.get(f"{prefix}{name}")) is dict
        found |= {f"{prefix}{name}": inner} if is_value else plain(inner, f"{prefix}{name}.")
    return found


def with_value(section: Any, key: str, other: Any) -> Any:
    """Return a copy of a section with another value of a key."""
    name, _, rest = key.partition(".")
    if name in sections_of(type(section)):
        sections = section.sections | {name: with_value(section.sections[name], rest, other)}
        return dataclasses.replace(section, sections=sections)
    return dataclasses.replace(section, **{name: with_value(getattr(section, name), rest, other) if rest else other})


KINDS = kinds(Config)
KEYS = sorted(KINDS)
