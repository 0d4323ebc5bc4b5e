"""Parts: what of a sample is a modality, and what its extension says that it is."""

__all__ = ["IMAGES", "Part", "part_of"]

from dataclasses import dataclass

from pcl.errors import BadInputError, printable

IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm")
FORMS = dict.fromkeys(IMAGES, "image") | dict.fromkeys(("txt", "text"), "text") | {"npy": "numbers", "cls": "labels"}
READABLE = "jpg, png, ... (an image), txt, npy, cls or json:FIELD"


@dataclass(frozen=True)
class Part:
    """What of a sample is a modality.

    Attributes:
        extension: what follows the key and a dot in the name of its file, in small letters.
        field: of JSON, dotted where fields lie in each other; empty: the whole file.
        form: ``image``, ``text``, ``numbers`` or ``labels``.
    """

    extension: str
    field: str
    form: str

    @property
    def name(self) -> str:
        """As a configuration names it."""
        return f"{self.extension}:{self.field}" if self.field else self.extension


def part_of(key: str, given: str, numbers: list[str]) -> Part:
    """Part that a configuration names.

    Args:
        key: of the configuration, for messages.
        given: an extension, or one of JSON with a field: ``meta.json:name``.
        numbers: fields of JSON that are numbers.

    Raises:
        BadInputError: nothing here reads such a part.

    Example:
        >>> part_of("u", "Left.PNG", [])
        Part(extension='left.png', field='', form='image')
        >>> part_of("v", "json:size.width", ["size.width"]).form
        'numbers'
    """
    extension, colon, field = given.strip().partition(":")
    extension = extension.lower().removeprefix(".")
    last = extension.rpartition(".")[2]
    if not extension:
        raise BadInputError(f"{key} is not given: name what of a sample it is: {READABLE}")
    if "/" in extension or bool(colon) != (last == "json") or (colon and not field) or last not in (*FORMS, "json"):
        raise BadInputError(f"{key}={printable(given)[:100]} is nothing that is read here: give {READABLE}")
    return Part(extension, field, FORMS[last] if not colon else "numbers" if field in numbers else "text")
