"""Encoders and losses of one's own, tried on a few items, so that a mistake in them is a line before a training."""

__all__ = ["built_model", "tried_model", "try_loss"]

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pcl.encoders import ENCODERS
from pcl.encoders.basic import Standardise
from pcl.encoders.build import ModelSpec, build_model
from pcl.encoders.registry import make_encoder, network_of
from pcl.errors import BadInputError, printable
from pcl.model import PairModel
from pcl.objective import LOSSES, Loss
from pcl.plugins.loading import place_of
from pcl.tilting import feature_maps
from pcl.workers import OneWorker

NUM_ITEMS = 2
MOST_ROWS = 1024  # of a worker's share: a loss may need some, for its nearest negatives, say
SIDES = ("encoder_u", "encoder_v")


def tried_model(spec: ModelSpec, seed: int = 0) -> PairModel:
    """Model of ``build_model`` whose encoders of a plugin, script or notebook have mapped two items as they must.

    Ours refuse in their constructors what they cannot map. The model is built anew after the trial, which may change
    what an encoder keeps, and the global generator is left as it was.

    Args:
        spec: what builds the model.
        seed: of its weights.

    Raises:
        BadInputError: an encoder cannot be built, fails, or returns no floating-point tensor (n, embedding_dim).

    Example:
        >>> linear = {"kind": "linear", "shape": [3]}
        >>> tau = {"initial": 1.0, "learned": False, "minimum": 0.1, "maximum": 10.0}
        >>> model = tried_model({"embedding_dim": 2, "encoder_u": linear, "encoder_v": linear,
        ...     "tilting": "cosine", "temperature": tau, "dtype": "float64"})
        >>> model.encode_u(torch.ones(1, 3)).shape
        torch.Size([1, 2])
    """
    model = built_model(spec, seed)
    own = [side for side in SIDES if _is_own(_side(spec, side)["kind"])]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for side in own:
            _try(spec, side, getattr(model, side).eval())
    return built_model(spec, seed) if own else model


def _side(spec: ModelSpec, side: str) -> dict[str, Any]:
    found: dict[str, Any] = spec["encoder_u"] if side == "encoder_u" else spec["encoder_v"]
    return found


def _is_own(kind: str) -> bool:
    """Return whether a kind is of a plugin, a script or a notebook; what begins with the data is not whole before."""
    return not ENCODERS[kind].build.__module__.startswith("pcl.") and ENCODERS[kind].begin is None


def built_model(spec: ModelSpec, seed: int = 0) -> PairModel:
    """Model of ``build_model``, where an encoder of one's own that cannot be built is told in a line.

    Args:
        spec: what builds the model.
        seed: of its weights.

    Raises:
        BadInputError: an encoder of a plugin, script or notebook cannot be built.
    """
    try:
        return build_model(spec, seed)
    except BadInputError:
        raise
    except Exception:
        with torch.random.fork_rng(devices=[]):
            for side in SIDES:
                if _is_own(_side(spec, side)["kind"]):
                    _build_alone(spec, side)
        raise  # neither side alone is the reason


def _build_alone(spec: ModelSpec, side: str) -> None:
    given = _side(spec, side)
    potential = {"potential": "learned"} if spec["tilting"] == "potentials" else {}
    try:
        make_encoder(embedding_dim=spec["embedding_dim"], **(potential | given))
    except Exception as error:
        build = ENCODERS[given["kind"]].build
        raise BadInputError(
            f"model.{side}={printable(given['kind'])} cannot be built{place_of(error, build)}: {_said(error)}: "
            f"{_rule(spec, given)}"
        ) from error


def _try(spec: ModelSpec, side: str, encoder: nn.Module) -> None:
    given, network = _side(spec, side), network_of(encoder)
    before = nn.Sequential(*(part for part in encoder.children() if isinstance(part, Standardise)))
    items, width = before(_items(given)), _width(spec, given)
    name, of_items = f"model.{side}={printable(given['kind'])}", f"items {tuple(items.shape)} of {items.dtype}"
    try:
        found = network(items)
    except Exception as error:
        where = place_of(error, type(network).forward)
        raise BadInputError(f"{name} fails on {of_items}{where}: {_said(error)}: {_rule(spec, given)}") from error
    if isinstance(found, Tensor) and found.shape == (NUM_ITEMS, width) and found.is_floating_point():
        return
    what = f"{tuple(found.shape)} of {found.dtype}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
    where = place_of(None, type(network).forward)
    raise BadInputError(f"{name} maps {of_items} to {what}{where}: {_rule(spec, given)}")


def try_loss(kind: str, loss: Loss, spec: ModelSpec, num_rows: int) -> None:
    """Refuse a loss of a plugin, script or notebook that fails on features, or gives nothing that can be learned from.

    Args:
        kind: of the loss, ``loss.kind``.
        loss: of that kind.
        spec: of the model, whose features it gets, of embeddings that are drawn at random.
        num_rows: pairs of a worker.

    Raises:
        BadInputError: it fails, or returns no differentiable number.
    """
    if not LOSSES[kind].is_own or LOSSES[kind].loss.__module__.startswith("pcl."):
        return
    function = inspect.unwrap(LOSSES[kind].loss)
    name, (u, v) = f"loss.kind={printable(kind)}", _random_features(spec, min(num_rows, MOST_ROWS))
    rule = (
        f"it gets this worker's features of u and of v, {tuple(u.shape)} each, the temperature, workers= and its "
        "settings by name, and returns a number that can be differentiated, or that and a dict of numbers"
    )
    try:
        with torch.random.fork_rng(devices=[]):
            found, _ = loss(u, v, u.new_tensor(spec["temperature"]["initial"]), workers=OneWorker())
    except Exception as error:
        raise BadInputError(f"{name} fails{place_of(error, function)}: {_said(error)}: {rule}") from error
    where = place_of(None, function)
    if not isinstance(found, Tensor) or found.numel() != 1 or not found.is_floating_point():
        what = f"{tuple(found.shape)} of {found.dtype}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise BadInputError(f"{name} returns {what}{where}: {rule}")
    if not found.requires_grad:
        raise BadInputError(f"{name} returns a number that does not hang on the features by torch{where}: {rule}")


def _random_features(spec: ModelSpec, number: int) -> tuple[Tensor, Tensor]:
    """Return features of random embeddings of a model, which can be differentiated."""
    generator, width = torch.Generator().manual_seed(0), spec["embedding_dim"] + (spec["tilting"] == "potentials")
    drawn = torch.randn(2, number, width, generator=generator, dtype=getattr(torch, spec["dtype"]))
    u, v = feature_maps(drawn[0], drawn[1], spec["tilting"])
    return u.requires_grad_(), v.requires_grad_()


def _width(spec: ModelSpec, given: Mapping[str, Any]) -> int:
    """Return the components that a network gives: the embedding, and a potential that is learned."""
    learns = spec["tilting"] == "potentials" and given.get("potential", "learned") == "learned"
    return spec["embedding_dim"] + learns


def _rule(spec: ModelSpec, given: Mapping[str, Any]) -> str:
    shape, width = tuple(given["shape"]), _width(spec, given)
    items = str(shape).replace("(", "(n, " if shape else "(n,", 1).replace(",)", ")" if shape else ",)")
    return (
        f"the constructor gets shape={shape}, embedding_dim={width} and settings by name, and forward maps items "
        f"{items} to floating-point numbers (n, {width}): fit arguments and layers to that"
    )


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {printable(' '.join(str(error).split()))[:300]}"


def _items(given: Mapping[str, Any]) -> Tensor:
    """Return two items as they are stored: labels and other integers that are 0, numbers from -1 to 1."""
    shape, dtype = (NUM_ITEMS, *given["shape"]), np.dtype(given.get("dtype") or "float32")
    if dtype.kind != "f":
        return torch.from_numpy(np.zeros(shape, dtype))
    return torch.from_numpy(np.linspace(-1, 1, int(np.prod(shape))).reshape(shape).astype(dtype))
