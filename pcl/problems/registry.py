"""The kinds of pairs that come with the package."""

__all__ = ["OURS"]

from pcl.problems.arrays import PROBLEM as ARRAYS
from pcl.problems.gaussian_process import PROBLEM as GAUSSIAN_PROCESS
from pcl.problems.mnist import PROBLEM as MNIST
from pcl.problems.ocean import PROBLEM as OCEAN
from pcl.problems.problem import register
from pcl.problems.streamfunction import PROBLEM as STREAMFUNCTION
from pcl.problems.webdataset import PROBLEM as WEBDATASET

OURS = (GAUSSIAN_PROCESS, MNIST, STREAMFUNCTION, OCEAN, ARRAYS, WEBDATASET)

for one in OURS:
    register(one)
