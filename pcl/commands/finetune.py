"""Fine-tune a run to few labels a class, beside zero-shot, a linear probe and training from nothing."""

import re
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from typing import Any

import pcl
from pcl.commands.command_line import Guide, check_writable, job, progress
from pcl.commands.evaluate import checkpoint_of, trained_run
from pcl.commands.export import provenance
from pcl.commands.finetuned_card import finetuned_card
from pcl.commands.labelled import Given, given_labels
from pcl.commands.numbered import numbered_labels
from pcl.config.load import Config
from pcl.config.values import short
from pcl.data.manifest import Manifest
from pcl.errors import BadInputError, printable
from pcl.evaluation.finetuning import FineTuned, FineTuning, LabelledItems, fine_tuned
from pcl.evaluation.finetuning_report import finetuning_evaluation
from pcl.evaluation.from_nothing import Recipe
from pcl.evaluation.page import png_of
from pcl.evaluation.report import REPORT, Card, report
from pcl.evaluation.result import Evaluation
from pcl.evaluation.seen import num_seen
from pcl.evaluation.tables import format_table
from pcl.library.classifier import Classifier
from pcl.storage.place import Place, names, write_bytes
from pcl.storage.stored import sealed, write_json

COMPLETE = "metrics.json"
SUFFIXES = (".json", ".png", ".html", ".pt", ".safetensors")
NAME, NO_NAME = re.compile(r"\w[\w.-]{0,99}", re.ASCII), re.compile(r"[^\w.-]+", re.ASCII)
LONGEST_NAME, MOST_SHOWN = 100, 200  # characters
GUIDE = Guide(
    __doc__,
    examples=(
        "runs/mnist                                       # to its own labels",
        "runs/pictograms finetune.shards=shards/groups    # to v of other shards: labels, or texts",
        "runs/mine finetune.labels=kinds.npy              # a label for each of its own pairs",
        "runs/mine finetune.u=x.npy finetune.labels=kinds.npy finetune.per_label=[5, 0]",
    ),
    keys=(
        "finetune.shards",
        "finetune.u",
        "finetune.labels",
        "finetune.without",
        "finetune.per_label",
        "finetune.seeds",
        "finetune.steps",
        "finetune.name",
    ),
)


def main(config: Config, told: Collection[str] = ()) -> None:
    """Check everything that can be checked, then fine-tune ``finetune.checkpoint`` and judge it on the test split.

    Args:
        config: the run's own, or that of its run file.
        told: what was given by hand: run file or folder, and keys.
    """
    run, recorded, manifest = trained_run(config, told)
    checkpoint, _ = checkpoint_of(run, config.finetune.checkpoint, "finetune.checkpoint")
    model = pcl.load(checkpoint)
    given = given_labels(config, manifest, model)
    labelled = numbered_labels(given, config, manifest)
    check_writable(folder := folder_of(run, config.finetune.name, given.name))
    counts = {split: int((numbers >= 0).sum()) for split, numbers in labelled.labels.items()}
    named = printable(", ".join(map(str, labelled.names)))[:MOST_SHOWN]
    print(
        f"fine-tuning {config.name} to {len(labelled.names)} labels ({named}) of {counts['train']:,} items in training "
        f"and {counts['test']:,} in the test",
        flush=True,
    )
    tuned = fine_tuned(model, model.spec, labelled, how_of(config), show)
    result = finetuning_evaluation(tuned, labelled)
    result.notes += notes_on(given, labelled, config, manifest)
    for table in result.tables:
        print(f"\n{format_table(table)}")
    if result.notes:
        print("\n" + "\n".join(map(printable, result.notes)))
    about = provenance(config, recorded, checkpoint.name) | given.about
    card = finetuned_card(config, manifest, checkpoint.name, labelled, about)
    about |= kept_of(config, labelled, tuned)
    save(folder, result, Classifier(model, tuned.kept, labelled.names), about, card)
    print(
        f"\nmetrics, figure and classifier: {folder}\nto read and to send: {folder / REPORT}\n"
        f"use: pcl.Classifier.load({str(folder)!r}).probabilities(u)"
    )


def folder_of(run: Place, asked: str, name: str) -> Place:
    """Return the folder of a fine-tuning: of the name that is asked for, else of that of its labels, made one.

    Raises:
        BadInputError: what is asked for names no folder.
    """
    if asked and not NAME.fullmatch(asked):
        raise BadInputError(
            f"finetune.name={printable(short(asked))!r}: it names a folder: letters, digits, '_', '-' and '.', at most "
            "100, the first no '.' and no '-'"
        )
    return run / "finetuned" / (asked or NO_NAME.sub("-", name).strip(".-")[:LONGEST_NAME] or "labels")


def how_of(config: Config) -> FineTuning:
    """Return how a configuration fine-tunes and judges."""
    chosen, train, judged = config.finetune, config.train, config.evaluation
    recipe = Recipe(chosen.steps, train.learning_rate, train.weight_decay) if chosen.steps else None
    return FineTuning(chosen.per_label, chosen.seeds, recipe, judged.max_pairs, judged.block_pairs)


def show(items: Sequence[Any], unit: str) -> Iterable[Any]:
    """Show how many draws are done."""
    return progress(items, len(items), "fine-tuning", unit)


def notes_on(given: Given, labelled: LabelledItems, config: Config, manifest: Manifest) -> list[str]:
    """Return sentences on what the encoder has seen of the labels, or of the test items."""
    if given.are_of_run:
        number, is_own = manifest.num_pairs("train"), not config.finetune.labels
        what = f"The encoder was trained on these labels of all {number:,} training pairs"
        return [f"{what}: zero-shot has seen them too."] if is_own else []
    tested = (labelled.labels["test"] >= 0).nonzero()[:, 0][: config.evaluation.max_pairs or None]
    number = num_seen(labelled.read("test", tested), config.shard_root, manifest)
    what = f"{number:,} of {len(tested):,} test items are u that the encoder was trained on, without these labels"
    return [f"{what}: new items may be harder."] if number else []


def kept_of(config: Config, labelled: LabelledItems, tuned: FineTuned) -> dict[str, Any]:
    """Return what is kept beside the metrics: the labels, every score by seed, and which classifier is kept."""
    chosen = config.finetune
    return {
        "names": list(labelled.names),
        "seeds": list(chosen.seeds),
        "num_test": tuned.num_test,
        "steps_from_nothing": chosen.steps,
        "classifier_per_label": chosen.per_label[-1],
        "classifier_seed": chosen.seeds[0],
        "classifier_strength": tuned.strength,
        "scores": {
            method: {str(number or "all"): scores for number, scores in by_number.items()}
            for method, by_number in tuned.scores.items()
        },
    }


def save(folder: Place, result: Evaluation, classifier: Classifier, about: dict[str, Any], card: Card) -> None:
    """Write a fine-tuning in place of an earlier one of its name; ``metrics.json`` is the mark that all is there."""
    for name in sorted(names(folder), key=lambda name: name != COMPLETE):
        if name.endswith(SUFFIXES):
            (folder / name).unlink()
    classifier.save(folder)
    pictures = {name: png_of(figure) for name, figure in result.figures.items()}
    for name, png in pictures.items():
        write_bytes(folder / name, png)
    write_bytes(folder / REPORT, report(result, card, pictures).encode())
    write_json(folder / COMPLETE, sealed(about | result.metrics))


def command(program: str, given: list[str]) -> None:
    """Fine-tune as a command line says."""
    told = {argument.partition("=")[0] for argument in given}
    job(partial(main, told=told), GUIDE, program, given)
