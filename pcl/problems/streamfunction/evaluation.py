"""Flows and paths: the learned encoder beside the one that knows the physics, and the flows that it retrieves.

Shapes: N pairs, M modes, P positions, F features.
"""

__all__ = ["LearnedMeans", "add_flows", "field_of", "flows_figure", "learned_means", "oracle_features"]

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pcl.evaluation.result import Evaluation
from pcl.evaluation.retrieval import RETRIEVALS, both_ranks, head_of, identity_of, retrieval_metrics, row_of
from pcl.evaluation.splits import Splits
from pcl.model import PairModel
from pcl.problems.streamfunction.law import StreamfunctionLaw
from pcl.problems.streamfunction.learned_inverse import learned_inverse_of
from pcl.problems.streamfunction.linear_inverse import oracle

GRID_POINTS = 64  # of a picture, in each direction
NUM_SHOWN = 3


def oracle_features(source: Mapping[str, Any], u: Tensor, v: Tensor, block_pairs: int) -> tuple[Tensor, Tensor]:
    r"""Return what the physics knows: cosine features of coefficients and of their posterior mean given the path.

    Both are in units of the prior's standard deviations, in which no mode counts more than another.

    Args:
        source: of the manifest, with ``law`` and ``time_step``.
        u: stored coefficients, shape (N, 2 M).
        v: stored paths, shape (N, P, 2).
        block_pairs: paths encoded at a time.

    Returns:
        Features of u and of v, shapes (N, 2 M).
    """
    deviations = torch.from_numpy(StreamfunctionLaw(**source["law"]).standard_deviations).to(u)
    encoder = oracle(source)
    means = torch.cat([encoder(block) for block in torch.split(v, block_pairs)])
    return torch.nn.functional.normalize(u / deviations), torch.nn.functional.normalize(means)


def add_flows(result: Evaluation, model: PairModel, splits: Splits) -> None:
    """Add to an evaluation: the oracle's retrieval, the learned one's share of it, and a picture of flows.

    Args:
        result: with the learned retrieval in ``metrics``.
        model: whose conditional of flows is carried by those of another split than the one that is judged.
        splits: the pairs that are judged.
    """
    recall_at, block_pairs = splits.options.recall_at, splits.options.block_pairs
    known = oracle_features(splits.source, *splits.items, block_pairs)
    both = both_ranks(*known, identity_of(splits.items[0]), identity_of(splits.items[1]), block_pairs)
    table = [head_of("beside the encoder that knows the physics", recall_at)]
    for name, ranks in zip(RETRIEVALS, both, strict=True):
        best = retrieval_metrics(ranks, recall_at)
        learned = {key: result.metrics[f"{name}_{key}"] for key in best}
        result.metrics |= {f"oracle_{name}_{key}": value for key, value in best.items()}
        table += [row_of(f"{name}, {row}", found, recall_at) for row, found in (("learned", learned), ("oracle", best))]
        shares = [learned[f"recall@{k}"] / max(best[f"recall@{k}"], 1 / len(ranks)) for k in recall_at]
        table.append([f"{table[-1][0].split(',')[0]}, learned / oracle", *(f"{share:.4f}" for share in shares), ""])
    result.tables.append(table)
    means, inverse = learned_means(model, splits), learned_inverse_of(model.encoder_v)
    solved = None if inverse is None else inverse.flows(splits.items[1][:NUM_SHOWN])
    result.figures["lagrangian.png"] = flows_figure(splits.source, splits.items, splits.features, means, solved)


class LearnedMeans(NamedTuple):
    """Posterior means of flows given the paths of a few pairs, by the learned conditional.

    Attributes:
        means: coefficients, shape (n, 2 M).
        effective_sample_size: of the weights, shape (n,).
        references: how many flows carry the conditional, and of which split.
    """

    means: Tensor
    effective_sample_size: Tensor
    references: str


def learned_means(model: PairModel, splits: Splits) -> LearnedMeans:
    """Return the learned posterior means given the first paths, carried by flows that are not theirs.

    Args:
        model: with its encoders.
        splits: the pairs that are judged.
    """
    other = "test" if splits.split == "train" else "train"
    flows = splits.read(other, ("u",))["u"]
    conditional, queries = model.conditional("u_given_v", flows), splits.features[1][:NUM_SHOWN]
    means, sizes = conditional.mean(queries, flows), conditional.effective_sample_size(queries)
    return LearnedMeans(means, sizes, f"{len(flows):,} {'training' if other == 'train' else 'test'} flows")


def flows_figure(
    source: Mapping[str, Any],
    items: tuple[Tensor, Tensor],
    features: tuple[Tensor, Tensor],
    learned: LearnedMeans,
    solved: Tensor | None = None,
) -> Figure:
    """Draw the path of a few test pairs on their flow, on the one retrieved for it, and on two posterior means.

    Args:
        source: of the manifest, with ``law`` and ``time_step``.
        items: stored u, (N, 2 M), and v, (N, P, 2).
        features: learned feature maps of both, (N, F).
        learned: posterior means; those of the oracle, who knows the law of the flows, stand beside them.
        solved: those that a learned inverse solves for, which no archive carries, in their place.
    """
    law = StreamfunctionLaw(**source["law"])
    deviations = torch.from_numpy(law.standard_deviations)
    u, v = (part.double() for part in items)
    shown = range(min(NUM_SHOWN, len(u)))
    figure = Figure(figsize=(12, 0.6 + 2.9 * len(shown)), layout="constrained")
    axes = figure.subplots(len(shown), 4, squeeze=False, sharex=True, sharey=True)
    for i, row in zip(shown, axes, strict=True):
        scores = features[0] @ features[1][i]
        best, rank = int(scores.argmax()), 1 + int((scores > scores[i]).sum())
        mean = oracle(source)(v[i : i + 1])[0] * deviations
        pictures = (
            (u[i], f"flow {i} and its path"),
            (u[best], f"retrieved: flow {best}\n(flow {i} has rank {rank:,})"),
            (
                learned.means[i].double(),
                f"learned posterior mean\n(effective sample size {float(learned.effective_sample_size[i]):,.1f})",
            )
            if solved is None
            else (solved[i], "learned posterior mean\n(solved for, under the learned law)"),
            (mean, "the oracle's posterior mean\n(it knows the law of the flows)"),
        )
        levels = torch.linspace(-1, 1, 15) * field_of(law, u[i]).abs().max() * 1.05
        for axis, (coefficients, title) in zip(row, pictures, strict=True):
            _draw(axis, field_of(law, coefficients), v[i] % 1, levels)
            axis.set_title(title, fontsize=8)
    about = f"one of {len(u):,} flows is retrieved"
    about += f"; {learned.references} carry the learned mean" if solved is None else ""
    figure.suptitle(f"streamfunction at T/2, path from grey to black; {about}", fontsize=9)
    return figure


def field_of(law: StreamfunctionLaw, u: Tensor) -> Tensor:
    """Return the streamfunction of coefficients (2 M,) at half of the duration on a grid, rows along x_2."""
    axis = torch.linspace(0, 1, GRID_POINTS, dtype=u.dtype)
    x2, x1 = torch.meshgrid(axis, axis, indexing="ij")
    positions = torch.stack([x1, x2], -1).flatten(0, 1)
    times = torch.full((len(positions),), law.duration / 2, dtype=u.dtype)
    return law.streamfunction(u, positions, times).reshape(x1.shape)


def _draw(axis: Any, field: Tensor, path: Tensor, levels: Tensor) -> None:
    ticks = torch.linspace(0, 1, GRID_POINTS)
    axis.contourf(ticks, ticks, field, levels, cmap="RdBu_r", extend="both")
    axis.contour(ticks, ticks, field, levels, colors="0.5", linewidths=0.4)
    # a path that leaves the torus on one side comes back on the other: points, not a line, and every third is enough
    points = path[::3]
    axis.scatter(*points.T, c=torch.arange(len(points)), vmin=-len(points), cmap="gray_r", s=4, linewidths=0)
    axis.plot(*path[0], "o", mfc="none", mec="k", ms=6)
    axis.set(xlim=(0, 1), ylim=(0, 1), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], aspect="equal")
