"""The golden case: fixed networks of whole numbers over fixed pixels, whose scores every sound processor gives exactly.

All sums stay below 2**24, so that float32 holds each of them exactly in whatever order they are added: one digest goes
for every processor, library and number of threads. A driver, a library or memory that computes wrongly gives another
one, and nothing is computed with it (RELIABILITY I6).
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ctpipe.errors import RunError
from ctpipe.models.device import ready
from ctpipe.words import Device

if TYPE_CHECKING:
    import torch

# Of the scores as int32; tests compute it again in whole numbers, without torch.
DIGEST = "eb858477f90e0743a9f4c232a5a574a325e0675183062920ecd718126c0f4bcd"
# Values of the middle layers are cut here, so that the sums behind them stay exact.
HIGHEST = 1000


@lru_cache(maxsize=4)
def require_golden(device: Device) -> None:
    """RunError where forward passes of this process on `device` do not give the golden scores; looked at once."""
    if sha256(golden_scores(device).astype("<i4").tobytes()).hexdigest() != DIGEST:
        raise RunError(f"forward passes on the {device} of this machine give wrong scores (its golden case differs)",
                       "reinstall torch from constraints.txt, and have its driver and memory looked at")


def pattern(shape: tuple[int, ...], low: int, high: int) -> NDArray[np.float32]:
    """Whole numbers low..high in an order without short periods."""
    mixed = np.arange(1, prod(shape) + 1, dtype=np.uint64) * np.uint64(2654435761) % np.uint64(1 << 32)
    return ((mixed >> np.uint64(16)) % np.uint64(high - low + 1)).astype(np.float32).reshape(shape) + np.float32(low)


def golden_scores(device: Device) -> NDArray[np.float32]:
    """Scores of a small classifier of windows and of a small U-Net, one behind the other, by torch on `device`."""
    import torch

    place = ready(device)
    with torch.inference_mode():
        return np.concatenate([part.cpu().numpy().ravel() for part in (_classifier(place), _unet(place))])


def _classifier(place: torch.device) -> torch.Tensor:
    """(2, 4, 1, 1): convolutions, pooling and a layer that sees all that is left of two windows of 40 x 44."""
    from torch.nn import functional as F  # noqa: N812

    x = F.conv2d(_made((2, 1, 40, 44), 8, place), _made((16, 1, 3, 3), 2, place))
    x = F.max_pool2d(F.relu(x), 2)
    x = F.conv2d(x, _made((8, 16, 3, 3), 1, place)).clamp(0, HIGHEST)
    return F.conv2d(x, _made((4, 8, 17, 19), 1, place))


def _unet(place: torch.device) -> torch.Tensor:
    """(1, 4, 20, 24, 28): down, up by a transposed convolution, and across by a skip."""
    import torch
    from torch.nn import functional as F  # noqa: N812

    x = F.relu(F.conv3d(_made((1, 2, 20, 24, 28), 8, place), _made((16, 2, 3, 3, 3), 1, place), padding=1))
    down = F.conv3d(x, _made((16, 16, 3, 3, 3), 1, place), stride=2, padding=1).clamp(0, HIGHEST)
    up = F.conv_transpose3d(down, _made((16, 8, 2, 2, 2), 1, place), stride=2)
    return F.conv3d(torch.cat([x, up], 1), _made((4, 24, 1, 1, 1), 2, place))


def _made(shape: tuple[int, ...], most: int, place: torch.device) -> torch.Tensor:
    import torch

    return torch.from_numpy(pattern(shape, -most, most)).to(place)
