"""Two parts of the samples of WebDataset tars: images, texts, numbers, labels."""

__all__ = ["PROBLEM"]

from pcl.data.manifest import Manifest
from pcl.data.source import Source, SourceContext
from pcl.evaluation.drawing import Drawing, by_form
from pcl.evaluation.splits import Splits
from pcl.problems.problem import Problem
from pcl.problems.webdataset.settings import WebdatasetSettings


def make_source(settings: WebdatasetSettings, context: SourceContext) -> Source:
    """Return the pairs of the tars that settings name."""
    from pcl.problems.webdataset.source import webdataset_source  # it imports Pillow

    return webdataset_source(settings, context)


def forms(manifest: Manifest) -> tuple[str, str]:
    """Return the forms of u and v as the source has written them."""
    u, v = manifest.source["forms"]
    return u, v


def drawings(splits: Splits) -> tuple[Drawing, Drawing]:
    """Draw u and v as their forms are drawn."""
    u, v = (by_form(form, items) for form, items in zip(forms(splits.manifest), splits.items, strict=True))
    return u, v


PROBLEM = Problem("webdataset", WebdatasetSettings, make_source, forms=forms, drawings=drawings)
