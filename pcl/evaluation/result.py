"""What an evaluation gives."""

__all__ = ["Evaluation", "Table"]

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pcl.evaluation.embeddings import Embeddings

if TYPE_CHECKING:  # neither is needed before there is something to draw or to write
    import xarray as xr
    from matplotlib.figure import Figure

Table = list[list[str]]


@dataclass
class Evaluation:
    """Metrics by name (as in TensorBoard, without ``eval/``), tables of text, figures and datasets by file name.

    ``notes`` are sentences on them, ``embeddings`` are those that TensorBoard's projector shows. ``details`` are tables
    for who looks closer, on the page alone, and ``captions`` say by file name what figures show.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    details: list[Table] = field(default_factory=list)
    captions: dict[str, str] = field(default_factory=dict)
    figures: dict[str, "Figure"] = field(default_factory=dict)
    datasets: dict[str, "xr.Dataset"] = field(default_factory=dict)
    embeddings: Embeddings | None = None
