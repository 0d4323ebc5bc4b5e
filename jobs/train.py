"""Train a run with Ray Train workers; the same command goes on after an interruption."""

import json
import sys
import threading
from pathlib import Path

from tqdm import tqdm

from pcl.cluster import connected
from pcl.command import job
from pcl.config import Config, allowed_workers, resolved_yaml
from pcl.runs import check_name, checkpoints, claim
from pcl.train.checkpoint import checkpoint_name
from pcl.train.session import full_experiment, num_steps, prepare


def main(config: Config) -> None:
    """Check everything that can be checked, then train."""
    manifest, loader = prepare(config, allowed_workers(config)[-1])
    steps, run = num_steps(config, loader), Path(config.storage) / config.name
    check_name(run, full_experiment(config))
    used = loader.steps_per_epoch * config.train.global_batch
    print(
        f"training {config.name}: {steps} steps = {config.train.epochs} epochs of {loader.steps_per_epoch} steps of "
        f"{config.train.global_batch} pairs on {config.workers.num_workers} workers; each epoch uses {used:,} of "
        f"{manifest.num_pairs('train'):,} pairs, the others differ from epoch to epoch",
        flush=True,
    )
    done = [path.name for path in checkpoints(run)]
    if checkpoint_name(steps) in done:
        print("this run is finished")
    else:
        if done:
            print(f"going on from {done[-1]}")
        fit_with_progress(config, run, steps)
    print(f"run: {run}\nwatch: tensorboard --logdir {config.storage}")


def fit_with_progress(config: Config, run: Path, steps: int) -> None:
    """Train, and follow the file in which worker 0 writes how far it is."""
    from pcl.train.worker import check_resources, fit  # imports ray.train, which takes seconds: after the checks

    stop = threading.Event()
    watcher = threading.Thread(target=follow, args=(run / "progress.json", steps, stop), daemon=True)
    with connected(num_cpus=config.workers.num_workers * config.workers.cpus_per_worker):
        check_resources(config)
        claim(run, full_experiment(config), resolved_yaml(config))
        (run / "progress.json").unlink(missing_ok=True)
        watcher.start()
        try:
            fit(config, run)
        finally:
            stop.set()
            watcher.join()


def follow(path: Path, steps: int, stop: threading.Event) -> None:
    """Show progress: a bar on a terminal, plain lines elsewhere."""
    bar = tqdm(total=steps, unit="step", disable=not sys.stderr.isatty())
    shown, last = -1, False
    while not last:
        last = stop.wait(0.5)
        state = json.loads(path.read_text()) if path.is_file() else {"step": 0}
        if state["step"] != shown and "loss" in state:
            text = f"loss {state['loss']:.4f}, {state['pairs_per_second']:,.0f} pairs/s"
            bar.set_postfix_str(text, refresh=False)
            bar.n = state["step"]
            bar.refresh()
            if bar.disable:
                print(f"step {state['step']} of {steps}: {text}", flush=True)
        elif state["step"] < shown and state["step"] > 0 and not last:
            print(f"the workers were started again: going on from step {state['step']}", flush=True)
        shown = state["step"]
    bar.close()


if __name__ == "__main__":
    job(main, __doc__)
