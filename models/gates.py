"""Adaptive k: gates that learn how many columns of the low-rank projection are kept, and a bias that depends on the input.

Gate z_j of column j enters the attention as a_ij ~ z_j exp(s_ij), that is as log z_j in the logits, and z_j = 0 as exactly
-inf. A factor on keys and values, or log(z + epsilon), would leave a closed column its share of the softmax, and the network
would learn to use it: such a column cannot be removed without changing the output.

A gate has ``log_gate()`` (K,), what is added to the logits; ``scale()`` (K,), what keys and values are multiplied by, or
None; ``cost()``, the columns that are paid for; ``open_columns()``; ``keep(columns)``, after which the others are gone;
``clamp_()``, called after every optimisation step. Gates stay on their client (models/groups.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Kind = Literal["none", "prefix", "hard-concrete", "sigmoid"]


def log_of(gate: Tensor) -> Tensor:
    """Return log z with exactly -inf, and a gradient of exactly 0, where z = 0."""
    is_open = gate > 0
    return torch.where(is_open, torch.where(is_open, gate, 1.0).log(), -math.inf)


def prefix_gate(kappa: Tensor, columns: int, ramp: float) -> Tensor:
    """Soft prefix mask over the columns of a low-rank projection.

    z_j = clip((ramp + kappa - j) / ramp, 0, 1) for j = 1 … columns: the first kappa columns are open, the next ``ramp`` ones
    partly, the rest closed, so that columns close from the last one inwards.

    Args:
        kappa: learned width in columns, scalar, at least 1.
        columns: number of columns.
        ramp: columns over which the gate falls from 1 to 0; > 0.

    Returns:
        Gate values, shape (columns,), in [0, 1].

    Source: adaptive attention span (Sukhbaatar et al., ACL 2019), Eq. 3, applied to projection columns.
    """
    place = torch.arange(1, columns + 1, device=kappa.device, dtype=kappa.dtype)
    return ((ramp + kappa - place) / ramp).clamp(0, 1)


class PrefixGate(nn.Module):
    """k as one learned number: kappa = fraction x k_max columns, local to the client."""

    def __init__(self, columns: int, ramp: float) -> None:
        super().__init__()
        self.k_max, self.columns, self.ramp = columns, columns, ramp
        self.fraction = nn.Parameter(torch.tensor(1.0))

    def log_gate(self) -> Tensor:
        return log_of(prefix_gate(self.cost(), self.columns, self.ramp))

    def scale(self) -> None:
        return None

    def cost(self) -> Tensor:
        return self.fraction * self.k_max

    def open_columns(self) -> list[int]:
        return [j for j, value in enumerate(self.log_gate().tolist()) if value > -math.inf]

    def keep(self, columns: Sequence[int]) -> None:
        self.columns = len(columns)

    def clamp_(self) -> None:
        with torch.no_grad():
            self.fraction.clamp_(1 / self.k_max, 1)


class HardConcreteGate(nn.Module):
    """A gate of its own for every column, stochastic in training.

    u ~ U(0,1), s = sigmoid((log u - log(1-u) + a) / beta), z = clip(s (zeta - gamma) + gamma, 0, 1); in evaluation
    s = sigmoid(a). The cost is the expected number of open columns, sum sigmoid(a - beta log(-gamma / zeta)). The most open
    column is never closed.

    Source: Louizos, Welling & Kingma (ICLR 2018), Eq. 10 to 13.
    """

    BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1
    START = 3.0  # sigmoid(3) stretched is above 1: all columns open

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.k_max = columns
        self.log_alpha = nn.Parameter(torch.full((columns,), self.START))

    def log_gate(self) -> Tensor:
        logits: Tensor = self.log_alpha
        if self.training:
            noise = torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)
            logits = (noise.log() - (1 - noise).log() + logits) / self.BETA
        gate = (logits.sigmoid() * (self.ZETA - self.GAMMA) + self.GAMMA).clamp(0, 1)
        last = torch.zeros_like(gate, dtype=torch.bool)
        last[self.log_alpha.argmax()] = True
        return log_of(torch.where(last & (gate <= 0), 1.0, gate))

    def scale(self) -> None:
        return None

    def cost(self) -> Tensor:
        return torch.sigmoid(self.log_alpha - self.BETA * math.log(-self.GAMMA / self.ZETA)).sum()

    def open_columns(self) -> list[int]:
        gate = self.log_alpha.sigmoid() * (self.ZETA - self.GAMMA) + self.GAMMA
        return (gate > 0).nonzero().flatten().tolist() or [int(self.log_alpha.argmax())]

    @torch.no_grad()
    def keep(self, columns: Sequence[int]) -> None:
        self.log_alpha = nn.Parameter(self.log_alpha.detach()[list(columns)].clone())

    def clamp_(self) -> None:
        return None


class SigmoidGate(nn.Module):
    """The gate of the first Linceiver: columns of E times sigmoid(g_j) alpha. A baseline: it closes nothing.

    Its "effective k", k_max mean(sigmoid(g) alpha), is a scale that E can take back; every column is kept and paid for.
    """

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.k_max = columns
        self.logits = nn.Parameter(torch.full((columns,), 0.5))
        self.alpha = nn.Parameter(torch.tensor(1.0))

    def log_gate(self) -> Tensor:
        return torch.zeros_like(self.logits)

    def scale(self) -> Tensor:
        return self.logits.sigmoid() * self.alpha

    def cost(self) -> Tensor:
        return self.logits.new_tensor(float(self.k_max))

    def open_columns(self) -> list[int]:
        return list(range(self.k_max))

    def keep(self, columns: Sequence[int]) -> None:
        raise ValueError("model.adaptive-k = 'sigmoid' closes no column, so none can be removed: use prefix or hard-concrete")

    def clamp_(self) -> None:
        return None

    def effective_k(self) -> float:
        """Return the number that the first Linceiver reported as its k."""
        return float(self.scale().detach().sum())


Gate = PrefixGate | HardConcreteGate | SigmoidGate


class InputBias(nn.Module):
    """Importance of a column for one input: b_j(x) = u . key_j(x) / sqrt(I) + b_j, added to its logits."""

    def __init__(self, inner: int, columns: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(inner))
        self.bias = nn.Parameter(torch.zeros(columns))

    def forward(self, kv_BK2I: Tensor) -> Tensor:
        """Keys and values (B, K, 2I) to (B, K)."""
        inner = len(self.weight)
        bias_BK: Tensor = kv_BK2I[..., :inner] @ self.weight / inner**0.5 + self.bias
        return bias_BK

    @torch.no_grad()
    def keep(self, columns: Sequence[int]) -> None:
        """Remove all other columns."""
        self.bias = nn.Parameter(self.bias.detach()[list(columns)].clone())


def make_gate(kind: Kind, columns: int, ramp: float) -> Gate | None:
    """Build a gate; None for the kind ``none``."""
    match kind:
        case "none":
            return None
        case "prefix":
            return PrefixGate(columns, ramp)
        case "hard-concrete":
            return HardConcreteGate(columns)
        case "sigmoid":
            return SigmoidGate(columns)


def gates(model: nn.Module) -> list[Gate]:
    """Return the gates of a model."""
    return [module for module in model.modules() if isinstance(module, Gate)]


def paid_columns(model: nn.Module, target: int) -> Tensor | None:
    """Return the open columns above ``target``, sum max(0, cost - k*), as a differentiable scalar; None without a gate."""
    costs = [(gate.cost() - target).clamp(min=0) for gate in gates(model) if not isinstance(gate, SigmoidGate)]
    return torch.stack(costs).sum() if costs else None
