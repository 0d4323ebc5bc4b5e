"""Settings of the MNIST pairs."""

__all__ = ["MnistSettings"]

from dataclasses import dataclass


@dataclass
class MnistSettings:
    """None: the four IDX files, gzipped or not, lie in ``data.root``; those missing are downloaded there.

    In object storage all of them must be there.
    """
