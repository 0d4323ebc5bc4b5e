"""Export a model into a folder that needs neither its run nor its shards: safetensors, JSON, programs, a card."""

from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from typing import Any

import torch

import pcl
from pcl.commands.command_line import Guide, check_is_kept, check_writable, job
from pcl.commands.evaluate import checkpoint_of
from pcl.config.identity import experiment_hash
from pcl.config.load import Config
from pcl.data.manifest import Manifest, manifest_sha256, read_manifest
from pcl.errors import BadInputError, DamagedDataError, printable
from pcl.library.exported import check_target, export_model, newest_evaluation
from pcl.library.known import about_model
from pcl.storage.place import Place, place
from pcl.train.runs import checkpoints, recorded_experiment

GUIDE = Guide(
    __doc__,
    examples=(
        "runs/mnist                                 # into runs/mnist/exported/<checkpoint>",
        "runs/mnist export.to=mnist_model export.checkpoint=250",
        "runs/spiral 'plugins=[mine.py]'            # with an encoder of a plugin",
    ),
    keys=("export.to", "export.checkpoint", "data.shards"),
)


def main(config: Config) -> None:
    """Export ``export.checkpoint`` to ``export.to``."""
    run = place(config.storage) / config.name
    recorded = recorded_experiment(run)
    if recorded is None or not checkpoints(run):
        raise BadInputError(f"{run} holds no checkpoint: train first, with pcl train and the same config")
    checkpoint, _ = checkpoint_of(run, config.export.checkpoint, "export.checkpoint")
    name = checkpoint.name
    target = place(config.export.to) if config.export.to else run / "exported" / name
    check_is_kept(export__to=str(target))
    check_target(target)
    check_writable(target)
    model = pcl.load(checkpoint)
    manifest = manifest_of(config, recorded)
    model.about = about_model(model.spec, manifest, config.plugins, provenance(config, recorded, name))
    export_model(model, target, newest_evaluation(run, name), partial(print, flush=True))
    print(f"exported: {target}\nload it: {loading(target, model.about.plugins)}")


def manifest_of(config: Config, recorded: Mapping[str, Any]) -> Manifest | None:
    """Return the manifest of the shards that a run was trained on; say so where it is not there, and return None."""
    folder = config.shard_root
    try:
        manifest = read_manifest(folder)
        if manifest_sha256(folder) != recorded.get("manifest_sha256"):
            raise BadInputError("its hash is another one")
    except (BadInputError, DamagedDataError) as error:
        print(
            f"forms and frequencies of labels are left out, for the manifest in {folder} is not that of the run "
            f"({printable(error)[:200]}): if the shards lie elsewhere give data.shards=...",
            flush=True,
        )
        return None
    return manifest


def provenance(config: Config, recorded: Mapping[str, Any], checkpoint: str) -> dict[str, Any]:
    """Return where a model is from."""
    return {
        "run": config.name,
        "checkpoint": checkpoint,
        "step": int(checkpoint.partition("_")[2]),
        "data": config.data.source,
        "seed": recorded.get("seed"),
        "experiment_hash": experiment_hash(recorded),
        "manifest_sha256": recorded.get("manifest_sha256"),
        "pcl": pcl.__version__,
        "torch": str(torch.__version__),
        "safetensors": version("safetensors"),
    }


def loading(target: Place, plugins: Mapping[str, str]) -> str:
    """Return the call that loads an exported model."""
    given = f", plugins={[f'{name}.py' for name in plugins]}" if plugins else ""
    return f"pcl.load({str(target)!r}{given})"


def command(program: str, given: list[str]) -> None:
    """Export as a command line says."""
    job(main, GUIDE, program, given)
