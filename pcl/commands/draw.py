"""Draw from a learned conditional: given a label, an item, a file or a text, with weights, pictures and provenance."""

import io
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import pcl
from pcl.commands.command_line import Guide, check_is_kept, check_writable, job
from pcl.commands.evaluate import checkpoint_of, trained_run
from pcl.commands.query import Query, query_of
from pcl.conditional import Conditional
from pcl.config.identity import experiment_hash
from pcl.config.load import Config
from pcl.data.loader import iterate_split
from pcl.data.manifest import Manifest
from pcl.errors import BadInputError, printable
from pcl.evaluation.blocks import encoded
from pcl.evaluation.draws import Cell, Drawn, Row, draws_figure, row_of_draws
from pcl.evaluation.page import png_of
from pcl.evaluation.splits import EvaluationOptions, Splits, read_arrays
from pcl.model import PairModel
from pcl.problems.problem import Problem, problem
from pcl.storage.place import Place, names, place, write_bytes
from pcl.storage.stored import sealed, write_json

COMPLETE, ARRAYS, SHEET, DATASET = "draws.json", "draws.npz", "draws.png", "draws.nc"
MOST_SHOWN = 64  # draws of a sheet
NO_NAME = re.compile(r"[^\w.-]+", re.ASCII)
GUIDE = Guide(
    __doc__,
    examples=(
        "runs/mnist given.label=7                         # 16 images of the test split given a label",
        "runs/mine given.file=v.npy given.row=3 draw.num=100 draw.replacement=false draw.to=drawn",
        "runs/tars 'given.text=a red circle' draw.temperature=0.5 draw.references=train",
    ),
    keys=(
        "given.label",
        "given.item",
        "given.file",
        "given.row",
        "given.text",
        "draw.direction",
        "draw.num",
        "draw.replacement",
        "draw.temperature",
        "draw.best",
        "draw.references",
        "draw.to",
    ),
)


@dataclass(frozen=True)
class References:
    """The reference set of a run's conditional.

    Attributes:
        conditional: that it carries.
        split: whose items they are; empty: all labels, with their frequency in training.
        items: of those labels, shape (K,); None of a split, whose items are read as they are drawn.
    """

    conditional: Conditional
    split: str
    items: Tensor | None = None

    @property
    def called(self) -> str:
        """What they are."""
        number, there = len(self.conditional.features), int((self.conditional.log_prior > -torch.inf).sum())
        of_all = f"{there:,} of {number:,}" if there < number else f"{number:,}"
        return f"{of_all} items of the {self.split} split" if self.split else f"{of_all} labels"


def main(config: Config, told: Collection[str] = ()) -> None:
    """Check everything that can be checked, then draw from the conditional that ``draw.checkpoint`` learned.

    Args:
        config: the run's own, or that of its run file.
        told: what was given by hand: run file or folder, and keys.
    """
    run, recorded, manifest = trained_run(config, told)
    checkpoint, _ = checkpoint_of(run, config.draw.checkpoint, "draw.checkpoint")
    check_device(config.draw.device)
    query = query_of(config, manifest)
    check_number(config, manifest, query)
    folder = folder_of(config, run, checkpoint.name, query)
    model = pcl.load(checkpoint)
    with torch.no_grad():
        features = features_of(model, query)
        references = references_of(model, config, manifest, query)
        drawn = draw(references.conditional, features, config)
    splits, row = shown_pairs(config, manifest, query, references, drawn)
    about: dict[str, Any] = {"run": config.name, "checkpoint": checkpoint.name, "experiment": experiment_hash(recorded)}
    about |= {"manifest_sha256": recorded.get("manifest_sha256"), "pcl": pcl.__version__}
    about |= about_draws(config, query, references, drawn)
    save(folder, problem(config.data.source), query, splits, row, drawn, about)
    way = "best" if config.draw.best else "drawn"
    print(
        f"{query.predicted} given {query.called}, by {references.called}: {len(drawn.indices)} {way}, "
        f"{drawn.num_distinct} distinct; effective sample size {drawn.effective_sample_size:,.1f}\ndraws: {folder}"
    )


def check_device(name: str) -> None:
    """Refuse a device that is not here.

    Raises:
        BadInputError: what it is.
    """
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch without CUDA asserts
        reason = printable(" ".join(str(error).split()))[:100]
        raise BadInputError(f"draw.device={printable(name)[:100]}: it is not here ({reason}); give cpu") from error


def check_number(config: Config, manifest: Manifest, query: Query) -> None:
    """Refuse to choose more different items than there are.

    Raises:
        BadInputError: how many there are.
    """
    chosen, counts = config.draw, manifest.statistics[query.predicted].get("counts")
    most = sum(count > 0 for count in counts) if counts else manifest.num_pairs(chosen.references)
    if (chosen.best or not chosen.replacement) and chosen.num > most:
        what = "labels" if counts else f"items of the {chosen.references} split"
        raise BadInputError(
            f"draw.num={chosen.num}: there are {most:,} {what}, and none comes twice: choose draw.num={most} at most, "
            "or draw.replacement=true and draw.best=false"
        )


def features_of(model: PairModel, query: Query) -> Tensor:
    """Return the features of what is given, (1, F).

    Raises:
        BadInputError: it is no item of the run.
    """
    try:
        found: Tensor = model.features_u(query.item) if query.name == "u" else model.features_v(query.item)
    except ValueError as error:
        raise BadInputError(f"{query.called}, given as {query.name}: {printable(error)}") from error
    return found


def about_draws(config: Config, query: Query, references: References, drawn: Drawn) -> dict[str, Any]:
    """Return what was drawn, and how."""
    chosen = config.draw
    return {
        "direction": query.direction,
        "given": query.about,
        "references": references.called,
        "seed": chosen.seed,
        "num": chosen.num,
        "replacement": chosen.replacement,
        "temperature": chosen.temperature,
        "best": chosen.best,
        "num_distinct": drawn.num_distinct,
        "effective_sample_size": drawn.effective_sample_size,
    }


def folder_of(config: Config, run: Place, checkpoint: str, query: Query) -> Place:
    """Return where the draws go: a folder that may hold earlier draws, and nothing else.

    Raises:
        BadInputError: it holds something else.
    """
    name = NO_NAME.sub("-", f"{query.direction}-{query.called}").strip(".-")[:100]
    folder = place(config.draw.to) if config.draw.to else run / "draws" / checkpoint / name
    check_is_kept(draw__to=str(folder))
    if folder.exists() and names(folder) and COMPLETE not in names(folder):
        raise BadInputError(f"draw.to={folder}: it holds something else than draws, choose another folder")
    check_writable(folder)
    return folder


def references_of(model: PairModel, config: Config, manifest: Manifest, query: Query) -> References:
    """Return the conditional on all labels where they are drawn, else on the items of a split, read by records."""
    name, device, chosen = query.predicted, config.draw.device, config.draw
    if "counts" in manifest.statistics[name]:
        counts = torch.tensor(manifest.statistics[name]["counts"], dtype=torch.float64)
        labels = torch.arange(len(counts))
        return References(model.conditional(query.direction, labels, counts.log(), device=device), "", labels)
    encode = model.features_u if name == "u" else model.features_v
    root, prior = config.shard_root, log_prior_of(config, manifest, query)

    def blocks() -> Iterator[Tensor]:
        for (items,) in iterate_split(root, manifest, chosen.references, (name,)):
            yield encoded(encode, items, config.evaluation.block_pairs, items[:1].nbytes).to(device)

    return References(Conditional(torch.cat([*blocks()]), model.temperature().to(device), prior), chosen.references)


def log_prior_of(config: Config, manifest: Manifest, query: Query) -> Tensor | None:
    """Return 0 for each item that may stand for that of the pair that is given, -inf for others; None: all may.

    Raises:
        BadInputError: none may.
    """
    rule, root, split = problem(config.data.source).stands_for, config.shard_root, config.draw.references
    if rule is None or query.pair is None:
        return None
    name, stands_for = rule
    others = torch.arange(manifest.num_pairs(split))
    may = stands_for(
        read_arrays(root, manifest, split, {name: others})[name],
        read_arrays(root, manifest, config.given.split, {name: torch.tensor([query.pair])})[name],
    )
    if not may.any():
        raise BadInputError(
            f"draw.references={split}: none of its items may stand for that of {query.called} ({name}): choose another "
            "split or pair"
        )
    return torch.where(may, 0.0, -torch.inf)


def draw(conditional: Conditional, features: Tensor, config: Config) -> Drawn:
    """Return the draws that a configuration asks for, or the best.

    Raises:
        BadInputError: fewer different items carry the conditional.
    """
    most = int((conditional.log_prior > -torch.inf).sum())
    if (config.draw.best or not config.draw.replacement) and config.draw.num > most:
        raise BadInputError(f"draw.num={config.draw.num}: {most:,} items carry the conditional, choose draw.num={most}")
    chosen, temperature = config.draw, 1.0 if config.draw.best else config.draw.temperature
    if chosen.best:
        indices, weights = conditional.best(features, chosen.num)
    else:
        generator, way = torch.Generator().manual_seed(chosen.seed), chosen.replacement
        indices = conditional.draw(features, chosen.num, generator, replacement=way, temperature=temperature)
        weights = conditional.weights_of(features, indices, temperature=temperature)
    size = conditional.effective_sample_size(features, temperature=temperature).item()
    return Drawn(indices[0].cpu(), weights[0].cpu(), size)


def shown_pairs(
    config: Config, manifest: Manifest, query: Query, references: References, drawn: Drawn
) -> tuple[Splits, Tensor]:
    """Return the pairs of the drawn items, that of the query first, and the row of each draw among them.

    What is given, and drawn labels, take the place of what the pairs have.
    """
    root, split = config.shard_root, references.split or config.given.split
    distinct = torch.tensor(sorted(set(drawn.indices.tolist())))
    row = torch.searchsorted(distinct, drawn.indices)
    places = distinct if references.items is None else torch.zeros(1, dtype=torch.long)
    arrays = read_arrays(root, manifest, split, dict.fromkeys(manifest.arrays, places))
    if references.items is not None:
        arrays = {name: array.expand(len(distinct), *array.shape[1:]) for name, array in arrays.items()}
        arrays[query.predicted] = references.items[distinct].to(arrays[query.predicted].dtype)
    first = {name: array[:1] for name, array in arrays.items()}
    if query.pair is not None:
        pair = torch.tensor([query.pair])
        first = read_arrays(root, manifest, config.given.split, dict.fromkeys(manifest.arrays, pair))
    first[query.name] = query.item.to(first[query.name].dtype)
    together = {name: torch.cat([first[name], array]) for name, array in arrays.items()}
    nothing = torch.zeros(len(together["u"]), 0)
    return Splits(root, manifest, split, together, (nothing, nothing), EvaluationOptions()), row + 1


def how_drawn(about: Mapping[str, Any]) -> str:
    """Return what is unusual of draws, in words.

    Example:
        >>> how_drawn({"best": False, "temperature": 0.5, "replacement": False})
        ' at temperature 0.5 without replacement'
    """
    if about["best"]:
        return ""
    warm = f" at temperature {about['temperature']:g}" if about["temperature"] != 1 else ""
    return warm + ("" if about["replacement"] else " without replacement")


def sheet(kind: Problem, query: Query, splits: Splits, row: Tensor, drawn: Drawn, about: Mapping[str, Any]) -> bytes:
    """Return a picture of what is given, its partner where it has one, and the draws with their weights."""
    drawings = dict(zip("uv", kind.drawings(splits), strict=True))
    first = [Cell(drawings[query.name], 0, "given")]
    if query.pair is not None:
        first.append(Cell(drawings[query.predicted], 0, "its partner"))
    shown = Drawn(row[:MOST_SHOWN], drawn.weights[:MOST_SHOWN], drawn.effective_sample_size)
    draws = row_of_draws("", drawings[query.predicted], shown)
    most = f", the first {MOST_SHOWN} shown" if len(row) > MOST_SHOWN else ""
    ways = f"the {len(row)} best" if about["best"] else f"{len(row)} draws"
    title = f"{ways} of {query.predicted} given {query.called}{how_drawn(about)}, by {about['references']}{most}"
    summary = f"{drawn.num_distinct} distinct, effective sample size {drawn.effective_sample_size:,.1f}"
    partner = "the partner" if query.pair is not None else "the first draw"
    rows = [Row("", first), Row(summary, draws.cells)]
    return png_of(draws_figure(rows, title, ["w: weight of the item"], partner))


def save(
    folder: Place,
    kind: Problem,
    query: Query,
    splits: Splits,
    row: Tensor,
    drawn: Drawn,
    about: Mapping[str, Any],
) -> None:
    """Write draws in place of earlier ones; ``draws.json`` comes last and is the mark that all is there."""
    files = {SHEET: sheet(kind, query, splits, row, drawn, about)}
    content = io.BytesIO()
    np.savez(
        content,
        indices=drawn.indices.numpy(),
        weights=drawn.weights.numpy(),
        items=splits.arrays[query.predicted][row].numpy(),
        given=splits.arrays[query.name][:1].numpy(),
        effective_sample_size=drawn.effective_sample_size,
    )
    files[ARRAYS] = content.getvalue()
    if kind.dataset is not None:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / DATASET
            flat = {name: value if isinstance(value, str | float) else str(value) for name, value in about.items()}
            kind.dataset(splits, query.predicted, row, drawn.weights).assign_attrs(flat).to_netcdf(path)
            files[DATASET] = path.read_bytes()
    for name in (COMPLETE, ARRAYS, SHEET, DATASET):
        (folder / name).unlink(missing_ok=True)
    for name, part in files.items():
        write_bytes(folder / name, part)
    write_json(folder / COMPLETE, sealed(about))


def command(program: str, given: list[str]) -> None:
    """Draw as a command line says."""
    told = {argument.partition("=")[0] for argument in given}
    job(partial(main, told=told), GUIDE, program, given)
