"""The modality side of the encoder: raw inputs to tokens, and tokens to keys and values. Stays on the client.

Shapes: B batch, N tokens, K rows after a low-rank projection, D channels, I inner width of the encoder's cross-attention.
"""

from __future__ import annotations

from torch import nn

from models.front_ends import FrontEnd


class Adapter(nn.Module):
    """Front end, context norm, and key/value projection; a low-rank projection stands between or after the last two.

    Args:
        front: raw inputs to tokens (B,N,D).
        dim: channels D.
        inner: inner width I; ``to_kv`` maps (B,K,D) to (B,K,2I), keys first.
    """

    def __init__(self, front: FrontEnd, dim: int, inner: int) -> None:
        super().__init__()
        self.front = front
        self.norm = nn.LayerNorm(dim)
        self.to_kv = nn.Linear(dim, 2 * inner, bias=False)
