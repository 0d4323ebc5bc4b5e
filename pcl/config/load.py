"""Configuration: merge, check, save. Values and their meaning are in ``pcl/config/default.yaml``."""

__all__ = [
    "Config",
    "load_config",
    "load_head_config",
    "resolved_yaml",
]

import difflib
import functools
from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints
from urllib.parse import quote, unquote

import yaml
from omegaconf import MISSING, OmegaConf

from pcl.config.checks import HEAD_AT_LEAST, HEAD_AT_MOST, check, check_bounds, check_name
from pcl.config.schema import Config, HeadConfig
from pcl.config.values import MOST_BYTES, Given, parse, read_yaml, short
from pcl.errors import BadInputError, printable
from pcl.storage.place import Place, absolute, place

DEFAULTS = Path(__file__).with_name("default.yaml")
HEAD_DEFAULTS = DEFAULTS.with_name("head.yaml")


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Merge defaults, a run file and ``key=value`` overrides, and check the result.

    Text is used as it was typed and any other value is parsed by the type of its key: see ``pcl.config.values.parse``.

    Args:
        path: the run file, in a folder or at an ``s3://`` address.
        overrides: such as ``train.epochs=3``.

    Raises:
        BadInputError: the file cannot be read, a key is not known or is not given, or a value has the wrong type
            or is out of its range.
        OSError: the run file lies in S3, which refuses.
    """
    config: Config = _merge(path, overrides, Config, DEFAULTS)
    check(config)
    config.storage = _address("storage", config.storage, place)
    config.data.root = _address("data.root", config.data.root, place)
    config.data.shards = _address("data.shards", config.data.shards, place)
    config.data.ocean.paths = [_address("data.ocean.paths", path, absolute) for path in config.data.ocean.paths]
    return config


def load_head_config(path: str | Path, overrides: Sequence[str] = ()) -> HeadConfig:
    """Merge the head's defaults, its file and ``key=value`` overrides, and check the result.

    Raises:
        BadInputError: see ``load_config``.
    """
    config: HeadConfig = _merge(path, overrides, HeadConfig, HEAD_DEFAULTS)
    check_bounds(config, HEAD_AT_LEAST, HEAD_AT_MOST)
    check_name(config.name, config.storage)
    config.storage = _address("storage", config.storage, place)
    return config


def _merge(path: str | Path, overrides: Sequence[str], schema: type, defaults: Path) -> Any:
    """Merge the layers of a configuration, each parsed by the schema."""
    file, layers = place(str(path)), [_defaults(schema, defaults)]
    for name, layer in ((f"{path}: ", file), *(("", override) for override in overrides)):
        try:
            given = _nested(layer) if isinstance(layer, str) else read_yaml(_content(layer))
            layers.append(_parsed(given, schema))
        except BadInputError:
            raise
        except ValueError as error:
            about = f"{name}{error}; every key is explained in configs/{defaults.name}"
            raise BadInputError(printable(about)) from error
    merged = OmegaConf.merge(OmegaConf.structured(schema), *layers)
    missing = sorted(OmegaConf.missing_keys(merged))
    if missing:
        raise BadInputError(
            f"{printable(path)} does not give {', '.join(missing)}: add them, or give {missing[0]}=... after the file"
        )
    return _plain(OmegaConf.to_object(merged))


@functools.cache
def _defaults(schema: type, file: Path) -> dict[str, Any]:
    return _parsed(read_yaml(_content(file)), schema, is_defaults=True)


def _content(file: Place) -> bytes:
    """Return what a run file holds, or as much of it as says that it is too large."""
    try:
        if not file.is_file():
            raise BadInputError(f"{printable(file)} does not exist: give a run file such as configs/gaussian.yaml")
        with file.open("rb") as stream:
            return bytes(stream.read(MOST_BYTES + 1))
    except OSError as error:
        if not isinstance(file, Path):
            raise
        raise BadInputError(f"{printable(file)} cannot be read: {error.strerror}") from error


def _nested(override: str) -> Given:
    """Return an override as the file would be that holds it alone."""
    key, equals, text = override.partition("=")
    if not equals:
        raise ValueError(f"{short(override)!r} is not an override: write key=value, such as train.epochs=3")
    given: Given = text
    for part in reversed(key.split(".")):
        given = {part: given}
    return given


def _kinds(schema: type) -> dict[str, Any]:
    """Return the types of a section's keys."""
    hints = get_type_hints(schema, include_extras=True)
    return {key: get_args(kind)[1] if get_origin(kind) is Annotated else kind for key, kind in hints.items()}


def _is_section(kind: Any) -> bool:
    return is_dataclass(kind)


def _keys(schema: type, prefix: str = "") -> list[str]:
    """Return all keys below a section."""
    keys: list[str] = []
    for key, kind in _kinds(schema).items():
        keys += _keys(kind, f"{prefix}{key}.") if _is_section(kind) else [f"{prefix}{key}"]
    return keys


def _parsed(given: Given, schema: type, prefix: str = "", *, is_defaults: bool = False) -> dict[str, Any]:
    """Parse what a layer gives by the types of its keys; in the defaults ``???`` is no value."""
    section = prefix.rstrip(".")
    if not isinstance(given, dict):
        example = f", such as {_keys(schema, prefix)[0]}" if section else ""
        raise ValueError(f"{section or 'the file'} holds {short(given)}: it must be a mapping of keys{example}")
    kinds, values = _kinds(schema), dict[str, Any]()
    for key, value in given.items():
        name = f"{prefix}{key}"
        if key not in kinds:
            raise ValueError(f"{short(name)!r} is not a key{_nearest(name, schema, prefix)}")
        if _is_section(kinds[key]):
            values[key] = _parsed(value, kinds[key], f"{name}.", is_defaults=is_defaults)
        elif not (is_defaults and value == MISSING):
            try:
                values[key] = _encoded(parse(value, kinds[key]))
            except ValueError as error:
                raise ValueError(f"{name}={short(value)}: {error}") from error
    return values


def _nearest(name: str, schema: type, prefix: str) -> str:
    near = difflib.get_close_matches(name[:100], _keys(schema, prefix), 1, 0.5)
    return f": the nearest is {near[0]}" if near else ""


def _encoded(value: Any) -> Any:
    """Encode texts for OmegaConf, which would take ``???`` for a value that is missing and ``${`` for a reference."""
    if isinstance(value, list):
        return [_encoded(item) for item in value]
    return quote(value) if isinstance(value, str) else value


def _plain(content: Any) -> Any:
    """Undo ``_encoded`` in a configuration."""
    if is_dataclass(content) and not isinstance(content, type):
        return replace(content, **{part.name: _plain(getattr(content, part.name)) for part in fields(content)})
    if isinstance(content, list):
        return [_plain(item) for item in content]
    return unquote(content) if isinstance(content, str) else content


def _address(key: str, address: str, place_of: Any) -> str:
    try:
        return str(place_of(address))
    except BadInputError as error:
        raise BadInputError(f"{key}={error}") from error


def resolved_yaml(config: Config) -> str:
    """Return the whole configuration as YAML."""
    return yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True)
