"""Frozen embeddings of a BERT model, read from a local folder (``model.embedding-dir``): group FROZEN, never sent nor trained.

Word, position and token-type embedding, summed and normalised: what BERT does to token ids before its first block. Only these
five tensors are read, never the rest of the model; nothing is fetched and nothing is unpickled. ``transformers`` is imported
when embeddings are loaded, not before, because that takes seconds.

Source: BERT (Devlin et al., NAACL 2019), section 3.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

CONFIG: Final = "config.json"
WEIGHTS: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
FILES: Final = (CONFIG, WEIGHTS, INDEX)
"""What is read of a folder, besides the files that an index names."""

TENSORS: Final = {
    "word_embeddings.weight": (),
    "position_embeddings.weight": (),
    "token_type_embeddings.weight": (),
    "LayerNorm.weight": ("LayerNorm.gamma",),
    "LayerNorm.bias": ("LayerNorm.beta",),
}
"""Names inside BERT's embeddings block, and the names that files converted from TensorFlow have instead."""


class EmbeddingError(ValueError):
    """A folder that does not hold the embeddings which the run needs; the message says what was found and expected."""


@dataclass(frozen=True)
class Embeddings:
    """What a folder holds.

    Attributes:
        places: file and name in it of each of the five tensors.
        hidden: channels of the embeddings.
        rows: token ids.
        positions: longest text.
        token_types: rows of the token-type embedding; only the first is used.
        epsilon: of the normalisation.
    """

    places: dict[str, tuple[Path, str]]
    hidden: int
    rows: int
    positions: int
    token_types: int
    epsilon: float


def inspect(folder: str | Path, vocab_size: int, max_tokens: int) -> Embeddings:
    """Find the embeddings in a folder and check that they fit the run, without reading their values.

    Args:
        folder: config.json and model.safetensors, or the files of its index, as ``save_pretrained`` writes them.
        vocab_size: token ids of the run's tokenizer.
        max_tokens: longest text of the run.

    Raises:
        EmbeddingError: a file or tensor is missing, it is not a BERT model, or a size differs.
    """
    root = Path(folder).expanduser()
    config = _read_json(root, CONFIG)
    kind = (config.get("model_type"), config.get("position_embedding_type", "absolute"))
    if kind != ("bert", "absolute"):
        raise EmbeddingError(
            f"{root / CONFIG}: model_type and position_embedding_type are {kind}, expected ('bert', 'absolute')"
        )
    files = _tensor_files(root)
    places = {tensor: _find(root, files, tensor, older) for tensor, older in TENSORS.items()}
    shapes = {tensor: _shape(path, name) for tensor, (path, name) in places.items()}
    (rows, hidden), (positions, _), (types, _) = (shapes[name] for name in list(TENSORS)[:3])
    expected = dict(zip(TENSORS, [(rows, hidden), (positions, hidden), (types, hidden), (hidden,), (hidden,)], strict=True))
    if shapes != expected:
        raise EmbeddingError(f"{root}: the embeddings have shapes {shapes}, expected {expected}")
    if rows != vocab_size:
        raise EmbeddingError(
            f"{root} has embeddings of {rows:,} tokens, but the tokenizer has {vocab_size:,}: set data.vocab-file to the "
            "vocab.txt of the model that model.embedding-dir names"
        )
    if max_tokens > positions:
        raise EmbeddingError(f"data.max-tokens = {max_tokens}, but {root} has {positions} positions: lower data.max-tokens")
    return Embeddings(places, hidden, rows, positions, types, float(config.get("layer_norm_eps", 1e-12)))


def load(folder: str | Path, vocab_size: int, max_tokens: int) -> nn.Module:
    """Return the embeddings as a module: token ids (B,N) to (B,N,hidden), float32, without gradient and without dropout.

    Args:
        folder: see :func:`inspect`.
        vocab_size: token ids of the run's tokenizer.
        max_tokens: longest text of the run.

    Raises:
        EmbeddingError: see :func:`inspect`; or the values are not finite numbers.
    """
    found = inspect(folder, vocab_size, max_tokens)
    from transformers import BertConfig
    from transformers.models.bert.modeling_bert import BertEmbeddings

    config = BertConfig(
        vocab_size=found.rows,
        hidden_size=found.hidden,
        num_attention_heads=1,
        max_position_embeddings=found.positions,
        type_vocab_size=found.token_types,
        layer_norm_eps=found.epsilon,
        hidden_dropout_prob=0.0,  # so that it is the same in training mode
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        module: nn.Module = BertEmbeddings(config)  # type: ignore[no-untyped-call]
    module.load_state_dict({tensor: _read(path, name) for tensor, (path, name) in found.places.items()})
    return module.requires_grad_(False).eval()


def _tensor_files(root: Path) -> dict[str, Path]:
    """Return the file of each tensor of a model, by name."""
    if (root / WEIGHTS).is_file():
        with _opened(root / WEIGHTS) as file:
            return dict.fromkeys(file.keys(), root / WEIGHTS)
    if (root / INDEX).is_file():
        return {name: root / str(file) for name, file in _read_json(root, INDEX).get("weight_map", {}).items()}
    if (root / "pytorch_model.bin").is_file():
        raise EmbeddingError(
            f"{root} has pytorch_model.bin but no {WEIGHTS}; pickled weights are not read, because they can run code: "
            "convert them with transformers, model.save_pretrained(folder, safe_serialization=True)"
        )
    raise EmbeddingError(f"{root / WEIGHTS} is missing: {_expected()}")


def _find(root: Path, files: dict[str, Path], tensor: str, older: tuple[str, ...]) -> tuple[Path, str]:
    for name in (f"{prefix}embeddings.{word}" for prefix in ("", "bert.") for word in (tensor, *older)):
        if name in files:
            return files[name], name
    raise EmbeddingError(f"{root}: none of its {len(files)} tensors is 'embeddings.{tensor}' or 'bert.embeddings.{tensor}'")


def _shape(path: Path, name: str) -> tuple[int, ...]:
    with _opened(path) as file:
        return tuple(file.get_slice(name).get_shape())


def _read(path: Path, name: str) -> Tensor:
    with _opened(path) as file:
        value: Tensor = file.get_tensor(name)
    if not value.is_floating_point() or not torch.isfinite(value).all():
        raise EmbeddingError(f"{path}: {name} has type {value.dtype} or values that are not finite, expected finite floats")
    return value.float()


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, "pt") as file:
            yield file
    except FileNotFoundError:
        raise EmbeddingError(f"{path} is missing: {_expected()}") from None
    except SafetensorError as error:
        raise EmbeddingError(f"{path} cannot be read ({error}): copy it again") from None


def _read_json(root: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads((root / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EmbeddingError(f"{root / name} is missing: {_expected()}") from None
    except (OSError, ValueError) as error:
        raise EmbeddingError(f"{root / name} cannot be read ({error}): {_expected()}") from None
    if not isinstance(content, dict):
        raise EmbeddingError(f"{root / name} holds {type(content).__name__}, expected a JSON object")
    return content


def _expected() -> str:
    return (
        "model.embedding-dir is the folder of a BERT model as save_pretrained of transformers writes it, with "
        f"{CONFIG} and {WEIGHTS}"
    )
