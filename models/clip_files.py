"""A CLIP model from a local folder (``clip.pretrained-dir``), as ``save_pretrained`` of transformers writes it.

Nothing is fetched and nothing is unpickled: weights come from safetensors alone, and words are read with tokenizer.json.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch

from models.clip import ImageBranch, Teacher, TextBranch, Vision

CONFIG: Final = "config.json"
WEIGHTS: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
TOKENIZER: Final = "tokenizer.json"
BEGIN, END = "<|startoftext|>", "<|endoftext|>"


class ClipError(ValueError):
    """A folder that does not hold the CLIP model which the run needs; the message says what was found and expected."""


def inspect(folder: str | Path) -> Path:
    """Check that a folder holds a CLIP model and its tokenizer, without reading the weights; return it.

    Raises:
        ClipError: a file is missing, the weights are pickled, or it is another model.
    """
    root = Path(folder).expanduser()
    try:
        config = json.loads((root / CONFIG).read_text(encoding="utf-8"))
        kind = config["model_type"]
    except FileNotFoundError:
        raise ClipError(f"{root / CONFIG} is missing: {_expected()}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ClipError(f"{root / CONFIG} cannot be read, or has no model_type ({error}): {_expected()}") from None
    if kind != "clip":
        raise ClipError(f"{root / CONFIG}: model_type is {kind!r}, expected 'clip': {_expected()}")
    if not (root / WEIGHTS).is_file() and not (root / INDEX).is_file():
        if pickled := sorted(path.name for suffix in ("bin", "pt", "pth", "ckpt") for path in root.glob(f"*.{suffix}")):
            raise ClipError(
                f"{root} has {pickled[0]} but no {WEIGHTS}; pickled weights are not read, because they can run code: convert "
                "them with transformers, model.save_pretrained(folder, safe_serialization=True)"
            )
        raise ClipError(f"{root / WEIGHTS} is missing: {_expected()}")
    if not (root / TOKENIZER).is_file():
        raise ClipError(f"{root / TOKENIZER} is missing: {_expected()}")
    return root


def load_teacher(folder: str | Path, text_prompts: int, image_prompts: int) -> Teacher:
    """Return the model with prompts that are drawn from the global random state.

    Args:
        folder: see :func:`inspect`.
        text_prompts: learned vectors before a class name.
        image_prompts: learned tokens beside the patches.

    Raises:
        ClipError: see there; or the weights are damaged, or are not those of the config.
    """
    root = inspect(folder)
    from transformers import CLIPModel

    try:
        loaded: Any = CLIPModel.from_pretrained(
            root, local_files_only=True, use_safetensors=True, output_loading_info=True, dtype=torch.float32
        )
    except Exception as error:  # transformers and safetensors raise a dozen types
        raise ClipError(f"{root} cannot be read ({type(error).__name__}: {error}): {_expected()}") from None
    clip, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise ClipError(f"{root}: {len(missing)} tensors are missing, such as {missing[0]}: copy it again")
    if not all(torch.isfinite(value).all() for value in clip.state_dict().values()):
        raise ClipError(f"{root} holds values that are not finite, expected finite floats: copy it again")
    seen, read = clip.config.vision_config, clip.config.text_config
    sizes = Vision(
        seen.image_size,
        seen.patch_size,
        seen.hidden_size,
        seen.num_hidden_layers,
        seen.num_attention_heads,
        seen.intermediate_size,
        clip.config.projection_dim,
        seen.hidden_act,
        image_prompts,
    )
    teacher = Teacher(
        ImageBranch(sizes, clip.vision_model, clip.visual_projection),
        TextBranch(clip.text_model, clip.text_projection, text_prompts, read.hidden_size),
    )
    with torch.no_grad():
        teacher.scale.copy_(clip.logit_scale)
    return teacher


def words_of(folder: str | Path) -> tuple[Callable[[str], list[int]], int, int]:
    """Return what turns a text into ids, and the ids that begin and end one.

    Raises:
        ClipError: see :func:`inspect`; or the tokenizer is another one.
    """
    from tokenizers import Tokenizer

    path = inspect(folder) / TOKENIZER
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises the bare class
        raise ClipError(f"{path} cannot be read ({error}): {_expected()}") from None
    begin, end = tokenizer.token_to_id(BEGIN), tokenizer.token_to_id(END)
    if begin is None or end is None:
        raise ClipError(f"{path} has no {BEGIN} or no {END}: {_expected()}")
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids), begin, end


def _expected() -> str:
    return (
        "clip.pretrained-dir is the folder of a CLIP model as save_pretrained of transformers writes it, with "
        f"{CONFIG}, {WEIGHTS} and {TOKENIZER}"
    )
