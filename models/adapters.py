"""The modality side of the encoder: raw inputs to tokens, and tokens to keys and values. Stays on the client.

Shapes: B batch, N tokens, K rows after a low-rank projection, D channels, I inner width of the encoder's cross-attention.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.front_ends import FrontEnd
from models.gates import Gate, InputBias
from models.low_rank import Projection


class Adapter(nn.Module):
    """Front end, context norm, and key/value projection; a low-rank projection stands between or after the last two.

    Args:
        front: raw inputs to tokens (B,N,D).
        dim: channels D.
        inner: inner width I; ``to_kv`` maps (B,K,D) to (B,K,2I), keys first.
        projection: low-rank projection whose shape depends on the input's length; None: none, or one in the backbone.
        gate: closes columns of the projection.
        input_bias: weighs columns by the input.
    """

    def __init__(
        self,
        front: FrontEnd,
        dim: int,
        inner: int,
        projection: Projection | None = None,
        gate: Gate | None = None,
        input_bias: InputBias | None = None,
    ) -> None:
        super().__init__()
        self.front = front
        self.norm = nn.LayerNorm(dim)
        self.to_kv = nn.Linear(dim, 2 * inner, bias=False)
        self.projection = projection
        self.gate = gate
        self.input_bias = input_bias

    def weigh(self, kv_BK2I: Tensor) -> tuple[Tensor, Tensor | None]:
        """Apply gate and input bias to projected keys and values; return these and what is added to the logits."""
        bias = self.input_bias(kv_BK2I) if self.input_bias is not None else None
        if self.gate is None:
            return kv_BK2I, bias
        scale, log_gate = self.gate.scale(), self.gate.log_gate()
        if scale is not None:
            kv_BK2I = kv_BK2I * scale[:, None]
        return kv_BK2I, log_gate if bias is None else bias + log_gate
