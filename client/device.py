"""Which device a client computes on, and how much of it."""

from __future__ import annotations

import torch

from config import Federation, Train


class DeviceError(RuntimeError):
    """A device was asked for that this machine does not have."""


def choose_device(train: Train, federation: Federation) -> torch.device:
    """Return the device of this client, with threads and GPU memory limited as the config says.

    Raises:
        DeviceError: a GPU, or a fraction of one, is asked for where there is none.
    """
    torch.set_num_threads(train.threads)
    wants_gpu = train.device == "cuda" or federation.gpus_per_client > 0
    if wants_gpu and not torch.cuda.is_available():
        raise DeviceError(
            f"train.device = '{train.device}' and federation.gpus-per-client = {federation.gpus_per_client} ask for a GPU, "
            "but torch finds none here: set federation.gpus-per-client = 0 and train.device = 'auto', or repair the driver"
        )
    if train.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if federation.gpus_per_client > 0:
        torch.cuda.set_per_process_memory_fraction(federation.gpus_per_client)
    return torch.device("cuda")
