"""The theory check as people read it: a table, numbers, pictures, and one page of HTML that needs nothing else."""

__all__ = ["calibration_table", "summary", "write_report"]

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment
from torch.utils.tensorboard import SummaryWriter

from pcl.gaussian import DIRECTIONS, GaussianPair
from pcl.storage.place import Place, write_bytes
from pcl.storage.stored import write_json
from pcl.theory.figures import Picture, draw
from pcl.theory.verdicts import Check, Results, loss_title, pick

TEMPLATE = Path(__file__).with_name("report.html")
SECTIONS = {
    "plane": (
        "Two numbers",
        "Covariance [[1.5, 1], [1, 1.5]], one dimension of embedding: what each loss and tilting can and cannot fit.",
    ),
    "cosine": ("Two numbers, cosine tilting", "Normalised linear encoders keep the sign of a number alone."),
    "minimum": (
        "Closed forms",
        "The best encoders of each loss, tilting and rank against direct minimisation of the population loss, and what "
        "remains of the divergence against a sum over canonical correlations.",
    ),
    "optima": (
        "Training against the best encoders",
        "Linear encoders trained on 10,000 samples come near the best ones of their rank, and never below them.",
    ),
    "recipe": (
        "Training against the plug-in estimator",
        "The plug-in estimator knows that the pairs are Gaussian, the loss does not: the error of the trained "
        "conditional means over its error, on the same pairs.",
    ),
    "embedding_dim": ("Embedding dimension", "Errors of the conditional means fall as canonical pairs are added."),
    "global_batch": (
        "Batch size",
        "On the same pairs. The paper's recipe counts epochs, so a larger batch takes fewer steps and ends "
        "further from its optimum; ours takes as many steps with every batch.",
    ),
    "negatives": (
        "Negatives: gathered or not",
        "A normaliser over few negatives biases the encoders. Two workers that gather have twice the negatives.",
    ),
    "num_pairs": ("Number of pairs", "Beside the plug-in estimator on the same pairs."),
    "calibration": (
        "Calibration",
        "Where theory says that a conditional is exact, the truth ranks uniformly among its draws; where the "
        "covariance stays at the prior, visibly not. Conditionals of the cosine tilting are drawn from references.",
    ),
}


class Section(NamedTuple):
    """A part of the page."""

    title: str
    text: str
    checks: list[Check]
    pictures: list[dict[str, str]]
    table: list[list[str]]


def summary(checks: Sequence[Check]) -> list[list[str]]:
    """Return a table of the experiments: how many checks there were and how many passed.

    Args:
        checks: at least one.
    """
    table = [["experiment", "passed", "checks"]]
    for experiment, (name, _) in SECTIONS.items():
        chosen = [check for check in checks if check.experiment == experiment]
        if chosen:
            table.append([name, str(sum(check.passed for check in chosen)), str(len(chosen))])
    return table


def write_report(
    folder: Place, name: str, about: str, law: GaussianPair, results: Results, checks: Sequence[Check]
) -> None:
    """Write ``metrics.json``, the figures, ``report.html`` and TensorBoard scalars into a folder.

    Args:
        folder: where to.
        name: of the run.
        about: one sentence on what was run.
        law: of the Gaussian process.
        results: tasks with what they returned.
        checks: verdicts on them.
    """
    pictures = draw(law, results)
    images = {picture.name: _png(picture) for picture in pictures}
    for file, image in images.items():
        write_bytes(folder / file, image)
    table = calibration_table(results)
    write_bytes(folder / "report.html", _html(name, about, checks, pictures, images, table).encode())
    _write_tensorboard(folder, results, checks, pictures)
    content = {"about": about, "checks": [_as_json(check) for check in checks], "calibration": table}
    write_json(folder / "metrics.json", content)


def calibration_table(results: Results) -> list[list[str]]:
    """Return how calibrated the conditionals of every tilting and loss are: p-value, and coverage at 50 and at 90 %.

    Args:
        results: tasks with what they returned; without any of calibration there is no table.
    """
    words = [direction.replace("_given_", " given ") for direction in DIRECTIONS]
    table = [["tilting", "loss", "encoders", *(f"{w}: {what}" for w in words for what in ("p", "50 %", "90 %"))]]
    order = sorted(pick(results, "calibration"), key=lambda one: (one[0].tilting, loss_title(one[0])))
    for cell, found in order:
        for name, called in (("best", "closed form"), ("learned", "trained")):
            if f"{name}_{DIRECTIONS[0]}" in found:
                row = [cell.tilting.replace("_", " "), loss_title(cell), called]
                for direction in DIRECTIONS:
                    metrics = found[f"{name}_{direction}"]
                    row.append(f"{metrics['ranks_calibration_p_value']:.2g}")
                    row += [f"{metrics[f'ranks_coverage_{level}']:.3f}" for level in (50, 90)]
                table.append(row)
    return table if len(table) > 1 else []


def _png(picture: Picture) -> bytes:
    content = io.BytesIO()
    picture.figure.savefig(content, format="png", dpi=110)
    return content.getvalue()


def _as_json(check: Check) -> dict[str, Any]:
    """Return a check with null for what is not finite, which JSON has no word for."""
    content = check._asdict() | {"passed": check.passed}
    return {k: None if isinstance(x, float) and not math.isfinite(x) else x for k, x in content.items()}


def _html(
    name: str,
    about: str,
    checks: Sequence[Check],
    pictures: list[Picture],
    images: dict[str, bytes],
    calibration: list[list[str]],
) -> str:
    sections = []
    for experiment, (heading, text) in SECTIONS.items():
        shown = [
            {"caption": picture.caption, "png": base64.b64encode(images[picture.name]).decode()}
            for picture in pictures
            if picture.experiment == experiment
        ]
        chosen = [check for check in checks if check.experiment == experiment]
        if shown or chosen:
            table = calibration if experiment == "calibration" else []
            sections.append(Section(heading, text, chosen, shown, table))
    template = Environment(autoescape=True).from_string(TEMPLATE.read_text())
    failed = [check for check in checks if not check.passed]
    return template.render(name=name, about=about, checks=checks, failed=failed, sections=sections)


def _write_tensorboard(folder: Place, results: Results, checks: Sequence[Check], pictures: list[Picture]) -> None:
    with SummaryWriter(str(folder)) as writer:
        writer.add_scalar("theory/checks_passed", sum(check.passed for check in checks), 0)
        writer.add_scalar("theory/checks_failed", sum(not check.passed for check in checks), 0)
        for task, result in results:
            if task.series:  # a curve: its points are the values of the field
                step = getattr(task.cell, "global_batch" if task.experiment == "negatives" else task.experiment)
                for direction in ("u_given_v", "v_given_u"):
                    tag = f"theory/{task.experiment}/{task.series}_error_{direction}"
                    writer.add_scalar(tag, result[f"learned_error_{direction}"], step)
        for check in checks:
            writer.add_scalar(f"theory_checks/{check.experiment}/{check.name}", check.measured, 0)
        for picture in pictures:
            writer.add_figure(f"theory/{Path(picture.name).stem}", picture.figure, 0)
