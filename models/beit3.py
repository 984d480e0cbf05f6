"""A small Multiway transformer after BEiT-3: modalities share self-attention and own the rest of every block.

    tokens X of the front end
    X += out(SelfAttention(LN_m(X)))        self-attention (qkv, out): backbone
    X += FeedForward_m(LN_m(X))             norms and feed-forward of modality m, its expert: adapter        L times
    LN(X) --mean over real tokens--> logits                                                                  head

A client has one modality, and so its model one expert per block; the vision-language experts of the paper's top blocks have
no data here. Unlike the paper: no class token (the mean of the tokens is classified), no norm inside attention and
feed-forward (torchscale's sub-LN), no masked pre-training. The authors' library torchscale makes even self-attention once per
modality in multiway mode, so that an image and a text client have nothing in common; here it is shared, as in the paper.

There are no latents: ``model.latents`` and ``model.cross-heads`` do not apply.

Shapes: B batch, N tokens, D channels.

Source: BEiT-3 (Wang et al., CVPR 2023), section 2.1; Multiway transformer: VLMo (Bao et al., NeurIPS 2022), section 3.1.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.attention import FeedForward, FeedForwardKind, self_attend
from models.front_ends import FrontEnd
from models.trace import Trace


class SharedAttention(nn.Module):
    """Multi-head self-attention without norm and residual, which are the modality's."""

    def __init__(self, dim: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BND: Tensor, mask_BN: Tensor | None) -> Tensor:
        """Normalised tokens (B,N,D), True where one is real, to their change (B,N,D)."""
        return self.dropout(self.out(self_attend(self.qkv(x_BND), self.heads, mask_BN)))  # type: ignore[no-any-return]


class Expert(nn.Module):
    """What a modality owns of one block: the norm before self-attention, and the feed-forward block with its norm."""

    def __init__(self, dim: int, mult: int, kind: FeedForwardKind = "gelu", dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.ff = FeedForward(dim, mult, kind, dropout)

    def forward(self, x_BND: Tensor, attention: nn.Module, mask_BN: Tensor | None) -> Tensor:
        """One block: tokens (B,N,D) to tokens, with the shared attention, which does not become a part of the expert."""
        return self.ff(x_BND + attention(self.norm(x_BND), mask_BN))  # type: ignore[no-any-return]


class Adapter(nn.Module):
    """Front end and experts of one modality. Stays on the client.

    Args:
        front: raw inputs to tokens (B,N,D).
        experts: blocks with weights of their own.
    """

    def __init__(
        self, front: FrontEnd, dim: int, *, experts: int, ff_mult: int, feed_forward: FeedForwardKind, dropout: float
    ) -> None:
        super().__init__()
        self.front = front
        self.experts = nn.ModuleList(Expert(dim, ff_mult, feed_forward, dropout) for _ in range(experts))


class Backbone(nn.Module):
    """The shared part: self-attention of every block.

    Args:
        layers: blocks L, at least 1, as there is nothing else to share.
        tied: one set of weights for all blocks; the modality's experts are tied likewise.
    """

    def __init__(self, dim: int, *, layers: int, tied: bool, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.depth = layers
        self.layers = nn.ModuleList(SharedAttention(dim, heads, dropout) for _ in range(1 if tied else layers))

    def forward(self, x_BND: Tensor, mask_BN: Tensor | None, experts: nn.ModuleList) -> tuple[Tensor, ...]:
        """Tokens to tokens (B,N,D) before the first block and after each of the L blocks.

        Args:
            x_BND: tokens of the front end.
            mask_BN: True where a token is real, or None if all are.
            experts: the modality's part of each distinct block; it stays a part of the adapter.
        """
        stages = [x_BND]
        for i in range(self.depth):
            own = min(i, len(self.layers) - 1)
            stages.append(experts[own](stages[-1], self.layers[own], mask_BN))
        return tuple(stages)


class Head(nn.Module):
    """LayerNorm, mean over real tokens, linear classifier."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.classifier = nn.Linear(dim, num_classes)

    def forward(self, x_BND: Tensor, mask_BN: Tensor | None) -> tuple[Tensor, Tensor]:
        """Tokens (B,N,D) to their mean (B,1,D), zero for a sample that is all padding, and logits (B, classes)."""
        x_BND = self.norm(x_BND)
        if mask_BN is None:
            mean_BD = x_BND.mean(dim=1)
        else:
            real_BN1 = mask_BN.unsqueeze(-1)
            mean_BD = (x_BND * real_BN1).sum(dim=1) / real_BN1.sum(dim=1).clamp(min=1)
        return mean_BD.unsqueeze(1), self.classifier(mean_BD)


class BEiT3(nn.Module):
    """Adapter, backbone and head in one model; see the module's docstring."""

    def __init__(self, adapter: Adapter, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.adapter = adapter
        self.head = head
        self.frozen: nn.Module | None = None  # set by models/factory.py where the front end needs it

    def trace(self, inputs: Tensor) -> Trace:
        """Run the model and return the tokens of every stage, their mean and the logits."""
        x_BND, mask_BN, _ = self.adapter.front(inputs, self.frozen)
        stages = self.backbone(x_BND, mask_BN, self.adapter.experts)
        queries, logits = self.head(stages[-1], mask_BN)
        return Trace(stages, queries, logits)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images (B,3,H,W) or token ids (B,N) to logits (B, classes)."""
        return self.trace(inputs).logits
