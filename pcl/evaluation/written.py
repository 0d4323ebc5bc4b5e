"""Texts in pictures: what stored bytes say, broken into lines of a size that fits."""

__all__ = ["drawn_text", "fitted_text", "text_of"]

import functools
import math
import textwrap

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from pcl.errors import printable

MISSING = "\N{WHITE SQUARE}"
MOST_CHARACTERS = 150
LARGEST, SMALLEST = 13.0, 6.0  # points
LEAST_PIXELS = 9.0
POINTS = 90.0  # of a side of an axis that a text may fill
CHARACTER_WIDTH, BOX_WIDTH, LINE_HEIGHT = 0.62, 1.0, 1.25  # of a font's size, on average


def text_of(item: Tensor) -> str:
    """Return the text of bytes of UTF-8 that end in zeros; of any other integers, the numbers before the last zeros.

    Example:
        >>> text_of(torch.tensor([195, 164, 33, 0, 0], dtype=torch.uint8)), text_of(torch.tensor([7, 0, 12, 0]))
        ('ä!', '7 0 12')
    """
    last = item.nonzero()
    item = item[: int(last.max()) + 1] if len(last) else item[:0]
    if item.dtype != torch.uint8:
        return " ".join(f"{number:g}" for number in item.tolist())
    return printable(" ".join(bytes(item.tolist()).decode("utf-8", "replace").split()))


def fitted_text(text: str) -> tuple[str, float]:
    """Return a text in lines, shortened if it is very long, and the size of font at which it fits an axis, points.

    A character that the font lacks is a box.
    """
    text = "".join(character if _has_glyph(character) else MISSING for character in text)
    if len(text) > MOST_CHARACTERS:
        text = text[: MOST_CHARACTERS - 1] + "\N{HORIZONTAL ELLIPSIS}"
    width = BOX_WIDTH if MISSING in text else CHARACTER_WIDTH
    longest = max(map(len, text.split()), default=1)
    fitting = 0.85 * POINTS / math.sqrt(width * LINE_HEIGHT * max(1, len(text)))
    size = max(SMALLEST, min(LARGEST, fitting, POINTS / (width * longest)))
    return textwrap.fill(text, max(1, round(POINTS / (width * size)))), size


@functools.cache
def _has_glyph(character: str) -> bool:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return character.isspace() or get_font(findfont(FontProperties())).get_char_index(ord(character)) != 0


def drawn_text(text: str, height: int, width: int) -> Tensor:
    """Return a small picture of a text, grey levels from 0 (white) to 1, shape (height, width)."""
    longest = max(map(len, text.split()), default=1)
    fitting = 1.1 * math.sqrt(height * width / max(1, len(text)))
    size = max(LEAST_PIXELS, min(height / 2, fitting, width / (CHARACTER_WIDTH * longest)))
    lines = textwrap.wrap(text, max(1, round(width / (CHARACTER_WIDTH * size)))) or [""]
    kept = "\n".join(lines[: max(1, int(height / (1.2 * size)))])
    picture = Image.new("L", (width, height), 60)
    ImageDraw.Draw(picture).text((width / 2, height / 2), kept, fill=255, anchor="mm", font_size=size, align="center")
    return torch.from_numpy(np.asarray(picture, np.float32) / 255)
