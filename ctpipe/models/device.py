"""The processor that a model's forward passes run on, set up so that the same input gives the same bits there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctpipe.errors import UsageError
from ctpipe.words import Device

if TYPE_CHECKING:
    import torch


def ready(device: Device) -> torch.device:
    """Torch's device, its kernels held to reproducible ones in full float32 (no TF32, no search for the fastest).

    UsageError for a GPU where torch can use none.
    """
    import torch

    if device is Device.CUDA:
        if not torch.cuda.is_available():
            raise UsageError("torch finds no GPU here that it can use",
                             "give --device cpu, or install torch for CUDA and start workers with --resources GPU=1")
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return torch.device(str(device))


def moved(batch: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A batch in the memory of `device`; through pinned memory, so that the copy runs beside the pass before it."""
    if device.type == "cpu":
        return batch
    return batch.pin_memory().to(device, non_blocking=True)
