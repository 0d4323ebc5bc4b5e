"""Evaluate a checkpoint of a run: tables, metrics.json, figures, NetCDF, TensorBoard."""

import math
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import pcl
from pcl.commands.command_line import Guide, job, watch
from pcl.config.identity import differing, experiment_hash
from pcl.config.load import Config
from pcl.config.values import short
from pcl.data.manifest import Manifest
from pcl.errors import BadInputError, RunFailedError, printable
from pcl.evaluation.evaluate import evaluate
from pcl.evaluation.record import save_evaluation
from pcl.evaluation.splits import EvaluationOptions
from pcl.evaluation.tables import format_table
from pcl.problems.problem import problem
from pcl.storage.place import Place, place
from pcl.train.checkpoint import checkpoint_name
from pcl.train.parts import full_experiment, load_shards
from pcl.train.runs import checkpoints, lost_checkpoints, recorded_experiment

GUIDE = Guide(
    __doc__,
    examples=(
        "runs/mnist                                 # as it was trained, wherever the folder lies now",
        "runs/mnist evaluation.checkpoint=250 data.shards=/shared/mnist",
        "configs/mnist.yaml                         # the run of that name in that storage",
    ),
    keys=(
        "data.shards",
        "evaluation.checkpoint",
        "evaluation.split",
        "evaluation.max_pairs",
        "evaluation.num_examples",
    ),
)
OF_TRAINING = ("train.", "data.augment.", "plugins.")  # keys on which an evaluation does not depend, beside the seed
MOST_DIGITS = 12  # of a step


def main(config: Config, told: Collection[str] = ()) -> None:
    """Evaluate ``evaluation.checkpoint`` on ``evaluation.split``.

    Args:
        config: the run's own, or that of its run file.
        told: what was given by hand: run file or folder, and keys.
    """
    run = place(config.storage) / config.name
    recorded = recorded_experiment(run)
    manifest = shards_of(config, run, recorded, told)
    found = {path.name: path for path in checkpoints(run)} if recorded else {}
    if not found or recorded is None:
        raise BadInputError(f"{run} holds no checkpoint: train first, with pcl train and the same config")
    check_is_meant(run, recorded, full_experiment(config), told)
    name = chosen_checkpoint(run, [*found], config.evaluation.checkpoint)
    about = {"experiment": experiment_hash(recorded), "run": config.name, "checkpoint": name}
    about["training_seed"] = recorded.get("seed", config.seed)
    kind, root, options = problem(config.data.source), Path(config.data.shards), options_of(config, about)
    for line in kind.describe_needs(manifest, config.evaluation.split, config.evaluation.max_pairs):
        print(line, flush=True)
    model = pcl.load(found[name])
    forms = kind.forms(manifest)
    result = evaluate(model, root, manifest, config.evaluation.split, options, kind.drawings, kind.evaluate, forms)
    if not all(map(math.isfinite, result.metrics.values())):
        wrong = [metric for metric, value in result.metrics.items() if not math.isfinite(value)]
        raise RunFailedError(f"{found[name]} has metrics that are not finite ({', '.join(wrong)}): train again")
    for table in result.tables:
        print(f"\n{format_table(table)}")
    if result.notes:
        print("\n" + "\n".join(map(printable, result.notes)))
    part = config.evaluation.split if not config.evaluation.max_pairs else f"{config.evaluation.split}_first"
    step = int(name.removeprefix("checkpoint_"))
    of = {"step": step, "split": config.evaluation.split, "max_pairs": config.evaluation.max_pairs}
    folder = save_evaluation(result, run, name, about | of, "" if part == "test" else part)
    print(f"\nmetrics and figures: {folder}\n{watch(config.storage)}")


def as_trained(run: Place) -> str:
    """Return the remedy for a configuration that is not that of a run."""
    return f"pcl evaluate {shlex.quote(str(run))} evaluates it as it was trained"


def shards_of(config: Config, run: Place, recorded: Mapping[str, Any] | None, told: Collection[str]) -> Manifest:
    """Return the manifest of the shards; where they are not there or are others, name the remedy if there is a run."""
    try:
        return load_shards(config)
    except BadInputError as error:
        if recorded is None:
            raise
        is_named = str(run) in {str(place(one)) for one in told}
        remedy = "" if is_named else f"; {as_trained(run)}"
        raise BadInputError(f"{error}; if they lie elsewhere give data.shards=...{remedy}") from error


def check_is_meant(run: Place, recorded: Mapping[str, Any], wanted: Mapping[str, Any], told: Collection[str]) -> None:
    """Refuse the run of another experiment; say in a line where only its training was another.

    Args:
        run: the run's folder.
        recorded: the experiment as the run recorded it.
        wanted: the experiment of the configuration that was given.
        told: what was given by hand: keys among it must be those of the run.

    Raises:
        BadInputError: the run has other data, another model or loss, or not what was told.
    """
    keys = differing(recorded, wanted)
    if other := [key for key in keys if key in told or not (key == "seed" or key.startswith(OF_TRAINING))]:
        raise BadInputError(
            f"the run in {run} has another configuration (differing: {printable(', '.join(other))[:500]}): "
            f"{as_trained(run)}"
        )
    of_training = [key for key in keys if not key.startswith("plugins.")]
    if trained := [f"{key}={recorded.get(key, 'its default')}" for key in of_training]:
        print(printable(f"{run} was trained with {', '.join(trained)}, and is evaluated as such")[:1000], flush=True)
    for plugin in (key.partition(".")[2] for key in keys if key in recorded and key.startswith("plugins.")):
        print(f"the plugin {printable(plugin)} is not what {run} was trained with, or not given", flush=True)


def chosen_checkpoint(run: Place, names: Sequence[str], asked: str) -> str:
    """Return the checkpoint that is asked for, else the newest that is whole, and say so where it is not the newest."""
    if asked.isascii() and asked.isdecimal() and len(asked) <= MOST_DIGITS and checkpoint_name(int(asked)) in names:
        return checkpoint_name(int(asked))
    if asked and asked not in names:
        raise BadInputError(f"evaluation.checkpoint={printable(short(asked))}: {run} holds {', '.join(names)}")
    if asked:
        return asked
    lost = lost_checkpoints(run)
    whole = [name for name in names if name not in lost]
    if not whole:
        return names[-1]  # reading it says what is wrong with it
    for newer in lost:
        print(f"{newer} is half written or gone: {whole[-1]} is evaluated instead", flush=True)
    return whole[-1]


def options_of(config: Config, about: Mapping[str, Any]) -> EvaluationOptions:
    """Return how a configuration evaluates."""
    names = {part.name for part in fields(EvaluationOptions)}
    return EvaluationOptions(
        **{name: value for name, value in vars(config.evaluation).items() if name in names},
        loss=config.loss.kind,
        weights=(config.loss.weight_u_given_v, config.loss.weight_v_given_u),
        own=config.evaluation.sections.get(config.data.source),
        about=about,
    )


def command(program: str, given: list[str]) -> None:
    """Evaluate as a command line says."""
    told = {argument.partition("=")[0] for argument in given}
    job(partial(main, told=told), GUIDE, program, given)
