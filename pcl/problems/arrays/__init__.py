"""Two arrays of one's own, in files of the usual kinds."""

__all__ = ["PROBLEM"]

from pcl.data.source import Source, SourceContext
from pcl.problems.arrays.settings import ArraysSettings
from pcl.problems.problem import Problem


def make_source(settings: ArraysSettings, context: SourceContext) -> Source:
    """Return the pairs of the arrays that settings name."""
    from pcl.problems.arrays.source import arrays_source  # importing pcl stays quick

    return arrays_source(settings, context)


PROBLEM = Problem("arrays", ArraysSettings, make_source)
