"""A reference set in blocks: the conditional on all of it is a mixture of the conditionals on the blocks.

Shapes: Q queries, N references, b of them in a block, F features.
"""

__all__ = ["Block", "References", "relative_scores"]

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pcl.choice import found_at, gumbel, largest, none_yet
from pcl.precision import in_full_precision

BLOCK_REFERENCES = 1 << 16  # of which weights are formed at a time
BLOCK_SCORES = 1 << 20  # of references and queries


@in_full_precision
def relative_scores(queries: Tensor, features: Tensor, log_prior: Tensor) -> tuple[Tensor, Tensor]:
    """Return scores less the largest of their row with its prior, which keeps digits of large ones, and that, (Q, 1).

    Args:
        queries: shape (Q, F).
        features: of references, divided by the temperature, shape (b, F).
        log_prior: of references, shape (b,).
    """
    scores = queries @ features.T
    most = (scores + log_prior).detach().amax(-1, keepdim=True)
    return scores - most, most


class Block(NamedTuple):
    """The conditional on some of the references.

    Attributes:
        places: of them among all.
        log_weights: normalised within the block, shape (Q, b).
        log_mass: of the block up to a constant of the query, float64, shape (Q,).
        most: largest score with its prior, shape (Q, 1).
    """

    places: slice
    log_weights: Tensor
    log_mass: Tensor
    most: Tensor


@dataclass(frozen=True, eq=False)
class References:
    """References with their prior.

    Attributes:
        features: divided by the temperature, shape (N, F).
        log_prior: log weights that are not all -inf, shape (N,).
    """

    features: Tensor
    log_prior: Tensor

    def __len__(self) -> int:
        """Return N."""
        return len(self.features)

    def rows(self, of_queries: Tensor) -> tuple[Tensor, ...]:
        """Return what belongs to queries, (Q, ...), in parts: of those whose weights in a block are formed together."""
        return torch.split(of_queries, max(1, BLOCK_SCORES // min(len(self), BLOCK_REFERENCES)))

    @property
    def places(self) -> list[slice]:
        """The places of all blocks."""
        number = len(self)
        return [slice(start, min(start + BLOCK_REFERENCES, number)) for start in range(0, number, BLOCK_REFERENCES)]

    def has_weight(self, places: slice) -> bool:
        """Whether a reference of a block has a weight."""
        return bool((self.log_prior[places] > -math.inf).any())

    def walk(self, queries: Tensor, temperature: float = 1.0) -> Iterator[Block]:
        """Yield the conditionals on blocks of references, but for those without any weight.

        Args:
            queries: shape (Q, F).
            temperature: by which the logarithms of weights are divided.
        """
        for places in self.places:
            if self.has_weight(places):
                yield self.block(queries, places, temperature)

    def block(self, queries: Tensor, places: slice, temperature: float) -> Block:
        """Return the conditional on a block of references, one of which has a weight."""
        prior = self.log_prior[places]
        scores, most = relative_scores(queries, self.features[places], prior)
        scores = (scores + prior) / temperature
        log_normaliser = torch.logsumexp(scores, -1, keepdim=True)
        log_mass = (most.double() / temperature + log_normaliser.double())[:, 0]
        return Block(places, scores - log_normaliser, log_mass, most)

    def mixed(self, queries: Tensor, of_block: Callable[[Block], Tensor]) -> Tensor:
        """Return the mixture over blocks of what is a mean by the weights of each, float64, in one walk.

        Args:
            queries: shape (Q, F).
            of_block: returns the mean over a block, shape (Q, d).
        """
        log_total: Tensor = torch.full((len(queries),), -math.inf, dtype=torch.float64, device=queries.device)
        found: Tensor = log_total.new_zeros(1)
        for block in self.walk(queries):
            before, log_total = log_total, torch.logaddexp(log_total, block.log_mass)
            kept, share = (torch.exp(part - log_total)[:, None] for part in (before, block.log_mass))
            found = found * kept + share * of_block(block)
        return found

    def at(self, queries: Tensor, levels: Tensor, temperature: float) -> Tensor:
        """Return the indices at which the distribution function of the weights exceeds levels, shape (Q, n) each."""
        if len(self) <= BLOCK_REFERENCES:
            return found_at(self.block(queries, slice(0, None), temperature).log_weights.exp(), levels)[0]
        blocks = [(block.places, block.log_mass) for block in self.walk(queries, temperature)]
        numbers, levels = found_at(torch.stack([mass for _, mass in blocks], 1).softmax(1), levels)
        drawn = torch.empty_like(numbers)
        for number in sorted(set(numbers.flatten().tolist())):
            here, places = numbers == number, blocks[number][0]
            own = here.any(1)
            weights = self.block(queries[own], places, temperature).log_weights.exp()
            drawn[here] = (found_at(weights, levels[own])[0] + places.start)[here[own]]
        return drawn

    def apart(self, query: Tensor, num: int, generator: torch.Generator, temperature: float) -> Tensor:
        """Return indices that are drawn without replacement for one query, (1, F) -> (1, num)."""
        found = none_yet(query)
        for places in self.places:
            noise = gumbel(places.stop - places.start, generator, query.device)  # of all: blocks do not matter
            if self.has_weight(places):
                block = self.block(query, places, temperature)
                found = largest(found, block.log_weights.double() + block.log_mass[:, None] + noise, places.start, num)
        return found[1]

    def best(self, queries: Tensor, num: int) -> tuple[Tensor, Tensor]:
        """Return the indices of the largest weights and these, float64, the largest first, shape (Q, num) each."""
        found, masses = none_yet(queries), []
        for block in self.walk(queries):
            found = largest(found, block.log_weights.double() + block.log_mass[:, None], block.places.start, num)
            masses.append(block.log_mass)
        return found[1], (found[0] - torch.stack(masses, 1).logsumexp(1, keepdim=True)).exp()

    def weights_of(self, queries: Tensor, indices: Tensor, temperature: float) -> Tensor:
        """Return the weights of some references, float64, (Q, n) -> (Q, n)."""
        masses = torch.stack([block.log_mass for block in self.walk(queries, temperature)], 1)
        scores = torch.einsum("qf,qnf->qn", queries.double(), self.features[indices].double())
        logs = (scores + self.log_prior[indices]) / temperature - masses.logsumexp(1, keepdim=True)
        return logs.exp()

    def effective_sample_size(self, queries: Tensor, temperature: float) -> Tensor:
        """Return one over the sum of the squares of the weights, float64, shape (Q,)."""
        blocks = [(block.log_mass, (2 * block.log_weights).logsumexp(-1)) for block in self.walk(queries, temperature)]
        masses, squares = (torch.stack(parts, 1) for parts in zip(*blocks, strict=True))
        return torch.exp(-(2 * masses.log_softmax(1) + squares).logsumexp(1))

    def mode(self, queries: Tensor) -> Tensor:
        """Return the index of the largest weight, the first of equal ones, shape (Q,)."""
        blocks = [(one.most, one.log_weights.argmax(-1) + one.places.start) for one in self.walk(queries)]
        most, places = torch.cat([most for most, _ in blocks], 1), torch.stack([place for _, place in blocks], 1)
        return places.gather(1, most.argmax(1, keepdim=True))[:, 0]
