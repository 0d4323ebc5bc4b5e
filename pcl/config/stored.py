"""A run's folder as a configuration: what the run recorded, with the name and the storage where it lies now.

Whoever can write to a storage can write a name of a plugin there: none that a run names is imported.
"""

__all__ = ["CONFIG", "as_it_lies", "known_here", "run_of"]

from pcl.config.schema import OPEN_CHOICES, Config, is_section, kinds_of
from pcl.config.values import Given, short
from pcl.errors import BadInputError, printable
from pcl.storage.place import Place

CONFIG, PROVENANCE = "config.yaml", "provenance.json"


def run_of(path: Place) -> Place | None:
    """Return the run that a path leads to, by its folder or by its own ``config.yaml``; None: it is a run file.

    Raises:
        OSError: storage refuses.
    """
    if path.name == CONFIG and (path.parent / PROVENANCE).is_file():
        return path.parent
    return path if (path / CONFIG).is_file() else None


def as_it_lies(given: Given, run: Place, path: Place) -> Given:
    """Return what a run recorded, without plugins; where its folder is named, with the name and storage of that."""
    if not isinstance(given, dict):
        return given
    kept = {key: value for key, value in given.items() if key != "plugins"}
    return kept | ({"name": run.name, "storage": str(run.parent)} if path == run else {})


def known_here(given: Given, run: Place) -> Given:
    """Return what a run recorded without settings of kinds that nobody registers here: it uses none of them.

    Raises:
        BadInputError: it uses one.
    """
    if not isinstance(given, dict):
        return given
    for key, choices in OPEN_CHOICES.items():
        name, part = key.split(".")
        section = given.get(name)
        value = section.get(part) if isinstance(section, dict) else None
        if isinstance(value, str) and value not in choices:
            raise BadInputError(
                f"{printable(run)} has {key}={printable(short(value))}, which is not known here: if a plugin registers "
                "it give plugins=[that_plugin.py], since none that a stored run names is imported"
            )
    return {name: _known(section, kinds_of(Config).get(name)) for name, section in given.items()}


def _known(section: Given, schema: object) -> Given:
    """Return a section without mappings under names that it has not."""
    if not isinstance(section, dict) or not is_section(schema):
        return section
    kinds = kinds_of(schema)
    return {key: value for key, value in section.items() if key in kinds or not isinstance(value, dict)}
