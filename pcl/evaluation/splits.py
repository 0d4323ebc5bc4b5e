"""Splits under evaluation: the arrays and feature maps of the pairs that are judged, and those of other splits.

Shapes: N pairs, F features.
"""

__all__ = ["EvaluationOptions", "Splits", "read_arrays"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pcl.data.loader import iterate_split
from pcl.data.manifest import ArrayInfo, Manifest
from pcl.evaluation.blocks import room
from pcl.evaluation.parts import HERE, Parts
from pcl.storage.place import Place


def read_arrays(root: Place, manifest: Manifest, split: str, kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read arrays of a split straight to their place: nothing is held twice.

    Args:
        root: folder of the shards.
        manifest: its manifest.
        split: which split.
        kept: names of the arrays, and for each the increasing indices of the pairs to keep.

    Raises:
        DamagedDataError: a shard differs from its manifest.
    """
    infos = {name: manifest.arrays[name] for name in kept}
    found = {name: room((len(kept[name]), *info.shape), _dtype(info)) for name, info in infos.items()}
    last = max((int(indices[-1]) for indices in kept.values() if len(indices)), default=-1)
    first = 0
    for record in iterate_split(root, manifest, split, list(kept)):
        bounds = torch.tensor([first, first + len(record[0])])
        for part, (name, indices) in zip(record, kept.items(), strict=True):
            start, stop = torch.searchsorted(indices, bounds).tolist()
            found[name][start:stop] = part[indices[start:stop] - first]
        first = int(bounds[1])
        if first > last:
            break
    return found


def _dtype(info: ArrayInfo) -> torch.dtype:
    return torch.from_numpy(np.empty(0, info.dtype)).dtype


@dataclass(frozen=True)
class EvaluationOptions:
    """How an evaluation is done.

    Attributes:
        recall_at: K of R@K.
        block_pairs: pairs encoded and scored at a time.
        max_pairs: the first pairs only; 0: all.
        num_examples: queries of each direction that are drawn with what they retrieve; 0: none.
        num_embeddings: pairs whose embeddings are kept; 0: none.
        calibration: pairs whose truths are ranked among draws from the learned conditionals; 0: none.
        label: whose draws are shown, where v are labels; None: 7, as in the paper, where there are more, else the last.
        baselines: whether what needs no learning stands beside what is learned.
        loss: that the model was trained with, for its closed form.
        weights: of the conditional loss, (lambda_u, lambda_v).
        own: settings of what this kind of pairs adds, its section ``evaluation.<name>``.
        about: of the model, for files that travel: experiment hash, checkpoint, seeds.
        parts: where its parts are computed.
    """

    recall_at: Sequence[int] = (1, 5, 10)
    block_pairs: int = 2048
    max_pairs: int = 0
    num_examples: int = 0
    num_embeddings: int = 0
    calibration: int = 0
    label: int | None = None
    baselines: bool = True
    loss: str = "conditional"
    weights: Sequence[float] = (1.0, 1.0)
    own: Any = None
    about: Mapping[str, str | int] = field(default_factory=dict)
    parts: Parts = HERE


@dataclass(frozen=True)
class Splits:
    """The pairs that are judged, and the way to all others.

    Attributes:
        root: folder of the shards.
        manifest: its manifest.
        split: that is judged.
        arrays: of its pairs as stored, by name: u, v, and what else describes a pair, shape (N, ...) each.
        features: feature maps of u and of v, shape (N, F) each.
        options: of the evaluation.
    """

    root: Place
    manifest: Manifest
    split: str
    arrays: Mapping[str, Tensor]
    features: tuple[Tensor, Tensor]
    options: EvaluationOptions

    @property
    def items(self) -> tuple[Tensor, Tensor]:
        """Stored u and v of the pairs that are judged."""
        return self.arrays["u"], self.arrays["v"]

    @property
    def source(self) -> Mapping[str, Any]:
        """What the manifest says of the source: its name, and the facts of its pairs."""
        return self.manifest.source

    def read(self, split: str, names: Sequence[str] = ("u", "v")) -> dict[str, Tensor]:
        """Read arrays of all pairs of a split.

        Raises:
            DamagedDataError: a shard differs from its manifest.
        """
        pairs = torch.arange(self.manifest.num_pairs(split))
        return read_arrays(self.root, self.manifest, split, dict.fromkeys(names, pairs))
