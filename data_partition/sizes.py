"""The sizes of a client's inputs that a model is built for."""

from __future__ import annotations

from config import Data
from data_partition.text import vocab_size


def input_sizes(data: Data) -> dict[str, int]:
    """Return the sizes that ``models.factory.build_model`` takes, those of other modalities than a client's own included."""
    return {
        "image_size": data.image_side,
        "vocab_size": vocab_size(data),
        "max_tokens": data.max_tokens,
        "window": data.window,
        "channels": len(data.channel_names),
    }
