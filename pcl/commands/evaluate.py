"""Evaluate a checkpoint of a run: tables, metrics.json, figures, NetCDF, TensorBoard."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import pcl
from pcl.commands.command_line import job
from pcl.config.identity import experiment_hash
from pcl.config.load import Config
from pcl.errors import BadInputError, RunFailedError
from pcl.evaluation.evaluate import evaluate
from pcl.evaluation.record import save_evaluation
from pcl.evaluation.splits import EvaluationOptions
from pcl.evaluation.tables import format_table
from pcl.problems.problem import problem
from pcl.storage.place import Place, place
from pcl.train.parts import full_experiment, load_shards
from pcl.train.runs import checkpoints, lost_checkpoints, recorded_experiment


def main(config: Config) -> None:
    """Evaluate ``evaluation.checkpoint`` on ``evaluation.split``."""
    manifest, run = load_shards(config), place(config.storage) / config.name
    recorded = recorded_experiment(run, full_experiment(config))
    found = {path.name: path for path in checkpoints(run)} if recorded else {}
    if not found:
        raise BadInputError(f"{run} holds no checkpoint: train first, with pcl train and the same config")
    name = chosen_checkpoint(run, [*found], config.evaluation.checkpoint)
    about = {"experiment": experiment_hash(recorded or {}), "run": config.name, "checkpoint": name}
    kind, root, options = problem(config.data.source), Path(config.data.shards), options_of(config, about)
    for line in kind.describe_needs(manifest, config.evaluation.split, config.evaluation.max_pairs):
        print(line, flush=True)
    model = pcl.load(found[name])
    result = evaluate(model, root, manifest, config.evaluation.split, options, kind.drawings, kind.evaluate)
    if not all(map(math.isfinite, result.metrics.values())):
        wrong = [metric for metric, value in result.metrics.items() if not math.isfinite(value)]
        raise RunFailedError(f"{found[name]} has metrics that are not finite ({', '.join(wrong)}): train again")
    for table in result.tables:
        print(f"\n{format_table(table)}")
    part = config.evaluation.split if not config.evaluation.max_pairs else f"{config.evaluation.split}_first"
    step = int(name.removeprefix("checkpoint_"))
    of = {"step": step, "split": config.evaluation.split, "max_pairs": config.evaluation.max_pairs}
    folder = save_evaluation(result, run, name, about | of, "" if part == "test" else part)
    print(f"\nmetrics and figures: {folder}\nwatch: tensorboard --logdir {config.storage}")


def chosen_checkpoint(run: Place, names: Sequence[str], asked: str) -> str:
    """Return the checkpoint that is asked for, else the newest that is whole, and say so where it is not the newest."""
    if asked and asked not in names:
        raise BadInputError(f"evaluation.checkpoint={asked}: {run} holds {', '.join(names)}")
    if asked:
        return asked
    lost = lost_checkpoints(run)
    whole = [name for name in names if name not in lost]
    if not whole:
        return names[-1]  # reading it says what is wrong with it
    for newer in lost:
        print(f"{newer} is half written or gone: {whole[-1]} is evaluated instead", flush=True)
    return whole[-1]


def options_of(config: Config, about: Mapping[str, str]) -> EvaluationOptions:
    """Return how a configuration evaluates."""
    names = {part.name for part in fields(EvaluationOptions)}
    return EvaluationOptions(
        **{name: value for name, value in vars(config.evaluation).items() if name in names},
        loss=config.loss.kind,
        weights=(config.loss.weight_u_given_v, config.loss.weight_v_given_u),
        own=config.evaluation.sections.get(config.data.source),
        about={**about, "training_seed": config.seed},
    )


def command(program: str, given: list[str]) -> None:
    """Evaluate as a command line says."""
    job(main, __doc__, program, given)
