"""Calibration of the learned conditionals of numbers: ranks of the truths among draws from the training items.

Shapes: Q tested pairs, N references, d components of an item, k of them that are looked at, F features.
"""

__all__ = ["add_calibration"]

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pcl.conditional import Conditional
from pcl.data.sample import records_at
from pcl.evaluation.blocks import encoded
from pcl.evaluation.calibration import Calibration, ranked
from pcl.evaluation.forms import may_lack_values
from pcl.evaluation.result import Evaluation
from pcl.evaluation.splits import Splits
from pcl.model import PairModel

DIRECTIONS = {"u_given_v": ("u", 1), "v_given_u": ("v", 0)}  # what is predicted, and which feature maps are given
NUM_DRAWS = 199  # ranks 0 .. 199: quantiles of 90 % intervals lie between them
MOST_REFERENCES = 10_000  # training items that carry the marginal
REFERENCES_PER_PAIR = 10  # at least: all tested pairs share the error of the references
LEAST_PAIRS = 20  # of which ranks tell something
MOST_COMPONENTS = 8  # of an item, evenly spaced among those that vary
BLOCK_PAIRS = 256
SEED = 0  # of the choices and the draws: the same model has the same numbers
SLACK = 0.03  # of shares that tell nothing
SMALL = 0.01  # p-values of which a note tells
COLUMNS = ["p-value", "in 50 %", "in 90 %", "dispersion", "relative width"]


@dataclass(frozen=True)
class Ranked:
    """A calibrated direction.

    Attributes:
        calibration: ranks of the truths, (Q, k).
        widths: standard deviation of the conditional over that of all items, a mean over the pairs, shape (k,).
        components: which they are, shape (k,).
        num_components: d.
    """

    calibration: Calibration
    widths: Tensor
    components: Tensor
    num_components: int

    def rows(self) -> list[list[str]]:
        """Return a row for every component."""
        coverage, _ = self.calibration.coverage((0.5, 0.9))
        columns = self.calibration.p_values, *coverage, self.calibration.dispersion, self.widths
        numbers = torch.stack(columns, 1).tolist()
        return [[f"{i}", *_row(*row)] for i, row in zip(self.components.tolist(), numbers, strict=True)]


def add_calibration(result: Evaluation, model: PairModel, splits: Splits, forms: tuple[str, str]) -> None:
    """Judge whether truths rank uniformly among draws from both conditionals, where what is predicted is numbers.

    Pairs that may lack values are left to the evaluation of their kind.

    Args:
        result: of the evaluation.
        model: any encoders and tilting.
        splits: the pairs that are judged; ``options.calibration`` of them, at random, are tested.
        forms: of u and of v.
    """
    tested, references = chosen_pairs(splits)
    if len(tested) < LEAST_PAIRS or any(may_lack_values(splits.manifest.arrays[name]) for name in "uv"):
        return
    generator, found = torch.Generator().manual_seed(SEED), dict[str, Ranked]()
    for direction, (name, _) in DIRECTIONS.items():
        is_numbers = forms["uv".index(name)] == "numbers"
        one = _ranked(model, splits, direction, tested, references, generator) if is_numbers else None
        if one is not None:
            found[direction] = one
    if found:
        _report(result, found)


def chosen_pairs(splits: Splits) -> tuple[Tensor, np.ndarray]:
    """Return the places of the tested pairs, and the numbers of the training pairs whose items are references.

    Both are random; no tested pair is among the references.
    """
    generator = np.random.default_rng([SEED])
    num_judged, num_train = len(splits.arrays["u"]), splits.manifest.num_pairs("train")
    most = min(splits.options.calibration, num_judged, num_train // (REFERENCES_PER_PAIR + 1))
    tested, others = np.sort(generator.choice(num_judged, most, replace=False)), np.arange(num_train)
    if splits.split == "train":
        others = np.delete(others, tested)
    references = np.sort(generator.choice(others, min(MOST_REFERENCES, len(others)), replace=False))
    return torch.from_numpy(tested), references


def chosen_components(truths: Tensor) -> Tensor:
    """Return which components (Q, d) are looked at, shape (k,): evenly spaced among those that vary.

    Example:
        >>> chosen_components(torch.arange(2)[:, None] * (torch.arange(20) != 3))
        tensor([ 0,  4,  6,  9, 11, 14, 16, 19])
    """
    varying = (truths != truths[:1]).any(0).nonzero()[:, 0]
    number = min(MOST_COMPONENTS, len(varying))
    return varying[torch.linspace(0, max(0, len(varying) - 1), number, dtype=torch.float64).round().long()]


def _ranked(
    model: PairModel,
    splits: Splits,
    direction: str,
    tested: Tensor,
    references: np.ndarray,
    generator: torch.Generator,
) -> Ranked | None:
    """Return the ranks of one direction, None where no component varies or values are missing."""
    name, given = DIRECTIONS[direction]
    truths = splits.arrays[name][tested].reshape(len(tested), -1)
    components, num_components = chosen_components(truths), truths.shape[1]
    truths = truths[:, components]
    if not len(components) or not truths.isfinite().all():
        return None
    features, values = carried(model, splits, name, references, components)
    are_whole = values.isfinite().all(1)
    features, values = features[are_whole], values[are_whole]
    conditional, queries = Conditional(features, model.temperature()), splits.features[given][tested]
    ranks, spreads = [], []
    for query, truth in zip(torch.split(queries, BLOCK_PAIRS), torch.split(truths, BLOCK_PAIRS), strict=True):
        of_block, drawn = ranked(conditional, query, truth, values, NUM_DRAWS, generator)
        ranks.append(of_block)
        spreads.append(drawn.double().std(1))
    of_all = values.double().std(0)
    widths = torch.where(of_all > 0, torch.cat(spreads).mean(0) / of_all, 0.0)
    return Ranked(Calibration(torch.cat(ranks), NUM_DRAWS), widths, components, num_components)


def carried(
    model: PairModel, splits: Splits, name: str, numbers: np.ndarray, components: Tensor
) -> tuple[Tensor, Tensor]:
    """Return feature maps (N, F) of references and some of their components (N, k); a record is held at a time."""
    encode, features, values = model.features_u if name == "u" else model.features_v, [], []
    for _, record in records_at(splits.root, splits.manifest, "train", numbers, (name,)):
        items = torch.from_numpy(record[name])
        features.append(encoded(encode, items, splits.options.block_pairs, items[:1].nbytes))
        values.append(items.reshape(len(items), -1)[:, components])
    return torch.cat(features), torch.cat(values)


def _report(result: Evaluation, found: dict[str, Ranked]) -> None:
    """Add numbers, tables, a note and a figure."""
    from pcl.evaluation.calibration_figure import calibration_figure  # it draws: importing pcl stays quick

    table = [[f"intervals on {len(next(iter(found.values())).calibration.ranks):,} pairs", *COLUMNS]]
    for direction, one in found.items():
        spoken, calibration = direction.replace("_", " "), one.calibration
        metrics = calibration.metrics(direction) | {f"{direction}_relative_width": one.widths.mean().item()}
        result.metrics |= metrics
        half, most, p_value, *others = metrics.values()
        called = f"{spoken} ({len(one.components)} of {one.num_components:,} components)"
        table.append([called, *_row(p_value, half, most, *others)])
        result.details.append([[f"component of {spoken}", *COLUMNS], *one.rows()])
        if p_value < SMALL:
            result.notes.append(_note(spoken, calibration, most))
    result.tables.append(table)
    shown = {direction.replace("_", " "): one.calibration for direction, one in found.items()}
    numbers = [one.components.tolist() for one in found.values()]
    result.figures["calibration.png"] = calibration_figure(shown, numbers)


def _row(p_value: float, *others: float) -> list[str]:
    return [f"{p_value:.2g}", *(f"{value:.3f}" for value in others)]


def _note(spoken: str, calibration: Calibration, coverage: float) -> str:
    """Say in which way intervals are wrong."""
    half, most, _, dispersion = calibration.metrics("").values()
    return (
        f"Distrust the spread of {spoken}: 90 % intervals hold {coverage:.1%} of the truths, whose ranks are not "
        f"uniform (p = {calibration.p_value:.2g}): the learned conditional is {in_which_way(half, most, dispersion)}."
    )


def in_which_way(half: float, most: float, dispersion: float) -> str:
    """Return in which way a conditional is wrong whose ranks are not uniform.

    Args:
        half: share of the truths in its 50 % intervals.
        most: in its 90 % intervals.
        dispersion: spread of the ranks over that of uniform ones.

    Example:
        >>> in_which_way(0.68, 0.98, 0.78), in_which_way(0.3, 0.7, 1.3), in_which_way(0.2, 0.46, 0.9)
        ('too wide', 'too narrow', 'shifted')
    """
    beyond = min(half - 0.5, most - 0.9), max(half - 0.5, most - 0.9)
    if beyond[0] > -SLACK and dispersion < 1 - SLACK:
        return "too wide"
    return "too narrow" if beyond[1] < SLACK and dispersion > 1 + SLACK else "shifted"
