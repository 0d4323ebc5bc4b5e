"""Trained models: they know what they were built of, so that they can be kept in a folder and loaded again."""

__all__ = ["TrainedModel", "load_model", "trained", "weights_at"]

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

import pcl.problems.problem  # noqa: F401  a checkpoint may name an encoder of a kind of pairs
from pcl.encoders.build import ModelSpec, build_model
from pcl.encoders.registry import ENCODERS, make_encoder
from pcl.errors import BadInputError, DamagedDataError, printable
from pcl.model import PairModel
from pcl.storage.place import Place, place
from pcl.tilting import TILTINGS
from pcl.train.checkpoint import FILE_NAME, UNREADABLE, compare, load_checkpoint, not_ours
from pcl.train.model_folder import JSON_FILE, REMEDY, About, holds_model, read_model, write_model
from pcl.train.tried import built_model

PRECISIONS = ("float32", "float64")
NOTHING = About()
FREE_VALUES = 1 << 24  # that a model may compute for itself, such as one-hot vectors, whatever its file holds


class TrainedModel(PairModel):
    """A model of pairs that can be saved.

    Attributes:
        spec: plain numbers and strings of which it is built.
        about: what else is known of it: forms, frequencies of labels, plugins, provenance.
    """

    spec: ModelSpec
    about: About

    def save(self, folder: str | Path) -> None:
        """Write the model to a folder, from which ``pcl.load(folder)`` reads it: weights and ``model.json``.

        ``pcl export`` writes the same, and beside it programs of the encoders and a card.

        Args:
            folder: made if needed; an ``s3://`` address is one too.

        Raises:
            BadInputError: the folder holds a model already.
            OSError: storage refuses.
        """
        directory = place(str(folder))
        if holds_model(directory) or (directory / FILE_NAME).exists():
            raise BadInputError(f"{directory} holds a model already: choose another folder, or delete that one")
        write_model(directory, self.spec, self.state_dict(), self.about)

    def log_prior(self, name: str) -> Tensor:
        """Log frequencies of the labels of ``u`` or ``v`` among the training pairs, (K,): the prior of a conditional.

        Raises:
            ValueError: the model does not know them, or the items are no labels.
        """
        counts = {"u": self.about.u, "v": self.about.v}[name].counts
        if not sum(counts):
            raise ValueError(f"the model knows no frequencies of {name}: exported models have those of labels")
        return (torch.tensor(counts, dtype=torch.float64) / sum(counts)).log()


def trained(spec: ModelSpec, weights: dict[str, Tensor], about: About = NOTHING) -> TrainedModel:
    """Return the model of a specification with weights, on the CPU, as it is used: without dropout and gradients."""
    model = built_model(spec)
    model.load_state_dict(weights)
    model.__class__ = TrainedModel
    found = cast(TrainedModel, model.eval().requires_grad_(False))
    found.spec, found.about = spec, about
    return found


def weights_at(directory: Place) -> dict[str, Tensor]:
    """Read the weights of a checkpoint or of a model's folder, whatever model they are of: nothing is built.

    Raises:
        DamagedDataError: they cannot be read.
        OSError: storage refuses.
    """
    if holds_model(directory):
        return read_model(directory)[1]
    weights: dict[str, Tensor] = load_checkpoint(directory)["model"]
    return weights


def load_model(directory: Place) -> TrainedModel:
    """Build the model of a checkpoint, or of a folder of its own, on the CPU, once its weights are seen to be of such.

    Raises:
        BadInputError: this program knows no such model, for example its kind of encoder.
        DamagedDataError: it cannot be read, or its weights are not those of such a model.
        OSError: storage refuses.
    """
    if is_folder := holds_model(directory):
        path, (spec, weights, about) = directory / JSON_FILE, read_model(directory)
    else:
        path, content = directory / FILE_NAME, load_checkpoint(directory)
        spec, weights, about = content["spec"], content["model"], NOTHING
    try:
        _check_known(spec)
    except BadInputError as error:
        raise BadInputError(
            f"{path} holds a model that cannot be built here ({printable(error)[:300]}): name the plugin that "
            f"registers it, {_plugins_of(about)}, or use the version of this program that wrote it"
        ) from error
    except UNREADABLE as error:
        raise _unreadable(path, error, is_folder) from error
    try:
        return trained(spec, _checked(spec, weights), about)
    except BadInputError as error:
        raise BadInputError(
            f"{path}: {printable(error)}, or name the plugin as it was when the model was made"
        ) from error
    except UNREADABLE as error:
        raise _unreadable(path, error, is_folder) from error


def _unreadable(path: Place, error: Exception, is_folder: bool) -> DamagedDataError:
    """Return the error of a file that holds no model that can be built."""
    what = f"its model: {type(error).__name__}: {' '.join(str(error).split())[:100]}"
    if not is_folder:
        return not_ours(path, what)
    return DamagedDataError(f"{path} is no model that this program wrote ({printable(what)}): {REMEDY}")


def _plugins_of(about: About) -> str:
    """Return how to name the plugins of a model, by what its folder says of them: none of it is imported."""
    names = [f"{printable(name)[:100]}.py" for name in [*about.plugins][:10]]
    if names:
        return f"pcl.load(..., plugins=[{', '.join(map(repr, names))}])"
    return "pcl.load(..., plugins=[file]) or plugins=[file] after the configuration"


def _check_known(spec: Mapping[str, Any]) -> None:
    """Raise ``BadInputError`` if a specification has parts that this program does not know."""
    unknown = [f"the key {key!r} is" for key in spec if key not in ModelSpec.__annotations__]
    for name in ("encoder_u", "encoder_v"):
        kind = spec[name]["kind"]
        if kind not in ENCODERS:
            unknown.append(f"the encoder {printable(str(kind))[:100]!r} is")
            continue
        options = inspect.signature(ENCODERS[kind].build).parameters
        known = {*inspect.signature(make_encoder).parameters, *options}
        if all(option.kind is not option.VAR_KEYWORD for option in options.values()):
            unknown += [f"the key {key!r} of the encoder {kind!r} is" for key in spec[name] if key not in known]
    if spec["tilting"] not in TILTINGS:
        unknown.append(f"the tilting {spec['tilting']!r} is")
    if unknown:
        raise BadInputError(f"{unknown[0]} not known")


def _checked(spec: ModelSpec, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights, with those that older records lack, if they are those of a model, by a build without memory.

    Raises:
        ValueError: they are not.
    """
    depths = [spec[name].get("depth", 0) for name in ("encoder_u", "encoder_v")]
    if spec["dtype"] not in PRECISIONS or max(depths) > len(weights):
        raise ValueError("its precision or its depth is not that of the weights")
    try:
        with torch.device("meta"):
            skeleton = build_model(spec)
    except RuntimeError:  # an encoder of others that computes with values as it is built
        return weights
    except Exception:
        built_model(spec)  # tells what is wrong with an encoder of one's own
        raise
    for name, part in skeleton.named_modules():
        absent: dict[str, Tensor] = getattr(part, "of_older_records", {})
        weights = {f"{name}.{key}": value for key, value in absent.items()} | weights
    compare(skeleton.state_dict(), weights)
    computed = sum(value.numel() for value in skeleton.buffers())
    if computed > FREE_VALUES + 64 * sum(value.numel() for value in weights.values()):
        raise ValueError("it computes more than its weights are worth")
    return weights
