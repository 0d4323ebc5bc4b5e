"""Evaluate a checkpoint of a run: tables, metrics.json, figures, NetCDF, TensorBoard."""

import math
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial
from typing import Any, TypeVar

import pcl
from pcl.cluster.parts import elsewhere
from pcl.commands.command_line import Guide, check_writable, job, progress, watch
from pcl.commands.model_card import model_card
from pcl.config.identity import differing, experiment_hash
from pcl.config.load import Config
from pcl.config.values import short
from pcl.data.manifest import Manifest
from pcl.errors import BadInputError, DamagedDataError, RunFailedError, printable
from pcl.evaluation.evaluate import evaluate
from pcl.evaluation.given_labels import chosen_label
from pcl.evaluation.parts import Parts
from pcl.evaluation.record import save_evaluation
from pcl.evaluation.report import REPORT
from pcl.evaluation.splits import EvaluationOptions
from pcl.evaluation.tables import format_table
from pcl.problems.problem import problem
from pcl.storage.place import Place, place
from pcl.train.best import Best, best_checkpoint
from pcl.train.checkpoint import checkpoint_name
from pcl.train.parts import full_experiment, load_shards
from pcl.train.runs import checkpoints, lost_checkpoints, recorded_experiment

T = TypeVar("T")
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
        "evaluation.num_tasks",
    ),
)
OF_TRAINING = ("train.", "data.augment.", "plugins.")  # keys on which an evaluation does not depend, beside the seed
MANY_PARTS = 16  # fewer are through in a moment
MOST_DIGITS = 12  # of a step
BEST = "best"  # what evaluation.checkpoint calls the one with the least held-out loss


def main(config: Config, told: Collection[str] = ()) -> None:
    """Evaluate ``evaluation.checkpoint`` on ``evaluation.split``.

    Args:
        config: the run's own, or that of its run file.
        told: what was given by hand: run file or folder, and keys.
    """
    run, recorded, manifest = trained_run(config, told)
    checkpoint, best = checkpoint_of(run, config.evaluation.checkpoint)
    if line := said_of_best(best, name := checkpoint.name):
        print(line, flush=True)
    check_writable(run / "evaluations")
    about = {"experiment": experiment_hash(recorded), "run": config.name, "checkpoint": name}
    about["training_seed"] = recorded.get("seed", config.seed)
    chosen_label(manifest.statistics["v"], config.evaluation.label)
    kind, root = problem(config.data.source), config.shard_root
    for line in kind.describe_needs(manifest, config.evaluation.split, config.evaluation.max_pairs):
        print(line, flush=True)
    model, forms = pcl.load(checkpoint), kind.forms(manifest)
    with parts_of(config) as parts:
        options = replace(options_of(config, about), parts=parts)
        result = evaluate(model, root, manifest, config.evaluation.split, options, kind.drawings, kind.evaluate, forms)
    if not all(map(math.isfinite, result.metrics.values())):
        wrong = [metric for metric, value in result.metrics.items() if not math.isfinite(value)]
        raise RunFailedError(f"{checkpoint} has metrics that are not finite ({', '.join(wrong)}): train again")
    for table in result.tables:
        print(f"\n{format_table(table)}")
    if result.notes:
        print("\n" + "\n".join(map(printable, result.notes)))
    step = int(name.removeprefix("checkpoint_"))
    of = {"step": step, "split": config.evaluation.split, "max_pairs": config.evaluation.max_pairs}
    card = model_card(config, run, name, model, manifest, recorded, best.name if best else "")
    folder = save_evaluation(result, run, name, about | of, part_of(config), card)
    print(f"\nmetrics and figures: {folder}\nto read and to send: {folder / REPORT}\n{watch(config.storage)}")


def checkpoint_of(run: Place, asked: str, key: str = "evaluation.checkpoint") -> tuple[Place, Best | None]:
    """Return the checkpoint of a run that a key asks for, and the best one of the run.

    Raises:
        BadInputError: there is no such checkpoint.
        DamagedDataError: the best is asked for, and damaged.
    """
    found, best = {path.name: path for path in checkpoints(run)}, best_of(run, asked, key)
    if best is not None and best.name not in found:
        found = {best.name: best.place(run)} | found  # first: the last is the newest that the run committed
    return found[chosen_checkpoint(run, [*found], best.name if best and asked == BEST else asked, key)], best


def best_of(run: Place, asked: str, key: str = "evaluation.checkpoint") -> Best | None:
    """Return the best checkpoint of a run; damage to it matters to who asks for it.

    Raises:
        BadInputError: it is asked for, and the run has chosen none.
        DamagedDataError: it is asked for, and damaged.
    """
    try:
        best = best_checkpoint(run)
    except DamagedDataError:
        if asked == BEST:
            raise
        return None
    if asked == BEST and best is None:
        raise BadInputError(
            f"{key}=best: {run} has chosen none, for its training held out no pairs: train with "
            f"train.validation_fraction=0.1, or leave {key} empty for the newest"
        )
    return best


def said_of_best(best: Best | None, name: str) -> str:
    """Return what is said of the checkpoint that is evaluated where one of the run was chosen as the best."""
    if best is None:
        return ""
    if best.name == name:
        return f"{name} has the least held-out loss of its run, {best.loss:.4f}"
    return f"{name} is evaluated; {best.name} has the least held-out loss, {best.loss:.4f}: evaluation.checkpoint=best"


def trained_run(config: Config, told: Collection[str]) -> tuple[Place, Mapping[str, Any], Manifest]:
    """Return the run that a configuration means, its experiment as it was recorded, and the manifest of its shards.

    Args:
        config: the run's own, or that of its run file.
        told: what was given by hand: run file or folder, and keys.

    Raises:
        BadInputError: there are no such shards, it holds no checkpoint, or it is of another experiment.
        DamagedDataError: the manifest is damaged.
    """
    run = place(config.storage) / config.name
    recorded = recorded_experiment(run)
    manifest = shards_of(config, run, recorded, told)
    if recorded is None or not checkpoints(run):
        raise BadInputError(f"{run} holds no checkpoint: train first, with pcl train and the same config")
    check_is_meant(run, recorded, full_experiment(config), told)
    return run, recorded, manifest


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


def chosen_checkpoint(run: Place, names: Sequence[str], asked: str, key: str = "evaluation.checkpoint") -> str:
    """Return the checkpoint that a key asks for, else the newest whole one, and say so where it is not the newest."""
    if asked.isascii() and asked.isdecimal() and len(asked) <= MOST_DIGITS and checkpoint_name(int(asked)) in names:
        return checkpoint_name(int(asked))
    if asked and asked not in names:
        raise BadInputError(f"{key}={printable(short(asked))}: {run} holds {', '.join(names)}")
    if asked:
        return asked
    lost = lost_checkpoints(run)
    whole = [name for name in names if name not in lost]
    if not whole:
        return names[-1]  # reading it says what is wrong with it
    for newer in lost:
        print(f"{newer} is half written or gone: {whole[-1]} is taken instead", flush=True)
    return whole[-1]


def part_of(config: Config) -> str:
    """Return the name of what is evaluated, empty of the whole test split."""
    part = config.evaluation.split if not config.evaluation.max_pairs else f"{config.evaluation.split}_first"
    return "" if part == "test" else part


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


@contextmanager
def parts_of(config: Config) -> Iterator[Parts]:
    """Give where the parts of an evaluation are computed, in a block: on the cluster that is named, or here."""
    workers = config.workers
    use_gpu = workers.use_gpu is not False
    with elsewhere(config.evaluation.num_tasks, use_gpu, workers.resources_timeout_s) as (tasks, device):
        yield Parts(tasks, device, shown)


def shown(items: Iterable[T], total: int, what: str) -> Iterable[T]:
    """Show how far an evaluation is, where there are many parts."""
    return progress(items, total, f"evaluation, {what}", "part") if total >= MANY_PARTS else items


def command(program: str, given: list[str]) -> None:
    """Evaluate as a command line says."""
    told = {argument.partition("=")[0] for argument in given}
    job(partial(main, told=told), GUIDE, program, given)
