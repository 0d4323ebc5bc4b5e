"""Evaluate the newest checkpoint of a run: tables, metrics.json, figures, NetCDF, TensorBoard."""

import math
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

import pcl
from pcl.command import job
from pcl.config import Config
from pcl.data.manifest import write_json
from pcl.errors import BadInputError, RunFailedError
from pcl.evaluation.ocean import FieldOptions
from pcl.evaluation.report import evaluate, format_table
from pcl.runs import check_name, checkpoints, experiment_hash
from pcl.train.session import full_experiment, load_shards


def main(config: Config) -> None:
    """Evaluate a run on ``evaluation.split``."""
    manifest = load_shards(config)
    run = Path(config.storage) / config.name
    content = full_experiment(config)
    if not check_name(run, content) or not checkpoints(run):
        raise BadInputError(f"{run} holds no checkpoint: train first, with jobs/train.py and the same config")
    checkpoint = checkpoints(run)[-1]
    step = int(checkpoint.name.removeprefix("checkpoint_"))
    part = config.evaluation.split if not config.evaluation.max_pairs else f"{config.evaluation.split}_first"
    tag, folder = "eval", run / "evaluations" / checkpoint.name
    if part != "test":  # another split, or a part of it, leaves the evaluation of the test split alone
        tag, folder = f"eval_{part}", folder / part
    about = {"experiment": experiment_hash(content), "run": config.name, "checkpoint": checkpoint.name}
    result = evaluate(
        pcl.load(checkpoint),
        Path(config.data.shards),
        manifest,
        split=config.evaluation.split,
        loss=config.loss.kind,
        weights=(config.loss.weight_u_given_v, config.loss.weight_v_given_u),
        recall_at=config.evaluation.recall_at,
        block_pairs=config.evaluation.block_pairs,
        max_pairs=config.evaluation.max_pairs,
        fields=FieldOptions(**vars(config.evaluation.fields), about=about | {"training_seed": config.seed}),
    )
    if not all(map(math.isfinite, result.metrics.values())):
        wrong = [name for name, value in result.metrics.items() if not math.isfinite(value)]
        raise RunFailedError(f"{checkpoint} has metrics that are not finite ({', '.join(wrong)}): train again")
    for table in result.tables:
        print(f"\n{format_table(table)}")
    folder.mkdir(parents=True, exist_ok=True)
    for old in [*folder.glob("*.json"), *folder.glob("*.png"), *folder.glob("*.nc")]:  # of other settings
        old.unlink()
    for name, dataset in result.datasets.items():
        dataset.to_netcdf(folder / name)
    with SummaryWriter(str(run / "tensorboard")) as writer:
        for name, value in result.metrics.items():
            writer.add_scalar(f"{tag}/{name}", value, step)
        for name, figure in result.figures.items():
            figure.savefig(folder / name, dpi=120)
            writer.add_figure(f"{tag}/{Path(name).stem}", figure, step)
    part_of = {"step": step, "split": config.evaluation.split, "max_pairs": config.evaluation.max_pairs}
    write_json(folder / "metrics.json", part_of | result.metrics)
    print(f"\nmetrics and figures: {folder}\nwatch: tensorboard --logdir {config.storage}")


if __name__ == "__main__":
    job(main, __doc__)
