"""Two arrays of one's own, in files of the usual kinds."""

__all__ = ["PROBLEM"]

from pcl.data.manifest import Manifest
from pcl.data.source import Source, SourceContext
from pcl.evaluation.drawing import Drawing, by_form
from pcl.evaluation.splits import Splits
from pcl.problems.arrays.settings import ArraysSettings
from pcl.problems.problem import Problem


def make_source(settings: ArraysSettings, context: SourceContext) -> Source:
    """Return the pairs of the arrays that settings name."""
    from pcl.problems.arrays.source import arrays_source  # importing pcl stays quick

    return arrays_source(settings, context)


def forms_of(manifest: Manifest) -> tuple[str, str]:
    """Return what settings said that u and v are."""
    u, v = manifest.source["forms"]
    return str(u), str(v)


def drawings(splits: Splits) -> tuple[Drawing, Drawing]:
    """Draw u and v as their forms are drawn."""
    u, v = (by_form(form, items) for form, items in zip(forms_of(splits.manifest), splits.items, strict=True))
    return u, v


PROBLEM = Problem("arrays", ArraysSettings, make_source, forms=forms_of, drawings=drawings)
