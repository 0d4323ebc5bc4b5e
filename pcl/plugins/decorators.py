"""Decorators with which a plugin, a script or a notebook registers encoders, losses and kinds of pairs."""

__all__ = ["encoder", "loss", "problem", "tokenizer"]

import functools
import inspect
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import MISSING, is_dataclass, make_dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from pcl.data.source import Source, SourceContext
from pcl.data.tokenizers import register_tokenizer
from pcl.encoders.registry import EncoderKind, register_encoder
from pcl.errors import BadInputError
from pcl.objective import LossKind, register_loss
from pcl.plugins.loading import running
from pcl.problems.problem import Problem, register
from pcl.settings import setting
from pcl.workers import Workers, given_or_alone

M = TypeVar("M", bound=type[nn.Module])
F = TypeVar("F", bound=Callable[..., Any])
OF_AN_ENCODER = ("kind", "shape", "embedding_dim", "dtype", "scale_factor", "mean", "std")  # keys of its record
KINDS = (bool, int, float, str)


def encoder(name: str, *, settings: type | None = None, takes_missing_values: bool = False) -> Callable[[M], M]:
    """Encoder of one's own, registered under a name: then ``model.encoder_u: name`` builds it.

    Args:
        name: of the kind.
        settings: a dataclass of settings (``pcl.settings``); None: the keyword arguments of the constructor.
        takes_missing_values: whether items may hold NaN.

    The class is a ``torch.nn.Module`` whose constructor takes ``(shape, embedding_dim, **settings)`` and which maps
    items (B, *shape) to embeddings (B, embedding_dim). Numbers come standardised; a class with ``integer_input = True``
    gets integers as they are stored.

    Raises:
        BadInputError: another encoder has the name, or an argument has no type that a run file can give.

    Example:
        >>> @encoder("halves")
        ... class Halves(nn.Module):
        ...     def __init__(self, shape, embedding_dim, *, first: bool = True):
        ...         super().__init__()
        ...         self.embedding_dim = embedding_dim
        ...
        ...     def forward(self, x):
        ...         return x[:, : self.embedding_dim]
        >>> from pcl.encoders import make_encoder
        >>> import torch
        >>> make_encoder("halves", (4,), 2)(torch.ones(3, 4)).shape
        torch.Size([3, 2])
    """

    def register_it(network: M) -> M:
        chosen = settings or settings_of(network.__init__, f"the encoder {name}", given=3)  # self too
        if reserved := sorted(set(OF_AN_ENCODER) & set(typing.cast(Any, chosen).__dataclass_fields__)):
            raise BadInputError(f"the encoder {name} has a setting {reserved[0]}, which every encoder has: rename it")
        register_encoder(name, EncoderKind(network, chosen, takes_missing_values=takes_missing_values))
        return network

    return register_it


def loss(name: str, *, settings: type | None = None) -> Callable[[F], F]:
    """Loss of one's own, registered under a name: then ``loss.kind: name`` trains with it.

    Args:
        name: of the kind.
        settings: a dataclass of settings; None: the keyword arguments of the function.

    The function is called as ``loss(features_u, features_v, temperature, *, workers, **settings)`` with this worker's
    feature maps, (b, F) each, and returns its share of the loss: the mean over the workers is the loss of the global
    batch (``pcl.losses``). ``workers.gather`` brings the features of the others; a loss that needs none may leave
    ``workers`` out.

    Raises:
        BadInputError: another loss has the name, or an argument has no type that a run file can give.

    Example:
        >>> @loss("distance")
        ... def distance(features_u, features_v, temperature, *, workers, power: int = 2):
        ...     return (features_u - features_v).norm(dim=1).pow(power).mean()
        >>> from pcl.objective import make_loss
        >>> import torch
        >>> make_loss("distance")(torch.zeros(2, 3), torch.ones(2, 3), 1.0)[0]
        tensor(3.)
    """

    def register_it(function: F) -> F:
        chosen = settings or settings_of(function, f"the loss {name}", given=3, also=("workers",))

        takes_workers = "workers" in inspect.signature(function).parameters

        def with_diagnostics(*features: Tensor, workers: Workers | None = None, **rest: Any) -> Any:
            given = {"workers": given_or_alone(workers)} if takes_workers else {}
            returned = function(*features, **given, **rest)
            if not isinstance(returned, tuple):
                returned = returned, {"loss": returned} if isinstance(returned, Tensor) else {}
            value, told = returned
            return value, {key: torch.as_tensor(number).detach() for key, number in told.items()}

        functools.update_wrapper(with_diagnostics, function)
        register_loss(name, LossKind(with_diagnostics, has_normaliser=False, is_own=True, settings=chosen))
        return function

    return register_it


def problem(name: str, *, settings: type | None = None, **parts: Any) -> Callable[[F], F]:
    """Kind of pairs of one's own, registered under a name: then ``data.source: name`` writes shards of it.

    Args:
        name: of the kind.
        settings: a dataclass of settings, all with defaults; None: the keyword arguments of the function.
        parts: of ``pcl.problems.problem.Problem``: forms, drawings, evaluate, and so on.

    The function takes the settings as keyword arguments, and an argument ``context``
    (``pcl.data.source.SourceContext``: seed, folder of raw files) where it has one. It returns a
    ``pcl.data.source.Source``, or two arrays (N, ...) whose pairs are divided at random, one in ten for the test.

    Raises:
        BadInputError: another kind of pairs has the name, or an argument has no type that a run file can give.

    Example:
        >>> import numpy as np
        >>> @problem("circle")
        ... def circle(context, *, num_pairs: int = 100):
        ...     angle = np.random.default_rng(context.seed).uniform(0, 2 * np.pi, num_pairs)
        ...     return np.stack([np.cos(angle), np.sin(angle)], 1), angle[:, None]
        >>> from pcl.problems.problem import PROBLEMS
        >>> PROBLEMS["circle"].settings().num_pairs
        100
    """

    def register_it(function: F) -> F:
        chosen = settings or settings_of(function, f"the kind of pairs {name}", given=0, also=("context",))
        takes_context = "context" in inspect.signature(function).parameters

        def source(own: Any, context: SourceContext) -> Source:
            given = {"context": context} if takes_context else {}
            made = function(**given, **vars(own))
            return _of_arrays(name, made, context) if isinstance(made, tuple | list) else made

        source.__qualname__, source.__module__ = function.__qualname__, function.__module__
        plugin = running()
        register(Problem(name, chosen, source, plugin=plugin.sha256 if plugin else "", **parts))
        return function

    return register_it


def tokenizer(name: str) -> Callable[[F], F]:
    """Tokenizer of one's own, registered under a name: then ``data.webdataset.tokenizer: name`` makes tokens of texts.

    Args:
        name: of the tokenizer.

    The function takes a text and returns its tokens, positive integers: 0 stands after the last one.

    Raises:
        BadInputError: another tokenizer has the name.

    Example:
        >>> @tokenizer("letters_of")
        ... def letters_of(text):
        ...     return [ord(letter) for letter in text]
    """

    def register_it(function: F) -> F:
        plugin = running()
        register_tokenizer(name, function, plugin.sha256 if plugin else "")
        return function

    return register_it


def _of_arrays(name: str, made: Sequence[Any], context: SourceContext) -> Source:
    from pcl.problems.arrays.memory import MemoryPairs  # it reads many formats: importing pcl stays quick

    if len(made) != 2:
        raise BadInputError(f"the kind of pairs {name} gives {len(made)} arrays: return a Source, or u and v")
    pairs: Source = MemoryPairs(made[0], made[1], seed=context.seed, name=name)
    return pairs


def settings_of(function: Callable[..., Any], owner: str, given: int, also: Sequence[str] = ()) -> type:
    """Dataclass of the settings that a function takes as arguments with types and defaults.

    Args:
        function: whose arguments after the first ones are settings.
        owner: whose settings they are, for messages.
        given: how many arguments come first, which others give.
        also: names of further arguments that others give.

    Raises:
        BadInputError: an argument has no type that a run file can give.

    Example:
        >>> def build(shape, embedding_dim, width: int = 64, names: list[str] = []): ...
        >>> settings_of(build, "the encoder mine", given=2)()
        Settings(width=64, names=[])
    """
    hints = get_type_hints(function)
    made: list[Any] = []
    for name, one in list(inspect.signature(function).parameters.items())[given:]:
        if name in also or one.kind in (one.VAR_KEYWORD, one.VAR_POSITIONAL):
            continue
        default = MISSING if one.default is one.empty else one.default
        kind = hints.get(name, type(default) if default is not MISSING else None)
        if isinstance(default, tuple):
            kind, default = list[type(default[0])] if default and kind is tuple else kind, list(default)  # type: ignore[misc]
        if not _can_be_given(kind):
            raise BadInputError(
                f"the argument {name} of {owner} has no type that a run file can give: write {name}: int, float, str, "
                "bool, a list of one of them, or ... | None"
            )
        made.append((name, kind, setting(f"of {owner}", default)))
    made.sort(key=lambda part: part[2].default is MISSING and part[2].default_factory is MISSING, reverse=True)
    return make_dataclass("Settings", made, namespace={"__module__": function.__module__})


def _can_be_given(kind: Any) -> bool:
    if get_origin(kind) in (typing.Union, types.UnionType):
        return all(part is type(None) or _can_be_given(part) for part in get_args(kind))
    if get_origin(kind) is list:
        return all(part in KINDS for part in get_args(kind))
    return kind in KINDS or (isinstance(kind, type) and is_dataclass(kind))
