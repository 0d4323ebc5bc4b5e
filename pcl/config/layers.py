"""Layers of a configuration: the defaults, a run file, an override; each read and parsed by the types of its keys."""

__all__ = [
    "DEFAULTS",
    "HEAD_DEFAULTS",
    "built",
    "content",
    "decoded",
    "defaults_of",
    "encoded",
    "keys_of",
    "nested",
    "over",
    "parsed",
    "suggested",
]

import difflib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from omegaconf import MISSING

from pcl.config.schema import is_section, kinds_of, sections_of, tree
from pcl.config.values import MOST_BYTES, Given, parse, read_yaml, short
from pcl.errors import BadInputError, printable
from pcl.settings import Open
from pcl.storage.place import Place

DEFAULTS = Path(__file__).with_name("default.yaml")
HEAD_DEFAULTS = DEFAULTS.with_name("head.yaml")
LONGEST_MEANT, MOST_MEANT = 100, 5  # characters of a key that may have been meant, and keys


def defaults_of(schema: type, file: Path) -> dict[str, Any]:
    """Return the values of the page, and those of registered sections."""
    return parsed(_page(file), schema, is_defaults=True)


@cache
def _page(file: Path) -> Given:
    """Return what a page of defaults holds, which is part of the package."""
    return read_yaml(content(file))


def _registered(schema: type) -> dict[str, Any]:
    """Return the defaults of a section's registered sections."""
    return {name: encoded(tree(kind())) for name, kind in sections_of(schema).items()}


def content(file: Place) -> bytes:
    """Return what a run file holds, or as much of it as says that it is too large."""
    try:
        if not file.is_file():
            raise BadInputError(f"{printable(file)} {_is_not(file)}")
        with file.open("rb") as stream:
            return bytes(stream.read(MOST_BYTES + 1))
    except OSError as error:
        if not isinstance(file, Path):
            raise
        raise BadInputError(f"{printable(file)} cannot be read: {error.strerror}") from error


def _is_not(file: Place) -> str:
    """Return why what was named configures nothing, and what does."""
    if file.name.startswith("checkpoint_"):
        return "is no configuration: give its run, and evaluation.checkpoint=... to choose it"
    if not file.exists() and file.suffix not in (".yaml", ".yml"):
        return (
            "does not exist: a run's folder is there once it is trained, with pcl train and its run file; or give that "
            "run file"
        )
    found = "is a folder without config.yaml" if file.is_dir() else "does not exist"
    return f"{found}: give a run file, such as configs/gaussian.yaml, or the folder of a run"


def nested(override: str) -> Given:
    """Return an override as the file would be that holds it alone."""
    key, equals, text = override.partition("=")
    if not equals:
        is_cut = override.endswith(("]", "}", ":", ","))  # a list or mapping that a shell took apart
        remedy = (
            "quote what holds spaces, such as 'seeds=[0, 1]'" if is_cut else "write key=value, such as train.epochs=3"
        )
        raise ValueError(f"{short(override)!r} is not an override: {remedy}")
    given: Given = text
    for part in reversed(key.split(".")):
        given = {part: given}
    return given


def over(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return two nested mappings as one; what both give is that of the second.

    Example:
        >>> over({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 4}})
        {'a': {'b': 4, 'c': 2}, 'd': 3}
    """
    joined = dict(one)
    for key, value in other.items():
        before = joined.get(key)
        joined[key] = over(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return joined


def keys_of(schema: type, prefix: str = "") -> list[str]:
    """Return all keys below a section."""
    keys: list[str] = []
    for key, kind in kinds_of(schema).items():
        keys += keys_of(kind, f"{prefix}{key}.") if is_section(kind) else [f"{prefix}{key}"]
    return keys


def parsed(given: Given, schema: type, prefix: str = "", *, is_defaults: bool = False) -> dict[str, Any]:
    """Parse what a layer gives by the types of its keys; in the defaults ``???`` is no value."""
    return _parsed(given, schema, prefix, lambda name: suggested(name, schema, prefix), is_defaults=is_defaults)


def _parsed(
    given: Given, schema: type, prefix: str, meant: Callable[[str], str], *, is_defaults: bool
) -> dict[str, Any]:
    section = prefix.rstrip(".")
    if not isinstance(given, dict):
        example = f", such as {keys_of(schema, prefix)[0]}" if section else ""
        raise ValueError(f"{section or 'the file'} holds {short(given)}: it must be a mapping of keys{example}")
    kinds, values = kinds_of(schema), _registered(schema) if is_defaults else dict[str, Any]()
    for key, value in given.items():
        name = f"{prefix}{key}"
        if key not in kinds:
            is_kind = isinstance(value, dict) and issubclass(schema, Open)
            kind = "; settings of a kind of your own need the file that registers it, plugins=[that_plugin.py]"
            raise ValueError(f"{short(name)!r} is not a key{meant(name)}{kind if is_kind else ''}")
        if is_section(kinds[key]):
            values[key] = _parsed(value, kinds[key], f"{name}.", meant, is_defaults=is_defaults)
        elif not (is_defaults and value == MISSING):
            try:
                values[key] = encoded(parse(value, kinds[key]))
            except ValueError as error:
                raise ValueError(f"{name}={short(value)}: {error}") from error
    return values


def suggested(name: str, schema: type, prefix: str = "") -> str:
    """Return the end of a sentence that says which keys somebody may have meant by one that is none.

    Those of another section come first, then those that go on as it ends, then the nearest.

    Example:
        >>> from pcl.config.schema import Config
        >>> suggested("epochs", Config), suggested("model.encoder", Config), suggested("train.epoch", Config)
        (': write train.epochs', ': write one of model.encoder_u, model.encoder_v', ': the nearest is train.epochs')
    """
    keys, (outer, _, last) = keys_of(schema, prefix), name[:LONGEST_MEANT].rpartition(".")
    sections = list(dict.fromkeys(key.rpartition(".")[0] for key in keys))
    ends = [(key, key.rpartition(".")[2]) for key in (*keys, *sections)]
    likes = [key for key, end in ends if end == last] or [key for key, end in ends if end.startswith(f"{last}_")]
    likes = [key for key in likes if key.startswith(f"{outer}.")] or likes
    if likes and last:
        more = f" or {len(likes) - MOST_MEANT} others" if len(likes) > MOST_MEANT else ""
        return f": write {'one of ' if len(likes) > 1 else ''}{', '.join(likes[:MOST_MEANT])}{more}"
    near = difflib.get_close_matches(name[:LONGEST_MEANT], [*keys, *filter(None, sections)], 1, 0.5)
    return f": the nearest is {near[0]}" if near else ""


def encoded(value: Any) -> Any:
    """Encode texts for OmegaConf, which would take ``???`` for a value that is missing and ``${`` for a reference."""
    if isinstance(value, dict):
        return {key: encoded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [encoded(item) for item in value]
    return quote(value) if isinstance(value, str) else value


def decoded(value: Any) -> Any:
    """Undo ``encoded``."""
    if isinstance(value, dict):
        return {key: decoded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [decoded(item) for item in value]
    return unquote(value) if isinstance(value, str) else value


def built(content: dict[str, Any], schema: type) -> Any:
    """Return a section, given as encoded values, as its dataclass."""
    opened, kinds = sections_of(schema), kinds_of(schema)
    values = {
        name: built(value, kinds[name]) if is_section(kinds[name]) else decoded(value)
        for name, value in content.items()
    }
    if issubclass(schema, Open):
        values["sections"] = {name: values.pop(name) for name in opened}
    return schema(**values)
