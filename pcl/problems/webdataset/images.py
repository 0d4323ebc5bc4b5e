"""Images of other people: decoded to one size and mode, whatever they claim to be."""

__all__ = ["MOST_PIXELS", "decoded_image"]

import io

import numpy as np
from PIL import Image, ImageOps

MOST_PIXELS = 1 << 26  # an image of more is refused before it is unpacked: a file of a kilobyte may claim a billion
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # Pillow knows others that call programs
NOT_LEVELS = ("I", "F")  # modes of pixels that are any numbers


def decoded_image(content: bytes, shape: tuple[int, int], mode: str, fit: str) -> np.ndarray:
    """Image of a file: upright as its EXIF says, over white where it is transparent, then scaled (bicubic).

    Args:
        content: of the file.
        shape: height and width.
        mode: ``RGB`` or ``L``.
        fit: ``crop`` covers the shape and cuts around the centre, ``squash`` distorts.

    Returns:
        uint8, shape (3, height, width), or (height, width) of mode ``L``.

    Raises:
        ValueError: it is no image, is damaged, or claims more than ``MOST_PIXELS``.

    Example:
        >>> file = io.BytesIO()
        >>> Image.new("RGBA", (8, 4), (255, 0, 0, 0)).save(file, "PNG")
        >>> decoded_image(file.getvalue(), (2, 2), "L", "crop").tolist()
        [[255, 255], [255, 255]]
    """
    scaled = None
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height <= MOST_PIXELS:
                scaled = _scaled(_over_white(ImageOps.exif_transpose(image)).convert(mode), shape, fit)
    except Image.DecompressionBombError:
        pass
    except Exception as error:  # of a file that somebody else made anything may be raised
        raise ValueError("is no image, or a damaged one") from error
    if scaled is None:
        raise ValueError(f"has more than {MOST_PIXELS:,} pixels")
    pixels = np.asarray(scaled)
    return np.ascontiguousarray(np.moveaxis(pixels, -1, 0)) if mode == "RGB" else pixels


def _scaled(image: Image.Image, shape: tuple[int, int], fit: str) -> Image.Image:
    size = shape[1], shape[0]
    if fit == "crop":
        return ImageOps.fit(image, size, Image.Resampling.BICUBIC)
    return image.resize(size, Image.Resampling.BICUBIC)


def _over_white(image: Image.Image) -> Image.Image:
    """Return an image without transparency, and without grey levels that need more than a byte."""
    if image.mode in NOT_LEVELS:
        raise ValueError(f"pixels of mode {image.mode} are no grey levels")
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white
