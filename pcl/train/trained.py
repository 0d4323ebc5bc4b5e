"""Trained models: they know what they were built of, so that they can be kept in a folder and loaded again."""

__all__ = ["TrainedModel", "load_model", "trained"]

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

import pcl.problems.problem  # noqa: F401  a checkpoint may name an encoder of a kind of pairs
from pcl.encoders.build import ModelSpec, build_model
from pcl.encoders.registry import ENCODERS, make_encoder
from pcl.errors import BadInputError, printable
from pcl.model import PairModel
from pcl.storage.place import Place, place
from pcl.tilting import TILTINGS
from pcl.train.checkpoint import FILE_NAME, UNREADABLE, compare, content_of, load_checkpoint, not_ours, save_checkpoint

PRECISIONS = ("float32", "float64")
FREE_VALUES = 1 << 24  # that a model may compute for itself, such as one-hot vectors, whatever its file holds


class TrainedModel(PairModel):
    """A model of pairs that can be saved.

    Attributes:
        spec: plain numbers and strings of which it is built.
    """

    spec: ModelSpec

    def save(self, folder: str | Path) -> None:
        """Write the model to a folder, from which ``pcl.load(folder)`` reads it.

        Args:
            folder: made if needed; an ``s3://`` address is one too.

        Raises:
            BadInputError: the folder holds a model already.
            OSError: storage refuses.
        """
        directory = place(str(folder))
        if (directory / FILE_NAME).exists():
            raise BadInputError(f"{directory} holds a model already: choose another folder, or delete that one")
        save_checkpoint(directory, content_of(self, {"state": {}, "param_groups": []}, 0, self.spec, ""))


def trained(spec: ModelSpec, weights: dict[str, Tensor]) -> TrainedModel:
    """Return the model of a specification with weights, on the CPU, as it is used: without dropout and gradients."""
    model = build_model(spec)
    model.load_state_dict(weights)
    model.__class__ = TrainedModel
    found = cast(TrainedModel, model.eval().requires_grad_(False))
    found.spec = spec
    return found


def load_model(directory: Place) -> TrainedModel:
    """Build the model of a checkpoint, on the CPU, once its file is seen to hold the weights of such a model.

    Raises:
        BadInputError: this program knows no such model, for example its kind of encoder.
        DamagedDataError: the checkpoint cannot be read or does not hold such a model.
        OSError: storage refuses.
    """
    content, path = load_checkpoint(directory), directory / FILE_NAME
    try:
        _check_known(content["spec"])
        _check_spec(content["spec"], content["model"])
        return trained(content["spec"], content["model"])
    except BadInputError as error:
        raise BadInputError(
            f"{path} holds a model that cannot be built here ({printable(error)[:300]}): name the plugin that "
            "registers it, pcl.load(..., plugins=[file]) or plugins=[file] after the configuration, or use the version "
            "of this program that wrote it"
        ) from error
    except UNREADABLE as error:
        raise not_ours(path, f"its model: {type(error).__name__}: {' '.join(str(error).split())[:100]}") from error


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


def _check_spec(spec: ModelSpec, weights: Mapping[str, Tensor]) -> None:
    """Raise ``ValueError`` if a model does not have just these weights, by a build that allocates nothing."""
    depths = [spec[name].get("depth", 0) for name in ("encoder_u", "encoder_v")]
    if spec["dtype"] not in PRECISIONS or max(depths) > len(weights):
        raise ValueError("its precision or its depth is not that of the weights")
    try:
        with torch.device("meta"):
            skeleton = build_model(spec)
    except RuntimeError:  # an encoder of others that computes with values as it is built
        return
    compare(skeleton.state_dict(), weights)
    computed = sum(value.numel() for value in skeleton.buffers())
    if computed > FREE_VALUES + 64 * sum(value.numel() for value in weights.values()):
        raise ValueError("it computes more than its weights are worth")
