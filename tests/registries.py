"""The registries that plugins enter, so that a test leaves them as they were."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pcl.data.tokenizers import TOKENIZERS
from pcl.encoders.registry import ENCODERS
from pcl.objective import LOSSES
from pcl.plugins import loading
from pcl.problems.problem import PROBLEMS

REGISTRIES = (ENCODERS, LOSSES, PROBLEMS, TOKENIZERS, loading._LOADED)


@contextmanager
def left_as_they_are() -> Iterator[None]:
    """Leave the registries, and the modules of plugins, as they were."""
    kept = [(registry, dict(registry)) for registry in REGISTRIES]
    modules = plugin_modules()
    try:
        yield
    finally:
        for registry, content in kept:
            if registry != content:
                registry.clear()
                registry.update(content)
        for name in plugin_modules() - modules:
            del sys.modules[name]


def plugin_modules() -> set[str]:
    """Return the names of the modules of plugins that were run."""
    return {name for name in sys.modules if name.startswith(loading.PREFIX)}
