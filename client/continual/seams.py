"""Seams: what grows and is cut together, found by the shape of modules, not by the model.

A seam is the rows of one or more layers, what acts on each of their channels alone, and the columns of the layer that reads
them.

    heads     qkv or (to_q, to_kv) --> out       one unit is a head of d channels
    hidden    up --> down                        one unit is a channel; with a gate, a value and its gate
    maps      convolution --> convolution        one unit is a map
    maps      convolution --flatten--> linear    one unit is a map, which the linear layer reads as H x W columns
    features  linear --> linear                  one unit is a feature; with GEGLU between them, as with a gate

The first is a module with ``heads`` and linear layers named as above, the second one with linear layers ``up`` and ``down``,
and the others are neighbours in a chain: an ``nn.Sequential``, the ``nn.Sequential`` within it included, with nothing between
them but activations, dropout, batch norms (which grow along), and, for maps, pooling and one flattening.

No seam is at grouped and transposed convolutions, layers that are used in several places, and tied weights. The output of the
last layer of a chain and residual streams keep their width, and so does cross-attention, whose keys are made in the adapter.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd, _AvgPoolNd, _MaxPoolNd

from models.groups import ownable_layers

ROWS, COLUMNS = 0, 1
# Layers of attention and the matrices that each consists of.
ATTENTION_ROWS = {"qkv": 3, "to_q": 1, "to_kv": 2}
ATTENTION_SETS = (({"qkv"}, "out"), ({"to_q", "to_kv"}, "to_out"))
# What acts on each channel alone.
ELEMENTWISE = (nn.GELU, nn.ReLU, nn.LeakyReLU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Dropout, nn.Identity)
OF_MAPS = (_AvgPoolNd, _MaxPoolNd, _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

Layer = nn.Linear | _ConvNd


@dataclass(frozen=True)
class Edge:
    """One side of a layer: ``blocks`` matrices of equal size, one after the other along ROWS or COLUMNS.

    Attributes:
        layer: whose side it is; a batch norm has ROWS alone.
        dim: ROWS or COLUMNS.
        blocks: matrices.
        channels: rows or columns of one unit in each block.
    """

    layer: Layer | _BatchNorm
    dim: int
    blocks: int = 1
    channels: int = 1

    @property
    def size(self) -> int:
        """Rows or columns of one block."""
        if isinstance(self.layer, _BatchNorm):
            return self.layer.num_features
        return self.layer.weight.shape[self.dim] // self.blocks

    @property
    def units(self) -> int:
        """Units there are now."""
        return self.size // self.channels


@dataclass(frozen=True)
class Seam:
    """What grows together.

    Attributes:
        edges: rows of the writing layers and of batch norms, then columns of the reading layer.
        heads: the module whose attribute ``heads`` counts the units, if there is one.
    """

    edges: tuple[Edge, ...]
    heads: nn.Module | None = None

    @property
    def units(self) -> int:
        """Heads, hidden units, maps or features there are now."""
        return self.edges[-1].units


def seams(model: nn.Module) -> dict[str, Seam]:
    """Return the seams of a backbone by name, in the order of the model.

    A module of one seam gives it its name; of those of a longer chain each has the name of the layer that writes.
    """
    known = {id(layer) for layer in ownable_layers(model).values()}
    places = Counter(id(m.weight) for m in model.modules() if isinstance(getattr(m, "weight", None), Tensor))
    holders = Counter(id(child) for module in model.modules() for child in module._modules.values())
    inner = {id(child) for module in model.modules() if is_chain(module) for child in module._modules.values()}
    found = {}
    for path, module in model.named_modules():
        if is_chain(module):
            new = {} if id(module) in inner else chain_seams(path, module, holders)
        else:
            seam = attention_seam(module) or feed_forward_seam(module)
            new = {} if seam is None else {path: seam}
        for name, seam in new.items():
            layers = [edge.layer for edge in seam.edges]
            tied = any(layer.weight is not None and places[id(layer.weight)] > 1 for layer in layers)
            if not tied and all(id(layer) in known for layer in layers if isinstance(layer, Layer)):
                found[name] = seam
    return found


def attention_seam(module: nn.Module) -> Seam | None:
    """Return the seam of a self-attention module; None: it is none, or its projection has a shape for each head."""
    heads, children = getattr(module, "heads", None), dict(module.named_children())
    if not isinstance(heads, int) or "projection" in children:
        return None
    for writers, reader in ATTENTION_SETS:
        layers = {name: children[name] for name in (*sorted(writers), reader) if isinstance(children.get(name), nn.Linear)}
        if len(layers) == len(writers) + 1:
            last = Edge(layers.pop(reader), COLUMNS)  # type: ignore[arg-type]
            channels = last.size // heads
            rows = [Edge(layer, ROWS, ATTENTION_ROWS[name], channels) for name, layer in layers.items()]  # type: ignore[arg-type]
            if all(edge.size == last.size for edge in rows):
                return Seam((*rows, Edge(last.layer, COLUMNS, channels=channels)), module)
    return None


def feed_forward_seam(module: nn.Module) -> Seam | None:
    """Return the seam of a feed-forward module, gated or not; None: it is none."""
    children = dict(module.named_children())
    up, down = children.get("up"), children.get("down")
    return pair_seam(up, down) if isinstance(up, nn.Linear) and isinstance(down, nn.Linear) else None


def pair_seam(first: nn.Linear, second: nn.Linear, norms: Sequence[Edge] = (), *, gated: bool | None = None) -> Seam | None:
    """Return the seam of two linear layers with functions of single channels between them; None: their widths do not fit.

    Args:
        first: writes.
        second: reads.
        norms: between them.
        gated: whether a unit is a value and its gate, so that ``first`` has twice as many rows; None: if it has.
    """
    blocks, rest = divmod(first.out_features, second.in_features)
    if rest or blocks not in ((1, 2) if gated is None else (1 + gated,)):
        return None
    return Seam((Edge(first, ROWS, blocks), *norms, Edge(second, COLUMNS)))


def is_chain(module: nn.Module) -> bool:
    """Whether the children of a module follow each other."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def chain_seams(path: str, chain: nn.Module, holders: Counter[int]) -> dict[str, Seam]:
    """Return the seams of a chain by name.

    Args:
        path: of the chain.
        chain: the outermost one.
        holders: how many modules have a module as their child, by its id.
    """
    parts = list(parts_of(path, chain, holders))
    ends = [i for i, (_, part) in enumerate(parts) if isinstance(part, Layer)]
    found = {}
    for first, last in itertools.pairwise(ends):
        name, writer = parts[first]
        seam = neighbours(writer, [part for _, part in parts[first + 1 : last]], parts[last][1])  # type: ignore[arg-type]
        if seam is not None:
            found[path if len(ends) == 2 else name] = seam
    return found


def parts_of(path: str, chain: nn.Module, holders: Counter[int]) -> Iterator[tuple[str, nn.Module | None]]:
    """Yield the parts of a chain and of the chains within it by name; None: a part that is used elsewhere too."""
    for key, part in chain._modules.items():
        name = f"{path}.{key}" if path else key
        if part is None:
            continue
        if any(True for _ in part.parameters()) and holders[id(part)] > 1:
            yield name, None
        elif is_chain(part):
            yield from parts_of(name, part, holders)
        else:
            yield name, part


def neighbours(writer: Layer, between: list[nn.Module | None], reader: Layer) -> Seam | None:
    """Return the seam of two layers of a chain; None: something between them mixes channels, or their widths do not fit."""
    if not all(
        isinstance(layer, (nn.Linear, *CONVOLUTIONS)) and getattr(layer, "groups", 1) == 1 for layer in (writer, reader)
    ):
        return None
    edges, gated = [Edge(writer, ROWS)], False
    maps = isinstance(writer, CONVOLUTIONS)  # until they are flattened
    for part in between:
        if isinstance(part, _BatchNorm) and part.num_features == edges[0].size and not gated:
            edges.append(Edge(part, ROWS))
        elif isinstance(part, nn.Flatten) and (part.start_dim, part.end_dim) == (1, -1):
            maps = False
        elif type(part).__name__ == "GEGLU" and not gated and len(edges) == 1:
            gated = True
        elif not (isinstance(part, ELEMENTWISE) or (maps and isinstance(part, OF_MAPS))):
            return None
    if isinstance(writer, nn.Linear) and isinstance(reader, nn.Linear):
        return pair_seam(writer, reader, edges[1:], gated=gated)
    if gated or maps != isinstance(reader, CONVOLUTIONS):
        return None
    last = Edge(reader, COLUMNS)
    channels, rest = divmod(last.size, edges[0].size)  # a flattened map of H x W is as many columns
    if rest or channels < 1 or (maps and channels > 1):
        return None
    return Seam((*edges, replace(last, channels=channels)))
