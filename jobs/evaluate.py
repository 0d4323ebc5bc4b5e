"""Evaluate the newest checkpoint of a run: tables, metrics.json, figures, TensorBoard."""

from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

import pcl
from pcl.command import job
from pcl.config import Config
from pcl.data.manifest import write_json
from pcl.errors import BadInputError
from pcl.evaluation.report import evaluate, format_table
from pcl.runs import check_name, checkpoints
from pcl.train.session import full_experiment, load_shards


def main(config: Config) -> None:
    """Evaluate a run on ``evaluation.split``."""
    manifest = load_shards(config)
    run = Path(config.storage) / config.name
    if not check_name(run, full_experiment(config)) or not checkpoints(run):
        raise BadInputError(f"{run} holds no checkpoint: train first, with jobs/train.py and the same config")
    checkpoint = checkpoints(run)[-1]
    step = int(checkpoint.name.removeprefix("checkpoint_"))
    result = evaluate(
        pcl.load(checkpoint),
        Path(config.data.shards),
        manifest,
        split=config.evaluation.split,
        loss=config.loss.kind,
        recall_at=config.evaluation.recall_at,
        block_pairs=config.evaluation.block_pairs,
        max_pairs=config.evaluation.max_pairs,
    )
    for table in result.tables:
        print(f"\n{format_table(table)}")
    folder = run / "evaluations" / checkpoint.name
    folder.mkdir(parents=True, exist_ok=True)
    with SummaryWriter(str(run / "tensorboard")) as writer:
        for name, value in result.metrics.items():
            writer.add_scalar(f"eval/{name}", value, step)
        for name, figure in result.figures.items():
            figure.savefig(folder / name, dpi=120)
            writer.add_figure(f"eval/{Path(name).stem}", figure, step)
    write_json(folder / "metrics.json", {"step": step, "split": config.evaluation.split} | result.metrics)
    print(f"\nmetrics and figures: {folder}\nwatch: tensorboard --logdir {config.storage}")


if __name__ == "__main__":
    job(main, __doc__)
