"""Variants of a run file: the runs that it stands for, each with a configuration of its own.

A run of a variant is configured by the defaults, the run file, the variant, its seed and the command line, in this
order, and is named ``<name>-<variant>-<seed>``: a seed or a variant that is added later repeats no run. Variants may be
crossed with others: then the product is meant, but for those that are left out.
"""

__all__ = ["Planned", "Sweep", "load_sweep"]

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import reduce
from pathlib import Path
from typing import Any

from pcl.config.identity import experiment
from pcl.config.layers import over
from pcl.config.load import layers_of, load_config
from pcl.config.schema import MOST_SEED, Config
from pcl.config.stored import run_of
from pcl.config.validation import check
from pcl.config.values import Given, parse, short
from pcl.errors import BadInputError, printable
from pcl.storage.place import place

VARIANTS, SEEDS, SEED = "variants", "seeds", "seed"
CROSSED, LEFT_OUT = "crossed_with", "left_out"
NOT_OF_A_VARIANT = ("name", "storage", "plugins", VARIANTS, SEEDS, CROSSED, LEFT_OUT)
NOTHING: dict[str, Any] = {VARIANTS: {}, SEEDS: [], CROSSED: {}, LEFT_OUT: []}  # of a run that is one of several
MOST_RUNS = 10_000


@dataclass(frozen=True)
class Planned:
    """A run of a sweep: its variant, empty where the run file has none, and its configuration."""

    variant: str
    config: Config


@dataclass(frozen=True)
class Sweep:
    """The runs that a run file stands for.

    Attributes:
        name: of the run file, with which the names of its runs begin.
        storage: of the runs.
        runs: of all variants with the first seed, then with the next.
    """

    name: str
    storage: str
    runs: Sequence[Planned]


def load_sweep(path: str | Path, overrides: Sequence[str] = ()) -> Sweep:
    """Sweep of a run file with variants or seeds: the configuration of each of its runs, checked.

    Args:
        path: a run file.
        overrides: such as ``train.epochs=3``; they hold for every variant.

    Raises:
        BadInputError: the file has neither, or a configuration is none, or two are those of the same run; each with a
            line that names the variant.
        OSError: the run file lies in S3, which refuses.
    """
    if run_of(place(str(path))) is not None:
        raise BadInputError(f"{path} is a run: give the run file whose variants are to be trained")
    layers = layers_of(f"{path}: ", place(str(path)), overrides, Config)
    seeds, variants = _seeds(_last(layers, SEEDS, [])), _product(_axes(layers), _list(layers, LEFT_OUT))
    if not seeds and not variants:
        raise BadInputError(
            f"{path} holds neither variants nor seeds: add 'seeds: [0, 1, 2]', or train its one run with pcl train"
        )
    if seeds and any("=" in one and one.partition("=")[0] == SEED for one in overrides):
        raise BadInputError(f"{SEED}=... and {SEEDS}={seeds} are both given: give one of them")
    _check_number(path, max(1, len(seeds)) * max(1, len(variants)))
    planned, wrong = list[Planned](), dict[str, BadInputError]()
    for variant, layer in (variants or {"": {}}).items():
        try:
            planned += _of_variant(path, overrides, variant, layer, seeds)
        except BadInputError as error:
            wrong[variant] = error
    _refuse(wrong, max(1, len(variants)))
    _check_distinct(planned)
    planned.sort(key=lambda one: seeds.index(one.config.seed) if seeds else 0)
    first = planned[0].config
    return Sweep(first.name.removesuffix(_suffix(planned[0].variant, first.seed)), first.storage, planned)


def _last(layers: Sequence[tuple[str, Given]], key: str, default: Given) -> Given:
    """Return what the last layer gives that gives a key."""
    given = [layer[key] for _, layer in layers if isinstance(layer, dict) and key in layer]
    return given[-1] if given else default


def _list(layers: Sequence[tuple[str, Given]], key: str) -> list[str]:
    given = _last(layers, key, [])
    try:
        found: list[str] = parse(given, list[str])
    except ValueError as error:
        raise BadInputError(printable(f"{key}={short(given)}: {error}")) from error
    return found


def _seeds(given: Given) -> list[int]:
    try:
        seeds: list[int] = parse(given, list[int])
    except ValueError as error:
        raise BadInputError(f"{SEEDS}={printable(short(given))}: {error}") from error
    if len(set(seeds)) < len(seeds) or any(not 0 <= seed <= MOST_SEED for seed in seeds):
        raise BadInputError(f"{SEEDS}={short(str(seeds))}: give different numbers, each at least 0")
    return seeds


def _axes(layers: Sequence[tuple[str, Given]]) -> list[dict[str, dict[str, Given]]]:
    """Return what each variant gives, and each of those that they are crossed with."""
    mappings = [layer for _, layer in layers if isinstance(layer, dict)]
    crossed = dict[str, list[Given]]()
    for given in (layer[CROSSED] for layer in mappings if CROSSED in layer):
        crossed = {} if isinstance(given, str) else crossed
        for axis, named in _mapping(given, CROSSED).items():
            crossed.setdefault(axis, []).append(named)
    variants = _named([layer[VARIANTS] for layer in mappings if VARIANTS in layer], VARIANTS)
    return [one for one in (variants, *(_named(given, f"{CROSSED}.{axis}") for axis, given in crossed.items())) if one]


def _mapping(given: Given, where: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = parse(given, dict[str, Any])
    except ValueError as error:
        raise BadInputError(printable(f"{where}={short(given)}: {error}")) from error
    return found


def _named(layers: Iterable[Given], where: str) -> dict[str, dict[str, Given]]:
    """Return what each name gives: a text in a later layer takes the place of those before, a mapping joins them."""
    named: dict[str, dict[str, Given]] = {}
    for given in layers:
        found = {name: _nested(one, f"{where}.{name}", is_whole=True) for name, one in _mapping(given, where).items()}
        before = {} if isinstance(given, str) else named
        named = before | {name: over(before.get(name, {}), one) for name, one in found.items()}
    return named


def _product(axes: Sequence[dict[str, dict[str, Given]]], left_out: Sequence[str]) -> dict[str, dict[str, Given]]:
    """Return one of each axis together, in all ways but for those whose names fit a pattern that is left out."""
    _check_number("the product", math.prod(map(len, axes)))
    found: dict[str, dict[str, Given]] = {}
    for chosen in itertools.product(*(axis.items() for axis in axes)) if axes else ():
        found["-".join(name for name, _ in chosen)] = reduce(over, (layer for _, layer in chosen), {})
    if unused := [pattern for pattern in left_out if not any(fnmatchcase(name, pattern) for name in found)]:
        raise BadInputError(printable(f"{LEFT_OUT}: {short(unused[0])!r} fits none of {short(', '.join(found))}"))
    return {name: layer for name, layer in found.items() if not any(fnmatchcase(name, one) for one in left_out)}


def _check_number(of: str | Path, number: int) -> None:
    if number > MOST_RUNS:
        raise BadInputError(f"{of} stands for {number:,} runs: the most is {MOST_RUNS:,}")


def _nested(given: Given, where: str, *, is_whole: bool = False) -> dict[str, Given]:
    """Return keys such as ``{"train.epochs": "3"}`` as nested ones.

    Raises:
        BadInputError: it is no mapping, gives a key twice, or one that is not a variant's.
    """
    if not isinstance(given, dict):
        raise BadInputError(printable(f"{where} holds {short(given)!r}: it must be a mapping of keys"))
    merged: dict[str, Given] = {}
    for key, value in given.items():
        if is_whole and key in NOT_OF_A_VARIANT:
            raise BadInputError(f"{printable(where)}.{key}: give {key} for all variants, outside of them")
        inner = _nested(value, f"{where}.{key}") if isinstance(value, dict) else value
        for part in reversed(key.split(".")):
            inner = {part: inner}
        assert isinstance(inner, dict)
        merged = _joined(merged, inner, where)
    return merged


def _joined(one: dict[str, Given], other: dict[str, Given], where: str) -> dict[str, Given]:
    joined = dict(one)
    for key, value in other.items():
        before = joined.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            joined[key] = _joined(before, value, f"{where}.{key}")
        elif before is not None:
            raise BadInputError(f"{printable(where)}.{key} is given twice: write it once")
        else:
            joined[key] = value
    return joined


def _of_variant(
    path: str | Path, overrides: Sequence[str], variant: str, layer: dict[str, Given], seeds: Sequence[int]
) -> list[Planned]:
    """Return the runs of a variant."""
    if seeds and SEED in layer:
        raise BadInputError(f"{VARIANTS}.{variant}.{SEED} and {SEEDS} are both given: give one of them")
    between: list[tuple[str, Given]] = [(f"{path}: variant {variant}: ", layer)] if variant else []
    of_seeds: list[list[tuple[str, Given]]] = [[("", {SEED: str(seed)})] for seed in seeds]
    runs = []
    for of_seed in of_seeds or [[]]:
        config = replace(load_config(path, overrides, [*between, *of_seed]), **NOTHING)
        config.name += _suffix(variant, config.seed)
        check(config)  # its name may be none
        runs.append(Planned(variant, config))
    return runs


def _suffix(variant: str, seed: int) -> str:
    return f"-{variant}-{seed}" if variant else f"-{seed}"


def _refuse(wrong: Mapping[str, BadInputError], number: int) -> None:
    """Raise what is wrong with variants; once where it is wrong with all of them."""
    texts = list(dict.fromkeys(map(str, wrong.values())))
    if len(wrong) == number and len(texts) == 1:
        raise next(iter(wrong.values()))
    if wrong:
        named = [(f"variant {printable(variant)}", str(error)) for variant, error in wrong.items()]
        raise BadInputError("; ".join(text if name in text else f"{name}: {text}" for name, text in named))


def _check_distinct(runs: Sequence[Planned]) -> None:
    """Refuse two variants that give the same run."""
    seen: dict[str, Planned] = {}
    for planned in runs:
        whole = str(sorted(experiment(planned.config).items()))
        if whole in seen:
            first = seen[whole]
            raise BadInputError(
                f"{first.config.name} and {planned.config.name} are the same run: no key on which a result depends "
                "differs between them; leave one out"
            )
        seen[whole] = planned
