"""The card of an exported model: what it is of, how it is loaded, and how it was judged, as Markdown."""

__all__ = ["card"]

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pcl.errors import printable
from pcl.train.model_folder import JSON_FILE, WEIGHTS_FILE
from pcl.train.trained import TrainedModel

SCORES = {
    "inner_product": "<g, h> / tau",
    "cosine": "<g, h> / (|g| |h| tau)",
    "squared_distance": "-|g - h|^2 / (2 tau)",
    "potentials": "(<g, h> + a + b) / tau, where a and b are the last components of what the encoders give",
}
MOST_METRICS = 200


def card(
    model: TrainedModel,
    files: Mapping[str, str],
    evaluation: Mapping[str, float],
    evaluated: str = "",
    lines: Sequence[str] = (),
) -> str:
    """Return the card of a model that is exported.

    Args:
        model: that is exported.
        files: beside those of every model, by the side they are of: programs of its encoders.
        evaluation: the metrics of the newest evaluation, empty where there is none.
        evaluated: what was evaluated, such as a checkpoint.
        lines: what a reader should know before the rest.
    """
    about, spec = model.about, model.spec
    parts = [
        f"# {_text(about.provenance.get('run') or 'A model of pairs')}",
        "Two encoders g(u) and h(v) whose scores s(u, v) tilt the product of the marginals of u and v into their joint "
        f"law. Here s = {SCORES.get(spec['tilting'], spec['tilting'])} with tau = {model.temperature().item():.6g} "
        f"({spec['tilting']}, {spec['embedding_dim']} components).",
        *lines,
        _table(["", "form", "shape of an item", "stored as", "encoder", "program"], _sides(model, files)),
        "## Load it",
        _code("python", _loading(model)),
        "Nothing in this folder is run by that: weights are safetensors, all else is JSON. Items go in as they are "
        "stored (integers as integers, not scaled); arrays of numpy give arrays of numpy.",
        *_without_pcl(files),
        "## What it is of",
        _table(["", ""], [[key, _text(_shown(value))] for key, value in sorted(about.provenance.items())]),
        "## How it was judged",
        *_judged(evaluation, evaluated),
    ]
    return "\n\n".join(parts) + "\n"


def _sides(model: TrainedModel, files: Mapping[str, str]) -> list[list[str]]:
    rows, spec = [], dict(model.spec)
    for name, side in (("u", model.about.u), ("v", model.about.v)):
        encoder: Any = spec[f"encoder_{name}"]
        labels = f", {len(side.counts)} labels" if side.counts else ""
        shape = tuple(encoder["shape"]) or "a number"
        stored = str(encoder.get("dtype") or "any numbers")
        unit = encoder.get("scale_factor", 1.0)
        stored += "" if unit == 1 else f", in units of {unit:.6g}"
        rows.append(
            [name, f"{side.form or 'not known'}{labels}", str(shape), stored, encoder["kind"], files.get(name, "")]
        )
    return rows


def _loading(model: TrainedModel) -> list[str]:
    plugins = [f"{name}.py" for name in model.about.plugins]
    given = f", plugins={plugins!r}" if plugins else ""
    lines = ["import pcl", "", f'model = pcl.load("this/folder"{given})', "u_given_v = model.conditional("]
    lines[-1] += '"u_given_v", u)  # carried by the u that you have'
    lines += ["weights = u_given_v.weights(model.features_v(v))  # of each of them, (len(v), len(u))"]
    for name, side in (("u", model.about.u), ("v", model.about.v)):
        if side.counts:
            given_name = "v" if name == "u" else "u"
            lines += [
                f'labels = model.conditional("{name}_given_{given_name}", range({len(side.counts)}), '
                f'model.log_prior("{name}"))',
                f"labels.weights(model.features_{given_name}({given_name}))  # probabilities of the labels",
            ]
    return lines


def _without_pcl(files: Mapping[str, str]) -> list[str]:
    """Return how to run the encoders with torch alone, nothing where there is no program."""
    if not files:
        return []
    lines = ["import torch", ""]
    lines += [
        f'{"gh"["uv".index(name)]} = torch.export.load("{file}").module()({name})  # {name}: a tensor as stored'
        for name, file in sorted(files.items())
    ]
    return [
        "Without pcl, with torch alone; an exported program is a program, so load only those whose origin you trust:",
        _code("python", lines),
        f"The formula above gives the scores. `{WEIGHTS_FILE}` and `{JSON_FILE}` are read by any program that knows "
        "safetensors and JSON.",
    ]


def _judged(evaluation: Mapping[str, float], evaluated: str) -> list[str]:
    if not evaluation:
        return ["It was not evaluated: `pcl evaluate` does that."]
    rows = [[f"`{_text(name)}`", f"{value:.6g}"] for name, value in list(evaluation.items())[:MOST_METRICS]]
    more = len(evaluation) - len(rows)
    return [_text(evaluated), _table(["metric", "value"], rows), *([f"And {more} more."] if more > 0 else [])]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _code(language: str, lines: Sequence[str]) -> str:
    return "\n".join([f"```{language}", *lines, "```"])


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _text(text: str) -> str:
    """Return a text that stays within its cell and is no Markdown of its own."""
    return printable(text).replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
