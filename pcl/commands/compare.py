"""Compare runs: a table of their latest evaluations, the keys in which they differ, their curves, on one page.

RUN is the folder of a run; runs that differ in their seed only are a group, with mean and standard deviation. The
page, comparison.html, its pictures and compare.json lie in <storage>/<name>-comparison. Where v are labels the page
shows what every group says of the same doubtful items, and draws of u given one label.
"""

__all__ = ["asked", "command", "compare", "comparison_folder"]

import itertools
import shlex
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pcl
from pcl.commands import evaluate
from pcl.commands.command_line import HELP, Guide, check_is_kept, check_writable
from pcl.config.identity import experiment_hash, flatten
from pcl.config.layers import DEFAULTS, decoded, defaults_of
from pcl.config.load import Config, load_config
from pcl.config.stored import run_of
from pcl.errors import BadInputError, printable
from pcl.evaluation import compared_labels
from pcl.evaluation.compared import SECONDS, Compared, Group, Spread, differing_keys, groups_of, training_seconds
from pcl.evaluation.compared_page import PAIRS, keys_table, parts_of, warnings_of
from pcl.evaluation.given_labels import chosen_label
from pcl.evaluation.page import Section, page
from pcl.evaluation.result import Table
from pcl.evaluation.tables import format_table
from pcl.model import PairModel
from pcl.problems.problem import problem
from pcl.storage.curves import read_curves
from pcl.storage.events import event_folder
from pcl.storage.place import Place, names, place, write_bytes
from pcl.storage.stored import read_sealed, write_json
from pcl.train.parts import load_shards
from pcl.train.runs import recorded_experiment

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COMPLETE, JSON_FILE = "metrics.json", "compare.json"
LONGEST = 60  # characters of a name that is made of those of runs
GUIDE = Guide(
    __doc__,
    examples=(
        "runs/mnist runs/mnist_two_sided",
        "runs/mnist_losses-*-[0-9] name=again",
        "runs/mnist runs/mnist_two_sided data.shards=/shared/mnist evaluation.label=3",
    ),
    keys=("name", "storage", "data.shards", "plugins", "evaluation.label"),
    config="the folder of a run, two or more of them",
)


def comparison_folder(storage: str, name: str) -> Place:
    """Return where the comparison of runs lies."""
    return place(storage) / f"{name}-comparison"


def compare(runs: Sequence[Place], folder: Place, overrides: Sequence[str] = ()) -> None:
    """Compare runs, print the tables, and write the page and what it is made of.

    Args:
        runs: their folders, each with an evaluation.
        folder: of the comparison.
        overrides: of the configuration of every run, such as where its shards lie.

    Raises:
        BadInputError: a run has no evaluation, or they have none in common.
    """
    groups = groups_of(read_runs(runs))
    check_writable(folder)
    differing = differing_keys(groups)
    keys, parts = keys_table(groups, differing), parts_of(groups, partial(label_figures, overrides=overrides))
    warned = [*warnings_of(groups), *(warning for part in parts for warning in part.warnings)]
    first = Section("What differs", ["Keys that differ between groups; all others are the same."], [keys])
    sections = [first, *(section for part in parts for section in part.sections)]
    sections.append(Section("Runs", tables=[runs_table(groups)]))
    title = f"Comparison: {folder.name.removesuffix('-comparison')}"
    about = f"{len(runs)} runs in {len(groups)} groups, whose runs differ in their seed only. pcl {pcl.__version__}."
    for part in parts:
        for name, picture in part.pictures.items():
            write_bytes(folder / name, picture.png)
    write_json(folder / JSON_FILE, as_json(groups, differing))
    write_bytes(folder / "comparison.html", page(title, [about], sections, warned).encode())
    print(f"\n{format_table(keys)}")
    for part in parts:
        print(*([f"\n{part.name}"] if part.name else []), f"\n{format_table(part.table)}", sep="\n")
    for sentence in [*warned, *(sentence for part in parts for sentence in part.sentences)]:
        print(f"\n{printable(sentence)}")
    print(f"\ncomparison: {folder / 'comparison.html'}")


def read_runs(runs: Sequence[Place]) -> list[Compared]:
    """Return runs as they are compared, each by its latest evaluation of a part that all were evaluated on.

    Raises:
        BadInputError: a folder is no run, has no evaluation, or none on what the others have, on as many pairs.
        DamagedDataError: what a run recorded cannot be read.
    """
    experiments, evaluated = dict[Place, dict[str, Any]](), dict[Place, dict[str, tuple[str, dict[str, Any]]]]()
    for run in runs:
        experiment = recorded_experiment(run)
        if experiment is None:
            raise BadInputError(f"{printable(run)} holds no run: give folders of runs")
        experiments[run], evaluated[run] = experiment, evaluated_parts(run)
        if not evaluated[run]:
            raise BadInputError(f"{printable(run)} has no evaluation: pcl evaluate {shlex.quote(str(run))} first")
    part = min(set.intersection(*map(set, evaluated.values())), default=None)
    if part is None:
        raise BadInputError("these runs were evaluated on different splits: evaluate them on one")
    check_numbers({run: (experiments[run].get(PAIRS), found[part][1]) for run, found in evaluated.items()})
    defaults = flatten(decoded(defaults_of(Config, DEFAULTS)))
    keys = sorted({key for one in experiments.values() for key in one})
    whole = {run: {key: one.get(key, defaults.get(key)) for key in keys} for run, one in experiments.items()}
    return [read_run(run, whole[run], *evaluated[run][part]) for run in runs]


def check_numbers(runs: Mapping[Place, tuple[Any, Mapping[str, Any]]]) -> None:
    """Refuse runs with the same pairs that were evaluated on different numbers of them.

    Args:
        runs: the pairs of each, and its evaluation.

    Raises:
        BadInputError: they were: an effective sample size, or a rank, is one among so many.
    """
    first: dict[Any, tuple[Place, int]] = {}
    for run, (pairs, content) in runs.items():
        number = content.get("max_pairs")
        if number is None:  # of a version that does not tell
            continue
        other, before = first.setdefault(pairs, (run, number))
        if number != before:
            raise BadInputError(
                f"{printable(other.name)} was evaluated with evaluation.max_pairs={before} and {printable(run.name)} "
                f"with {number}: evaluate them with one"
            )


def read_run(run: Place, experiment: Mapping[str, Any], checkpoint: str, content: Mapping[str, Any]) -> Compared:
    """Return a run as it is compared."""
    metrics = {key: value for key, value in content.items() if isinstance(value, float)}
    curves = read_curves(event_folder(run, run / "tensorboard"))
    seconds = training_seconds(curves, int(experiment["train.global_batch"]))
    metrics |= {SECONDS: seconds} if seconds is not None else {}
    return Compared(run.name, run, experiment, checkpoint, metrics, curves)


def evaluated_parts(run: Place) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return the latest evaluation of every part of the pairs, empty of the whole test split, with its checkpoint."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for checkpoint in (name for name in names(run / "evaluations") if name.startswith("checkpoint_")):
        top = run / "evaluations" / checkpoint
        for part in ("", *(name for name in names(top) if "." not in name)):
            file = (top / part if part else top) / COMPLETE
            content = read_sealed(file, dict[str, Any], f"evaluate {checkpoint} again")
            if content is not None:
                found[part] = (checkpoint, content[0])
    return found


def runs_table(groups: Sequence[Group]) -> Table:
    """Return where the runs lie, and what of each was evaluated."""
    runs = [(group, run) for group in groups for run in group.runs]
    return [
        ["run", "group", "seed", "evaluated", "folder"],
        *([run.name, group.label, str(run.seed), run.checkpoint, str(run.place)] for group, run in runs),
    ]


def as_json(groups: Sequence[Group], differing: Mapping[str, Any]) -> dict[str, Any]:
    """Return all numbers of a comparison."""

    def numbers(group: Group, metric: str) -> dict[str, Any]:
        found: Spread = group.spread(metric)
        values = [run.metrics[metric] for run in group.runs]
        return {"mean": found.mean, "standard_deviation": found.deviation, "values": values}

    return {
        "groups": [
            {
                "label": group.label,
                "runs": [str(run.place) for run in group.runs],
                "experiments": [experiment_hash(run.experiment) for run in group.runs],
                "seeds": [run.seed for run in group.runs],
                "metrics": {name: numbers(group, name) for name in group.runs[0].metrics if group.has(name)},
            }
            for group in groups
        ],
        "differing": dict(differing),
    }


def label_figures(groups: Sequence[Group], overrides: Sequence[str]) -> Mapping[str, "Figure"]:
    """Return the pictures of labels, with the models of all runs.

    Raises:
        BadInputError: a model or its shards are not there, or the runs have different pairs.
    """
    runs = [run for group in groups for run in group.runs]
    configs = [load_config(str(run.place), overrides) for run in runs]
    manifests = [load_shards(config) for config in configs]
    if any(manifest.arrays != manifests[0].arrays or manifest.splits != manifests[0].splits for manifest in manifests):
        raise BadInputError("the runs have different pairs")
    models: dict[str, PairModel] = {str(run.place): pcl.load(run.place / run.checkpoint) for run in runs}
    config, manifest = configs[0], manifests[0]
    return compared_labels.label_figures(
        models,
        {group.label: str(group.runs[0].place) for group in groups},
        config.shard_root,
        manifest,
        config.evaluation.split,
        evaluate.options_of(config, {}),
        problem(config.data.source).drawings,
    )


def command(program: str, given: list[str]) -> None:
    """Compare as a command line says."""
    if any(argument in HELP for argument in given):
        print(GUIDE.text(program).replace("CONFIG [key", "RUN RUN ... [key").replace("CONFIG is", "RUN is"))
        sys.exit(0)
    compare(*asked(program, given))


def asked(program: str, given: Sequence[str]) -> tuple[list[Place], Place, list[str]]:
    """Return the runs that a command line names, the folder of their comparison, and what it overrides.

    Raises:
        BadInputError: they are fewer than two, or one of them is none.
    """
    folders = [one for one in given if "=" not in one or Path(one).exists() or "://" in one.partition("=")[0]]
    keys = dict(one.partition("=")[::2] for one in given if one not in folders)
    given_runs = dict.fromkeys(place(one) for one in folders)
    runs = [run for run in given_runs if not (run / JSON_FILE).is_file()]  # a pattern of names fits comparisons too
    if len(runs) < 2:
        raise BadInputError(f"{program} needs two runs or more: such as {program} {GUIDE.example}")
    for run in runs:
        if run_of(run) is None:
            raise BadInputError(f"{printable(run)} holds no run: give folders of runs")
    name = keys.pop("name", "") or shared_name([run.name for run in runs])
    of_all = [f"name={name}", f"storage={keys.pop('storage', str(runs[0].parent))}"]
    overrides = [f"{key}={value}" for key, value in keys.items()]
    checked = load_config(str(runs[0]), [*overrides, *of_all])
    check_is_kept(storage=checked.storage)
    check_label([load_config(str(run), overrides) for run in runs])
    return runs, comparison_folder(checked.storage, checked.name), overrides


def check_label(configs: Sequence[Config]) -> None:
    """Refuse an ``evaluation.label`` that a run has not, where it has labels, or that no run has.

    Raises:
        BadInputError: it is none, or the shards of a run that would tell are not there.
    """
    asked_for = {config.data.shards: config for config in configs if config.evaluation.label is not None}
    found = [(load_shards(config).statistics["v"], config.evaluation.label) for config in asked_for.values()]
    for statistics, label in [one for one in found if "counts" in one[0]] or found[:1]:
        chosen_label(statistics, label)


def shared_name(given: Sequence[str]) -> str:
    """Return what names begin with, up to a dash, else all of them.

    Example:
        >>> shared_name(["mnist-one-0", "mnist-two-0"]), shared_name(["mnist", "ocean"])
        ('mnist', 'mnist-ocean')
    """
    equal = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*given, strict=False))
    beginning = "".join(letters[0] for letters in equal)
    return beginning[: beginning.rfind("-")] if "-" in beginning else "-".join(given)[:LONGEST]
