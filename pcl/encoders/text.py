r"""Encoders of texts: a bag of n-grams, and a small transformer.

A text is integers: bytes of UTF-8 or tokens, 0 after its end. How much padding there is changes no embedding.

Shapes: B texts, T integers of a text, N n-grams, D width, E embedding.
"""

__all__ = ["NgramBag", "TextSettings", "TextTransformer", "ngram_buckets", "text"]

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pcl.encoders.attention import Block
from pcl.encoders.mlp import MLP
from pcl.errors import BadInputError
from pcl.settings import check_settings, setting

PRIME, MULTIPLIER = 2**31 - 1, 1_103_515_245  # of the hash of n-grams: products stay within 64 bits
WAVELENGTH = 1e4  # of the slowest wave that tells positions


@dataclass
class TextSettings:
    """Settings of the text encoder."""

    architecture: str = setting("bag of n-grams, or transformer", "ngrams", choices=("ngrams", "transformer"))
    width: int = setting("components of an n-gram or of a token", 128, at_least=1, at_most=10**5)
    dropout: float = setting("share that is dropped in training, of hidden layers", 0.0, at_least=0, at_most=0.99)
    longest: int = setting("n of the longest n-grams", 3, at_least=1, at_most=16)
    buckets: int = setting("vectors that n-grams share by their hash", 16384, at_least=1, at_most=10**8)
    widths: list[int] = setting("of hidden layers after the bag; none: a linear map", [])
    vocabulary: int = setting("tokens of the transformer, with 0; 256 for bytes", 256, at_least=2, at_most=10**8)
    depth: int = setting("attention blocks of the transformer", 2, at_least=0, at_most=1000)
    num_heads: int = setting("of an attention block, divides the width", 4, at_least=1, at_most=10**4)


def text(
    shape: Sequence[int],
    embedding_dim: int,
    *,
    architecture: str = "ngrams",
    width: int = 128,
    dropout: float = 0.0,
    longest: int = 3,
    buckets: int = 16384,
    widths: Sequence[int] = (),
    vocabulary: int = 256,
    depth: int = 2,
    num_heads: int = 4,
) -> nn.Module:
    """Encoder of texts, of the architecture that is chosen; settings of the other one are not used.

    Args:
        shape: of a text, (T,).
        embedding_dim: E.
        architecture: ``ngrams`` or ``transformer``.
        width: D.
        dropout: share of hidden layers that is dropped in training.
        longest: n of the longest n-grams.
        buckets: vectors that n-grams share.
        widths: of hidden layers after the bag.
        vocabulary: tokens of the transformer, with 0.
        depth: attention blocks.
        num_heads: of a block, divides D.

    Raises:
        BadInputError: items are no texts, or a setting is impossible.

    Example:
        >>> text((16,), 8)(torch.tensor([[*b"a dog", *[0] * 11]])).shape
        torch.Size([1, 8])
    """
    settings = TextSettings(architecture, width, dropout, longest, buckets, list(widths), vocabulary, depth, num_heads)
    check_settings(settings, "the text encoder: ")
    if len(shape) != 1 or shape[0] < 1:
        raise BadInputError(
            f"the text encoder takes texts of integers (length,), not items of shape {tuple(shape)}: choose another"
        )
    if architecture == "ngrams":
        return NgramBag(embedding_dim, width, longest, buckets, widths, dropout)
    if width % num_heads:
        raise BadInputError(f"the text encoder: num_heads={num_heads} must divide width={width}")
    return TextTransformer(embedding_dim, width, vocabulary, depth, num_heads, dropout)


def ngram_buckets(texts: Tensor, longest: int, buckets: int) -> Tensor:
    r"""Hash of every n-gram of texts, 1 .. ``buckets``, and 0 where there is none: a polynomial modulo a prime.

    .. math:: h_n = (\dots((n a + x_1 + 1) a + x_2 + 1) \dots) a + x_n + 1 \mod p

    Args:
        texts: integers of at least 0, (B, T).
        longest: n of the longest n-grams.
        buckets: how many hashes there are.

    Returns:
        Buckets (B, N) with N = T + (T - 1) + ...

    Example:
        >>> ngram_buckets(torch.tensor([[97, 98, 0]]), 2, 1000)
        tensor([[344, 345,   0, 589,   0]])
    """
    found, length = [], texts.shape[1]
    for n in range(1, min(longest, length) + 1):
        windows = texts.long().unfold(1, n, 1)
        code = torch.full_like(windows[..., 0], n)
        for place in range(n):
            code = (code * MULTIPLIER + windows[..., place] + 1) % PRIME
        found.append(torch.where((windows != 0).all(-1), 1 + code % buckets, 0))
    return torch.cat(found, 1)


class NgramBag(nn.Module):
    """Bag of n-grams: the mean of their vectors, normalised, then a perceptron.

    Args:
        embedding_dim: E.
        width: D.
        longest: n of the longest n-grams.
        buckets: vectors that n-grams share by their hash.
        widths: of the perceptron's hidden layers.
        dropout: share of them that is dropped in training.

    Example:
        >>> NgramBag(4, width=8)(torch.zeros(2, 5, dtype=torch.uint8)).shape
        torch.Size([2, 4])
    """

    integer_input = True

    def __init__(
        self,
        embedding_dim: int,
        width: int,
        longest: int = 3,
        buckets: int = 16384,
        widths: Sequence[int] = (),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.longest, self.buckets = longest, buckets
        self.vectors = nn.EmbeddingBag(1 + buckets, width, mode="sum", padding_idx=0)
        self.norm = nn.LayerNorm(width)
        self.head = MLP((width,), embedding_dim, widths=widths, dropout=dropout)

    def forward(self, texts: Tensor) -> Tensor:
        """Map texts (B, T) to (B, E)."""
        found = ngram_buckets(texts, self.longest, self.buckets)
        number = (found > 0).sum(1, keepdim=True).clamp(min=1)
        embedding: Tensor = self.head(self.norm(self.vectors(found) / number))
        return embedding


class TextTransformer(nn.Module):
    """Transformer of bytes or tokens: a token that is always there, then those of the text; their mean is projected.

    Args:
        embedding_dim: E.
        width: D.
        vocabulary: tokens, with 0.
        depth: attention blocks.
        num_heads: of a block, divides D.
        dropout: share of what a block adds that is dropped in training.

    Example:
        >>> TextTransformer(4, width=8, num_heads=2)(torch.zeros(2, 5, dtype=torch.uint8)).shape
        torch.Size([2, 4])
    """

    integer_input = True

    def __init__(
        self,
        embedding_dim: int,
        width: int,
        vocabulary: int = 256,
        depth: int = 2,
        num_heads: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.vocabulary, self.dropout = vocabulary, nn.Dropout(dropout)
        self.vectors = nn.Embedding(vocabulary, width)  # that of 0 is the token that is always there
        self.blocks = nn.ModuleList(Block(width, num_heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, embedding_dim)

    def forward(self, texts: Tensor) -> Tensor:
        """Map texts (B, T) to (B, E).

        Raises:
            BadInputError: a text has a token beyond the vocabulary.
        """
        self._check(texts)
        whole = nn.functional.pad(texts.long(), (1, 0))
        seen = whole > 0
        seen[:, 0] = True
        vectors = self.vectors(whole)
        tokens = self.dropout(vectors + _positions(vectors))
        for block in self.blocks:
            tokens = block(tokens, seen)
        share = (seen / seen.sum(1, keepdim=True)).to(tokens.dtype)
        embedding: Tensor = self.project(torch.einsum("bt,btd->bd", share, self.norm(tokens)))
        return embedding

    def _check(self, texts: Tensor) -> None:
        """Look for tokens beyond the vocabulary, but for bytes that cannot be: a GPU would end the process."""
        if (texts.dtype == torch.uint8 and self.vocabulary >= 256) or texts.numel() == 0:
            return
        if torch.compiler.is_compiling():  # an exported program has no words for what it refuses: look-ups fail
            return
        least, most = (int(value) for value in texts.long().aminmax())
        if least < 0 or most >= self.vocabulary:
            raise BadInputError(
                f"a text has the token {least if least < 0 else most} and the vocabulary of the text encoder is "
                f"{self.vocabulary}: tokens are 0 (padding) to {self.vocabulary - 1}, set vocabulary to more"
            )


def _positions(vectors: Tensor) -> Tensor:
    """Return waves that tell positions (Vaswani et al. 2017), (T, D), for tokens of shape (B, T, D)."""
    length, width = vectors.shape[1:]
    wave = torch.arange(width, device=vectors.device)
    rate = torch.exp(-math.log(WAVELENGTH) * (wave // 2 * 2).to(vectors.dtype) / width)
    angle = torch.arange(length, device=vectors.device).to(vectors.dtype)[:, None] * rate
    return torch.where(wave % 2 == 0, angle.sin(), angle.cos())
