"""The page of all keys: every key with its default, its choices, its meaning and its unit, as YAML."""

__all__ = ["page_of_keys"]

import re
from dataclasses import is_dataclass
from typing import Any

import yaml

from pcl.config.layers import DEFAULTS
from pcl.config.schema import OPEN_CHOICES, Config, is_section, kinds_of, sections_of
from pcl.settings import own_fields

COMMENT_COLUMN = 30
KEY = re.compile(r"( *)([a-z_]+):([^#]*)(?:# ?(.*))?")


def page_of_keys() -> str:
    """Return every key with its default, its choices and its meaning, those of registered sections too."""
    lines, outer = list[str](), list[str]()
    choices = _choices(Config) | {key: tuple(names) for key, names in OPEN_CHOICES.items()}
    for line in [*DEFAULTS.read_text().splitlines(), "end:"]:
        found = KEY.fullmatch(line)
        if found is None:
            lines.append(line)
            continue
        depth = len(found[1]) // 2
        if depth == 0 and outer:
            lines[-1:-1] = _registered(outer[0])  # before the empty line that ends a section
        outer = [*outer[:depth], found[2]]
        key = ".".join(outer)
        lines.append(_line(found[1] + found[2], found[3].strip(), choices.get(key, ()), found[4] or ""))
    return "\n".join(lines[:-1]) + "\n"


def _choices(schema: type, prefix: str = "") -> dict[str, tuple[str, ...]]:
    """Return the choices of the keys that have few."""
    found = {f"{prefix}{part.name}": part.metadata.get("choices", ()) for part in own_fields(schema)}
    for name, kind in kinds_of(schema).items():
        found |= _choices(kind, f"{prefix}{name}.") if is_section(kind) else {}
    return found


def _line(key: str, value: str, choices: tuple[str, ...], meaning: str) -> str:
    """Return a key as the page shows it."""
    about = "; ".join(filter(None, (" | ".join(choices), meaning)))
    shown = f"{key}: {value}".rstrip()
    return f"{shown:<{COMMENT_COLUMN - 1}} # {about}" if about else shown


def _registered(section: str) -> list[str]:
    """Return the registered sections of an outermost section."""
    kind = kinds_of(Config).get(section)
    inner = sections_of(kind) if is_section(kind) else {}
    return [line for name, one in inner.items() for line in _section(name, one(), 1)]


def _section(name: str, default: Any, depth: int) -> list[str]:
    lines = [f"{'  ' * depth}{name}:"]
    for part in own_fields(default):
        value = getattr(default, part.name)
        if is_dataclass(value):
            lines += _section(part.name, value, depth + 1)
            continue
        shown = yaml.safe_dump(value, default_flow_style=True, width=1000).split("\n")[0]
        key = "  " * (depth + 1) + part.name
        lines.append(_line(key, shown, part.metadata["choices"], part.metadata["meaning"]))
    return lines
