"""What the page of an evaluation says of the model: what it is, what it was trained on, and what to distrust."""

__all__ = ["few", "model_card"]

import datetime
import math
from collections.abc import Mapping
from typing import Any

import pcl
from pcl.config.identity import differing
from pcl.config.load import Config
from pcl.data.held_out import held_out
from pcl.data.manifest import Manifest
from pcl.errors import DamagedDataError
from pcl.evaluation.report import Card
from pcl.evaluation.result import Table
from pcl.model import PairModel
from pcl.problems.problem import problem
from pcl.storage.place import Place
from pcl.storage.stored import read_json
from pcl.train.runs import PROVENANCE

FEW_PAIRS = 1000  # of which shares have errors that are seen
LONGEST = 300  # characters of a value
NOT_CHOSEN = ("manifest_sha256", "plugins.")  # keys of an experiment that nobody configures


def model_card(
    config: Config, run: Place, name: str, model: PairModel, manifest: Manifest, recorded: Mapping[str, Any], best: str
) -> Card:
    """Return the card of a model.

    Args:
        config: of the evaluation.
        run: the run's directory.
        name: of the checkpoint.
        model: that it holds.
        manifest: of the shards.
        recorded: the experiment as the run has it.
        best: name of the checkpoint with the least held-out loss, empty where none was chosen.
    """
    split, most = config.evaluation.split, config.evaluation.max_pairs
    num_trained = manifest.num_pairs("train") - _num_held_out(manifest, recorded)
    number = min(manifest.num_pairs(split), most or manifest.num_pairs(split))
    about = [
        f"Encoders of u ({manifest.arrays['u'].meaning}) and v ({manifest.arrays['v'].meaning}), trained by the "
        f"{recorded.get('loss.kind')} loss on {num_trained:,} pairs of {manifest.source['name']}; {name} is judged on "
        f"{number:,} pairs of the {split} split.",
        f"How the pairs were divided: {manifest.split_rule}.",
    ]
    warnings = [*_of_choice(recorded, name, best), *_of_pairs(manifest, split, number), *_of_loss(recorded)]
    facts = {
        "The model": _model(model),
        "Configuration, where it differs from the defaults": _configuration(recorded),
        "Where it comes from": _provenance(run, name, manifest, recorded),
    }
    return Card(f"{config.name}, {name}", about, warnings, facts)


def _of_choice(recorded: Mapping[str, Any], name: str, best: str) -> list[str]:
    if not best:
        return []
    if best == name:
        return ["The checkpoint was chosen by its loss on training pairs that were held out, not by the pairs below."]
    return [f"Another checkpoint, {best}, has less loss on the pairs that were held out of training."]


def _of_pairs(manifest: Manifest, split: str, number: int) -> list[str]:
    """Return what to distrust for the pairs on which the model is judged."""
    lines = []
    if split == "train":
        lines.append("The model was trained on these pairs: numbers tell how well it knows them, not others.")
    if number < manifest.num_pairs(split):
        lines.append(f"The first {number:,} of {manifest.num_pairs(split):,} pairs were judged.")
    lines += few(number, "pairs")
    if problem(manifest.source["name"]).has_missing_values:
        lines.append("Values are missing in these pairs: errors are over what is there.")
    if left_out := manifest.source.get("missing_pairs"):
        lines.append(f"Pairs with missing values, {left_out} in all, were left out of the shards.")
    return lines


def few(number: int, what: str) -> list[str]:
    """Return what to distrust of shares of so many, nothing where they are many.

    Example:
        >>> few(400, "pairs"), few(10_000, "pairs")
        (['Few pairs: a share of 400 has a standard error of up to 0.025.'], [])
    """
    error = 0.5 / math.sqrt(max(1, number))
    return [f"Few {what}: a share of {number:,} has a standard error of up to {error:.3f}."] * (number < FEW_PAIRS)


def _of_loss(recorded: Mapping[str, Any]) -> list[str]:
    if recorded.get("loss.kind") not in ("conditional", "conditional_mmd"):
        return []
    return [
        f"{what} was not trained: the loss is that of the other direction alone."
        for what, key in (("u given v", "loss.weight_u_given_v"), ("v given u", "loss.weight_v_given_u"))
        if recorded.get(key) == 0
    ]


def _model(model: PairModel) -> Table:
    rows = [["", "value"]]
    for name, encoder in (("u", model.encoder_u), ("v", model.encoder_v)):
        rows.append([f"weights of the encoder of {name}", f"{sum(part.numel() for part in encoder.parameters()):,}"])
    return [*rows, ["tilting", model.tilting], ["temperature", f"{model.temperature().item():.6g}"]]


def _configuration(recorded: Mapping[str, Any]) -> Table:
    keys = [key for key in differing({}, recorded) if not key.startswith(NOT_CHOSEN) and key in recorded]
    return [["key", "value"], *([key, _short(recorded[key])] for key in keys)]


def _provenance(run: Place, name: str, manifest: Manifest, recorded: Mapping[str, Any]) -> Table:
    """Return where a model comes from: its run, its program, its data."""
    try:
        known = read_json(run / PROVENANCE, dict[str, Any], "") or {}
    except DamagedDataError:
        known = {}
    versions = known.get("versions")
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    rows = {
        "run": str(run),
        "checkpoint": name,
        "begun": known.get("started"),
        "command": known.get("command"),
        "commit": known.get("commit"),
        "uncommitted changes": known.get("uncommitted_changes"),
        "Python": known.get("python"),
        **(versions if isinstance(versions, dict) else {}),
        "evaluated": f"{now} by pcl {pcl.__version__}",
        "SHA-256 of the manifest of the shards": recorded.get("manifest_sha256"),
        **{f"SHA-256 of {key.partition('.')[2]}": recorded[key] for key in recorded if key.startswith("plugins.")},
        "training pairs that were held out": f"{_num_held_out(manifest, recorded):,}",
        "licence of the data": manifest.source.get("licence"),
    }
    return [["", "value"], *([key, _short(value)] for key, value in rows.items() if value is not None)]


def _num_held_out(manifest: Manifest, recorded: Mapping[str, Any]) -> int:
    fraction = recorded.get("train.validation_fraction", 0.0)
    return len(held_out(manifest, fraction).numbers) if fraction else 0


def _short(value: Any) -> str:
    """Return a value as a text of a bounded length."""
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
