"""Window classifiers that are fully convolutional by construction.

A window is classified by unpadded convolutions, 2 x 2 pools and a head that is a convolution over all that is left of
the window. A larger input therefore gives the logits of all windows that start at multiples of `step`, the product of
the pools, each the same function of its own pixels as when it comes alone::

    input 52 x 44, window 44, step 4:   window 0 [0 .. 44)   window 1 [4 .. 48)   window 2 [8 .. 52)
"""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ctpipe.errors import UsageError
from ctpipe.models.registry import register
from ctpipe.words import ZYX

POOL = "P"
VGG16_BODY = (64, 64, POOL, 128, 128, POOL, 256, 256, 256, POOL, 512, 512, 512, POOL, 512, 512, 512, POOL)


class WindowNetwork(nn.Module):
    """body (unpadded, pools of 2) then head; (n, channels, h, w) -> logits (n, classes, ny, nx).

    step: pixels between the windows of neighbouring outputs. window: (y, x) pixels that one output sees at most.
    """

    def __init__(self, body: nn.Sequential, head: nn.Sequential, window: tuple[int, int], step: int) -> None:
        super().__init__()
        self.body, self.head = body, head
        self.window, self.step = window, step

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        logits = self.head(self.body(batch))
        # rows that a window does not need may let one more output through; only whole windows count
        ny, nx = ((size - window) // self.step + 1 for size, window in zip(batch.shape[2:], self.window, strict=True))
        return logits[:, :, :ny, :nx]


def for_inference(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose batch normalisations are folded into the convolutions before them.

    The same function up to rounding, in half the time; channels lie last in memory, which oneDNN likes for few of them.
    """
    copy = deepcopy(network).eval()
    for parent in list(copy.modules()):
        if isinstance(parent, nn.Sequential):
            for (name, layer), (next_name, after) in pairwise(list(parent.named_children())):
                if isinstance(layer, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
                    parent[int(name)] = fuse_conv_bn_eval(layer, after)
                    parent[int(next_name)] = nn.Identity()
    return copy.requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def left_of(side: int, plan: tuple[int | str, ...]) -> int:
    """Pixels left of `side` after 3 x 3 convolutions without padding and pools of 2, the odd last one dropped."""
    for layer in plan:
        side = side // 2 if layer == POOL else side - 2
    return side


@register("vgg16")
def vgg16(channels: int, n_classes: int, window: ZYX, options: dict[str, Any]) -> nn.Module:
    """VGG16's 13 convolutions without padding, then its fully connected head with dropout, written as convolutions.

    At the window 257 the body leaves 2 x 2 x 512. Options: units (of the two hidden layers of the head, default 512;
    VGG16's own is 4096), dropout (0.5), weights (path of a torchvision-layout VGG16 file, taken by
    `weights.load_vgg16_body` when training begins).
    """
    options = _checked(options, {"units": 512, "dropout": 0.5, "weights": None})
    units, dropout = int(options["units"]), float(options["dropout"])
    body = _body(channels, VGG16_BODY, batch_norm=False)
    left = _head_size("vgg16", window, VGG16_BODY)
    head = nn.Sequential(
        nn.Conv2d(512, units, left), nn.ReLU(), nn.Dropout(dropout),
        nn.Conv2d(units, units, 1), nn.ReLU(), nn.Dropout(dropout),
        nn.Conv2d(units, n_classes, 1),
    )
    return _initialised(WindowNetwork(body, head, (window.y, window.x), step=32))


@register("vgg-small")
def vgg_small(channels: int, n_classes: int, window: ZYX, options: dict[str, Any]) -> nn.Module:
    """Two convolutions, pool, two, pool, two, then a head over what is left: 44 -> 40, 20 -> 16, 8 -> 4 -> 1.

    Options: widths (channels of the three pairs and of the head, default 12, 24, 48, 96), batch_norm (true),
    dropout (before the last layer, 0).
    """
    options = _checked(options, {"widths": [12, 24, 48, 96], "batch_norm": True, "dropout": 0.0})
    widths = [int(width) for width in options["widths"]]
    if len(widths) != 4:
        raise UsageError(f"vgg-small has {len(widths)} widths", "give four: of its three pairs and of the head")
    first, second, third, units = widths
    plan = (first, first, POOL, second, second, POOL, third, third)
    batch_norm = bool(options["batch_norm"])
    left = _head_size("vgg-small", window, plan)
    head: list[nn.Module] = [nn.Conv2d(third, units, left, bias=not batch_norm)]
    head += [nn.BatchNorm2d(units)] if batch_norm else []
    head += [nn.ReLU(), nn.Dropout(float(options["dropout"])), nn.Conv2d(units, n_classes, 1)]
    return _initialised(WindowNetwork(_body(channels, plan, batch_norm), nn.Sequential(*head), (window.y, window.x), 4))


def _body(channels: int, plan: tuple[int | str, ...], batch_norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    widths = [channels, *(layer for layer in plan if isinstance(layer, int))]
    pairs = pairwise(widths)
    for layer in plan:
        if layer == POOL:
            layers.append(nn.MaxPool2d(2))
            continue
        before, after = next(pairs)
        layers.append(nn.Conv2d(before, after, 3, bias=not batch_norm))
        layers += [nn.BatchNorm2d(after), nn.ReLU()] if batch_norm else [nn.ReLU()]
    return nn.Sequential(*layers)


def _head_size(name: str, window: ZYX, plan: tuple[int | str, ...]) -> tuple[int, int]:
    left = left_of(window.y, plan), left_of(window.x, plan)
    if min(left) < 1:
        raise UsageError(f"a window of {window.y} x {window.x} is too small for {name}",
                         f"give at least {smallest_window(plan)} pixels a side")
    return left


def smallest_window(plan: tuple[int | str, ...]) -> int:
    """The smallest side of which something is left after `plan`."""
    return next(side for side in range(1, 4096) if left_of(side, plan) >= 1)


def _checked(options: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise UsageError(f"unknown network option {', '.join(unknown)}", f"known are {', '.join(sorted(known))}")
    return known | options


def _initialised(network: WindowNetwork) -> WindowNetwork:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network
