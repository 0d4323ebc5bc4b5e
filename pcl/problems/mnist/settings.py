"""Settings of the MNIST pairs."""

__all__ = ["MnistSettings"]

from dataclasses import dataclass


@dataclass
class MnistSettings:
    """None: the four files lie in ``data.root``."""
