"""Two parts of the samples of WebDataset tars: images, texts, numbers, labels."""

__all__ = ["PROBLEM"]

from pcl.data.source import Source, SourceContext
from pcl.problems.problem import Problem
from pcl.problems.webdataset.settings import WebdatasetSettings


def make_source(settings: WebdatasetSettings, context: SourceContext) -> Source:
    """Return the pairs of the tars that settings name."""
    from pcl.problems.webdataset.source import webdataset_source  # it imports Pillow

    return webdataset_source(settings, context)


PROBLEM = Problem("webdataset", WebdatasetSettings, make_source)
