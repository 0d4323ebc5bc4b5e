"""A model in a folder of its own: its weights as safetensors, all else as JSON, and no program that loading runs."""

__all__ = [
    "JSON_FILE",
    "WEIGHTS_FILE",
    "About",
    "Side",
    "holds_model",
    "read_model",
    "read_weights",
    "weights_file",
    "weights_of",
    "write_model",
]

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

from torch import Tensor

from pcl.encoders.build import ModelSpec
from pcl.errors import DamagedDataError, printable
from pcl.storage.place import Place, read_bytes, write_bytes
from pcl.storage.stored import Count, read_sealed, sealed, write_json

JSON_FILE, WEIGHTS_FILE = "model.json", "model.safetensors"  # the former is written last: the mark that all is there
SCHEMA_VERSION = 1
MOST_HEADER_BYTES = 1 << 24  # of names and shapes, in a file of weights
LENGTH_BYTES = 8  # of the length of a header
REMEDY = "export or save the model again, or use the version of this program that wrote it"


@dataclass(frozen=True)
class Side:
    """What is known of u or of v beside what its encoder takes.

    Attributes:
        form: ``numbers``, ``image``, ``labels`` or ``text``; empty: not known.
        counts: of labels, how often each is among the training pairs.
    """

    form: str = ""
    counts: list[Count] = field(default_factory=list)


@dataclass(frozen=True)
class About:
    """What is known of a model beside its specification and its weights.

    Attributes:
        u: of u.
        v: of v.
        plugins: that register its encoders, by name: the SHA-256 of each.
        provenance: of which run and checkpoint it is, what that is a function of, and versions.
    """

    u: Side = field(default_factory=Side)
    v: Side = field(default_factory=Side)
    plugins: dict[str, str] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ModelFile(About):
    """What ``model.json`` must hold; the rest of it is for people and other programs.

    Attributes:
        schema_version: of the file.
        spec: plain numbers and strings of which the model is built.
        weights_sha256: of the file of weights.
    """

    schema_version: Count
    spec: dict[str, Any]
    weights_sha256: str


def holds_model(folder: Place) -> bool:
    """Return whether a folder holds a model that was saved or exported, whole."""
    return (folder / JSON_FILE).is_file()


def write_model(
    folder: Place,
    spec: ModelSpec,
    weights: Mapping[str, Tensor],
    about: About,
    more: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write a model, ``model.json`` last.

    Args:
        folder: made if needed.
        spec: of which the model is built.
        weights: its tensors by name.
        about: what else is known of it.
        more: further keys of ``model.json``, for people and other programs.

    Raises:
        OSError: storage refuses.
    """
    content, known = weights_file(weights), asdict(about)
    for name in "uv":
        encoder: Any = dict(spec)[f"encoder_{name}"]
        known[name] |= {key: encoder.get(key) for key in ("shape", "dtype")}
        known[name]["scale_factor"] = encoder.get("scale_factor", 1.0)
    found = {
        "schema_version": SCHEMA_VERSION,
        "spec": dict(spec),
        "tilting": spec["tilting"],
        "embedding_dim": spec["embedding_dim"],
        "temperature": math.exp(weights["temperature.log_temperature"].item()),
        "weights_sha256": hashlib.sha256(content).hexdigest(),
        "tensors": {name: {"shape": list(one.shape), "dtype": _dtype(one)} for name, one in weights.items()},
    }
    write_bytes(folder / WEIGHTS_FILE, content)
    write_json(folder / JSON_FILE, sealed({**more, **known, **found}))


def read_model(folder: Place) -> tuple[ModelSpec, dict[str, Tensor], About]:
    """Read a model's specification, its weights, and what else is known of it.

    Raises:
        DamagedDataError: a file is missing, cannot be read, holds something else, or not what the other one says.
        OSError: storage refuses.
    """
    path = folder / JSON_FILE
    read = read_sealed(path, ModelFile, REMEDY)
    if read is None:
        raise DamagedDataError(f"{path} is missing: {REMEDY}")
    found = read[0]
    if found.schema_version != SCHEMA_VERSION:
        raise DamagedDataError(
            f"{path} has schema version {found.schema_version}, this program reads {SCHEMA_VERSION}: {REMEDY}"
        )
    content = read_bytes(folder / WEIGHTS_FILE)
    if content is None or hashlib.sha256(content).hexdigest() != found.weights_sha256:
        raise DamagedDataError(f"{folder / WEIGHTS_FILE} is missing or not that of {JSON_FILE}: {REMEDY}")
    spec: Any = found.spec
    about = About(found.u, found.v, found.plugins, found.provenance)
    return spec, weights_of(content, folder / WEIGHTS_FILE), about


def read_weights(path: Place) -> dict[str, Tensor] | None:
    """Read a file of weights, None where there is no such file.

    Raises:
        DamagedDataError: the file cannot be read, or some of its weights are not finite.
        OSError: storage refuses.
    """
    content = read_bytes(path)
    return None if content is None else weights_of(content, path)


def weights_file(weights: Mapping[str, Tensor]) -> bytes:
    """Return tensors as a file of safetensors, each with values of its own, even where two share them.

    Example:
        >>> import torch
        >>> content = weights_file({"one": torch.ones(2)})
        >>> weights_of(content, "a.safetensors")
        {'one': tensor([1., 1.])}
    """
    from safetensors.torch import save

    own = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in weights.items()}
    return save(own, {"format": "pt"})


def weights_of(content: bytes, path: Place | str) -> dict[str, Tensor]:
    """Return the tensors of a file of safetensors, none of which is larger than its bytes in the file.

    Args:
        content: of the file.
        path: of it, for messages.

    Raises:
        DamagedDataError: it is no such file, or some of its numbers are not finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        if int.from_bytes(content[:LENGTH_BYTES], "little") > MOST_HEADER_BYTES:
            raise ValueError(f"a header of more than {MOST_HEADER_BYTES:,} bytes")
        found: dict[str, Tensor] = load(content)
    except (SafetensorError, ValueError, LookupError, TypeError, RuntimeError, OverflowError, MemoryError) as error:
        said = printable(" ".join(str(error).split()))[:100]
        raise DamagedDataError(f"{path} holds no weights that can be read ({said}): {REMEDY}") from error
    if not all(value.isfinite().all() for value in found.values()):
        raise DamagedDataError(f"{path} has weights that are not finite: {REMEDY}")
    return found


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
