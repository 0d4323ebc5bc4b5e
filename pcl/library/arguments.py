"""Arguments of ``pcl.fit``: what they are called in a run file, and what options may say beside them."""

__all__ = ["check_are_names", "flat", "in_words_of_fit", "keys_of"]

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pcl.errors import BadInputError, printable

ARGUMENTS = {
    "seed": "seed",
    "plugins": "plugins",
    "data.seed": "seed",
    "data.arrays": "u, v, form_u, form_v, groups, validation and missing",
    "model.embedding_dim": "embedding_dim",
    "model.encoder_u": "encoder_u",
    "model.encoder_v": "encoder_v",
    "model.settings_u": "settings_u",
    "model.settings_v": "settings_v",
    "model.tilting": "tilting",
    "loss.kind": "loss",
    "train.epochs": "epochs",
    "train.global_batch": "batch",
    "train.learning_rate": "learning_rate",
    "train.init_from": "init_from",
}
"""Keys of a run file, and the arguments that say the same."""
OF_A_RUN = (
    *("name", "storage", "data.source", "data.shards", "data.root", "variants", "seeds", "crossed_with", "left_out"),
    *("train.log_every", "train.checkpoint_every", "train.validate_every"),
)  # which fit has none of, or gives itself
WORDS = {key: name for key, name in ARGUMENTS.items() if "." in key and key != "data.arrays"} | {
    "data.arrays.missing": "missing",
    "test_fraction": "validation",
}
PLUGIN = "plugins=[that_plugin.py]"
KEY = re.compile(rf"(?<![\w.])({'|'.join(map(re.escape, sorted(WORDS, key=len, reverse=True)))})(?!\w)")
QUOTED = re.compile(r"(?<![\w.])missing=mask\b")


@contextmanager
def in_words_of_fit() -> Iterator[None]:
    """Have errors name the arguments of ``pcl.fit`` where they name keys of a run file."""
    try:
        yield
    except BadInputError as error:
        said = KEY.sub(lambda found: WORDS[found[0]], str(error))
        said = said.replace(PLUGIN, "plugins=['that_plugin.py']")
        raise BadInputError(QUOTED.sub("missing='mask'", said)) from error


def keys_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of ``pcl.fit`` by the keys of a run file that say the same.

    Example:
        >>> keys_of({"seed": 1, "loss": "joint"})
        {'seed': 1, 'data.seed': 1, 'loss.kind': 'joint'}
    """
    return {key: given[name] for key, name in ARGUMENTS.items() if name in given}


def check_are_names(**given: Any) -> None:
    """Refuse an encoder or a loss itself where its name is needed.

    Raises:
        BadInputError: with how it is given a name.
    """
    for name, value in given.items():
        if not isinstance(value, str):
            raise BadInputError(
                f"{name} of type {type(value).__name__}: needed is a name; register a class or function of your own "
                f'with @pcl.{name.partition("_")[0]}("mine") and give {name}="mine"'
            )


def flat(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options by their full keys, ``{"train": {"epochs": 3}}`` as ``{"train.epochs": 3}``.

    Raises:
        BadInputError: one of them is an argument of ``pcl.fit``, or what it gives itself, or is given twice.

    Example:
        >>> flat({"train": {"weight_decay": 0.1}, "loss.exclude_positive": True})
        {'train.weight_decay': 0.1, 'loss.exclude_positive': True}
    """
    found: dict[str, Any] = {}
    for key, value in _leaves("", options):
        if key in found:
            raise BadInputError(f"options give {printable(key)} twice: give it once")
        found[key] = value
    for key in found:
        for known, argument in ARGUMENTS.items():
            if key == known or key.startswith(f"{known}."):
                raise BadInputError(f"options give {printable(key)}, which {argument} of fit says: give that argument")
        if key in OF_A_RUN:
            raise BadInputError(
                f"options give {printable(key)}, which fit itself sets: leave it out, or use a run file"
            )
    return found


def _leaves(prefix: str, given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in given.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(f"{prefix}{key}.", value)
        else:
            yield f"{prefix}{key}", value
