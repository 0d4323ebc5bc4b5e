"""Reconstruct surface currents from people's own drifters: maps with their uncertainty, judged on drifters left out."""

import difflib
import re
import sys
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from inspect import cleandoc
from pathlib import Path
from typing import Any, get_type_hints

import pcl
from pcl.commands.command_line import check_writable
from pcl.commands.evaluate import checkpoint_of
from pcl.config.identity import experiment_hash
from pcl.config.load import load_config
from pcl.config.values import parse
from pcl.data.manifest import read_manifest
from pcl.errors import BadInputError, DamagedDataError, printable
from pcl.problems.ocean.contract import ArchiveFacts, read_facts
from pcl.problems.ocean.evaluation.learned import prior_of
from pcl.problems.ocean.fixes.cleaning import Box
from pcl.problems.ocean.prior.model import CurrentPrior, generic_prior
from pcl.problems.ocean.reconstruct.reconstruct import COMPLETE, FILES, Priors, reconstruct
from pcl.problems.ocean.reconstruct.report import summary
from pcl.problems.ocean.reconstruct.settings import ReconstructSettings
from pcl.problems.ocean.reconstruct.tracks import when
from pcl.settings import check_settings
from pcl.storage.place import Place, absolute, names, place, write_bytes
from pcl.storage.stored import sealed, write_json
from pcl.train.runs import recorded_experiment

KEY = re.compile(r"[a-z_]+(\.[a-z_]+)*")
LEARNED, GENERIC = "learned", "generic"
FLAGS = {"--tracks": "FILE...", "--box": "S N W E", "--from": "TIME", "--to": "TIME", "--prior": "learned|generic"}
TIMES = ("--from", "--to")
EXAMPLES = (
    "runs/ocean --tracks drifters.csv",
    "--prior generic --tracks drifters.csv 'more of them.nc' --box 54 55 9.5 12.5",
    "runs/ocean --tracks a.parquet --from 2023-04-24 --to 2023-05-08T12:00Z tracks.time_zone=Europe/Berlin",
)
ABOUT = {
    "--tracks": "files of drifters: CSV, Parquet, NetCDF or Zarr",
    "--box": "southern, northern, western and eastern edge of the map, degrees; without: around the tracks",
    "--from": "what is earlier does not count; without: the first fix",
    "--to": "what is later does not count; without: the last",
    "--prior": "generic: without a run, a documented prior that is fitted to the tracks",
}


def help_text(program: str) -> str:
    """Return the help of the command."""
    usage = (
        f"{program} [RUN] --tracks FILE... [--box S N W E] [--from TIME] [--to TIME] [--prior generic] [key=value ...]"
    )
    flags = [f"  {f'{flag} {value}':28} {ABOUT[flag]}" for flag, value in FLAGS.items()]
    keys = [f"  {f'{key}={shown(default)}':28} {meaning}" for key, default, meaning in keys_of(ReconstructSettings())]
    examples = [f"  {program} {example}" for example in EXAMPLES]
    end = (
        "RUN is the folder of a run of the ocean whose encoder_v is measurements, or its run file: docs/reconstruct.md."
    )
    parts = [f"usage: {usage}\n", cleandoc(__doc__ or ""), "", *examples, "", *flags, "", *keys, "", end]
    return "\n".join(parts)


def shown(value: Any) -> str:
    """Return a default as it is typed."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def keys_of(settings: Any, prefix: str = "") -> list[tuple[str, Any, str]]:
    """Return all keys of settings, with default and meaning."""
    found: list[tuple[str, Any, str]] = []
    for part in fields(settings):
        value = getattr(settings, part.name)
        if is_dataclass(value):
            found += keys_of(value, f"{prefix}{part.name}.")
        else:
            found.append((f"{prefix}{part.name}", value, part.metadata["meaning"]))
    return found


def parted(given: Sequence[str]) -> tuple[list[str], dict[str, list[str]], list[str]]:
    """Return the words before any flag, the values of flags, and ``key=value``.

    Raises:
        BadInputError: a flag is not known, or is given twice.
    """
    words, flags, keys = list[str](), dict[str, list[str]](), list[str]()
    known = [key for key, _, _ in keys_of(ReconstructSettings())]
    now = words
    for argument in given:
        name, has_value, value = argument.partition("=")
        if argument.startswith("--"):
            if name not in FLAGS:
                raise BadInputError(f"{printable(argument)[:60]} is no flag: there are {', '.join(FLAGS)}")
            if name in flags:
                raise BadInputError(f"{name} is given twice: give all its values at once")
            now = flags.setdefault(name, [value] if has_value else [])
        elif has_value and (
            name in known or (name.replace(".", "").replace("_", "").isalnum() and not exists(argument))
        ):
            keys.append(argument)
        else:
            now.append(argument)
    return words, flags, keys


def exists(path: str) -> bool:
    """Return whether there is such a file: names of files may hold an equals sign."""
    try:
        return Path(path).exists()
    except OSError:
        return False


def settings_of(overrides: Sequence[str]) -> ReconstructSettings:
    """Return settings with ``key=value`` overrides.

    Raises:
        BadInputError: a key is not known, or a value is none of its kind.
    """
    settings = ReconstructSettings()
    known = [key for key, _, _ in keys_of(settings)]
    for override in overrides:
        key, _, text = override.partition("=")
        if key not in known:
            near = difflib.get_close_matches(key[:60], known, 1, 0.5)
            nearest = f"the nearest is {near[0]}; " if near else ""
            raise BadInputError(f"{printable(key)[:60]} is no key: {nearest}pcl reconstruct --help lists all")
        *outer, last = key.split(".")
        holder: Any = settings if not outer else getattr(settings, outer[0])
        try:
            setattr(holder, last, parse(text, get_type_hints(type(holder))[last]))
        except ValueError as error:
            raise BadInputError(printable(f"{key}={text[:60]}: {error}")) from error
    check_settings(settings)
    return settings


def box_of(values: Sequence[str]) -> Box:
    """Return a box of four numbers.

    Raises:
        BadInputError: they are none.
    """
    try:
        south, north, west, east = (float(value) for text in values for value in text.replace(",", " ").split())
    except ValueError as error:
        raise BadInputError(
            printable(f"--box {' '.join(values)[:60]}: give four numbers, degrees: SOUTH NORTH WEST EAST")
        ) from error
    return Box(south, north, west, east)


def one(flags: dict[str, list[str]], name: str, default: str = "") -> str:
    """Return the only value of a flag.

    Raises:
        BadInputError: there is none, or several.
    """
    values = flags.get(name, [default])
    if name in TIMES and values:
        return " ".join(values)  # a date and a time of day
    if len(values) != 1:
        raise BadInputError(f"{name} takes one value, not {len(values)}: {FLAGS[name]}")
    return values[0]


def priors_of(words: Sequence[str], kind: str, checkpoint: str) -> tuple[Priors, dict[str, Any], Place | None]:
    """Return the prior that is asked for, where it is from, and the folder of the run.

    Raises:
        BadInputError: no run is given where one is needed, or it has learned no prior of currents.
    """
    if kind not in (LEARNED, GENERIC):
        raise BadInputError(f"--prior {printable(kind)[:40]}: choose one of {LEARNED}, {GENERIC}")
    if kind == GENERIC and not words:
        about = "The prior is generic: scales of a year of the Agulhas current, at rest, then fitted to these tracks."
        return Priors(generic_prior(), True, about), {"prior": GENERIC}, None
    if len(words) != 1:
        raise BadInputError(
            f"{len(words)} runs are given, not one: pcl reconstruct RUN --tracks FILE, or --prior generic without a run"
        )
    config = load_config(words[0])
    run = place(config.storage) / config.name
    recorded = recorded_experiment(run)
    if recorded is None:
        raise BadInputError(f"{run} holds no run: train first, or give --prior generic")
    chosen, _ = checkpoint_of(run, checkpoint, "checkpoint")
    learned = prior_in(pcl.load(chosen), str(run))
    first_s, last_s = archive_times(config.shard_root)
    source = {"run": config.name, "checkpoint": chosen.name, "experiment": experiment_hash(recorded)}
    if kind == LEARNED:
        about = f"The prior is that of the run {config.name}, {chosen.name}: covariance and climatology of its archive."
        return Priors(learned, False, about, first_s, last_s), {"prior": LEARNED, **source}, run
    generic = generic_prior()
    for name in ("latitude", "longitude", "mean", "std", "period"):
        setattr(generic, name, getattr(learned, name))
    about = f"The prior is generic, fitted to these tracks, around the climatology of the run {config.name}."
    return Priors(generic, True, about, first_s, last_s), {"prior": GENERIC, **source}, run


def prior_in(model: Any, run: str) -> CurrentPrior:
    """Return the prior of currents that a model has learned.

    Raises:
        BadInputError: it has none.
    """
    found = prior_of(model)
    if found is None or found.climatology is None:
        raise BadInputError(
            f"{printable(run)} has learned no prior of currents: train configs/ocean.yaml, whose model.encoder_v is "
            "measurements, or give --prior generic without a run"
        )
    return found


def archive_times(shards: Place) -> tuple[float | None, float | None]:
    """Return when the archive of shards begins and ends; None where they do not lie here any more."""
    try:
        facts = read_facts(read_manifest(shards).source, ArchiveFacts, shards / "manifest.json")
    except (BadInputError, DamagedDataError, OSError):
        return None, None
    return (facts.time.first_s, facts.time.last_s) if facts.time else (None, None)


def folder_of(settings: ReconstructSettings, run: Place | None, files: Sequence[Path]) -> Place:
    """Return where the results go: a folder that may hold an earlier reconstruction, and nothing else.

    Raises:
        BadInputError: it holds something else.
    """
    name = f"reconstruction_{files[0].stem}"
    folder = place(settings.to) if settings.to else run / name if run is not None else place(name)
    if folder.exists() and names(folder) and COMPLETE not in names(folder):
        raise BadInputError(f"to={folder}: it holds something else than a reconstruction, choose another folder")
    check_writable(folder)
    return folder


def save(folder: Place, written: dict[str, bytes], about: dict[str, Any]) -> None:
    """Write a reconstruction in place of an earlier one; the mark that all is there comes last."""
    for name in (COMPLETE, *FILES):
        (folder / name).unlink(missing_ok=True)
    for name, content in written.items():
        write_bytes(folder / name, content)
    write_json(folder / COMPLETE, sealed(about))


def command(program: str, given: list[str]) -> None:
    """Reconstruct as a command line says."""
    if any(argument in ("-h", "--help") for argument in given):
        print(help_text(program))
        sys.exit(0)
    words, flags, keys = parted(given)
    if not flags.get("--tracks"):
        raise BadInputError(f"no tracks are given: {program} {EXAMPLES[0]}; {program} --help tells more")
    settings = settings_of(keys)
    files = [Path(name) for name in flags["--tracks"]]
    box = box_of(flags["--box"]) if "--box" in flags else None
    zone = settings.tracks.time_zone
    first_s, last_s = (when(one(flags, name), name, zone) for name in ("--from", "--to"))
    if first_s is not None and last_s is not None and first_s >= last_s:
        remedy = "exchange them" if first_s > last_s else "a map needs some time between them"
        raise BadInputError(f"--from {one(flags, '--from')} is not before --to {one(flags, '--to')}: {remedy}")
    priors, about, run = priors_of(words, one(flags, "--prior", LEARNED), settings.checkpoint)
    folder = folder_of(settings, run, files)
    about |= {"tracks": ", ".join(file.name for file in files), "seed": settings.seed, "pcl": pcl.__version__}
    results, written = reconstruct(files, priors, settings, box, first_s, last_s, about, say)
    lines = summary(results)
    judged = results.judged
    scores = {} if judged is None else {method: judged.scores(method) for method in judged.square}
    save(folder, written, about | {"scores": scores, "summary": lines, "notes": [*results.notes]})
    print("\n".join(map(printable, [*results.notes, *lines])))
    print(f"maps: {absolute(str(folder))}\nto read and to send: {absolute(str(folder / 'index.html'))}")


def say(line: str) -> None:
    """Print how far it is."""
    print(printable(line), flush=True)
