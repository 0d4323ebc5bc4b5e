"""Pages of HTML that need nothing else: sections of paragraphs, tables and pictures."""

__all__ = ["Picture", "Section", "page", "png_of"]

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pcl.errors import printable
from pcl.evaluation.result import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATE = Path(__file__).with_name("page.html")
LONGEST = 14  # rows of a table that is not folded


class Picture(NamedTuple):
    """A picture: the bytes of a PNG file, or of an animated GIF, and what it shows."""

    png: bytes
    caption: str

    @property
    def kind(self) -> str:
        """The format, as addresses name it."""
        return "gif" if self.png.startswith(b"GIF8") else "png"

    @property
    def encoded(self) -> str:
        """The picture as the text of a data address."""
        return base64.b64encode(self.png).decode()


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        title: of the part.
        text: paragraphs.
        tables: the first row of each is its head, the first column is text.
        pictures: each with its caption.
        is_folded: whether a reader opens it; long tables are folded anyway.
    """

    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    is_folded: bool = False


def png_of(figure: "Figure", dpi: int = 110) -> bytes:
    """Return a figure as the bytes of a PNG file."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi)
    return content.getvalue()


def page(title: str, about: Sequence[str], sections: Sequence[Section], warnings: Sequence[str] = ()) -> str:
    """Return one page of HTML that needs no other file and runs no program.

    Args:
        title: of the page.
        about: sentences on what it is of.
        sections: its parts, in order.
        warnings: what a reader should know before the rest.

    Example:
        >>> text = page("A run", ["Of pairs."], [Section("Numbers", tables=[[["name", "R@1"], ["u given v", ".5"]]])])
        >>> "<h2>Numbers</h2>" in text and "<td>u given v</td>" in text
        True
    """
    from jinja2 import Environment  # pages are made at the end of long work: importing pcl stays quick

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["printable"] = printable
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(title=title, about=about, sections=sections, warnings=warnings, longest=LONGEST)
