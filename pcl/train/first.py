"""First weights from another model: the tensors whose name and shape fit are taken, all others are drawn as ever."""

__all__ = ["FIRST_FILE", "FirstWeights", "begin_with", "first_weights_at"]

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from pcl.encoders.basic import Standardise
from pcl.encoders.frozen import Frozen
from pcl.errors import BadInputError, DamagedDataError
from pcl.model import PairModel
from pcl.storage.place import Place, place
from pcl.train.model_folder import read_weights
from pcl.train.runs import model_at
from pcl.train.trained import weights_at

FIRST_FILE = "first_weights.safetensors"  # in a run: what it began with, wherever that was
MOST_NAMED = 5  # tensors that are named in a line


@dataclass(frozen=True)
class FirstWeights:
    """Weights that a training may begin with.

    Attributes:
        origin: where they are from, for messages.
        tensors: by name.
    """

    origin: str
    tensors: Mapping[str, Tensor]

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of names, dtypes, shapes and values: the same in a checkpoint, a saved model and an exported one.

        Example:
            >>> one, other = (FirstWeights(name, {"a": torch.ones(2)}) for name in ("here", "there"))
            >>> one.sha256 == other.sha256
            True
        """
        digest = hashlib.sha256()
        for name, value in sorted(self.tensors.items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()


def first_weights_at(address: str, kept: Place | None = None, sha256: str = "") -> FirstWeights:
    """Return the weights at an address, or those that a run has kept of it, which may be gone or others by now.

    Args:
        address: a run (its newest checkpoint), a checkpoint, or the folder of a model.
        kept: the file in which a run has kept them.
        sha256: that they must have; empty: any.

    Raises:
        BadInputError: there is no model, or its weights are others.
        DamagedDataError: the model cannot be read.
        OSError: storage refuses.
    """
    refused: BadInputError | DamagedDataError | None = None
    found = list[FirstWeights]()
    try:
        folder = model_at(place(address))
        found.append(FirstWeights(str(folder), weights_at(folder)))
    except (BadInputError, DamagedDataError) as error:
        refused = error
    if kept is not None and (tensors := read_weights(kept)) is not None:
        found.append(FirstWeights(str(kept), tensors))
    for one in found:
        if sha256 in ("", one.sha256):
            return one
    if refused is not None:
        raise type(refused)(f"train.init_from: {refused}") from refused
    raise BadInputError(
        f"train.init_from={address} holds weights with SHA-256 {found[0].sha256[:16]}..., not those of "
        f"train.init_from_sha256={sha256[:16]}...: name the checkpoint that is meant, or leave the hash out"
    )


def begin_with(model: PairModel, first: FirstWeights) -> list[str]:
    """Put weights into a model, those whose name and shape fit; facts of its own data and its settings stay.

    Args:
        model: changed in place.
        first: the weights.

    Returns:
        A line for each side on what it takes and what is drawn anew.

    Raises:
        BadInputError: no tensor of either encoder fits.
    """
    own = _learned(model)
    others = _with_other_programs(model, first.tensors)
    fitting = {
        name: value
        for name, value in own.items()
        if name in first.tensors
        and first.tensors[name].shape == value.shape
        and first.tensors[name].is_floating_point()
        and not name.startswith(others)
    }
    if not any(name.startswith("encoder_") for name in fitting):
        raise BadInputError(
            f"train.init_from: no tensor of {first.origin} has the name and shape of one of this model's encoders: "
            "give a model of the same kinds of encoders and the same sizes, or leave train.init_from out"
        )
    with torch.no_grad():
        for name, value in fitting.items():
            value.copy_(first.tensors[name])
    model.temperature.project_()
    sides = dict.fromkeys(name.partition(".")[0] for name in own)
    return [_line(side, own, fitting, first.origin) for side in sides]


def _learned(model: PairModel) -> dict[str, Tensor]:
    """Return what training makes of a model, by name, once where two encoders share it.

    The standardisation is that of its own data, and a temperature that is not learned that of its own settings.
    """
    fixed: list[nn.Module] = [module for module in model.modules() if isinstance(module, Standardise)]
    given = {id(buffer) for module in (*fixed, model.temperature) for buffer in module.buffers()}
    found: dict[int, tuple[str, Tensor]] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if value.is_floating_point() and id(value) not in given:
            found.setdefault(id(value), (name, value))
    return dict(found.values())


def _with_other_programs(model: PairModel, tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Return the beginnings of the names of frozen encoders whose heads were trained upon another program."""
    frozen = {name: module for name, module in model.named_modules() if isinstance(module, Frozen)}
    programs = {name: module.digest for name, module in frozen.items() if module.integer_input}
    return tuple(
        f"{name}."
        for name, digest in programs.items()
        if not torch.equal(tensors.get(f"{name}.digest", torch.zeros(0)).cpu(), digest.cpu())
    )


def _line(side: str, own: Mapping[str, Tensor], fitting: Mapping[str, Tensor], origin: str) -> str:
    names = [name for name in own if name.partition(".")[0] == side]
    left = [name.partition(".")[2] or name for name in names if name not in fitting]
    line = f"{side}: {len(names) - len(left)} of {len(names)} tensors are those of {origin}"
    if not left:
        return line
    more = f" and {len(left) - MOST_NAMED} more" if len(left) > MOST_NAMED else ""
    return f"{line}; drawn anew: {', '.join(left[:MOST_NAMED])}{more}"
