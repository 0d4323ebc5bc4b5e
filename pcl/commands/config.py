"""Print the configuration that a run file and key=value overrides make, whole; without a run file, every key."""

__all__ = ["command"]

import re
from pathlib import Path

from pcl.commands.command_line import Guide, job
from pcl.config.load import Config, resolved_yaml
from pcl.config.page import is_on_page, page_of_keys
from pcl.config.values import parse
from pcl.plugins.loading import load_plugins

GUIDE = Guide(
    __doc__,
    examples=(
        "configs/mnist.yaml train.epochs=3   # what a training would be of; runs/mnist: what one is of",
        "model                               # a section of the page of every key; head: the keys of the head",
        "plugins=[mine.py] model             # with what a plugin registers",
    ),
    keys=("name", "storage", "train.epochs"),
    takes_variants=True,
)
PLUGINS = "plugins="


def main(config: Config) -> None:
    """Print a configuration as YAML."""
    print(resolved_yaml(config), end="")


def command(program: str, given: list[str]) -> None:
    """Print a configuration, the page of all keys or a section of it, as a command line says."""
    plugins, rest = [one for one in given if one.startswith(PLUGINS)], [one for one in given if "=" not in one]
    if len(plugins) + len(rest) < len(given) or len(rest) > 1 or any(is_file(one) for one in rest):
        job(main, GUIDE, program, given)
        return
    for text in plugins:
        load_plugins(parse(text.removeprefix(PLUGINS), list[str]))
    print(page_of_keys(*rest), end="")


def is_file(argument: str) -> bool:
    """Return whether an argument is no section of the page, but a run file, the folder of a run or a flag."""
    is_key = re.fullmatch(r"[a-z_]+(\.[a-z_]+)*", argument) and not argument.endswith((".yaml", ".yml"))
    return not is_key or (Path(argument).exists() and not is_on_page(argument))
