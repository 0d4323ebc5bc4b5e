"""Embeddings for TensorBoard's projector, which finds them in the folder of a run's event files.

The projector caches tensors by name, so the name holds the step; the files keep theirs, so only the last ones are kept.
"""

__all__ = ["Embeddings", "choose_embeddings", "write_projector"]

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from google.protobuf import text_format  # type: ignore[import-untyped]
from PIL import Image
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig  # type: ignore[import-untyped]
from torch import Tensor

from pcl.evaluation.drawing import Drawing
from pcl.evaluation.retrieval import identity_of
from pcl.storage.place import Place, write_bytes

LARGEST_SPRITE = 8192  # pixels of a side that the projector takes
LARGEST_PICTURE = 64  # pixels of a side of a point's


@dataclass(frozen=True)
class Embeddings:
    """Points of both modalities in one space.

    Attributes:
        points: shape (n, E).
        metadata: a row for each, and the head first.
        images: of the points, where there are any: grey levels from 0 (white) to 1, shape (n, height, width), or
            (n, 3, height, width) of red, green and blue.
    """

    points: Tensor
    metadata: list[list[str]]
    images: Tensor | None = None


def choose_embeddings(
    items: tuple[Tensor, Tensor],
    embeddings: tuple[Tensor, Tensor],
    num_pairs: int,
    drawings: tuple[Drawing, Drawing] | None = None,
    *,
    labels: bool = False,
) -> Embeddings:
    """Return the embeddings of the first pairs, equal items once.

    Args:
        items: stored u and v, shape (N, ...) each.
        embeddings: of both, shape (N, E) each.
        num_pairs: pairs to show.
        drawings: how u and v are drawn, for small pictures of them.
        labels: whether v are labels.
    """
    columns = ["modality", "pair", *(["label"] if labels else [])]
    points, metadata, shown = [], [columns], []
    for name, part, embedded in zip("uv", items, embeddings, strict=True):
        first = np.unique(identity_of(part[:num_pairs]).numpy(), return_index=True)[1]
        shown.append(torch.from_numpy(np.sort(first)))
        points.append(embedded[shown[-1]])
        numbers = shown[-1].tolist()
        metadata += [[name, str(i), *([f"{items[1][i].item():g}"] if labels else [])] for i in numbers]
    return Embeddings(torch.cat(points), metadata, _small_pictures(drawings, shown))


def _small_pictures(drawings: tuple[Drawing, Drawing] | None, shown: Sequence[Tensor]) -> Tensor | None:
    """Return pictures of items of u and of v, in the shape of those that are pictures; None where there are none."""
    small = [one.small for one in drawings or ()]
    shape = next((one.shape for one in drawings or () if one.shape is not None), None)
    if shape is None or None in small:
        return None
    smaller = math.ceil(max(shape) / LARGEST_PICTURE)
    shape = max(1, shape[0] // smaller), max(1, shape[1] // smaller)
    made = [make(part, shape) for make, part in zip(small, shown, strict=True) if make is not None]
    if len({part.ndim for part in made}) > 1:
        made = [part if part.ndim == 4 else part[:, None].expand(-1, 3, -1, -1) for part in made]
    return torch.cat(made)


def write_projector(folder: Place, step: int, embeddings: Embeddings) -> None:
    """Write embeddings where the projector looks, in place of earlier ones.

    Args:
        folder: of the event files.
        step: of the model.
        embeddings: to show.

    Raises:
        OSError: storage refuses.
    """
    config = ProjectorConfig()
    shown = config.embeddings.add(tensor_name=f"step {step}", tensor_path="embeddings.tsv")
    shown.metadata_path = "metadata.tsv"
    write_bytes(folder / shown.tensor_path, _tsv([[f"{x:.6g}" for x in row] for row in embeddings.points.tolist()]))
    write_bytes(folder / shown.metadata_path, _tsv(embeddings.metadata))
    sprite = None if embeddings.images is None else _sprite(embeddings.images)
    if embeddings.images is not None and sprite is not None:
        shown.sprite.image_path = "sprite.png"
        shown.sprite.single_image_dim.extend([*embeddings.images.shape[:-3:-1]])
        write_bytes(folder / shown.sprite.image_path, sprite)
    write_bytes(folder / "projector_config.pbtxt", text_format.MessageToString(config).encode())


def _tsv(rows: list[list[str]]) -> bytes:
    return "".join("\t".join(row) + "\n" for row in rows).encode()


def _sprite(images: Tensor) -> bytes | None:
    """Return a PNG of images in rows of a square grid, None where it would be too large for the projector."""
    num, *_, height, width = images.shape
    side = math.ceil(math.sqrt(num))
    if side * max(height, width) > LARGEST_SPRITE:
        return None
    colours = images if images.ndim == 4 else images[:, None]
    grid = torch.zeros(side * side, colours.shape[1], height, width)
    grid[:num] = colours
    # of rows of pictures, columns of pictures and colours to height, width and colours of one picture
    picture = grid.view(side, side, -1, height, width).permute(0, 3, 1, 4, 2).reshape(side * height, side * width, -1)
    light = (255 * (1 - picture)).clamp(0, 255).byte().numpy()
    buffer = io.BytesIO()
    Image.fromarray(light if images.ndim == 4 else light[:, :, 0]).save(buffer, "PNG")
    return buffer.getvalue()
