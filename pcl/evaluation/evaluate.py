"""One evaluation of one model on one split: numbers, pictures, a table."""

__all__ = ["evaluate"]

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from pcl.data.manifest import Manifest
from pcl.evaluation.blocks import encoded
from pcl.evaluation.classification import classification_metrics
from pcl.evaluation.drawing import Drawing
from pcl.evaluation.embeddings import choose_embeddings
from pcl.evaluation.labels import labels_figure
from pcl.evaluation.result import Evaluation
from pcl.evaluation.retrieval import RETRIEVALS, head_of, identity_of, retrieval_metrics, retrieval_ranks, row_of
from pcl.evaluation.retrieved import retrieved_figure
from pcl.evaluation.splits import EvaluationOptions, Splits, read_arrays
from pcl.model import PairModel

Drawings = Callable[[Splits], tuple[Drawing, Drawing]]
Addition = Callable[[Evaluation, PairModel, Splits], None]


@torch.no_grad()
def evaluate(
    model: PairModel,
    root: Path,
    manifest: Manifest,
    split: str,
    options: EvaluationOptions,
    drawings: Drawings,
    add: Addition | None = None,
) -> Evaluation:
    """Evaluate a model on a split: retrieval always, labels where v are labels, and what the kind of pairs adds.

    Args:
        model: with its encoders.
        root: folder of the shards.
        manifest: its manifest.
        split: which split to evaluate on.
        options: see there.
        drawings: how u and v are drawn.
        add: adds to the evaluation what makes sense for this kind of pairs.

    Raises:
        DamagedDataError: a shard differs from its manifest.
    """
    splits = _encoded_split(model, root, manifest, split, options)
    result = Evaluation()
    _add_retrieval(result, splits)
    has_labels = manifest.arrays["v"].statistics == "counts"
    if options.num_examples:
        meanings = [manifest.arrays[name].meaning for name in "uv"]
        figure = retrieved_figure(splits.items, splits.features, options.num_examples, drawings(splits), meanings)
        result.figures["retrieved.png"] = figure
    if options.num_embeddings:
        # the first components of a feature map are the embedding, whatever the tilting; cosine has normalised it
        dim = splits.features[0].shape[1] - (2 if model.tilting == "squared_distance" else 0)
        embeddings = splits.features[0][:, :dim], splits.features[1][:, :dim]
        result.embeddings = choose_embeddings(
            splits.items, embeddings, options.num_embeddings, drawings(splits), labels=has_labels
        )
    if has_labels:
        _add_labels(result, model, splits, drawings)
    if add is not None:
        add(result, model, splits)
    return result


def _encoded_split(model: PairModel, root: Path, manifest: Manifest, split: str, options: EvaluationOptions) -> Splits:
    number = manifest.num_pairs(split)
    kept = torch.arange(min(number, options.max_pairs or number))
    arrays = read_arrays(root, manifest, split, dict.fromkeys(manifest.arrays, kept))
    u, v = arrays["u"], arrays["v"]
    features_u = encoded(model.features_u, u, options.block_pairs, u[:1].nbytes)
    features_v = encoded(model.features_v, v, options.block_pairs, u[:1].nbytes)
    return Splits(root, manifest, split, arrays, (features_u, features_v), options)


def _add_retrieval(result: Evaluation, splits: Splits) -> None:
    ids, recall_at = [identity_of(part) for part in splits.items], splits.options.recall_at
    table = [head_of(f"retrieval among {len(ids[0]):,} pairs", recall_at)]
    for name, (query, candidate) in RETRIEVALS.items():
        features = splits.features[query], splits.features[candidate]
        ranks = retrieval_ranks(*features, ids[query], ids[candidate], splits.options.block_pairs)
        metrics = retrieval_metrics(ranks, recall_at)
        result.metrics |= {f"{name}_{key}": value for key, value in metrics.items()}
        table.append(row_of(name, metrics, recall_at))
    result.tables.append(table)


def _add_labels(result: Evaluation, model: PairModel, splits: Splits, drawings: Drawings) -> None:
    """Score the label conditional, whose reference set is the labels with their frequency in training."""
    counts, labels = splits.manifest.statistics["v"]["counts"], splits.arrays["v"]
    prior = torch.tensor(counts, dtype=torch.float64).log()
    conditional = model.conditional("v_given_u", torch.arange(len(counts)), prior)
    log_probabilities = conditional.log_weights(splits.features[0])
    metrics = classification_metrics(log_probabilities, labels)
    result.metrics |= {f"label_{name}": value for name, value in metrics.items()}
    result.tables.append(
        [
            ["label given u", "accuracy", "negative log-likelihood", "calibration error"],
            ["learned conditional", *(f"{value:.4f}" for value in metrics.values())],
        ]
    )
    scores: Tensor = splits.features[0] @ conditional.features.T
    result.figures["labels.png"] = labels_figure(drawings(splits)[0], labels.long(), scores, log_probabilities)
