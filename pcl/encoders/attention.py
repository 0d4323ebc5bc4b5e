"""Attention blocks of transformers.

Shapes: B items, T tokens, D width of a token.
"""

__all__ = ["Block"]

from torch import Tensor, nn


class Block(nn.Module):
    """One pre-norm block: attention of every token to all, then two layers at each token (Xiong et al. 2020).

    Args:
        width: D.
        num_heads: H, divides D.
        dropout: share of what both parts add that is dropped in training.

    Example:
        >>> import torch
        >>> Block(8, 2)(torch.zeros(3, 5, 8)).shape
        torch.Size([3, 5, 8])
    """

    def __init__(self, width: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, nn.Dropout(dropout)
        self.norm, self.norm_after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.layers = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens: Tensor, seen: Tensor | None = None) -> Tensor:
        """Map (B, T, D) to (B, T, D); of tokens that are not ``seen``, (B, T), no other takes notice."""
        heads = self.queries_keys_values(self.norm(tokens)).unflatten(-1, (3, self.num_heads, -1))
        queries, keys, values = heads.permute(2, 0, 3, 1, 4)
        mask = None if seen is None else seen[:, None, None, :]
        attended = nn.functional.scaled_dot_product_attention(queries, keys, values, mask)
        tokens = tokens + self.dropout(self.out(attended.transpose(1, 2).flatten(2)))
        result: Tensor = tokens + self.dropout(self.layers(self.norm_after(tokens)))
        return result
