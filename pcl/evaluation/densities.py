r"""Densities of held-out pairs under both learned conditionals, and how many items share the weight of one.

.. math:: \frac1N \sum_i \Big[ s_{ii} - \log \frac1N \sum_j e^{s_{ij}} \Big], \qquad
    \frac{(\sum_j e^{s_{ij}})^2}{\sum_j e^{2 s_{ij}}}

The first is minus a one-sided loss: 0 where nothing is learned, at best the mutual information, and never above log N.

Shapes: N pairs, F features.
"""

__all__ = ["add_densities", "density_metrics"]

import math

import torch
from torch import Tensor

from pcl.evaluation.baselines import Baselines
from pcl.evaluation.result import Evaluation
from pcl.evaluation.retrieval import RETRIEVALS
from pcl.evaluation.splits import Splits
from pcl.scores import negative_log_sum_exps


def density_metrics(queries: Tensor, candidates: Tensor) -> dict[str, float]:
    """Mean log density of the partners given the queries, nats, and the median effective sample size.

    Args:
        queries: feature maps over the temperature, shape (N, F).
        candidates: feature maps of their partners, which are the references, shape (N, F).

    Example:
        >>> found = density_metrics(torch.zeros(4, 2), torch.zeros(4, 2))  # nothing is known
        >>> {name: abs(round(value, 6)) for name, value in found.items()}
        {'log_density': 0.0, 'effective_sample_size': 4.0}
    """
    positives = torch.einsum("nf,nf->n", queries, candidates).double()
    others, _, num_others = (part.double() for part in negative_log_sum_exps(queries, candidates, with_columns=False))
    log_normaliser = torch.logaddexp(others, positives)
    log_squares = torch.logaddexp(2 * others - num_others.clamp(min=1).log(), 2 * positives)
    log_density = positives - log_normaliser + math.log(len(queries))
    return {
        "log_density": log_density.mean().item(),
        "effective_sample_size": (2 * log_normaliser - log_squares).exp().quantile(0.5).item(),
    }


def add_densities(result: Evaluation, splits: Splits, temperature: Tensor, known: Baselines | None) -> None:
    """Score both conditionals on the pairs that are judged, beside those of the linear optimum.

    Args:
        result: of the evaluation.
        splits: the pairs that are judged.
        temperature: tau of the model.
        known: what needs no learning.
    """
    number = len(splits.features[0])
    table = [[f"conditionals on {number:,} pairs", "log density", "effective sample size"]]
    learned = splits.features[0] / temperature, splits.features[1]
    compared = {"": (learned, "")}
    if known is not None and "linear" in known.features:
        compared["linear_"] = known.features["linear"], f", {known.titles['linear']}"
    for name, (query, candidate) in RETRIEVALS.items():
        for prefix, (features, called) in compared.items():
            found = density_metrics(features[query], features[candidate])
            result.metrics |= {f"{prefix}{name}_{metric}": value for metric, value in found.items()}
            row = f"{found['log_density']:.4f}", f"{found['effective_sample_size']:,.1f}"
            table.append([f"{name.replace('_', ' ')}{called}", *row])
    result.tables.append(table)
