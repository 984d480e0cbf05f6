"""A client tells 2 KB of its latest task's model, by which targets choose whose backbones to score."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from client.continual.memory import task_model
from client.modeldiff.responses import common_probes, response_sketch
from client.modeldiff.sketch import sketch
from client.stream import open_stream
from config import RunConfig
from models.arrays import Arrays
from strategies.protocol import Instruction, RunError


def tell(config: RunConfig, told: Instruction, folder: Path) -> tuple[Arrays, int]:
    """Return the sketch of ``selection.sketch``, and the number of training examples.

    Args:
        config: settings of the run.
        told: names the arm of the model, and the number of its record.
        folder: of that arm.

    Raises:
        RunError: the client has learned nothing yet.
        ValueError: training has not changed the model.
    """
    stream = open_stream(config, told, folder, told.round + 1)
    if not stream.memory.records:
        raise RunError(f"client {told.partition_id} has learned no task to tell of: train it first")
    model = task_model(stream.model, stream.memory, stream.memory.latest)
    if config.selection.sketch == "weights":
        found: np.ndarray = sketch(model, stream.fresh, config.run.seed)
    else:
        inputs, seed = stream.data.train.inputs, config.run.seed
        if stream.data.subgroup.modality == "text":
            from data_partition.text import vocab_size

            probes = common_probes("text", vocab_size=vocab_size(config.data), max_tokens=inputs.shape[1], seed=seed)
        elif stream.data.subgroup.modality == "series":
            probes = common_probes("series", shape=(inputs.shape[1], inputs.shape[2]), seed=seed)
        else:
            probes = common_probes("image", side=inputs.shape[-1], seed=seed)
        found = response_sketch(model, probes, stream.device)
    return {"sketch": found}, len(stream.data.train)
