"""Configuration: merge, check, save. Values and their meaning are in ``pcl/config/default.yaml``."""

__all__ = [
    "DEFAULTS",
    "HEAD_DEFAULTS",
    "Config",
    "config_of",
    "layers_of",
    "load_config",
    "load_head_config",
    "resolved_yaml",
]

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from pcl.config.chosen import as_texts, resolve_chosen, without_those_of_others
from pcl.config.identity import renamed
from pcl.config.layers import DEFAULTS, HEAD_DEFAULTS, built, content, defaults_of, keys_of, nested, parsed
from pcl.config.schema import Config, HeadConfig, tree
from pcl.config.stored import CONFIG, as_it_lies, known_here, run_of
from pcl.config.validation import check, check_head
from pcl.config.values import Given, parse, read_yaml, short
from pcl.errors import BadInputError, printable
from pcl.plugins.loading import load_plugins
from pcl.settings import Open, own_fields
from pcl.storage.inputs import input_at, is_address
from pcl.storage.place import Place, absolute, place

PLUGINS = "plugins"
KEYS_SHOWN_BY = {Config: "pcl config", HeadConfig: "pcl config head"}


def load_config(path: str | Path, overrides: Sequence[str] = (), between: Sequence[tuple[str, Given]] = ()) -> Config:
    """Merge defaults, a run file and ``key=value`` overrides, and check the result.

    Text is used as it was typed and any other value is parsed by the type of its key: see ``pcl.config.values.parse``.

    Args:
        path: a run file or the folder of a run, in a folder or at an ``s3://`` address. A run is configured as it
            recorded, with the name and the storage where it lies now, and without plugins: those of ``overrides``.
        overrides: such as ``train.epochs=3``.
        between: layers between the file and the overrides, each with what messages on it begin with.

    Raises:
        BadInputError: the file cannot be read, a key is not known or is not given, or a value has the wrong type
            or is out of its range.
        OSError: the run file lies in S3, which refuses.
    """
    return _checked(_merge(path, overrides, Config, DEFAULTS, between))


def _checked(config: Config) -> Config:
    resolve_chosen(config, _make_absolute)
    check(config)
    _make_absolute(config, "")
    return config


def config_of(values: Mapping[str, Any]) -> Config:
    """Return the configuration of values by their full keys, such as ``{"train.epochs": 3}``, beside the defaults.

    Raises:
        BadInputError: see ``load_config``.
    """
    given: dict[str, Given] = {}
    for key, value in values.items():
        *outer, last = key.split(".")
        holder: Any = given
        for part in outer:
            holder = holder.setdefault(part, {})
        holder[last] = as_texts(value)
    return _checked(_merged([("", given)], "the configuration", Config, DEFAULTS))


def load_head_config(path: str | Path, overrides: Sequence[str] = ()) -> HeadConfig:
    """Merge the head's defaults, its file and ``key=value`` overrides, and check the result.

    Raises:
        BadInputError: see ``load_config``.
    """
    config: HeadConfig = _merge(path, overrides, HeadConfig, HEAD_DEFAULTS)
    check_head(config)
    _make_absolute(config, "")
    return config


def _merge(
    path: str | Path,
    overrides: Sequence[str],
    schema: type,
    defaults: Path,
    between: Sequence[tuple[str, Given]] = (),
) -> Any:
    """Merge the layers of a configuration, each parsed by the schema."""
    file = place(str(path))
    run = run_of(file) if schema is Config else None
    given = layers_of(f"{path}: ", run / CONFIG if run else file, overrides, schema)
    if run:
        given[0] = (given[0][0], as_it_lies(given[0][1], run, file))
    if schema is Config:
        load_plugins(_plugins(given))  # what they register may be named, and have a section
    if run:
        given[0] = (given[0][0], known_here(given[0][1], run))
    given[1:1] = between
    return _merged(given, str(path), schema, defaults)


def _merged(given: Sequence[tuple[str, Given]], whole: str, schema: type, defaults: Path) -> Any:
    """Return layers and the defaults as one configuration, each parsed by the schema."""
    layers = [defaults_of(schema, defaults)]
    for name, layer in given:
        with _explained(name, schema):
            values = parsed(renamed(layer) if schema is Config else layer, schema)
        layers = [*without_those_of_others(layers, values), values]
    merged: Any = OmegaConf.to_container(OmegaConf.merge(_container(json.dumps(layers[0])), *layers[1:]))
    if missing := [key for key in keys_of(schema) if _is_missing(merged, key)]:
        raise BadInputError(
            f"{printable(whole)} does not give {', '.join(missing)}: add them, or give {missing[0]}=... after the file"
        )
    return built(merged, schema)


@lru_cache(maxsize=8)
def _container(layer: str) -> DictConfig:
    """Return defaults as OmegaConf holds them: hundreds of nodes, which take longer to make than to copy."""
    made: DictConfig = OmegaConf.create(json.loads(layer))
    return made


@contextmanager
def _explained(name: str, schema: type) -> Iterator[None]:
    """Raise what is wrong with a layer as bad input, with the page that explains every key."""
    try:
        yield
    except BadInputError:
        raise
    except ValueError as error:
        raise BadInputError(printable(f"{name}{error}; every key is explained by {KEYS_SHOWN_BY[schema]}")) from error


def layers_of(prefix: str, file: Place, overrides: Sequence[str], schema: type) -> list[tuple[str, Given]]:
    """Return what a run file and overrides give, as texts, each with what messages on it begin with.

    Raises:
        BadInputError: one of them cannot be read.
    """
    layers = list[tuple[str, Given]]()
    for name, layer in ((prefix, file), *(("", override) for override in overrides)):
        with _explained(name, schema):
            given = nested(layer) if isinstance(layer, str) else read_yaml(content(layer))
            if isinstance(given, dict) and PLUGINS in given:
                is_of_cwd = isinstance(layer, str) or not isinstance(layer, Path)
                folder = Path() if is_of_cwd else Path(str(layer)).parent
                try:
                    named = parse(given[PLUGINS], list[str])
                except ValueError as error:
                    raise ValueError(f"{PLUGINS}={short(given[PLUGINS])}: {error}") from error
                given = given | {PLUGINS: [str((folder / one).absolute()) for one in named]}
        layers.append((name, given))
    return layers


def _plugins(layers: Sequence[tuple[str, Given]]) -> Sequence[str]:
    """Return the plugins that the last layer gives which gives any."""
    given = [layer[PLUGINS] for _, layer in layers if isinstance(layer, dict) and PLUGINS in layer]
    return given[-1] if given else []  # type: ignore[return-value]


def _is_missing(content: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(content, dict) or part not in content:
            return True
        content = content[part]
    return False


def _make_absolute(section: Any, prefix: str) -> None:
    """Make the places that a section and those within it name absolute."""
    for name, inner in section.sections.items() if isinstance(section, Open) else ():
        _make_absolute(inner, f"{prefix}{name}.")
    for part in own_fields(section):
        value, key = getattr(section, part.name), f"{prefix}{part.name}"
        if is_dataclass(value):
            _make_absolute(value, f"{key}.")
        elif part.metadata.get("is_place") and value is not None:
            setattr(
                section,
                part.name,
                [_address(part, key, one, absolute) for one in value]
                if isinstance(value, list)
                else _address(part, key, value, place),
            )


def _address(part: Any, key: str, address: str, place_of: Any) -> str:
    try:
        is_remote = part.metadata.get("is_input") and is_address(address)
        return str((input_at if is_remote else place_of)(address))
    except BadInputError as error:
        raise BadInputError(f"{key}={error}") from error


def resolved_yaml(config: Config) -> str:
    """Return the whole configuration as YAML."""
    return yaml.safe_dump(tree(config), sort_keys=False, allow_unicode=True)
