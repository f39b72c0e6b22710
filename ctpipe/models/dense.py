"""The exact dense form of a window classifier: all windows of a plane or volume in one pass.

A classifier of unpadded layers is a function of its window alone. Slid at stride s it is one fully convolutional pass:
fully connected layers become convolutions over what is left of the window, and walking down the network, a layer of
step p, met while the wanted windows still lie `left` apart, keeps g = gcd(left, p) of its step as a real stride; the
rest p / g becomes the gap (dilation) between the taps of all that follows::

    stride 8, five pools of 2      left 8 -> 4 -> 2 -> 1 -> 1 -> 1      gap 1, 1, 1, 1, 2, 4
    stride 7, five pools of 2      left 7 -> 7 -> 7 -> 7 -> 7 -> 7      gap 1, 2, 4, 8, 16, 32

The layer that leaves one voxel of the window takes all that is left as its stride. Each result is the same sum over the
same pixels as when its window comes alone; only the order of additions may differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import gcd, prod
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ctpipe.models.chain import Inexact, Layer, Why, chain_of

Size = tuple[int, ...]

_ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Sigmoid, nn.LogSigmoid, nn.Tanh, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Softplus, nn.Softsign,
    nn.Softshrink, nn.Hardshrink, nn.Tanhshrink, nn.Threshold,
)  # fmt: skip
_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_PER_WINDOW = (nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm, nn.InstanceNorm1d, nn.InstanceNorm2d,
               nn.InstanceNorm3d, nn.RMSNorm)  # fmt: skip
_CONVOLUTIONS = {nn.Conv2d: F.conv2d, nn.Conv3d: F.conv3d}
_MAX_POOLS = (nn.MaxPool2d, nn.MaxPool3d)
_AVERAGE_POOLS = (nn.AvgPool2d, nn.AvgPool3d)
_ADAPTIVE_POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)


@dataclass(frozen=True)
class Step:
    """One layer of the dense form: a function of tensors (n, channels, *space).

    reach: voxels of its input that one output sees along each axis, gaps counted. stride: voxels of its input between
    neighbouring outputs. extent: its outputs within one window. channels: of its output. work: multiply-adds of one
    output. pointwise: sees one voxel and may write over its input.
    """

    name: str
    run: Callable[[torch.Tensor], torch.Tensor]
    reach: Size
    stride: Size
    extent: Size
    channels: int
    work: int = 0
    pointwise: bool = False


@dataclass(frozen=True)
class DenseForm:
    """A classifier over whole planes or volumes: (n, channels, *space) -> (n, classes, *windows).

    Window i along an axis starts at voxel i * stride; it counts where it lies wholly within the input.
    """

    window: Size
    stride: Size
    channels: int
    steps: tuple[Step, ...]

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Results of all windows of `pixels`, in one pass; `bands.in_bands` needs less memory."""
        windows = self.windows(pixels.shape[2:])
        if min(windows) < 1:
            return pixels.new_empty((len(pixels), self.steps[-1].channels, *(max(0, n) for n in windows)))
        for step in self.steps:
            pixels = step.run(pixels)
        return corner(pixels, windows)

    def windows(self, space: Sequence[int]) -> Size:
        """Windows along each axis of an input of `space` voxels."""
        return tuple((n - w) // s + 1 for n, w, s in zip(space, self.window, self.stride, strict=True))

    def space(self, windows: Sequence[int]) -> Size:
        """Voxels that so many windows along each axis cover."""
        return tuple((n - 1) * s + w for n, w, s in zip(windows, self.window, self.stride, strict=True))

    def work(self, windows: Sequence[int]) -> int:
        """Multiply-adds of one pass over so many windows along each axis."""
        total, space = 0, self.space(windows)
        for step in self.steps:
            space = outputs(space, step)
            total += step.work * prod(space)
        return total

    @property
    def window_work(self) -> int:
        """Multiply-adds of one window by itself."""
        return sum(step.work * prod(step.extent) for step in self.steps)


@dataclass(frozen=True)
class NotExact:
    """What stands between a network and its exact dense form, in the order of the layers."""

    reasons: tuple[Inexact, ...]

    def __str__(self) -> str:
        return "; ".join(map(str, self.reasons))


def outputs(space: Sequence[int], step: Step) -> Size:
    """Outputs of `step` along each axis of `space` voxels."""
    return tuple((n - r) // s + 1 for n, r, s in zip(space, step.reach, step.stride, strict=True))


def corner(pixels: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """The first `size` voxels along the axes of space."""
    for axis, n in enumerate(size, start=2):
        pixels = pixels.narrow(axis, 0, n)
    return pixels


def dense_form(network: nn.Module, channels: int, window: Sequence[int], stride: Sequence[int]) -> DenseForm | NotExact:
    """The dense form of `network` for windows of `window` voxels at `stride`, or all reasons why there is none.

    network: in evaluation mode, a window in, logits (n, classes) or (n, classes, 1, ...) out; its weights are shared,
    not copied. window and stride: (y, x) or (z, y, x), as the network has axes.
    """
    chain = chain_of(network)
    if isinstance(chain, Inexact):
        return NotExact((chain,))
    walk = _Walk(channels, tuple(window), tuple(stride))
    for layer in chain:
        if not walk.take(layer):
            break
    else:
        if max(walk.extent) > 1:
            what = f"the window leaves {' x '.join(map(str, walk.extent))} results, not one"
            walk.faults.append(Inexact(chain[-1].name if chain else "network", Why.SHAPE, what))
    if walk.faults:
        return NotExact(tuple(walk.faults))
    return DenseForm(tuple(window), tuple(stride), channels, tuple(walk.steps))


class _UnfitError(Exception):
    """The walk cannot go on behind this layer."""

    def __init__(self, why: Why, detail: str) -> None:
        super().__init__(why, detail)
        self.why, self.detail = why, detail


class _Walk:
    """Where the walk down a network stands.

    extent: voxels of one window that are left; left: voxels of the current map between neighbouring windows;
    gap: voxels of the current map between neighbouring voxels of one window; one number for each axis.
    """

    def __init__(self, channels: int, window: Size, stride: Size) -> None:
        self.channels, self.extent, self.left, self.gap = channels, window, stride, (1,) * len(window)
        self.flat = False
        self.steps: list[Step] = []
        self.faults: list[Inexact] = []
        if any(n == 1 and s > 1 for n, s in zip(window, stride, strict=True)):
            ones = (1,) * len(window)
            _, _, real = self._move(ones, ones, ones)
            self._add("input", partial(_every, stride=real), ones, real)

    def take(self, layer: Layer) -> bool:
        """Rewrite one layer; False where nothing can be said about those behind it. Padding only adds a fault."""
        try:
            self._take(layer.name, layer.module)
        except _UnfitError as fault:
            self.faults.append(Inexact(layer.name, fault.why, fault.detail))
            return False
        return True

    def _take(self, name: str, module: nn.Module) -> None:
        axes = len(self.extent)
        if isinstance(module, (_BatchNorm, *_NOTHING)) and not isinstance(module, nn.Identity) and module.training:
            raise _UnfitError(Why.STATISTICS, f"{type(module).__name__} in training mode depends on batch or chance")
        if isinstance(module, _NOTHING):
            return
        if isinstance(module, _PER_WINDOW):
            raise _UnfitError(Why.STATISTICS, f"{type(module).__name__} takes its statistics from each window")
        if isinstance(module, _ACTIVATIONS):
            self._activation(name, module)
        elif isinstance(module, _BatchNorm):
            self._batch_norm(name, module)
        elif isinstance(module, (nn.Softmax, nn.LogSoftmax)):
            if module.dim != 1 and not (self.flat and module.dim == -1):
                raise _UnfitError(Why.STATISTICS, f"{type(module).__name__} over axis {module.dim} mixes pixels")
            self._pointwise(name, partial(_softmax, log=isinstance(module, nn.LogSoftmax)))
        elif isinstance(module, nn.Flatten):
            if module.start_dim != 1 or module.end_dim not in (-1, 1 + axes):
                raise _UnfitError(Why.SHAPE, f"flattens axes {module.start_dim} to {module.end_dim}, not all")
            self.flat = True
        elif isinstance(module, nn.Linear):
            self._linear(name, module)
        elif type(module) in _CONVOLUTIONS and len(module.kernel_size) == axes and not self.flat:  # type: ignore[arg-type]
            self._convolution(name, module)
        elif isinstance(module, (*_MAX_POOLS, *_AVERAGE_POOLS)) and _axes_of(module) == axes and not self.flat:
            self._pool(name, module)
        elif isinstance(module, _ADAPTIVE_POOLS) and _axes_of(module) == axes and not self.flat:
            self._adaptive(name, module)
        elif "Pad" in type(module).__name__:
            raise _UnfitError(Why.PADDING, f"{type(module).__name__} adds a border to each window")
        else:
            raise _UnfitError(Why.UNKNOWN, f"{type(module).__name__} has no dense form here")

    # ------------------------------------------------------------------------------------------ kinds of layers
    def _activation(self, name: str, module: nn.Module) -> None:
        # written over its input where that is a map of our own: one map less in memory
        ours = bool(self.steps) and not self.steps[-1].pointwise
        if getattr(module, "inplace", False) and not ours:
            module = copy(module)
            module.inplace = False  # type: ignore[assignment]
        self._pointwise(name, torch.relu_ if type(module) is nn.ReLU and ours else module)

    def _batch_norm(self, name: str, module: _BatchNorm) -> None:
        if module.running_mean is None or module.running_var is None:
            raise _UnfitError(Why.STATISTICS, "batch normalisation without running statistics depends on the batch")
        self._pointwise(name, module)

    def _linear(self, name: str, module: nn.Linear) -> None:
        left = prod(self.extent)
        if not self.flat:
            raise _UnfitError(Why.SHAPE, "a fully connected layer with no flatten before it")
        if module.in_features != self.channels * left:
            raise _UnfitError(Why.SHAPE, f"takes {module.in_features} values where {self.channels * left} are left")
        weight = module.weight.view(module.out_features, self.channels, *self.extent)
        self._convolve(name, weight, module.bias, (1,) * len(self.extent), (1,) * len(self.extent), 1)

    def _convolution(self, name: str, module: Any) -> None:
        if module.in_channels != self.channels:
            raise _UnfitError(Why.SHAPE, f"takes {module.in_channels} channels where {self.channels} come")
        padding = _padding_of(module)
        self._pad(name, "convolution", padding)
        self._convolve(name, module.weight, module.bias, module.stride, module.dilation, module.groups)

    def _convolve(self, name: str, weight: torch.Tensor, bias: torch.Tensor | None, step: Size, dilation: Size,
                  groups: int) -> None:
        taps = tuple(weight.shape[2:])
        gap, reach, real = self._move(taps, step, dilation)
        run = partial(_CONVOLUTIONS[nn.Conv2d if len(taps) == 2 else nn.Conv3d], weight=weight, bias=bias, stride=real,
                      dilation=gap, groups=groups)  # fmt: skip
        self.channels = weight.shape[0]
        self._add(name, run, reach, real, work=weight[0].numel() * self.channels)

    def _pool(self, name: str, module: Any) -> None:
        axes = len(self.extent)
        taps, step = _each(module.kernel_size, axes), _each(module.stride, axes)
        dilation = _each(getattr(module, "dilation", 1), axes)
        self._pad(name, "pooling", _each(module.padding, axes))
        if getattr(module, "return_indices", False):
            raise _UnfitError(Why.UNKNOWN, "pooling that returns indices")
        if module.ceil_mode and any((n - d * (k - 1) - 1) % s for n, k, s, d in
                                    zip(self.extent, taps, step, dilation, strict=True)):  # fmt: skip
            raise _UnfitError(Why.PADDING, "pooling with ceil_mode reaches beyond the window")
        self._slide(name, isinstance(module, _MAX_POOLS), taps, step, dilation,
                    getattr(module, "divisor_override", None))  # fmt: skip

    def _adaptive(self, name: str, module: Any) -> None:
        wanted = _each(module.output_size, len(self.extent))
        wanted = tuple(n if w is None else w for w, n in zip(wanted, self.extent, strict=True))
        if getattr(module, "return_indices", False):
            raise _UnfitError(Why.UNKNOWN, "pooling that returns indices")
        taps, step = [], []
        for n, w in zip(self.extent, wanted, strict=True):
            starts = [i * n // w for i in range(w)]
            sizes = {-(-(i + 1) * n // w) - start for i, start in enumerate(starts)}
            apart = {b - a for a, b in pairwise(starts)} or {1}
            if len(sizes) > 1 or len(apart) > 1 or apart == {0}:
                raise _UnfitError(Why.BINS, f"pooling of {n} to {w} has bins of different sizes or distances")
            taps.append(sizes.pop())
            step.append(apart.pop())
        kind = isinstance(module, (nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d))
        self._slide(name, kind, tuple(taps), tuple(step), (1,) * len(taps), None)

    def _slide(self, name: str, highest: bool, taps: Size, step: Size, dilation: Size, divisor: int | None) -> None:
        gap, reach, real = self._move(taps, step, dilation)
        run = partial(_slid, taps=taps, gap=gap, stride=real, divisor=None if highest else divisor or prod(taps))
        self._add(name, run, reach, real)

    # ------------------------------------------------------------------------------------------ the rule of steps
    def _pad(self, name: str, what: str, padding: Size) -> None:
        if any(padding):
            self.faults.append(Inexact(name, Why.PADDING, f"{what} padded by {' x '.join(map(str, padding))}"))
            self.extent = tuple(n + 2 * p for n, p in zip(self.extent, padding, strict=True))

    def _move(self, taps: Size, step: Size, dilation: Size) -> tuple[Size, Size, Size]:
        """Gap between taps, reach and real stride of a layer of the network's own taps, step and dilation."""
        gap = tuple(g * q for g, q in zip(self.gap, dilation, strict=True))
        reach = tuple(g * (k - 1) + 1 for g, k in zip(gap, taps, strict=True))
        extent, left, gaps, real = [], [], [], []
        for n, k, p, q, r, g in zip(self.extent, taps, step, dilation, self.left, self.gap, strict=True):
            after = (n - q * (k - 1) - 1) // p + 1
            if n < q * (k - 1) + 1:
                raise _UnfitError(Why.SHAPE, f"needs {q * (k - 1) + 1} voxels where {n} are left of the window")
            keep = r if after == 1 else gcd(r, p)
            extent.append(after)
            real.append(keep)
            left.append(r // keep)
            gaps.append(1 if after == 1 else g * p // keep)
        self.extent, self.left, self.gap = tuple(extent), tuple(left), tuple(gaps)
        return gap, reach, tuple(real)

    def _pointwise(self, name: str, run: Callable[[torch.Tensor], torch.Tensor]) -> None:
        ones = (1,) * len(self.extent)
        self._add(name, run, ones, ones, pointwise=True)

    def _add(self, name: str, run: Callable[[torch.Tensor], torch.Tensor], reach: Size, stride: Size, work: int = 0,
             pointwise: bool = False) -> None:
        self.steps.append(Step(name, run, reach, stride, self.extent, self.channels, work, pointwise))


# ---------------------------------------------------------------------------------------------------- arithmetic
def _slid(pixels: torch.Tensor, taps: Size, gap: Size, stride: Size, divisor: int | None) -> torch.Tensor:
    """Highest value (divisor None), or sum over divisor, of `taps` voxels `gap` apart, axis by axis.

    By shifted views: torch's own pooling keeps an index of 8 bytes beside each value, and averages know no gap.
    """
    for axis, (k, g, s) in enumerate(zip(taps, gap, stride, strict=True), start=2):
        n = (pixels.shape[axis] - g * (k - 1) - 1) // s + 1
        parts = [_part(pixels, axis, i * g, n, s) for i in range(k)]
        if k == 1:
            pixels = parts[0]
            continue
        merge = torch.maximum if divisor is None else torch.add
        pixels = merge(parts[0], parts[1])
        for part in parts[2:]:
            merge(pixels, part, out=pixels)
    if divisor is not None:
        return pixels / divisor
    return pixels if max(taps) > 1 else pixels.clone()  # a view's successor might write over our input


def _part(pixels: torch.Tensor, axis: int, start: int, n: int, stride: int) -> torch.Tensor:
    return pixels[(slice(None),) * axis + (slice(start, start + (n - 1) * stride + 1, stride),)]


def _every(pixels: torch.Tensor, stride: Size) -> torch.Tensor:
    ones = (1,) * len(stride)
    return _slid(pixels, ones, ones, stride, None)


def _softmax(logits: torch.Tensor, log: bool) -> torch.Tensor:
    return torch.log_softmax(logits, 1) if log else torch.softmax(logits, 1)


def _each(value: Any, axes: int) -> Size:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * axes


def _axes_of(module: nn.Module) -> int:
    return int(type(module).__name__[-2])  # MaxPool2d, AdaptiveAvgPool3d, …


def _padding_of(module: Any) -> Size:
    if module.padding == "valid":
        return (0,) * len(module.kernel_size)
    if module.padding == "same":
        return tuple(-(-q * (k - 1) // 2) for q, k in zip(module.dilation, module.kernel_size, strict=True))
    return tuple(module.padding)
