"""Noisy values of a Gaussian process against its leading coefficients, where the exact answer is known (THEORY 6.2)."""

__all__ = ["PROBLEM"]

from pcl.data.source import Source, SourceContext
from pcl.evaluation.result import Evaluation
from pcl.evaluation.splits import Splits
from pcl.model import PairModel
from pcl.problems.gaussian_process.settings import GaussianProcessSettings
from pcl.problems.gaussian_process.source import GaussianProcessSource, process_of
from pcl.problems.problem import Problem


def make_source(settings: GaussianProcessSettings, context: SourceContext) -> Source:
    """Return pairs drawn from the law that settings name."""
    return GaussianProcessSource(settings.num_train, settings.num_test, context.seed, process_of(vars(settings)))


def evaluate(evaluation: Evaluation, model: PairModel, splits: Splits) -> None:
    """Add the errors of the conditional means, beside those that need no learning."""
    from pcl.problems.gaussian_process.evaluation import add_theory_gap  # it draws: importing pcl stays quick

    add_theory_gap(evaluation, model, splits)


PROBLEM = Problem("gaussian_process", GaussianProcessSettings, make_source, evaluate=evaluate)
