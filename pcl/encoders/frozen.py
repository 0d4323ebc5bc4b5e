"""Frozen encoders: features that an exported program computes, or that items are already, and a head that learns.

An exported program is a program: loading a file of ``torch.export`` can run anything. So a file is loaded only once
whoever trains, or loads a model, has named it in this process (``trust_program``); what a checkpoint records of it is
its SHA-256, by which it is found among those, and a path that is only shown.

Shapes: B pairs, F features, E embedding; ``shape`` is the shape of one item.
"""

__all__ = ["Frozen", "FrozenSettings", "pinned_program", "trust_program"]

import functools
import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pcl.encoders.mlp import ACTIVATIONS, MLP
from pcl.errors import BadInputError, printable
from pcl.settings import setting

HOW = "torch.export.export(model.eval(), (items,), dynamic_shapes=({0: torch.export.Dim('batch')},))"

_TRUSTED: dict[str, Path] = {}  # by SHA-256


@dataclass
class FrozenSettings:
    """Settings of the frozen encoder."""

    program: str | None = setting(
        "file of torch.export.save that maps items as they are stored to features; null: items are features",
        None,
        is_place=True,
        is_identity=False,
    )
    widths: list[int] = setting("of the head's hidden layers; none: a linear map with a bias", [])
    activation: str = setting("of the head", "gelu", choices=tuple(ACTIVATIONS))
    dropout: float = setting("share of the head's layers that is dropped in training", 0.0, at_least=0, at_most=0.99)


def trust_program(path: str | Path) -> str:
    """SHA-256 of an exported program, which this process may load from now on.

    Args:
        path: of its file, named by whoever trains or loads a model: never by a checkpoint or a stored run.

    Raises:
        BadInputError: the file cannot be read.
    """
    try:
        sha256 = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise BadInputError(
            f"the exported program {printable(path)} cannot be read ({error.strerror}): give a file that "
            "torch.export.save wrote"
        ) from error
    _TRUSTED[sha256] = Path(path).absolute()
    return sha256


def pinned_program(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a record of a frozen encoder holds beside the settings of whoever trains it: the program's SHA-256.

    Raises:
        BadInputError: the program cannot be read.
    """
    return {"sha256": trust_program(settings["program"])} if settings.get("program") else {}


@dataclass(frozen=True)
class _Program:
    """A program as it runs on a device: the dtype that it takes, and itself."""

    dtype: torch.dtype
    module: nn.Module

    def features(self, items: Tensor) -> Tensor:
        """Map items (B, ...) of any dtype to (B, F), without gradients."""
        with torch.no_grad():
            features: Tensor = self.module(items.to(self.dtype)).flatten(1)
        return features


@functools.cache
def _load(sha256: str, device: torch.device) -> _Program:
    """Load a trusted program, once for a device.

    Raises:
        BadInputError: its file has changed, or is no program of one argument that changes nothing.
    """
    path, content = _TRUSTED[sha256], _TRUSTED[sha256].read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise BadInputError(f"the exported program {printable(path)} has changed since it was named: start again")
    from torch.export.passes import move_to_device_pass  # it imports the compiler

    try:
        program = move_to_device_pass(torch.export.load(io.BytesIO(content)), str(device))
        (name,) = program.graph_signature.user_inputs
    except Exception as error:
        raise BadInputError(
            f"{printable(path)} is no exported program of one tensor ({type(error).__name__}): write it with "
            f"torch.export.save({HOW}, path)"
        ) from error
    (dtype,) = (node.meta["val"].dtype for node in program.graph.nodes if node.name == name)
    return _Program(dtype, program.module())


class Frozen(nn.Module):
    """Frozen features of an exported program, or items that are features, and a perceptron that learns.

    The program takes items as they are stored: what it needs of scaling belongs into it. Its weights are in its file,
    never in a checkpoint. Items that are features come standardised.

    Args:
        shape: of an item.
        embedding_dim: E.
        program: path of the program, for messages; None: items are features.
        sha256: of the program, by which it is found among those that this process trusts.
        widths: of the head's hidden layers.
        activation: of the head.
        dropout: share of the head's layers that is dropped in training.

    Raises:
        BadInputError: this process was not told to trust such a program, or it does not take such items.

    Example:
        >>> Frozen((512,), 8)(torch.zeros(2, 512)).shape
        torch.Size([2, 8])
    """

    digest: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        embedding_dim: int,
        *,
        program: str | None = None,
        sha256: str = "",
        widths: Sequence[int] = (),
        activation: str = "gelu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.integer_input, self.sha256 = bool(program or sha256), sha256
        num_features = math.prod(shape)
        if self.integer_input:
            self._check_trust(program)
            num_features = self._count_features(tuple(shape))
            # beside the head's weights, so that these are never put upon another program
            self.register_buffer("digest", torch.tensor(list(bytes.fromhex(sha256)), dtype=torch.uint8))
        self.head = MLP((num_features,), embedding_dim, widths=widths, activation=activation, dropout=dropout)

    def _check_trust(self, program: str | None) -> None:
        if self.sha256 not in _TRUSTED:
            raise BadInputError(
                f"the frozen encoder needs the exported program {printable(program or '')[:200]} with SHA-256 "
                f"{printable(self.sha256)[:64]}: a program can run anything; if you trust it, call "
                "pcl.encoders.frozen.trust_program(path) first, or in a plugin"
            )

    def _count_features(self, shape: tuple[int, ...]) -> int:
        """Return how many features the program computes, once it was tried on one item and on three."""
        with torch.device("cpu"):
            program = _load(self.sha256, torch.device("cpu"))
            before = [buffer.clone() for buffer in program.module.buffers()]
            try:
                found = [program.features(torch.ones(n, *shape)) for n in (1, 3, 3)]
                if [len(features) for features in found] != [1, 3, 3]:
                    raise ValueError("it gives no features for each item")
            except Exception as error:
                raise BadInputError(
                    f"the exported program {printable(_TRUSTED[self.sha256])} does not take any number of items of "
                    f"shape {shape} ({' '.join(str(error).split())[:100]}): export it for them, {HOW}"
                ) from error
            is_same = all(map(torch.equal, before, program.module.buffers())) and torch.equal(*found[1:])
        if not is_same:
            raise BadInputError(
                f"the exported program {printable(_TRUSTED[self.sha256])} changes as it runs, or draws random numbers, "
                f"as a batch norm or dropout does in training: export it in evaluation mode, {HOW}"
            )
        return found[0].shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, *shape) to (B, E)."""
        embedding: Tensor = self.head(self.features(x) if self.integer_input else x)
        return embedding

    def features(self, x: Tensor) -> Tensor:
        """Map items (B, *shape) to what the program computes of them, (B, F), without gradients."""
        return _load(self.sha256, x.device).features(x).to(next(self.head.parameters()).dtype)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "trusted": _TRUSTED.get(self.sha256)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Trust in a task, or in a copy, what the process that sent it was told to trust."""
        trusted = state.pop("trusted")
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        if trusted is not None:
            _TRUSTED.setdefault(self.sha256, trusted)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        found = state_dict.get(f"{prefix}digest")
        if found is not None and (trained := bytes(found.tolist()).hex()) != self.sha256:
            raise BadInputError(
                f"these weights were trained upon the exported program with SHA-256 {trained[:16]}..., not "
                f"{self.sha256[:16]}...: give that file, or the run another name"
            )
        super()._load_from_state_dict(state_dict, prefix, *rest)
