"""Print the configuration that a run file and key=value overrides make, whole; without a run file, every key."""

__all__ = ["command"]

from pcl.commands.command_line import job
from pcl.config.load import Config, resolved_yaml
from pcl.config.page import page_of_keys


def main(config: Config) -> None:
    """Print a configuration as YAML."""
    print(resolved_yaml(config), end="")


def command(program: str, given: list[str]) -> None:
    """Print a configuration, or the page of all keys, as a command line says."""
    if given:
        job(main, __doc__, program, given)
    else:
        print(page_of_keys(), end="")
