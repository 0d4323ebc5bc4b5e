"""One evaluation of one model on one split: numbers, pictures, a table."""

__all__ = ["evaluate"]

from collections.abc import Callable

import torch
from torch import Tensor

from pcl.data.manifest import Manifest
from pcl.evaluation.baselines import Baselines, baselines_of
from pcl.evaluation.comparison import chance_metrics, is_behind, sentence
from pcl.evaluation.densities import add_densities
from pcl.evaluation.drawing import Drawing
from pcl.evaluation.embeddings import choose_embeddings
from pcl.evaluation.features import features_of
from pcl.evaluation.forms import forms_of
from pcl.evaluation.labels import add_labels
from pcl.evaluation.ranks import add_calibration
from pcl.evaluation.result import Evaluation
from pcl.evaluation.retrieval import RETRIEVALS, both_ranks, head_of, identity_of, retrieval_metrics, row_of
from pcl.evaluation.retrieved import retrieved_figure
from pcl.evaluation.splits import EvaluationOptions, Splits, read_arrays
from pcl.model import PairModel
from pcl.storage.place import Place
from pcl.tilting import embeddings_of

Drawings = Callable[[Splits], tuple[Drawing, Drawing]]
Addition = Callable[[Evaluation, PairModel, Splits], None]


@torch.no_grad()
def evaluate(
    model: PairModel,
    root: Place,
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
    dim = embeddings_of(splits.features[0], model.tilting).shape[1]
    forms = forms or forms_of(manifest)
    known = baselines_of(splits, forms, dim) if options.baselines else None
    result.notes += known.notes if known else ()
    _add_retrieval(result, splits, known)
    add_densities(result, splits, model.temperature(), known)
    if options.calibration:
        add_calibration(result, model, splits, forms)
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
        add_labels(result, model, splits, drawings, known)
    if add is not None:
        add(result, model, splits)
    return result


def _encoded_split(model: PairModel, root: Place, manifest: Manifest, split: str, options: EvaluationOptions) -> Splits:
    number = manifest.num_pairs(split)
    kept = torch.arange(min(number, options.max_pairs or number))
    arrays = read_arrays(root, manifest, split, dict.fromkeys(manifest.arrays, kept))
    features = features_of(model, (arrays["u"], arrays["v"]), options.block_pairs, options.parts)
    return Splits(root, manifest, split, arrays, features, options)


def _add_retrieval(result: Evaluation, splits: Splits, known: Baselines | None) -> None:
    """Score retrieval in both directions: what is learned, what needs no learning, and chance."""
    ids, options = (identity_of(splits.items[0]), identity_of(splits.items[1])), splits.options
    table = [head_of(f"retrieval among {len(ids[0]):,} pairs", options.recall_at)]
    result.metrics["num_pairs"] = float(len(ids[0]))
    learned_ranks = both_ranks(*splits.features, *ids, options.block_pairs, options.parts)
    known_features = known.features if known else {}
    known_ranks = {
        key: both_ranks(*features, *ids, options.block_pairs, options.parts) for key, features in known_features.items()
    }
    for name, (query, candidate) in RETRIEVALS.items():
        of, learned = (ids[query], ids[candidate]), learned_ranks[query]
        metrics = retrieval_metrics(learned, options.recall_at)
        result.metrics |= {f"{name}_{key}": value for key, value in metrics.items()}
        table.append(row_of(_called(name, of[1]), metrics, options.recall_at))
        if known is None or not known.features:
            continue
        for key, both in known_ranks.items():
            ranks = both[query]
            found = retrieval_metrics(ranks, options.recall_at)
            result.metrics |= {f"{key}_{name}_{metric}": value for metric, value in found.items()}
            table.append(row_of(f"{name}, {known.titles[key]}", found, options.recall_at))
            behind = (k for k in options.recall_at if is_behind(learned <= k, ranks <= k, of[0]))
            if (k := next(behind, None)) is not None:
                what, metric = f"R@{k} of {_spoken(name)}", f"recall@{k}"
                result.notes.append(sentence(what, known.titles[key], metrics[metric], found[metric]))
        chance = chance_metrics(*of, options.recall_at)
        result.metrics |= {f"chance_{name}_{metric}": value for metric, value in chance.items()}
        table.append(row_of(f"{name}, chance", chance, options.recall_at))
    result.tables.append(table)


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _called(name: str, candidate_ids: Tensor) -> str:
    """Return a direction, with the number of distinct candidates where some are equal."""
    num_distinct = int(candidate_ids.max()) + 1
    return name if num_distinct == len(candidate_ids) else f"{name} ({num_distinct:,} distinct candidates)"
