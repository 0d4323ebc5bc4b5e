"""The kinds of pairs that come with the package."""

__all__ = ["OURS"]

from pcl.problems import gaussian_process, mnist, ocean, streamfunction
from pcl.problems.problem import register

OURS = (gaussian_process.PROBLEM, mnist.PROBLEM, streamfunction.PROBLEM, ocean.PROBLEM)

for one in OURS:
    register(one)
