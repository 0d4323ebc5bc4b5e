"""Settings: fields of a dataclass that say what they mean and which values they may have."""

__all__ = ["Open", "check_settings", "is_again", "own_fields", "setting"]

from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any

from pcl.errors import BadInputError, printable

LONGEST_SHOWN = 100


def is_again(one: Any, other: Any) -> bool:
    """Whether a function or class is another as its file, or the cell of a notebook, was run again.

    Example:
        >>> is_again(setting, setting), is_again(setting, Open)
        (True, False)
    """
    places = [(getattr(x, "__module__", None), getattr(x, "__qualname__", None)) for x in (one, other)]
    is_ours = str(places[0][0]).startswith("pcl.")
    return one is other or (places[0] == places[1] and None not in places[0] and not is_ours)


def setting(
    meaning: str = "",
    default: Any = MISSING,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    choices: Sequence[str] = (),
    is_place: bool = False,
    is_input: bool = False,
    is_identity: bool = True,
    is_neutral: bool = False,
    factory: Callable[[], Any] | None = None,
) -> Any:
    """Field of a settings dataclass, with what a value means and which values are possible.

    Args:
        meaning: a phrase with the unit, for the page of all keys.
        default: the value where none is given; a list or dictionary is copied for every object.
        at_least: the smallest value.
        at_most: the largest value: far beyond any use, so that a slip of the finger ends in a line.
        above: a bound that the value exceeds.
        choices: the texts that are possible, if they are few.
        is_place: a path, or a list of them, that is made absolute.
        is_input: a place of data, which may lie in object storage.
        is_identity: whether results depend on it: another place of the same files gives the same pairs.
        is_neutral: whether the default changes nothing: records leave it out, and are those of who does not know it.
        factory: makes the default, of settings within settings.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Settings:
        ...     num_train: int = setting("training pairs", 100, at_least=1)
        >>> Settings().num_train
        100
    """
    bounds = {"at_least": at_least, "at_most": at_most, "above": above}
    metadata = {
        "meaning": meaning,
        "choices": tuple(choices),
        "is_place": is_place or is_input,
        "is_input": is_input,
        "is_identity": is_identity,
        "is_neutral": is_neutral,
        "bounds": {name: bound for name, bound in bounds.items() if bound is not None},
    }
    factory = default.copy if isinstance(default, list | dict) else factory
    if factory is not None:
        return field(default_factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(kw_only=True)
class Open:
    """A section of settings that holds others, which are registered: by name, in ``sections``."""

    sections: dict[str, Any] = field(default_factory=dict)


def own_fields(settings: Any) -> list[Any]:
    """Return the fields of a section, an object or its class, but for what an open one holds of registered ones."""
    schema = settings if isinstance(settings, type) else type(settings)
    return [part for part in fields(settings) if not (issubclass(schema, Open) and part.name == "sections")]


def check_settings(settings: Any, prefix: str = "") -> None:
    """Refuse settings, and those within them, whose values are not among the choices or outside of the bounds.

    Args:
        settings: a dataclass whose fields were made by ``setting``.
        prefix: of the keys in messages, such as ``data.``.

    Raises:
        BadInputError: a value is impossible; the message names its key, the value and the rule.
    """
    for name, section in settings.sections.items() if isinstance(settings, Open) else ():
        check_settings(section, f"{prefix}{name}.")
    for part in own_fields(settings):
        key, value = f"{prefix}{part.name}", getattr(settings, part.name)
        if is_dataclass(value) and not isinstance(value, type):
            check_settings(value, f"{key}.")
            continue
        choices = part.metadata.get("choices", ())
        if choices and value not in choices:
            raise BadInputError(f"{key}={printable(str(value))[:LONGEST_SHOWN]}: choose one of {', '.join(choices)}")
        if value is not None and part.metadata.get("bounds"):
            _check_bounds(key, value, part.metadata["bounds"])


def _check_bounds(key: str, value: Any, bounds: dict[str, float]) -> None:
    if not value >= bounds.get("at_least", value):
        raise BadInputError(f"{key}={value}: it must be at least {bounds['at_least']}")
    if not value <= bounds.get("at_most", value):
        raise BadInputError(f"{key}={value}: it must be at most {bounds['at_most']}")
    if "above" in bounds and not value > bounds["above"]:
        raise BadInputError(f"{key}={value}: it must be more than {bounds['above']}")
