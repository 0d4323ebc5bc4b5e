"""What the numbers of several losses say about a claim of arXiv:2505.24134, in words.

The claim, of section 6.2 and its figure 12: a loss without a part that predicts u from v collapses, draws of u given v
repeat few items. Beside figure 11 the same is asked of v given u.
"""

__all__ = ["claims"]

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pcl.evaluation.compared import Group, shown
from pcl.evaluation.given_labels import NUM_DRAWS

NOISE = 2.0  # standard errors
LEAST = 0.1  # of the better number: a smaller difference is none
COLLAPSE = 2.0  # times fewer


@dataclass(frozen=True)
class Side:
    """A conditional, and the numbers that judge it.

    Attributes:
        predicts: the modality that it predicts, and that which is given.
        metric: that judges it.
        more_is_better: of the metric.
        weight: the key of the part of the loss that trains it.
        question: that the metric answers.
        titles: of the metric, first, and of what stands beside it.
    """

    predicts: tuple[str, str]
    metric: str
    more_is_better: bool
    weight: str
    question: str
    titles: Mapping[str, str]

    def said(self, group: Group) -> str:
        """Return the numbers of a group."""
        numbers = [f"{title} {shown(group.spread(name))}" for name, title in self.titles.items() if group.has(name)]
        return f"{group.label}: {', '.join(numbers)}"

    def best(self, groups: Sequence[Group]) -> Group:
        """Return the group with the best mean."""
        return (max if self.more_is_better else min)(groups, key=lambda group: group.spread(self.metric).mean)

    def is_worse(self, group: Group, best: Group) -> bool:
        """Return whether a group is worse than the best by more than the seeds differ, and not by little."""
        one, other = group.spread(self.metric), best.spread(self.metric)
        behind = (other.mean - one.mean) * (1 if self.more_is_better else -1)
        return behind > max(NOISE * math.hypot(one.standard_error, other.standard_error), LEAST * abs(other.mean))

    def behind(self, group: Group, best: Group) -> str:
        """Return by how much a group is worse than the best."""
        if group is best:
            return f"{group.label} is the best of all"
        if not self.is_worse(group, best):
            return f"{group.label} is not worse than {best.label} by more than the seeds differ"
        one, other = group.spread(self.metric).mean, best.spread(self.metric).mean
        factor = max(one, other) / max(min(one, other), 1e-12)
        found = f"{group.label} has {factor:.3g} times {'less' if self.more_is_better else 'more'} than {best.label}"
        return f"{found}: it collapses onto few items" if self.more_is_better and factor >= COLLAPSE else found


SIDES = (
    Side(
        ("u", "v"),
        "given_label_effective_sample_size",
        True,
        "loss.weight_u_given_v",
        "Figure 12 of the paper: does u given v collapse where the loss has no part that predicts u from v",
        {
            "given_label_effective_sample_size": "effective sample size",
            "given_label_drawn_distinct": f"different items among {NUM_DRAWS} draws",
            "given_label_right_share": "weight of items with the right label",
        },
    ),
    Side(
        ("v", "u"),
        "label_negative_log_likelihood",
        False,
        "loss.weight_v_given_u",
        "Figure 11 of the paper: is v given u worse where the loss has no part that predicts v from u",
        {
            "label_negative_log_likelihood": "negative log-likelihood",
            "label_calibration_error": "calibration error",
            "label_accuracy": "accuracy",
        },
    ),
)


def claims(groups: Sequence[Group]) -> list[str]:
    """Return sentences on what numbers answer: one a direction, and one on each loss with both parts.

    Args:
        groups: of runs whose v are labels; nothing is said where all their losses have both parts.
    """
    judged = [side for side in SIDES if all(group.has(side.metric) for group in groups)]
    sentences = [_claim(side, groups) for side in judged if 0 < len(_without(side, groups)) < len(groups)]
    both = [group for group in groups if all(_weight(group, side) > 0 for side in SIDES)]
    return sentences + [_of_both(group, groups, judged) for group in both if sentences]


def _claim(side: Side, groups: Sequence[Group]) -> str:
    without, best = _without(side, groups), side.best(groups)
    worse = [group for group in without if side.is_worse(group, best)]
    answer = "Yes" if worse == without else "In part" if worse else "No"
    return (
        f"{side.question} ({side.weight}=0)? {answer}, by the {next(iter(side.titles.values()))}: "
        f"{', '.join(side.behind(group, best) for group in without)}. {'; '.join(map(side.said, groups))}."
    )


def _of_both(group: Group, groups: Sequence[Group], judged: Sequence[Side]) -> str:
    words = ["worse than" if side.is_worse(group, side.best(groups)) else "as good as" for side in judged]
    parts = [f"{' given '.join(side.predicts)} is {how} the best" for side, how in zip(judged, words, strict=True)]
    return f"The loss of {group.label} has both parts: its conditional of {', that of '.join(parts)}."


def _without(side: Side, groups: Sequence[Group]) -> list[Group]:
    """Return the groups whose loss has no part for a direction."""
    return [group for group in groups if _weight(group, side) == 0]


def _weight(group: Group, side: Side) -> float:
    """Return the weight of a part of a group's loss; losses without parts train both directions."""
    is_conditional = group.experiment.get("loss.kind", "conditional") == "conditional"
    return float(group.experiment.get(side.weight) or 0) if is_conditional else 1.0
