"""Tables, metrics and sentences of fields given drifters.

A method's scores are in the metrics under ``field_<method>_<score>``; what is not defined is left out there and a dash
in the tables, where a column of nothing but dashes is left out.
"""

__all__ = ["add_differences", "add_scores", "add_whole_scores", "verdict"]

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from pcl.evaluation.comparison import sentence
from pcl.evaluation.result import Evaluation
from pcl.problems.ocean.evaluation.leads import Lead
from pcl.problems.ocean.evaluation.learned import FROZEN, POSTERIOR
from pcl.problems.ocean.evaluation.member_drift import WITHIN_KM
from pcl.problems.ocean.evaluation.methods import INTERPOLATION
from pcl.problems.ocean.evaluation.significance import LEAST_BLOCKS, Difference, difference
from pcl.problems.ocean.evaluation.tally import Tally

Column = tuple[str, str, Callable[[float], str]]  # metric, head, how a number is written
Rows = Mapping[str, Mapping[str, float]]  # scores by method
BEFORE: tuple[Column, ...] = (
    ("rmse_m_s", "RMSE", "{:.4f}".format),
    ("nrmse_score", "NRMSE score", "{:.3f}".format),
    ("explained_variance", "expl. var.", "{:.3f}".format),
    ("crps_m_s", "CRPS", "{:.4f}".format),
    ("spread_skill", "spread/skill", "{:.2f}".format),
    ("coverage_50", "in 50 %", "{:.3f}".format),
    ("coverage_90", "in 90 %", "{:.3f}".format),
    ("effective_sample_size", "eff. sample", "{:.1f}".format),
    ("resolution_km", "resolves km", "{:.0f}".format),
)
AFTER: tuple[Column, ...] = (("liu_weisberg", "Liu-Weisberg", "{:.3f}".format),)
WHOLE: tuple[Column, ...] = (
    ("energy_m_s", "energy score", "{:.4f}".format),
    ("variogram_m_s", "variogram score", "{:.5f}".format),
)
DRIFT: tuple[Column, ...] = (
    ("within_25_km", "within 25 km", "{:.3f}".format),
    ("within_25_km_expected", "expected", "{:.3f}".format),
    ("brier", "Brier", "{:.4f}".format),
    ("reliability", "reliability", "{:.4f}".format),
    ("region_90", "in region of 90 %", "{:.3f}".format),
)
SCORES: tuple[tuple[str, str, Callable[[Tensor], Tensor]], ...] = (
    ("rmse_m_s", "RMSE", torch.sqrt),
    ("crps_m_s", "CRPS", torch.as_tensor),
)
NEEDS_NO_LEARNING = (INTERPOLATION, "climatology", FROZEN)


def key_of(name: str) -> str:
    """Return a method's name as it stands in metrics."""
    return name.replace(" ", "_").replace("-", "_")


def add_scores(result: Evaluation, rows: Rows, num_pairs: int, leads: Sequence[Lead]) -> None:
    """Add the scores of single points and of drift in the mean current.

    Args:
        result: to add to.
        rows: see above; of lead times ``separation_km_<lead>``.
        num_pairs: held-out pairs.
        leads: of the separations.
    """
    show_km = f"{{:.{1 if all(lead.unit == 'day' for lead in leads) else 2}f}}".format
    separations: list[Column] = [(f"separation_km_{lead.name}", f"km, {lead.head}", show_km) for lead in leads]
    title = f"field given drifters, {num_pairs:,} held-out pairs; m/s"
    _add(result, title, rows, (*BEFORE, *separations, *AFTER))


def add_whole_scores(result: Evaluation, tallies: Mapping[str, Tally], leads: Sequence[Lead]) -> None:
    """Add the scores of ensembles as wholes, and of the drift of their members, where a method has members.

    Args:
        result: to add to.
        tallies: by method.
        leads: lead times of the drift of members; the table shows the last.
    """
    rows, shown = {}, {}
    for name, tally in tallies.items():
        if whole := tally.whole_scores():
            drift = [tally.member_drift.scores(number) for number in range(len(leads))]
            rows[name] = whole | {
                f"{score}_{lead.name}": value
                for lead, scores in zip(leads, drift, strict=True)
                for score, value in scores.items()
            }
            shown[name] = whole | (drift[-1] if drift else {})
    number = max((len(tally.energy) for tally in tallies.values()), default=0)
    if not number:
        return
    drift_of = f"; members' drifters, {leads[-1].head}, {WITHIN_KM:g} km" if leads else ""
    result.metrics |= _metrics(rows)
    table = _table(f"ensembles as wholes, {number:,} pairs{drift_of}", _finite(shown), (*WHOLE, *DRIFT))
    result.tables.append(table)


def add_differences(result: Evaluation, tallies: Mapping[str, Tally], blocks: Tensor) -> None:
    """Add how methods differ from optimal interpolation over blocks of time, and a sentence where learning loses.

    Args:
        result: to add to.
        tallies: by method.
        blocks: of time, of every pair, shape (N,).
    """

    def apart(name: str, other: str, score: str, of: Callable[[Tensor], Tensor]) -> Difference:
        return difference(tallies[name].by_pair(score), tallies[other].by_pair(score), blocks, of)

    number = int(blocks.max()) + 1
    head = [f"less {INTERPOLATION}, {number} blocks of time; m/s"]
    table = [head + [text for _, spoken, _ in SCORES for text in (spoken, "95 % interval")]]
    for name in tallies:
        if name == INTERPOLATION or not tallies[name].has_law:
            continue
        row = [name]
        for score, _, of in SCORES:
            found = apart(name, INTERPOLATION, score, of)
            metric = f"field_{key_of(name)}_{score}_less_{key_of(INTERPOLATION)}"
            ends = {"": found.value, "_low": found.low, "_high": found.high}
            result.metrics |= {f"{metric}{end}": value for end, value in ends.items() if math.isfinite(value)}
            row += [f"{found.value:+.4f}", f"{found.low:+.4f} to {found.high:+.4f}" if number >= LEAST_BLOCKS else "-"]
        table.append(row)
    result.tables.append(table)
    means = {
        (name, score): _mean(tally.by_pair(score), of) for name, tally in tallies.items() for score, _, of in SCORES
    }
    for other in NEEDS_NO_LEARNING:
        for score, spoken, of in SCORES if other in tallies else ():
            found = apart(POSTERIOR, other, score, of)
            if text := verdict(spoken, other, means[POSTERIOR, score], means[other, score], found):
                result.notes.append(text)


def _mean(sums: Tensor, of: Callable[[Tensor], Tensor]) -> float:
    total, weight = sums.sum(0)
    return float(of(total / weight))


def verdict(score: str, other: str, learned: float, of_other: float, found: Difference) -> str:
    """Return a sentence where learning does not win, nothing where it does.

    Example:
        >>> verdict("RMSE", "optimal interpolation", 0.2, 0.2001, Difference(-0.0001, -0.01, 0.01, 9))
        'Learning is not shown to win: RMSE of the field, m/s, is 0.2000, and 0.2001 by optimal interpolation; 9 blocks
        of time are too few to tell the difference from chance.'
    """
    what = f"{score} of the field, m/s,"
    if found.is_more or (found.value >= 0 and math.isnan(found.low)):
        return sentence(what, other, learned, of_other)
    if found.is_less:
        return ""
    number = "1 block of time is" if found.num_blocks == 1 else f"{found.num_blocks} blocks of time are"
    why = f"{number} too few to tell the difference from chance"
    return f"Learning is not shown to win: {what} is {learned:.4f}, and {of_other:.4f} by {other}; {why}."


def _finite(rows: Rows) -> Rows:
    return {name: {key: x for key, x in row.items() if math.isfinite(x)} for name, row in rows.items()}


def _metrics(rows: Rows) -> dict[str, float]:
    return {
        f"field_{key_of(name)}_{score}": value for name, row in _finite(rows).items() for score, value in row.items()
    }


def _add(result: Evaluation, title: str, rows: Rows, columns: Sequence[Column]) -> None:
    result.metrics |= _metrics(rows)
    result.tables.append(_table(title, _finite(rows), columns))


def _table(title: str, rows: Rows, columns: Sequence[Column]) -> list[list[str]]:
    columns = [column for column in columns if any(column[0] in row for row in rows.values())]
    table = [[title, *(head for _, head, _ in columns)]]
    for name, row in rows.items():
        table.append([name, *(show(row[score]) if score in row else "-" for score, _, show in columns)])
    return table
