"""The page of all keys: every key with its default, its choices, its meaning and its unit, as YAML."""

__all__ = ["choices_as_typed", "is_on_page", "keys_as_typed", "page_of_keys"]

import re
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, is_dataclass
from typing import Any

import yaml

from pcl.config.chosen import CHOSEN, chosen_kind
from pcl.config.layers import DEFAULTS, HEAD_DEFAULTS, suggested
from pcl.config.schema import OPEN_CHOICES, Config, is_section, kinds_of, sections_of
from pcl.config.values import short
from pcl.errors import BadInputError, printable
from pcl.settings import own_fields

COMMENT_COLUMN, TYPED_COLUMN = 30, 30
KEY = re.compile(r"( *)([a-z_]+):([^#]*)(?:# ?(.*))?")
NOT_GIVEN = "???"  # instead of a default: a run file or a command line gives one


@dataclass(frozen=True)
class Line:
    """A line of the page.

    Attributes:
        key: whole, such as ``train.epochs``, or that of the section; empty where the line belongs to none.
        value: the default as YAML, empty of a section.
        about: choices, meaning and unit.
        text: of a line that is no key: a comment, or nothing.
    """

    key: str
    value: str = ""
    about: str = ""
    text: str | None = None

    def __str__(self) -> str:
        """Return the line as the page shows it."""
        if self.text is not None:
            return self.text
        *outer, last = self.key.split(".")
        shown = f"{'  ' * len(outer)}{last}: {self.value}".rstrip()
        return f"{shown:<{COMMENT_COLUMN - 1}} # {self.about}" if self.about else shown


def page_of_keys(section: str = "") -> str:
    """Page of every key with its default, its choices and its meaning, those of registered sections too.

    Args:
        section: shows this section, or this key, alone; ``head``: the keys of the head.

    Raises:
        BadInputError: there is no such section.

    Example:
        >>> print(page_of_keys("train.epochs"))
        train:
          epochs: ???                 # passes over the training split
    """
    if section == "head":
        return HEAD_DEFAULTS.read_text()
    lines = [*_lines()]
    if section:
        if not is_on_page(section):
            near = suggested(section, Config) or ": pcl config lists all"
            raise BadInputError(f"{printable(short(section))!r} is no section of a configuration{near}")
        outer = [section[: dot.start()] for dot in re.finditer(r"\.", section)]
        lines = [line for line in lines if line.key in (*outer, section) or line.key.startswith(f"{section}.")]
        while lines[-1].text == "":
            lines.pop()
    return "".join(f"{line}\n" for line in lines)


def is_on_page(key: str) -> bool:
    """Return whether the page shows a key or a section, or is that of the head."""
    return key == "head" or key in {line.key for line in _lines()}


def keys_as_typed(keys: Sequence[str]) -> list[str]:
    """Return keys as a command line gives them, with default and meaning.

    Args:
        keys: of a configuration, or of the head where they begin with ``head.``.

    Example:
        >>> keys_as_typed(["train.epochs"])
        ['train.epochs=...               passes over the training split']
    """
    known = {line.key: line for line in _lines()}
    known |= {
        f"head.{key}": Line(key, value, about) for key, value, about in _written(HEAD_DEFAULTS.read_text()) if key
    }
    return [_as_typed(known[key]) for key in keys]


def choices_as_typed(config: Config) -> list[str]:
    """Return the keys of the kind of pairs, the encoders and the loss that a configuration chooses, as it sets them."""
    source = config.data.source
    lines = [*_section(f"data.{source}", config.data.sections[source])] if source in config.data.sections else []
    for key, (chooser, _) in CHOSEN.items():
        (section, held), name = key.split("."), chooser.partition(".")[2]
        kind = chosen_kind(key, getattr(getattr(config, section), name))
        values = getattr(getattr(config, section), held)
        for part in own_fields(kind) if kind is not None else ():
            about = _about(part.metadata.get("choices", ()), part.metadata.get("meaning", ""))
            lines.append(Line(f"{key}.{part.name}", _as_yaml(values[part.name]), about))
    return [_as_typed(line) for line in lines if line.value]


def _as_typed(line: Line) -> str:
    value = line.value.replace(NOT_GIVEN, "...").replace('""', "").replace("''", "")
    return f"{f'{line.key}={value}':{TYPED_COLUMN}} {line.about}"


def _written(page: str) -> Iterator[tuple[str, str, str]]:
    """Yield key, value and comment of each line of a file of defaults; the line itself where it is no key."""
    outer = list[str]()
    for line in page.splitlines():
        found = KEY.fullmatch(line)
        if found is None:
            yield "", line, ""
        else:
            outer = [*outer[: len(found[1]) // 2], found[2]]
            yield ".".join(outer), found[3].strip(), found[4] or ""


def _lines() -> Iterator[Line]:
    """Yield the lines of the whole page."""
    choices, section = _choices(Config) | {key: tuple(names) for key, names in OPEN_CHOICES.items()}, ""
    for key, value, about in [*_written(DEFAULTS.read_text()), ("end", "", "")]:
        if not key:
            yield from _registered(section) if not value else ()
            section = section if value else ""
            yield Line("", text=value)
            continue
        if key == "end":
            yield from _registered(section)
            return
        section = key.partition(".")[0]
        yield Line(key, value, _about(choices.get(key, ()), about))


def _choices(schema: type, prefix: str = "") -> dict[str, tuple[str, ...]]:
    """Return the choices of the keys that have few."""
    found = {f"{prefix}{part.name}": part.metadata.get("choices", ()) for part in own_fields(schema)}
    for name, kind in kinds_of(schema).items():
        found |= _choices(kind, f"{prefix}{name}.") if is_section(kind) else {}
    return found


def _about(choices: Sequence[str], meaning: str) -> str:
    return "; ".join(filter(None, (" | ".join(choices), meaning)))


def _registered(section: str) -> Iterator[Line]:
    """Yield what is registered in an outermost section: sections, and the settings of what is chosen by name."""
    kind = kinds_of(Config).get(section)
    inner = sections_of(kind) if is_section(kind) else {}
    for name, one in inner.items():
        yield from _section(f"{section}.{name}", one())
    keys = [key for key in CHOSEN if key.startswith(f"{section}.")]
    for name in sorted({name for key in keys for name in CHOSEN[key][1] if chosen_kind(key, name) is not None}):
        yield Line(f"{section}.", text=f"  # {' and '.join(key.partition('.')[2] for key in keys)} of {name}:")
        for part in own_fields(chosen_kind(keys[0], name)):
            yield Line(f"{section}.", text=f"  #   {_as_comment(part)}")


def _as_comment(part: Any) -> str:
    default = NOT_GIVEN if part.default is MISSING and part.default_factory is MISSING else part.default
    value = part.default_factory() if part.default_factory is not MISSING else default
    shown = f"{part.name}: {_as_yaml(value)}"
    about = _about(part.metadata.get("choices", ()), part.metadata.get("meaning", ""))
    return f"{shown:<{COMMENT_COLUMN - 7}} # {about}" if about else shown


def _section(key: str, default: Any) -> Iterator[Line]:
    yield Line(key)
    for part in own_fields(default):
        value, inner = getattr(default, part.name), f"{key}.{part.name}"
        if is_dataclass(value):
            yield from _section(inner, value)
        else:
            yield Line(inner, _as_yaml(value), _about(part.metadata["choices"], part.metadata["meaning"]))


def _as_yaml(value: Any) -> str:
    if value == NOT_GIVEN:
        return NOT_GIVEN
    return yaml.safe_dump(value, default_flow_style=True, width=1000).split("\n")[0]
