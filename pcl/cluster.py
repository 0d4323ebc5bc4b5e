"""The connection to Ray: the cluster a job was submitted to, or a Ray of our own on loopback."""

__all__ = ["connected"]

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray


@contextmanager
def connected(num_cpus: int) -> Iterator[None]:
    """Connect to Ray for a block.

    A submitted job finds its cluster in ``RAY_ADDRESS``. Otherwise Ray starts on this machine, listens on loopback
    only, and ends with the block.

    Args:
        num_cpus: CPUs that the block needs; a Ray of our own offers at least as many.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    options = {"log_to_driver": False, "logging_level": logging.ERROR}
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address and not address.startswith("http"):
        ray.init(address=address, **options)
    else:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # every listener on 127.0.0.1
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        ray.init(
            address="local",
            num_cpus=max(num_cpus, os.cpu_count() or 1),
            include_dashboard=False,
            **options,
        )
    try:
        yield
    finally:
        ray.shutdown()
