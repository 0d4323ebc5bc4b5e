"""One evaluation of one model on one split: numbers, pictures, a table."""

__all__ = ["Evaluation", "evaluate", "format_table"]

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pcl.data.manifest import Manifest
from pcl.errors import BadInputError, printable
from pcl.evaluation.blocks import encoded
from pcl.evaluation.classification import classification_metrics
from pcl.evaluation.embeddings import choose_embeddings
from pcl.evaluation.figures import conditional_means_figure, labels_figure
from pcl.evaluation.result import Evaluation, Table
from pcl.evaluation.retrieval import identity_of, retrieval_metrics, retrieval_ranks
from pcl.evaluation.retrieved import retrieved_figure
from pcl.gaussian import DIRECTIONS, GaussianProcessPair, plug_in, relative_error
from pcl.model import PairModel
from pcl.problems.gaussian_process.theory_gap import closed_form_means, learned_means, pair_means, reference_errors
from pcl.problems.ocean.evaluation.evaluate import FieldOptions, evaluate_fields, retrieval_within_tiles
from pcl.problems.ocean.evaluation.methods import NUM_TUNING
from pcl.problems.ocean.evaluation.windows import Geometry, read_archive, read_arrays, read_windows
from pcl.problems.streamfunction.evaluation import evaluate_flows


def _read(root: Path, manifest: Manifest, split: str, max_pairs: int) -> tuple[Tensor, Tensor]:
    kept = torch.arange(min(manifest.num_pairs(split), max_pairs or manifest.num_pairs(split)))
    found = read_arrays(root, manifest, split, {"u": kept, "v": kept})
    return found["u"], found["v"]


@torch.no_grad()
def evaluate(
    model: PairModel,
    root: Path,
    manifest: Manifest,
    *,
    split: str,
    loss: str,
    weights: Sequence[float],
    recall_at: Sequence[int],
    block_pairs: int,
    max_pairs: int = 0,
    num_examples: int = 0,
    num_embeddings: int = 0,
    fields: FieldOptions | None = None,
) -> Evaluation:
    """Evaluate a model on a split: retrieval always, labels, theory and ocean fields where the data have them.

    Args:
        model: with its encoders.
        root: folder of the shards.
        manifest: its manifest.
        split: which split to evaluate on.
        loss: that the model was trained with, for its closed form.
        weights: of the conditional loss, (lambda_u, lambda_v).
        recall_at: K of R@K.
        block_pairs: pairs encoded and scored at a time.
        max_pairs: evaluate the first pairs only; 0: all.
        num_examples: queries of each direction that are drawn with what they retrieve; 0: none.
        num_embeddings: pairs whose embeddings are kept; 0: none.
        fields: how the fields of ocean pairs are estimated and what their files say.

    Raises:
        DamagedDataError: a shard differs from its manifest.
    """
    is_ocean = manifest.source["name"] == "ocean"
    pairs = read_windows(root, manifest, split, max_pairs=max_pairs) if is_ocean else None
    u, v = _read(root, manifest, split, max_pairs) if pairs is None else (pairs.u, pairs.v)
    features_u = encoded(model.features_u, u, block_pairs, u[:1].nbytes)
    features_v = encoded(model.features_v, v, block_pairs, u[:1].nbytes)
    result = Evaluation()
    _retrieval(result, (u, v), (features_u, features_v), recall_at, block_pairs)
    has_labels = manifest.arrays["v"].statistics == "counts"
    if num_examples:
        meanings = [manifest.arrays[name].meaning for name in "uv"]
        wet = pairs.wet if pairs is not None else None
        figure = retrieved_figure((u, v), (features_u, features_v), num_examples, meanings, wet)
        result.figures["retrieved.png"] = figure
    if num_embeddings:
        # the first components of a feature map are the embedding, whatever the tilting; cosine has normalised it
        dim = features_u.shape[1] - (2 if model.tilting == "squared_distance" else 0)
        embeddings = features_u[:, :dim], features_v[:, :dim]
        result.embeddings = choose_embeddings((u, v), embeddings, num_embeddings, labels=has_labels)
    if has_labels:
        _labels(result, model, u, v, features_u, manifest.statistics["v"]["counts"])
    if manifest.source["name"] == "gaussian_process":
        train = _read(root, manifest, "train", 0)
        process = GaussianProcessPair(**manifest.source["process"])
        _theory(result, model, process, (loss, weights), train, (u, v))
    if manifest.source["name"] == "streamfunction":
        evaluate_flows(result, manifest.source, (u, v), (features_u, features_v), recall_at, block_pairs)
    if pairs is not None:
        retrieval_within_tiles(result, pairs, (features_u, features_v), recall_at, block_pairs)
        if split != "train":  # a training pair would find its own field in the archive
            archive = read_archive(root, manifest, NUM_TUNING)
            geometry = Geometry.of(manifest.source)
            evaluate_fields(result, model, archive, pairs, geometry, fields or FieldOptions(), block_pairs)
    return result


def _retrieval(
    result: Evaluation,
    items: tuple[Tensor, Tensor],
    features: tuple[Tensor, Tensor],
    recall_at: Sequence[int],
    block_pairs: int,
) -> None:
    ids = [identity_of(part) for part in items]
    table = [[f"retrieval among {len(ids[0]):,} pairs", *(f"R@{k}" for k in recall_at), "median rank"]]
    for query, candidate, name in ((0, 1, "u_to_v"), (1, 0, "v_to_u")):
        ranks = retrieval_ranks(features[query], features[candidate], ids[query], ids[candidate], block_pairs)
        metrics = retrieval_metrics(ranks, recall_at)
        result.metrics |= {f"{name}_{key}": value for key, value in metrics.items()}
        row = [f"{metrics[f'recall@{k}']:.4f}" for k in recall_at]
        table.append([name.replace("_to_", " -> "), *row, f"{metrics['median_rank']:g}"])
    result.tables.append(table)


def _labels(
    result: Evaluation, model: PairModel, u: Tensor, labels: Tensor, features_u: Tensor, counts: Sequence[int]
) -> None:
    """Score the label conditional, whose reference set is the labels with their frequency in training."""
    prior = torch.tensor(counts, dtype=torch.float64).log()
    conditional = model.conditional("v_given_u", torch.arange(len(counts)), prior)
    log_probabilities = conditional.log_weights(features_u)
    metrics = classification_metrics(log_probabilities, labels)
    result.metrics |= {f"label_{name}": value for name, value in metrics.items()}
    result.tables.append(
        [
            ["label given image", "accuracy", "negative log-likelihood", "calibration error"],
            ["learned conditional", *(f"{value:.4f}" for value in metrics.values())],
        ]
    )
    scores = features_u @ conditional.features.T
    result.figures["labels.png"] = labels_figure(u, labels.long(), scores, log_probabilities)


def _theory(
    result: Evaluation,
    model: PairModel,
    process: GaussianProcessPair,
    loss: tuple[str, Sequence[float]],
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
) -> None:
    """Compare conditional means with the exact ones, beside the plug-in estimator and the closed form."""
    try:
        law, estimate = process.law(), plug_in(*train)
    except ValueError as error:
        raise BadInputError(f"the theory gap cannot be computed: {error}") from error
    means = {"exact": pair_means(law), "plug-in": pair_means(estimate)}
    learned = learned_means(model, law)
    if learned is not None:
        means["learned"] = learned
        dim = model.encode_u(test[0][:1]).shape[1]
        if loss[0] in ("conditional", "joint"):  # the optimum of an MMD loss is known only by minimisation
            means["closed form"] = closed_form_means(law, dim, loss[0], model.tilting, loss[1])
    errors = {
        name: {direction: relative_error(maps[direction], law, direction) for direction in DIRECTIONS}
        for name, maps in means.items()
    }
    if learned is None:
        queries = (test[0][:1000], test[1][:1000])
        errors["learned"] = reference_errors(model, law, *train, *queries)
    table = [["relative squared error of the conditional mean", "E[u|v]", "E[v|u]"]]
    for name, note in (
        ("learned", "learned" if learned is not None else "learned, on the training pairs as references"),
        ("plug-in", f"plug-in estimator, same {len(train[0]):,} pairs"),
        ("closed form", "closed form, population optimum"),
    ):
        if name in errors:
            key = name.replace(" ", "_").replace("-", "_")
            result.metrics |= {f"{key}_relative_error_{d}": error for d, error in errors[name].items()}
            table.append([note, *(f"{errors[name][d]:.5f}" for d in DIRECTIONS)])
    result.tables.append(table)
    if learned is not None:
        result.figures["conditional_means.png"] = conditional_means_figure(means, *test, np.asarray(process.points))


def format_table(table: Table) -> str:
    """Align a table for a terminal: the first row is its head, the first column is text, the others are numbers.

    Example:
        >>> print(format_table([["name", "value"], ["a", "0.5"]]))
        name  value
        ----  -----
        a       0.5
    """
    table = [[printable(cell) for cell in row] for row in table]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    rows = [table[0], ["-" * width for width in widths], *table[1:]]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )
