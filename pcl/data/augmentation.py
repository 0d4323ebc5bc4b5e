r"""Augmentations of images and pairs, drawn from the seed and the step for a global batch: no worker changes them.

An image is flipped, shifted by whole pixels, then turned, scaled and shifted in one interpolation, then coloured. What
comes in from beyond its edge is what the edge shows, so a white background stays white. Symmetries that a kind of
pairs has act on u and v together.

Shapes: b images of this worker, B of all of them, C channels, H x W places.
"""

__all__ = [
    "AUGMENTATIONS",
    "Augment",
    "AugmentSettings",
    "Symmetries",
    "Symmetry",
    "check_augment",
    "coloured",
    "make_augment",
    "make_symmetries",
    "moved",
    "warped",
]

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pcl.errors import BadInputError
from pcl.settings import setting
from pcl.workers import Workers

AUGMENTATIONS = ("flip", "crop", "rotate", "scale", "shift", "colour")
WARPS = ("rotate", "scale", "shift")
AUGMENT = 2  # a stream of random numbers beside those of the loader
PAIRS = 2  # of it, beside those of u and v
NUM_UNIFORM = 3  # random numbers that a symmetry may use of a pair

Symmetry = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Returns pairs as likely as u (b, ...) and v (b, ...), of random numbers from 0 to 1 for each pair, (b, 3)."""


@dataclass
class AugmentSettings:
    """``data.augment``."""

    u: list[str] = setting(f"of u, an image: {', '.join(AUGMENTATIONS)}", [])
    v: list[str] = setting("of v, likewise, drawn independently", [])
    pairs: list[str] = setting(
        "of both at once, symmetries of their kind: translate and reverse, of streamfunction",
        [],
        is_neutral=True,
    )
    rotate_deg: float = setting("largest turn, degrees", 10.0, at_least=0, at_most=180)
    scale: float = setting("largest enlargement less one: 0.1 is between 1 / 1.1 and 1.1", 0.1, at_least=0, at_most=10)
    shift: float = setting("largest shift along each axis over the side of the image", 0.1, at_least=0, at_most=1)
    crop_padding: int = setting("largest shift of a crop along each axis, pixels", 4, at_least=0, at_most=10**4)
    colour: float = setting(
        "largest change of a channel: of its contrast as a share, of its brightness over the image's deviation",
        0.2,
        at_least=0,
        at_most=1,
    )


def check_augment(settings: AugmentSettings, forms: Sequence[str], shapes: Sequence[Sequence[int]]) -> None:
    """Refuse augmentations that are not known, or of what is no image.

    Args:
        settings: which.
        forms: of u and of v, as a kind of pairs tells.
        shapes: of an item of u and of v.

    Raises:
        BadInputError: the message says what to leave out.
    """
    for name, form, shape in zip("uv", forms, shapes, strict=True):
        chosen = getattr(settings, name)
        if unknown := [one for one in chosen if one not in AUGMENTATIONS]:
            raise BadInputError(
                f"data.augment.{name}: {unknown[0][:100]!r} is not known; choose among {', '.join(AUGMENTATIONS)}"
            )
        if chosen and (form != "image" or len(shape) not in (2, 3)):
            what = f"images of shape {tuple(shape)}" if form == "image" else form
            raise BadInputError(
                f"data.augment.{name}=[{', '.join(chosen)}] and {name} is {what}: only images (rows, columns) or "
                f"(channels, rows, columns) are augmented; leave data.augment.{name} out"
            )


def make_augment(settings: AugmentSettings, seed: int) -> "Augment | None":
    """Return the augmentation of a training, None where there is none.

    Args:
        settings: which, and how much.
        seed: of the training.
    """
    return Augment(settings, seed) if settings.u or settings.v else None


def make_symmetries(chosen: Sequence[str], known: Mapping[str, Symmetry], seed: int) -> "Symmetries | None":
    """Return the symmetries by which a training augments its pairs, None where there are none.

    Args:
        chosen: their names.
        known: symmetries that the kind of pairs has, by name.
        seed: of the training.

    Raises:
        BadInputError: a name is none of a symmetry.
    """
    if unknown := [name for name in chosen if name not in known]:
        which = f"choose among {', '.join(known)}" if known else "these pairs have none: leave data.augment.pairs out"
        raise BadInputError(f"data.augment.pairs: {unknown[0][:100]!r} is no symmetry of these pairs; {which}")
    return Symmetries([known[name] for name in chosen], seed) if chosen else None


class Symmetries:
    """Symmetries of pairs, one after the other, at a step.

    Args:
        symmetries: which, in their order.
        seed: with the step, it decides every random number.

    Example:
        >>> from pcl.workers import OneWorker
        >>> mirrored = Symmetries([lambda u, v, uniform: (-u, -v)], seed=0)
        >>> mirrored(torch.ones(1), torch.ones(1), 3, OneWorker())
        (tensor([-1.]), tensor([-1.]))
    """

    def __init__(self, symmetries: Sequence[Symmetry], seed: int) -> None:
        self.symmetries, self.seed = symmetries, seed

    def __call__(self, u: Tensor, v: Tensor, step: int, workers: Workers) -> tuple[Tensor, Tensor]:
        """Return this worker's share (b, ...) of a global batch, as likely as it was."""
        number = len(u)
        rng = np.random.default_rng([self.seed, AUGMENT, step, PAIRS])
        uniform = rng.random((number * workers.num_workers, len(self.symmetries), NUM_UNIFORM))
        own = torch.from_numpy(uniform[workers.worker_rank * number :][:number]).to(u.device)
        for i, symmetry in enumerate(self.symmetries):
            u, v = symmetry(u, v, own[:, i])
        return u, v


class Augment:
    """Augmentation of pairs of images at a step.

    Args:
        settings: which, and how much.
        seed: with the step, it decides every random number.

    Example:
        >>> from pcl.workers import OneWorker
        >>> augment = Augment(AugmentSettings(u=["flip"]), seed=0)
        >>> u, v = augment(torch.tensor([[[0, 9]]] * 4), torch.zeros(4, 7), 3, OneWorker())
        >>> u[:, 0].tolist()
        [[0, 9], [9, 0], [9, 0], [0, 9]]
    """

    def __init__(self, settings: AugmentSettings, seed: int) -> None:
        self.settings, self.seed = settings, seed

    def __call__(self, u: Tensor, v: Tensor, step: int, workers: Workers) -> tuple[Tensor, Tensor]:
        """Return this worker's share (b, ...) of a global batch, augmented, in the dtypes and on the device it has."""
        found = [
            self._augmented(images, getattr(self.settings, name), (step, side), workers) if len(images) else images
            for side, (name, images) in enumerate({"u": u, "v": v}.items())
        ]
        return found[0], found[1]

    def _augmented(self, images: Tensor, chosen: Sequence[str], key: tuple[int, int], workers: Workers) -> Tensor:
        if not chosen:
            return images
        shape = images.shape
        images = images if images.ndim == 4 else images[:, None]
        uniform, of_channels = self._draw(images, key, workers)
        flip, turn, scale, *offsets = (column.to(images.device) for column in uniform.unbind(1))
        shift, crop = torch.stack(offsets[:2], 1), torch.stack(offsets[2:], 1)
        size = torch.tensor(images.shape[2:], device=images.device)
        how = self.settings
        if "flip" in chosen:
            images = torch.where((flip < 0)[:, None, None, None], images.flip(3), images)
        if "crop" in chosen:
            images = moved(images, ((crop + 1) / 2 * (2 * how.crop_padding + 1)).long() - how.crop_padding)
        if set(chosen) & set(WARPS):
            images = warped(
                images,
                turn * how.rotate_deg if "rotate" in chosen else torch.zeros_like(turn),
                (1 + how.scale) ** scale if "scale" in chosen else torch.ones_like(scale),
                shift * how.shift * size if "shift" in chosen else torch.zeros_like(shift),
            )
        if "colour" in chosen:
            gain, brightness = (how.colour * of_channels).to(images.device).unbind(1)
            images = coloured(images, 1 + gain, brightness)
        return images.reshape(shape)

    def _draw(self, images: Tensor, key: tuple[int, int], workers: Workers) -> tuple[Tensor, Tensor]:
        """Return this worker's rows of what is drawn for all pairs, from -1 to 1: (b, 7) and (b, 2, C)."""
        number, channels = len(images), images.shape[1]
        rng = np.random.default_rng([self.seed, AUGMENT, *key])
        every = number * workers.num_workers
        own = slice(workers.worker_rank * number, (workers.worker_rank + 1) * number)
        uniform, of_channels = rng.uniform(-1, 1, (every, 7)), rng.uniform(-1, 1, (every, 2, channels))
        return torch.from_numpy(uniform[own]), torch.from_numpy(of_channels[own])


def moved(images: Tensor, offset: Tensor) -> Tensor:
    """Images (b, C, H, W) seen through a frame that is moved by whole pixels, as a crop of what is padded by its edge.

    Args:
        images: of any dtype.
        offset: of the frame in rows and columns, (b, 2).

    Example:
        >>> moved(torch.arange(4).view(1, 1, 1, 4), torch.tensor([[0, 2]])).flatten().tolist()
        [2, 3, 3, 3]
    """
    for axis in (2, 3):
        size = images.shape[axis]
        places = torch.arange(size, device=images.device) + offset[:, axis - 2, None]
        shape = [len(images), 1, 1, 1]
        shape[axis] = size
        images = images.gather(axis, places.clamp(0, size - 1).view(shape).expand_as(images))
    return images


def warped(images: Tensor, turn_deg: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    r"""Images (b, C, H, W) that are turned, scaled and shifted about their centre, by one bilinear interpolation.

    What is shown at x was at :math:`R^{-1} (x - d) / s`.

    Args:
        images: of any dtype but bool; integers are rounded to.
        turn_deg: counterclockwise, degrees, (b,).
        scale: s, (b,).
        shift: d, downwards and to the right, pixels, (b, 2).

    Example:
        >>> image, none = torch.arange(4.0).view(1, 1, 2, 2), torch.zeros(1, 2)
        >>> warped(image, torch.tensor([90.0]), torch.ones(1), none).round()
        tensor([[[[1., 3.],
                  [0., 2.]]]])
    """
    height, width = images.shape[2:]
    angle, scale, shift = torch.deg2rad(turn_deg.double()), scale.double(), shift.double()
    cosine, sine = angle.cos() / scale, angle.sin() / scale
    rows = torch.stack([cosine, sine, -sine, cosine], 1).view(-1, 2, 2)  # of y and x, y downwards: R^-1 / s
    rows = torch.cat([rows, -(rows @ shift[:, :, None])], 2)
    # grid_sample wants x before y, and both in units of half a side
    side = torch.tensor([width / 2, height / 2], dtype=torch.float64, device=images.device)
    matrix = rows[:, [1, 0]][:, :, [1, 0, 2]] * torch.cat([side, side.new_ones(1)]) / side[:, None]
    values = images if images.dtype == torch.float64 else images.float()
    grid = torch.nn.functional.affine_grid(matrix, list(images.shape), align_corners=False).to(values.dtype)
    found = torch.nn.functional.grid_sample(values, grid, padding_mode="border", align_corners=False)
    return _as(found, images.dtype)


def coloured(images: Tensor, gain: Tensor, brightness: Tensor) -> Tensor:
    r"""Images (b, C, H, W) whose channels have another contrast and brightness: :math:`m + (x - m) g_c + b_c d`.

    Args:
        images: of any dtype but bool; integers are rounded to, and stay within their range.
        gain: g, (b, C).
        brightness: b over the standard deviation d of an image whose mean is m, (b, C).

    Example:
        >>> coloured(torch.tensor([[[[0, 255]]]], dtype=torch.uint8), torch.ones(1, 1), torch.full((1, 1), 0.5))
        tensor([[[[ 64, 255]]]], dtype=torch.uint8)
    """
    values = images if images.dtype == torch.float64 else images.float()
    mean, deviation = values.mean((1, 2, 3), keepdim=True), values.std((1, 2, 3), correction=0, keepdim=True)
    gain, brightness = (part.to(values.dtype)[:, :, None, None] for part in (gain, brightness))
    return _as(mean + (values - mean) * gain + brightness * deviation, images.dtype)


def _as(values: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype.is_floating_point:
        return values.to(dtype)
    limits = torch.iinfo(dtype)
    return values.round().clamp(limits.min, limits.max).to(dtype)
