"""What a model computes on probes."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from client.modeldiff.embeddings import embedding_rms, shifted
from client.modeldiff.probes import Probes
from client.training import autocast
from models.beit3 import BEiT3
from models.trace import Trace
from strategies.selection.scorer import Outputs

BATCH = 256


def outputs(model: nn.Module, probes: Probes, device: torch.device, precision: str = "float32") -> Outputs:
    """Return features and logits of all probes, float32, on the CPU; ``model`` is put in evaluation mode.

    Offsets are scaled by the root mean square of this model's own embeddings of the probes, so that they are as large for a
    donor's adapter as for the target's. Their direction means the same to both as far as the two adapters began as one.

    Args:
        model: on ``device``.
        probes: the same for all candidates of a target.
        device: where to compute.
        precision: of the forward pass, see :func:`client.training.autocast`.

    Raises:
        ValueError: probes have offsets, and the model takes no texts or has embeddings of another size.
        FloatingPointError: an output is not finite.
    """
    model.eval()
    scale = 0.0 if probes.offsets is None else embedding_rms(model, probes.inputs.to(device))
    features, logits = [], []
    for chosen in torch.split(torch.arange(len(probes)), BATCH):
        inputs = probes.inputs[chosen].to(device)
        offsets = None if probes.offsets is None else scale * probes.offsets[chosen].to(device)
        shift = nullcontext() if offsets is None else shifted(model, offsets)
        with torch.inference_mode(), autocast(precision, device), shift:
            found = compute(model, inputs)
        features.append(found.features.float().cpu())
        logits.append(found.logits.float().cpu())
    # Joined outside of inference mode, so that a scorer may train on them.
    result = Outputs(torch.cat(features), torch.cat(logits))
    for name, value in (("features", result.features), ("logits", result.logits)):
        if not torch.isfinite(value).all():
            raise FloatingPointError(f"{int((~torch.isfinite(value)).sum())} of {value.numel()} {name} are NaN or infinite")
    return result


def compute(model: nn.Module, inputs: Tensor) -> Outputs:
    """Return features and logits of one batch, in the model's precision.

    Features are the mean of the last latents; of ``beit3`` that of the tokens which are no padding.
    """
    trace: Trace = model.trace(inputs)  # type: ignore[operator]
    last = trace.queries if isinstance(model, BEiT3) else trace.latents[-1]
    return Outputs(last.mean(dim=1), trace.logits)
