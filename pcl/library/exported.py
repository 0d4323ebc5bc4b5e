"""A model in a folder that needs neither its run nor its shards: weights, specification, programs of encoders, card."""

__all__ = ["CARD", "check_target", "export_model", "newest_evaluation"]

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pcl.encoders.program import BATCHES, Program, program_of
from pcl.errors import BadInputError, DamagedDataError, printable
from pcl.library.card import card
from pcl.storage.place import Place, names, write_bytes
from pcl.storage.stored import read_sealed
from pcl.train.checkpoint import NAME
from pcl.train.model_folder import WEIGHTS_FILE, holds_model, write_model
from pcl.train.trained import TrainedModel

CARD = "README.md"
PROGRAMS = {"u": "encoder_u.pt2", "v": "encoder_v.pt2"}


def check_target(folder: Place) -> None:
    """Refuse a folder that holds anything, but for what an export left that was cut off.

    Raises:
        BadInputError: it holds something.
        OSError: storage refuses.
    """
    held = [name for name in names(folder) if not name.startswith(".")]
    is_cut_off = not holds_model(folder) and not set(held) - {WEIGHTS_FILE, CARD, *PROGRAMS.values()}
    if folder.is_file() or (held and not is_cut_off):
        found = f"holds {printable(held[0])[:100]}" if held else "is a file"
        raise BadInputError(
            f"{folder} {found}: an export needs a folder that is empty or not there, choose another one"
        )


def export_model(
    model: TrainedModel,
    folder: Place,
    evaluation: tuple[str, Mapping[str, float]] = ("", {}),
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Write a model, programs of its encoders and a card into a folder, ``model.json`` last.

    Args:
        model: with what is known of it (``about``).
        folder: empty or not there.
        evaluation: what was evaluated, and its metrics.
        say: takes a line on each program.

    Raises:
        BadInputError: the folder holds something.
        OSError: storage refuses.
    """
    check_target(folder)
    programs: dict[str, Program] = {}
    for name, encoder in (("u", model.encoder_u), ("v", model.encoder_v)):
        try:
            programs[name] = found = program_of(encoder, encoder.items)  # type: ignore[arg-type]
            say(
                f"{PROGRAMS[name]}: compared with the encoder on {', '.join(map(str, BATCHES))} random items, "
                f"largest difference {found.difference:.1e}"
            )
        except BadInputError as error:
            say(f"{PROGRAMS[name]} is left out: {error}")
    files = {name: PROGRAMS[name] for name in programs}
    text = card(model, files, evaluation[1], evaluation[0], _warnings(model))
    more = {name: _about(PROGRAMS[name], program) for name, program in programs.items()}
    for name, program in programs.items():
        write_bytes(folder / PROGRAMS[name], program.content)
    write_bytes(folder / CARD, text.encode())
    write_model(folder, model.spec, model.state_dict(), model.about, {"programs": more})


def _about(file: str, program: Program) -> dict[str, Any]:
    return {
        "file": file,
        "sha256": hashlib.sha256(program.content).hexdigest(),
        "takes": program.dtype,
        "largest_difference": program.difference,
    }


def _warnings(model: TrainedModel) -> list[str]:
    """Return what a reader of the card should know first: what else loading needs."""
    lines, spec = [], dict(model.spec)
    for name, sha256 in model.about.plugins.items():
        lines.append(
            f"**It needs the plugin `{printable(name)}.py`** (SHA-256 `{printable(sha256)[:64]}`), which registers an "
            "encoder and is not in this folder: `pcl.load` takes it as `plugins=[...]`."
        )
    for side in "uv":
        encoder: Any = spec[f"encoder_{side}"]
        if encoder.get("sha256"):
            lines.append(
                f"**The encoder of {side} needs an exported program** with SHA-256 `{encoder['sha256']}`, which is not "
                "in this folder: call `pcl.encoders.frozen.trust_program(path)` before `pcl.load`."
            )
    return lines


def newest_evaluation(run: Place, checkpoint: str) -> tuple[str, dict[str, float]]:
    """Return what was evaluated of a run, and the metrics: of a checkpoint if it was, else of the newest that was.

    Damaged ones count as none.

    Raises:
        OSError: storage refuses.
    """
    for name, folder in _evaluations(run, checkpoint):
        try:
            read = read_sealed(folder / "metrics.json", dict[str, Any], "evaluate again")
        except DamagedDataError:
            continue
        if read is not None:
            metrics = {
                key: value for key, value in read[0].items() if isinstance(value, float) and math.isfinite(value)
            }
            which = "of the exported checkpoint" if name == checkpoint else f"of {name}, not of the exported checkpoint"
            of_part = f"{metrics['num_pairs']:,.0f} pairs of " if folder.name != name and "num_pairs" in metrics else ""
            return f"The evaluation {which}, on {of_part}its {read[0].get('split', 'test')} split.", metrics
    return "", {}


def _evaluations(run: Place, checkpoint: str) -> Iterator[tuple[str, Place]]:
    """Yield a checkpoint and the others that were judged, the newest first, each with its folders: the whole first."""
    judged = sorted(filter(NAME.fullmatch, names(run / "evaluations")), key=lambda name: int(name.partition("_")[2]))
    for name in (checkpoint, *reversed(judged)):
        top = run / "evaluations" / name
        yield name, top
        yield from ((name, top / part) for part in names(top) if "." not in part)
