r"""The gradient of a step: of the whole batch, or chunk by chunk with the activations of one chunk.

In chunks, encoders run without a graph first. The loss of all features gives their gradient, and each chunk is encoded
again, with a graph, for its part of the gradient of the parameters (Gao et al. 2021, arXiv:2101.06983):

.. math:: \nabla_\theta L = \sum_k \Big(\frac{\partial \phi_k}{\partial \theta}\Big)^{\!T} \nabla_{\phi_k} L

What a chunk draws at random follows from the seed, the step, the worker and the chunk, so that both passes draw the
same. A loss of the model is a mean over pairs that are not compared: there a chunk is what a worker is.

Shapes: b pairs on this worker, F features.
"""

__all__ = ["Augmentation", "Encoders", "Step", "as_they_are", "check_chunks", "features_of", "loss_of_features"]

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from pcl.errors import BadInputError
from pcl.losses import Diagnostics
from pcl.marginals import Marginal
from pcl.model import PairModel
from pcl.objective import Loss, ModelLoss
from pcl.tilting import feature_maps
from pcl.train.clock import Clock
from pcl.train.collectives import GroupWorkers
from pcl.workers import Workers

Augmentation = Callable[[Tensor, Tensor, int, Workers], tuple[Tensor, Tensor]]
"""Returns this worker's u and v augmented: a pure function of them, the step and the workers."""
Encoders = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]
"""What maps u and v to embeddings in a step."""
Chunk = tuple[Tensor, Tensor]
Begin = Callable[[Iterable[nn.Parameter]], None]


def as_they_are(u: Tensor, v: Tensor, step: int, workers: Workers) -> tuple[Tensor, Tensor]:
    """Augment nothing."""
    return u, v


def features_of(
    model: PairModel,
    u: Tensor,
    v: Tensor,
    *,
    bf16: bool,
    encoders: Encoders | None = None,
    ahead: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return feature maps: encoders in bf16 if asked, all that follows always in the model's own precision.

    Where something is to be done with v's features ahead, v is encoded first, and it is done before u is encoded.
    """
    encoder_u, encoder_v = encoders or (model.encoder_u, model.encoder_v)
    dtype = model.temperature.log_temperature.dtype
    if ahead is not None:
        with torch.autocast(u.device.type, torch.bfloat16, enabled=bf16):
            embedding_v = encoder_v(v).to(dtype)
        features_v = ahead(feature_maps(embedding_v, embedding_v, model.tilting)[1])
        with torch.autocast(u.device.type, torch.bfloat16, enabled=bf16):
            embedding_u = encoder_u(u).to(dtype)
        return feature_maps(embedding_u, embedding_u, model.tilting)[0], features_v
    with torch.autocast(u.device.type, torch.bfloat16, enabled=bf16):
        embedding_u, embedding_v = encoder_u(u), encoder_v(v)
    return feature_maps(embedding_u.to(dtype), embedding_v.to(dtype), model.tilting)


def loss_of_features(
    model: PairModel,
    features: tuple[Tensor, Tensor],
    values: tuple[Tensor, Tensor],
    loss: Loss,
    workers: Workers,
    marginals: Sequence[Marginal],
    clock: Clock,
) -> tuple[Tensor, Diagnostics]:
    """Return the loss of a batch from its feature maps and its values, with what the model tells a loss."""
    with clock.part("forward"):
        atoms = dict(marginal.given(model) for marginal in marginals)
    with clock.part("loss"):
        given: dict[str, Any] = {"workers": workers, "values": values, **atoms, **model.for_loss}
        return loss(*features, model.temperature(), **given)


def check_chunks(model: PairModel, chunk_pairs: int) -> None:
    """Refuse a model that is not the same function in chunks.

    Raises:
        BadInputError: a layer of it ties the pairs of a batch together.
    """
    tying = [part for part in model.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    if chunk_pairs and tying:
        raise BadInputError(
            f"train.chunk_pairs={chunk_pairs}: a {type(tying[0]).__name__} of the model ties the pairs of a batch "
            "together; choose an encoder that normalises each pair alone, or train.chunk_pairs=0"
        )


@dataclass(frozen=True)
class Step:
    """A step of a training on one worker: all that its gradient depends on beside the batch.

    Attributes:
        model: whose parameters get the gradient.
        number: of the step.
        loss: of feature maps or of the model, see ``pcl.objective``.
        workers: of the training.
        clock: of the steps.
        marginals: modalities whose normaliser is exact.
        augment: what encoders and loss see instead of the pairs.
        encoders: what runs instead of the model's own, which it stands for; None: these.
        bf16: autocast the encoders to bfloat16.
        seed: of every random number that a step draws.
        chunk_pairs: pairs of this worker that are encoded at a time with a graph, 0 for all.
        v_first: encode v first, and gather its features while u is encoded; not in chunks.
    """

    model: PairModel
    number: int
    loss: Loss
    workers: Workers
    clock: Clock
    marginals: Sequence[Marginal] = ()
    augment: Augmentation = as_they_are
    encoders: Encoders | None = None
    bf16: bool = False
    seed: int = 0
    chunk_pairs: int = 0
    v_first: bool = False

    def backward(self, batch: Sequence[Tensor], begin: Begin) -> Diagnostics:
        """Add the gradient of this worker's share of the loss to that of the parameters, and return its diagnostics.

        Args:
            batch: this worker's share of a global batch, arrays (b, ...).
            begin: called before the last backward pass, with the parameters that get nothing from it.
        """
        self._seed()
        with self.clock.part("forward"):
            device = self.model.temperature.log_temperature.device
            batch = [array.to(device, non_blocking=True) for array in batch]
        if isinstance(self.loss, ModelLoss):
            return self._of_model(batch, begin)
        with self.clock.part("forward"):
            u, v = self.augment(batch[0], batch[1], self.number, self.workers)
        is_whole = not 0 < self.chunk_pairs < len(u)
        return self._whole(u, v, begin) if is_whole else self._in_chunks(u, v, begin)

    def _seed(self, *chunk: int) -> None:
        """Have every random number (dropout, say) follow from these numbers: there is nothing to save."""
        seed = hash((self.seed, self.number, self.workers.worker_rank, *chunk)) & (2**63 - 1)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would queue a call for CUDA without a GPU
        if self.model.temperature.log_temperature.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _features(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        ahead = self.workers.ahead if self.v_first and isinstance(self.workers, GroupWorkers) else None
        with self.clock.part("forward"):
            return features_of(self.model, u, v, bf16=self.bf16, encoders=self.encoders, ahead=ahead)

    def _loss(self, features: tuple[Tensor, Tensor], values: tuple[Tensor, Tensor]) -> tuple[Tensor, Diagnostics]:
        return loss_of_features(self.model, features, values, self.loss, self.workers, self.marginals, self.clock)

    def _whole(self, u: Tensor, v: Tensor, begin: Begin) -> Diagnostics:
        value, diagnostics = self._loss(self._features(u, v), (u, v))
        with self.clock.part("backward"):
            begin(())
            value.backward()  # type: ignore[no-untyped-call]
        return diagnostics

    def _in_chunks(self, u: Tensor, v: Tensor, begin: Begin) -> Diagnostics:
        chunks = list(zip(torch.split(u, self.chunk_pairs), torch.split(v, self.chunk_pairs), strict=True))
        features = self._without_graph(chunks)
        value, diagnostics = self._loss(features, (u, v))
        is_last = not any(part.requires_grad for part in features)
        with self.clock.part("backward"):
            if is_last:
                begin(())
            value.backward()  # type: ignore[no-untyped-call]
        if not is_last:
            given = [() if part.grad is None else torch.split(part.grad, self.chunk_pairs) for part in features]
            gradients: list[tuple[Tensor | None, ...]] = list(zip_longest(*given))
            self._with_graph(chunks, gradients, begin)
        return diagnostics

    @torch.no_grad()
    def _without_graph(self, chunks: Sequence[Chunk]) -> tuple[Tensor, Tensor]:
        """Return the features of all chunks as leaves, which need a gradient where their encoder learns."""
        before = [buffer._version for buffer in self.model.buffers()]
        parts = []
        for number, chunk in enumerate(chunks):
            self._seed(number)
            parts.append(self._features(*chunk))
        if before != [buffer._version for buffer in self.model.buffers()]:
            raise BadInputError(
                f"train.chunk_pairs={self.chunk_pairs}: an encoder keeps something of every batch that it sees, as a "
                "batch norm does, and would see each twice; choose another, or train.chunk_pairs=0"
            )
        with self.clock.part("forward"):
            u, v = (torch.cat(side) for side in zip(*parts, strict=True))
        return u.requires_grad_(_learns(self.model.encoder_u)), v.requires_grad_(_learns(self.model.encoder_v))

    def _with_graph(
        self, chunks: Sequence[Chunk], gradients: Sequence[tuple[Tensor | None, ...]], begin: Begin
    ) -> None:
        """Encode all chunks again, and pass each the gradient of its features."""
        encoding = {p for encoder in (self.model.encoder_u, self.model.encoder_v) for p in encoder.parameters()}
        for number, (chunk, given) in enumerate(zip(chunks, gradients, strict=True)):
            self._seed(number)
            features = self._features(*chunk)
            pairs = [(f, g) for f, g in zip(features, given, strict=True) if f.requires_grad and g is not None]
            with self.clock.part("backward"):
                if number == len(chunks) - 1:
                    begin([p for p in self.model.parameters() if p not in encoding])
                torch.autograd.backward([f for f, _ in pairs], [g for _, g in pairs])

    def _of_model(self, batch: Sequence[Tensor], begin: Begin) -> Diagnostics:
        size = len(batch[0])
        chunk = next(c for c in range(min(self.chunk_pairs or size, size), 0, -1) if size % c == 0)
        number_of, found = size // chunk, []
        for number, part in enumerate(zip(*(torch.split(array, chunk) for array in batch), strict=True)):
            workers = self.workers if number_of == 1 else _OfChunk(self.workers, number, number_of)
            if number_of > 1:
                self._seed(number)
            with self.clock.part("loss"):
                value, diagnostics = self.loss(self.model, part, step=self.number, workers=workers)
            with self.clock.part("backward"):
                if number == number_of - 1:
                    begin(())
                (value / number_of).backward()  # type: ignore[no-untyped-call]
            found.append(diagnostics)
        return {name: torch.stack([one[name].detach().double() for one in found]).mean(0) for name in found[0]}


class _OfChunk:
    """The workers as a loss of the model sees them from one of equal chunks, each of which is a worker to it."""

    def __init__(self, workers: Workers, number: int, num_chunks: int) -> None:
        self.worker_rank = workers.worker_rank * num_chunks + number
        self.num_workers = workers.num_workers * num_chunks

    def num_rows(self, rows: Tensor) -> int:
        return len(rows) * self.num_workers

    def gather(self, rows: Tensor) -> Tensor:
        raise BadInputError(
            "train.chunk_pairs: this loss of the model compares the pairs of a batch, of which it would see a chunk; "
            "set train.chunk_pairs=0"
        )

    log_sum_exp = gather


def _learns(encoder: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in encoder.parameters())
