"""Augmentations of images, drawn from the seed and the step."""

__all__ = ["AugmentSettings"]

from dataclasses import dataclass

from pcl.settings import setting


@dataclass
class AugmentSettings:
    """``data.augment``."""

    u: list[str] = setting("of u: flip, crop, rotate, scale, shift, colour", [])
    v: list[str] = setting("of v, likewise", [])
