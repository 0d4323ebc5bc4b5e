"""Training on two arrays in memory, in this process: the same steps as a job's, to the bit."""

__all__ = ["fit"]

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
from pcl.errors import BadInputError
from pcl.evaluation.splits import read_arrays
from pcl.plugins.loading import load_plugins
from pcl.problems.arrays.memory import MemoryPairs
from pcl.tilting import feature_maps
from pcl.train.session import Session
from pcl.train.trained import TrainedModel, trained
from pcl.workers import OneWorker

MOST_VALIDATED = 4096  # pairs on which the loss is watched
BLOCK = 1024


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
    plugins: Sequence[str | Path] = (),
    show: bool = True,
) -> TrainedModel:
    r"""Train encoders of two arrays of pairs so that their tilting of the product of the marginals is the joint law.

    .. math:: \nu(u, v) = e^{s(u, v)} \mu(u) \mu(v) / Z, \qquad s(u, v) = \langle g(u), h(v) \rangle / \tau

    It trains as ``pcl shards`` and ``pcl train`` do on files of the same arrays: the same configuration and seed give
    the same weights.

    Args:
        u: items of one modality, (N, ...), an array of numpy or a tensor.
        v: their partners, (N, ...).
        embedding_dim: E.
        encoder_u: the kind of encoder of u, one of ours or of a plugin's.
        encoder_v: likewise of v.
        settings_u: of the encoder of u, such as ``{"widths": [64, 64]}``.
        settings_v: of the encoder of v.
        form_u: ``numbers``, ``image`` or ``labels``.
        form_v: likewise.
        loss: its kind.
        tilting: ``inner_product``, ``cosine`` or ``squared_distance``.
        epochs: passes over the training pairs.
        batch: B, pairs in a batch, a multiple of 8; less where there are fewer pairs.
        learning_rate: of Adam, at its peak.
        validation: the fraction of pairs that are not trained on; the loss on them is shown.
        groups: of every pair, (N,): no group is on both sides.
        seed: of the division, the first weights and the order of the pairs.
        device: where to train; None: a GPU if there is one.
        options: any other keys of a configuration, such as ``{"train.weight_decay": 0.01}``.
        plugins: Python files that register encoders or losses.
        show: a progress bar with the losses.

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
    load_plugins(plugins)
    pairs = _pairs(u, v, groups, form_u=form_u, form_v=form_v, test_fraction=validation, seed=seed)
    keys: dict[str, Any] = {
        "seed": seed,
        "plugins": [str(Path(path).absolute()) for path in plugins],
        "data.seed": seed,
        "model.embedding_dim": embedding_dim,
        "model.encoder_u": encoder_u,
        "model.encoder_v": encoder_v,
        "model.settings_u": settings_u or {},
        "model.settings_v": settings_v or {},
        "model.tilting": tilting,
        "loss.kind": loss,
        "train.epochs": epochs,
        "train.global_batch": _batch(batch, pairs.num_pairs("train")),
        "train.learning_rate": learning_rate,
    }
    return _fitted(pairs, keys | dict(options or {}), device, show)


def _pairs(u: Any, v: Any, groups: Any, **settings: Any) -> MemoryPairs:
    if groups is None:
        return MemoryPairs(_array(u), _array(v), **settings)
    return MemoryPairs(_array(u), _array(v), split="group", groups=_array(groups), **settings)


def _fitted(pairs: MemoryPairs, keys: dict[str, Any], device: str | torch.device | None, show: bool) -> TrainedModel:
    """Write shards of pairs to a folder that is there as long as they are trained on."""
    with tempfile.TemporaryDirectory(prefix="pcl-fit-") as folder:
        here = {"name": "fit", "storage": folder, "data.source": "arrays", "data.shards": f"{folder}/shards"}
        config = config_of(here | keys)
        data, chosen = config.data, torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        build_all(Path(data.shards), pairs, data_identity(config), data.num_shards, data.record_pairs)
        return _trained(Session(config, chosen), config, show)


def _array(given: Any) -> Any:
    return given.detach().cpu().numpy() if isinstance(given, Tensor) else given


def _batch(asked: int, num_pairs: int) -> int:
    """Return the batch that is asked for, or as many lanes' worth of pairs as there are."""
    if asked % 8 or asked < 8:
        raise BadInputError(f"batch={asked}: it must be a multiple of 8, at least 8")
    return min(asked, num_pairs // 8 * 8)


def _trained(session: Session, config: Config, show: bool) -> TrainedModel:
    """Train a session to its end in this process."""
    watch = _Validation(session, Path(config.data.shards))
    per_epoch = config.train.log_every = config.train.checkpoint_every = session.loader.steps_per_epoch
    with tqdm(total=config.train.epochs, unit="epoch", disable=not show, file=sys.stderr) as bar:

        def log(step: int, scalars: dict[str, float]) -> None:
            bar.set_postfix_str(f"loss {scalars['loss']:.4f}, of validation {watch.loss():.4f}", refresh=False)
            bar.update(step // per_epoch - bar.n)

        session.train(log, lambda state, scalars: None)
    return trained(session.spec, dict(session.state.model.state_dict()))


class _Validation:
    """The loss on pairs that are not trained on."""

    def __init__(self, session: Session, root: Path) -> None:
        self.session = session
        manifest = session.manifest
        kept = torch.arange(min(MOST_VALIDATED, manifest.num_pairs("test")))
        self.items = read_arrays(root, manifest, "test", {"u": kept, "v": kept})

    @torch.no_grad()
    def loss(self) -> float:
        model, device = self.session.state.model, self.session.device
        model.eval()
        items = [self.items[name].to(device) for name in "uv"]
        embeddings = [
            torch.cat([encode(block) for block in torch.split(part, BLOCK)])
            for encode, part in zip((model.encoder_u, model.encoder_v), items, strict=True)
        ]
        model.train()
        features = feature_maps(embeddings[0], embeddings[1], model.tilting)
        value, _ = self.session.loss(*features, model.temperature(), workers=OneWorker(), values=(items[0], items[1]))
        return value.item()
