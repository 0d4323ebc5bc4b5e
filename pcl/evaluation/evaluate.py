"""One evaluation of one model on one split: numbers, pictures, a table."""

__all__ = ["evaluate"]

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from pcl.data.manifest import Manifest
from pcl.evaluation.baselines import Baselines, baselines_of
from pcl.evaluation.blocks import encoded
from pcl.evaluation.classification import classification_metrics
from pcl.evaluation.comparison import chance_metrics, is_behind, sentence
from pcl.evaluation.drawing import Drawing
from pcl.evaluation.embeddings import choose_embeddings
from pcl.evaluation.forms import forms_of
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
    forms: tuple[str, str] | None = None,
) -> Evaluation:
    """Evaluate a model on a split: retrieval always, labels where v are labels, and what the kind of pairs adds.

    Beside every number stands one that needs no learning, and a note says where learning loses.

    Args:
        model: with its encoders.
        root: folder of the shards.
        manifest: its manifest.
        split: which split to evaluate on.
        options: see there.
        drawings: how u and v are drawn.
        add: adds to the evaluation what makes sense for this kind of pairs.
        forms: of u and v (``numbers``, ``image``, ``labels``, ``text``); None: as their statistics tell.

    Raises:
        DamagedDataError: a shard differs from its manifest.
    """
    splits = _encoded_split(model, root, manifest, split, options)
    result = Evaluation()
    # the first components of a feature map are the embedding, whatever the tilting; cosine has normalised it
    dim = splits.features[0].shape[1] - (2 if model.tilting == "squared_distance" else 0)
    known = baselines_of(splits, forms or forms_of(manifest), dim) if options.baselines else None
    result.notes += known.notes if known else ()
    _add_retrieval(result, splits, known)
    has_labels = manifest.arrays["v"].statistics == "counts"
    if options.num_examples:
        meanings = [manifest.arrays[name].meaning for name in "uv"]
        figure = retrieved_figure(splits.items, splits.features, options.num_examples, drawings(splits), meanings)
        result.figures["retrieved.png"] = figure
    if options.num_embeddings:
        embeddings = splits.features[0][:, :dim], splits.features[1][:, :dim]
        result.embeddings = choose_embeddings(
            splits.items, embeddings, options.num_embeddings, drawings(splits), labels=has_labels
        )
    if has_labels:
        _add_labels(result, model, splits, drawings, known)
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


def _add_retrieval(result: Evaluation, splits: Splits, known: Baselines | None) -> None:
    """Score retrieval in both directions: what is learned, what needs no learning, and chance."""
    ids, options = [identity_of(part) for part in splits.items], splits.options
    table = [head_of(f"retrieval among {len(ids[0]):,} pairs", options.recall_at)]
    for name, (query, candidate) in RETRIEVALS.items():
        of = ids[query], ids[candidate]

        def ranks_of(features: tuple[Tensor, Tensor], query: int = query, of: tuple[Tensor, Tensor] = of) -> Tensor:
            return retrieval_ranks(features[query], features[1 - query], *of, options.block_pairs)

        learned = ranks_of(splits.features)
        metrics = retrieval_metrics(learned, options.recall_at)
        result.metrics |= {f"{name}_{key}": value for key, value in metrics.items()}
        table.append(row_of(_called(name, of[1]), metrics, options.recall_at))
        if known is None or not known.features:
            continue
        for key, features in known.features.items():
            ranks = ranks_of(features)
            found = retrieval_metrics(ranks, options.recall_at)
            result.metrics |= {f"{key}_{name}_{metric}": value for metric, value in found.items()}
            table.append(row_of(f"{name}, {known.titles[key]}", found, options.recall_at))
            behind = (k for k in options.recall_at if is_behind(learned <= k, ranks <= k, of[0]))
            if (k := next(behind, None)) is not None:
                what, metric = f"R@{k} of {_spoken(name)}", f"recall@{k}"
                result.notes.append(sentence(what, known.titles[key], metrics[metric], found[metric]))
        table.append(row_of(f"{name}, chance", chance_metrics(*of, options.recall_at), options.recall_at))
    result.tables.append(table)


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _called(name: str, candidate_ids: Tensor) -> str:
    """Return a direction, with the number of distinct candidates where some are equal."""
    num_distinct = int(candidate_ids.max()) + 1
    return name if num_distinct == len(candidate_ids) else f"{name} ({num_distinct:,} distinct candidates)"


def _add_labels(
    result: Evaluation, model: PairModel, splits: Splits, drawings: Drawings, known: Baselines | None
) -> None:
    """Score the label conditional, whose reference set is the labels with their frequency in training."""
    counts, labels = splits.manifest.statistics["v"]["counts"], splits.arrays["v"]
    prior = torch.tensor(counts, dtype=torch.float64).log()
    conditional = model.conditional("v_given_u", torch.arange(len(counts)), prior)
    log_probabilities = conditional.log_weights(splits.features[0])
    metrics = classification_metrics(log_probabilities, labels)
    result.metrics |= {f"label_{name}": value for name, value in metrics.items()}
    table = [
        ["label given u", "accuracy", "negative log-likelihood", "calibration error"],
        ["learned conditional", *(f"{value:.4f}" for value in metrics.values())],
    ]
    if known is not None and known.labels is not None:
        of_linear = (known.features["linear"][0] @ known.labels.T + prior).log_softmax(1)
        found = classification_metrics(of_linear, labels)
        result.metrics |= {f"linear_label_{name}": value for name, value in found.items()}
        table.append(["linear discriminant", *(f"{value:.4f}" for value in found.values())])
        hits, others = (table.argmax(1) == labels for table in (log_probabilities, of_linear))
        if is_behind(hits, others, torch.arange(len(labels))):
            what = "the accuracy of labels given u"
            result.notes.append(sentence(what, "linear discriminant", metrics["accuracy"], found["accuracy"]))
    result.tables.append(table)
    scores: Tensor = splits.features[0] @ conditional.features.T
    result.figures["labels.png"] = labels_figure(drawings(splits)[0], labels.long(), scores, log_probabilities)
