"""Configuration: merge, check, save. Values and their meaning are in ``pcl/config/default.yaml``."""

__all__ = ["DEFAULTS", "HEAD_DEFAULTS", "Config", "load_config", "load_head_config", "resolved_yaml"]

from collections.abc import Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from pcl.config.identity import renamed
from pcl.config.layers import DEFAULTS, HEAD_DEFAULTS, content, decoded, defaults_of, keys_of, nested, parsed
from pcl.config.schema import Config, HeadConfig, is_section, kinds_of, sections_of, tree
from pcl.config.validation import check, check_head
from pcl.config.values import read_yaml
from pcl.errors import BadInputError, printable
from pcl.settings import Open, own_fields
from pcl.storage.place import absolute, place

KEYS_SHOWN_BY = {Config: "pcl config", HeadConfig: "pcl head --help"}


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
    _make_absolute(config, "")
    return config


def load_head_config(path: str | Path, overrides: Sequence[str] = ()) -> HeadConfig:
    """Merge the head's defaults, its file and ``key=value`` overrides, and check the result.

    Raises:
        BadInputError: see ``load_config``.
    """
    config: HeadConfig = _merge(path, overrides, HeadConfig, HEAD_DEFAULTS)
    check_head(config)
    _make_absolute(config, "")
    return config


def _merge(path: str | Path, overrides: Sequence[str], schema: type, defaults: Path) -> Any:
    """Merge the layers of a configuration, each parsed by the schema."""
    file, layers = place(str(path)), [defaults_of(schema, defaults)]
    for name, layer in ((f"{path}: ", file), *(("", override) for override in overrides)):
        try:
            given = nested(layer) if isinstance(layer, str) else read_yaml(content(layer))
            layers.append(parsed(renamed(given) if schema is Config else given, schema))
        except BadInputError:
            raise
        except ValueError as error:
            raise BadInputError(
                printable(f"{name}{error}; every key is explained by {KEYS_SHOWN_BY[schema]}")
            ) from error
    merged: Any = OmegaConf.to_container(OmegaConf.merge(*layers))
    if missing := [key for key in keys_of(schema) if _is_missing(merged, key)]:
        raise BadInputError(
            f"{printable(path)} does not give {', '.join(missing)}: add them, or give {missing[0]}=... after the file"
        )
    return _built(merged, schema)


def _is_missing(content: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(content, dict) or part not in content:
            return True
        content = content[part]
    return False


def _built(content: dict[str, Any], schema: type) -> Any:
    """Return a section as its dataclass."""
    opened, kinds = sections_of(schema), kinds_of(schema)
    values = {
        name: _built(value, kinds[name]) if is_section(kinds[name]) else decoded(value)
        for name, value in content.items()
    }
    if issubclass(schema, Open):
        values["sections"] = {name: values.pop(name) for name in opened}
    return schema(**values)


def _make_absolute(section: Any, prefix: str) -> None:
    """Make the places that a section and those within it name absolute."""
    for name, inner in section.sections.items() if isinstance(section, Open) else ():
        _make_absolute(inner, f"{prefix}{name}.")
    for part in own_fields(section):
        value, key = getattr(section, part.name), f"{prefix}{part.name}"
        if is_dataclass(value):
            _make_absolute(value, f"{key}.")
        elif part.metadata.get("is_place"):
            setattr(
                section,
                part.name,
                [_address(key, one, absolute) for one in value]
                if isinstance(value, list)
                else _address(key, value, place),
            )


def _address(key: str, address: str, place_of: Any) -> str:
    try:
        return str(place_of(address))
    except BadInputError as error:
        raise BadInputError(f"{key}={error}") from error


def resolved_yaml(config: Config) -> str:
    """Return the whole configuration as YAML."""
    return yaml.safe_dump(tree(config), sort_keys=False, allow_unicode=True)
