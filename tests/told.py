"""Metrics that nothing says the meaning of."""

from pcl.evaluation.meanings import meaning_of
from pcl.problems import registry  # noqa: F401 - kinds of pairs register what their numbers mean


def unexplained(metrics):
    return [name for name in metrics if not meaning_of(name).text]
