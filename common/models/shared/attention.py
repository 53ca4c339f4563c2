"""The attention layer of joint encoders, and the positions of its tokens.

A. Vaswani et al., "Attention Is All You Need", NeurIPS 2017, https://arxiv.org/abs/1706.03762; norms before attention
and feed-forward layers: R. Xiong et al., "On Layer Normalization in the Transformer Architecture", ICML 2020,
https://arxiv.org/abs/2002.04745.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class AttentionLayer(nn.Module):
    """TEL(q, kv): x = q + attention(norm(q), norm(kv)), then x + FFN(norm'(x)) with a hidden layer four times as wide.

    Queries and keys share their norm. The layer attends only to real positions of kv. In a row without real positions,
    it attends to all positions, which keeps the result finite.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.forward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.keys_values, self.out = (
            nn.Linear(width, width),
            nn.Linear(width, 2 * width),
            nn.Linear(width, width),
        )
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))

    def forward(self, q: Tensor, kv: Tensor, real: Tensor) -> Tensor:
        """[B, Q, D] from q [B, Q, D], kv [B, T, D] and real [B, T] bool."""
        query = self.query(self.attention_norm(q))
        keys, values = self.keys_values(self.attention_norm(kv)).chunk(2, dim=2)
        mask = real | ~real.any(1, keepdim=True)
        mixed = F.scaled_dot_product_attention(
            self._split(query), self._split(keys), self._split(values), attn_mask=mask[:, None, None, :]
        )
        x = q + self.out(mixed.transpose(1, 2).flatten(2))
        result: Tensor = x + self.feed_forward(self.forward_norm(x))
        return result

    def _split(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, heads, T, D / heads]."""
        return x.reshape(*x.shape[:2], self.heads, x.shape[2] // self.heads).transpose(1, 2)


def positions(length: int, width: int, device: torch.device | None = None) -> Tensor:
    """Sinusoidal positions [length, width], width even: sines in the even columns, cosines in the odd ones."""
    rates = 10000.0 ** (-torch.arange(0, width, 2, device=device) / width)
    angles = torch.arange(length, device=device).unsqueeze(1) * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)
