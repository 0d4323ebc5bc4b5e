"""A training by the workers of Ray Train, as the command starts it: Ray begins while its training part is imported."""

__all__ = ["OnRay"]

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module

from pcl.cluster.board import ask_to_stop, notices
from pcl.cluster.connection import connected
from pcl.cluster.own_ray import signals_wait
from pcl.config.load import Config
from pcl.config.validation import allowed_workers
from pcl.storage.place import Place


class OnRay:
    """A training by the workers of Ray Train; what it offers ``pcl.cluster.alone.Here`` offers too."""

    ask_to_stop, notices = staticmethod(ask_to_stop), staticmethod(notices)

    @contextmanager
    def connected(self, config: Config) -> Iterator[None]:
        """Connect to Ray for a block; most of the two seconds in which Ray starts is left to the imports."""
        with ThreadPoolExecutor(1) as aside:
            with signals_wait():  # they are for the main thread
                imported = aside.submit(import_module, "pcl.cluster.worker")
            with connected(allowed_workers(config)[0] * config.workers.cpus_per_worker):
                imported.result()
                yield

    def check_resources(self, config: Config) -> Config:
        """Do as the function of that name."""
        from pcl.cluster.worker import check_resources

        return check_resources(config)

    def give_up(self) -> None:
        """Do nothing: its workers end with the connection."""

    def fit(self, config: Config, run: Place, step: int) -> None:
        """Do as the function of that name."""
        from pcl.cluster.worker import fit

        fit(config, run, step)
