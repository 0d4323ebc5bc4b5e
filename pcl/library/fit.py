"""Training on two arrays in memory, in this process: the same steps as a job's, to the bit."""

__all__ = ["fit"]

import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from pcl.config.identity import data_identity
from pcl.config.load import Config, config_of
from pcl.data.shards import build_all
from pcl.errors import BadInputError, printable
from pcl.library.arguments import check_are_names, flat, in_words_of_fit, keys_of
from pcl.library.known import about_model
from pcl.library.shown import losses_shown
from pcl.library.sizes import sizes_of
from pcl.model import PairModel
from pcl.plugins.loading import load_plugins
from pcl.problems.arrays.memory import MemoryPairs
from pcl.train.first import FirstWeights
from pcl.train.session import Session
from pcl.train.trained import TrainedModel, trained
from pcl.train.validation import HELD_OUT_LOSS


def fit(
    u: Any,
    v: Any,
    *,
    embedding_dim: int = 16,
    encoder_u: str = "mlp",
    encoder_v: str = "mlp",
    settings_u: Mapping[str, Any] | None = None,
    settings_v: Mapping[str, Any] | None = None,
    form_u: str = "numbers",
    form_v: str = "numbers",
    loss: str = "conditional",
    tilting: str = "inner_product",
    epochs: int = 30,
    batch: int = 256,
    learning_rate: float = 3e-3,
    validation: float = 0.1,
    groups: Any = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    options: Mapping[str, Any] | None = None,
    init_from: PairModel | str | Path | None = None,
    missing: str = "refuse",
    plugins: str | Path | Sequence[str | Path] = (),
    show: bool = True,
) -> TrainedModel:
    r"""Train encoders of two arrays of pairs so that their tilting of the product of the marginals is the joint law.

    .. math:: \nu(u, v) = e^{s(u, v)} \mu(u) \mu(v) / Z, \qquad s(u, v) = \langle g(u), h(v) \rangle / \tau

    It trains as ``pcl shards`` and ``pcl train`` do on files of the same arrays: the same configuration and seed give
    the same weights.

    Args:
        u: items of one modality, (N, ...), an array of numpy or a tensor; a table of pandas, an array of xarray.
        v: their partners, (N, ...); where both have an index, it must be the same.
        embedding_dim: E.
        encoder_u: the kind of encoder of u, one of ours or of a plugin's.
        encoder_v: likewise of v.
        settings_u: of the encoder of u, such as ``{"widths": [64, 64]}``.
        settings_v: of the encoder of v.
        form_u: ``numbers``, ``image`` or ``labels``.
        form_v: likewise.
        loss: its kind.
        tilting: ``inner_product``, ``cosine``, ``squared_distance`` or ``potentials``.
        epochs: passes over the training pairs.
        batch: B, pairs in a batch, a multiple of 8; less where there are fewer pairs to train on.
        learning_rate: of Adam, at its peak.
        validation: the fraction of pairs that are not trained on; the loss on them is shown.
        groups: of every pair, (N,): no group is on both sides.
        seed: of the division, the first weights and the order of the pairs.
        device: where to train; None: a GPU if there is one.
        options: any other keys of a configuration, such as ``{"train.weight_decay": 0.01}`` or
            ``{"train": {"weight_decay": 0.01}}``.
        init_from: a model, a run, a checkpoint, or the folder of a model, whose weights are the first ones where names
            and shapes fit; the optimiser starts anew.
        missing: pairs with NaN are refused (``refuse``) or left out (``mask``).
        plugins: a Python file, or several, that register encoders or losses.
        show: the losses, on a progress bar or, where there is no terminal, in lines.

    Returns:
        The model on the CPU: ``conditional``, ``encode_u``, ``log_tilting``, ``save``.

    Raises:
        BadInputError: arrays that are no pairs, or a setting that is impossible; the message names it.
        FloatingPointError: the loss is not finite.

    Example:
        >>> import numpy as np
        >>> v = np.random.default_rng(0).normal(size=(400, 2))
        >>> model = fit(v @ np.ones((2, 3)), v, epochs=1, show=False)
        >>> model.conditional("u_given_v", v @ np.ones((2, 3))).weights(model.features_v(v[:1])).shape
        (1, 400)
    """
    paths = [plugins] if isinstance(plugins, str | Path) else [*plugins]
    load_plugins(paths)
    check_are_names(encoder_u=encoder_u, encoder_v=encoder_v, loss=loss)
    settings = {"settings_u": settings_u or {}, "settings_v": settings_v or {}}
    model = {"embedding_dim": embedding_dim, "encoder_u": encoder_u, "encoder_v": encoder_v, "tilting": tilting}
    training = {"loss": loss, "epochs": epochs, "learning_rate": learning_rate, "seed": seed}
    keys = keys_of(model | settings | training | {"plugins": [str(Path(path).absolute()) for path in paths]})
    further, first = flat(options or {}), _first_weights(init_from, keys)
    with in_words_of_fit():
        forms = {"form_u": form_u, "form_v": form_v, "missing": missing}
        pairs = _pairs(u, v, groups, **forms, test_fraction=validation, seed=seed)
        sizes = sizes_of(batch, pairs.num_pairs("train"), pairs.num_pairs("test"), further)
        return _fitted(pairs, keys | sizes | further, device, first, show)


def _first_weights(init_from: PairModel | str | Path | None, keys: dict[str, Any]) -> FirstWeights | None:
    """Return the weights of a given model; those of a folder are named among the keys."""
    if isinstance(init_from, PairModel):
        return FirstWeights("the given model", dict(init_from.state_dict()))
    if init_from is not None:
        keys["train.init_from"] = str(init_from)
    return None


def _pairs(u: Any, v: Any, groups: Any, **settings: Any) -> MemoryPairs:
    if groups is None:
        return MemoryPairs(_array(u), _array(v), **settings)
    return MemoryPairs(_array(u), _array(v), split="group", groups=_array(groups), **settings)


def _fitted(
    pairs: MemoryPairs,
    keys: dict[str, Any],
    device: str | torch.device | None,
    first: FirstWeights | None,
    show: bool,
) -> TrainedModel:
    """Write shards of pairs to a folder that is there as long as they are trained on."""
    with tempfile.TemporaryDirectory(prefix="pcl-fit-") as folder:
        here = {"name": "fit", "storage": folder, "data.source": "arrays", "data.shards": f"{folder}/shards"}
        config = config_of(here | keys)
        data, chosen = config.data, _device(device)
        build_all(config.shard_root, pairs, data_identity(config), data.num_shards, data.record_pairs)
        session = Session(config, chosen, first=first)
        for line in session.begun_with if show else ():
            tqdm.write(line, file=sys.stderr)
        return _trained(session, config, show)


def _device(given: str | torch.device | None) -> torch.device:
    """Return the device that is asked for, else a GPU where there is one.

    Raises:
        BadInputError: there is no such device here.
    """
    device = torch.device(given or ("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        torch.zeros((), device=device)
    except (AssertionError, NotImplementedError, RuntimeError) as error:  # what torch makes of it hangs on its build
        there = f"cpu and {torch.cuda.device_count()} of cuda" if torch.cuda.is_available() else "cpu"
        reason = printable(str(error).split("\n")[0])[:120]
        raise BadInputError(f"device={device} cannot be used here ({reason}): there is {there}") from error
    return device


def _array(given: Any) -> Any:
    return given.detach().cpu().numpy() if isinstance(given, Tensor) else given


def _trained(session: Session, config: Config, show: bool) -> TrainedModel:
    """Train a session to its end in this process."""
    train, per_epoch = config.train, session.loader.steps_per_epoch
    train.log_every = train.checkpoint_every = train.validate_every = per_epoch
    with losses_shown(train.epochs, show=show) as shown:

        def log(step: int, scalars: dict[str, float]) -> None:
            shown(step // per_epoch, scalars["loss"], scalars.get(HELD_OUT_LOSS, math.nan))

        session.train(log, lambda state, scalars: None)
    about = about_model(session.spec, session.manifest, config.plugins, {})
    return trained(session.spec, dict(session.state.model.state_dict()), about)
