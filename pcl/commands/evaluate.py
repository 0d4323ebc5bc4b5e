"""Evaluate a checkpoint of a run: tables, metrics.json, figures, NetCDF, TensorBoard."""

import math
from pathlib import Path

import pcl
from pcl.commands.command_line import job
from pcl.config.identity import experiment_hash
from pcl.config.load import Config
from pcl.errors import BadInputError, RunFailedError
from pcl.evaluation.evaluate import evaluate, format_table
from pcl.evaluation.memory import describe_memory
from pcl.evaluation.record import save_evaluation
from pcl.problems.ocean.evaluation.evaluate import FieldOptions
from pcl.storage.place import place
from pcl.train.runs import check_name, checkpoints, lost_checkpoints
from pcl.train.session import full_experiment, load_shards


def main(config: Config) -> None:
    """Evaluate ``evaluation.checkpoint`` on ``evaluation.split``."""
    manifest = load_shards(config)
    run = place(config.storage) / config.name
    content = full_experiment(config)
    found = {path.name: path for path in checkpoints(run)} if check_name(run, content) else {}
    if not found:
        raise BadInputError(f"{run} holds no checkpoint: train first, with jobs/train.py and the same config")
    lost = [] if config.evaluation.checkpoint else lost_checkpoints(run)
    name = config.evaluation.checkpoint or [*(set(lost) & found.keys()), *(one for one in found if one not in lost)][-1]
    if name not in found:
        raise BadInputError(f"evaluation.checkpoint={name}: {run} holds {', '.join(found)}")
    for newer in lost if name not in lost else ():
        print(f"{newer} is half written or gone: {name} is evaluated instead", flush=True)
    about = {"experiment": experiment_hash(content), "run": config.name, "checkpoint": name}
    for line in describe_memory(manifest, config.evaluation.split, config.evaluation.max_pairs):
        print(line, flush=True)
    result = evaluate(
        pcl.load(found[name]),
        Path(config.data.shards),
        manifest,
        split=config.evaluation.split,
        loss=config.loss.kind,
        weights=(config.loss.weight_u_given_v, config.loss.weight_v_given_u),
        recall_at=config.evaluation.recall_at,
        block_pairs=config.evaluation.block_pairs,
        max_pairs=config.evaluation.max_pairs,
        num_examples=config.evaluation.num_examples,
        num_embeddings=config.evaluation.num_embeddings,
        fields=FieldOptions(**vars(config.evaluation.fields), about=about | {"training_seed": config.seed}),
    )
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


def command(program: str, given: list[str]) -> None:
    """Evaluate as a command line says."""
    job(main, __doc__, program, given)
