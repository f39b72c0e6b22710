"""U-Nets of segmenters: a plain and a residual encoder with skips, after nnU-Net's dynamic-network-architectures.

A stage halves what its stride says in its first convolution; the way back up doubles by a transposed convolution whose
kernel is that stride, and puts what it gives before the encoder's output of the same size::

    input ─ down.0 ─────────────────────────► up.1 ─ head ─ scores
              └─ down.1 (stride 2) ──► up.0 ──┘ widen.1
                   └─ down.2 (stride 2) ┘ widen.0

Memory is contiguous: channels last is 2 to 25 % slower here for 3-D and 2-D nets of 4 to 512 features (oneDNN brings
each convolution's input into its own blocks anyway, and normalisation copies).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn

from ctpipe.errors import UsageError

Sizes = tuple[tuple[int, ...], ...]

# a maker of each, given the slope of values below 0
_NONLINEAR: dict[str, Callable[[float], nn.Module]] = {
    "leaky-relu": lambda slope: nn.LeakyReLU(slope, inplace=True),
    "relu": lambda _: nn.ReLU(inplace=True),
    "elu": lambda _: nn.ELU(inplace=True),
    "gelu": lambda _: nn.GELU(),
    "silu": lambda _: nn.SiLU(inplace=True),
}
# by dims
_Maker = Callable[..., nn.Module]
_CONVOLUTION: dict[int, _Maker] = {2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, _Maker] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_MEAN: dict[int, _Maker] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
_NORM: dict[str, dict[int, _Maker]] = {
    "instance": {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d},
    "batch": {2: nn.BatchNorm2d, 3: nn.BatchNorm3d},
}

NONLINEAR = frozenset(_NONLINEAR)
NORMS = frozenset({*_NORM, "none"})


@dataclass(frozen=True, kw_only=True)
class UNetOptions:
    """What decides a U-Net beside its weights; plain JSON values, `of` checks them.

    dims: 2 or 3. outputs: heads. features: channels of each stage. kernels, strides: of each stage, a number for each
    axis; the first stride is the input's (1 as a rule). blocks: convolutions (residual: blocks of two) of each stage.
    decoder: convolutions of each stage on the way up, the lowest resolution first. bias: of the convolutions. norm:
    `instance`, `batch` (evaluated with its running mean) or `none`. eps, affine: of the norm. nonlinear: after each
    norm, before it with nonlinear_first; slope: of leaky-relu. stem: channels of the residual encoder's
    first convolution.
    """

    dims: int
    outputs: int
    features: tuple[int, ...]
    kernels: Sizes
    strides: Sizes
    blocks: tuple[int, ...]
    decoder: tuple[int, ...]
    bias: bool = True
    norm: str = "instance"
    eps: float = 1e-5
    affine: bool = True
    nonlinear: str = "leaky-relu"
    slope: float = 0.01
    nonlinear_first: bool = False
    stem: int | None = None

    @classmethod
    def of(cls, options: dict[str, Any], outputs: int) -> UNetOptions:
        """Options of plain JSON values; UsageError names all that fit no network."""
        values = dict(options)
        try:
            for name in ("kernels", "strides"):
                values[name] = tuple(tuple(int(v) for v in size) for size in options[name])
            for name in ("features", "blocks", "decoder"):
                values[name] = tuple(int(v) for v in options[name])
            made = cls(outputs=outputs, **values)
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError("the options of the U-Net are not those of this version",
                             "import the model again") from error
        faults = made.faults()
        if faults:
            raise UsageError(f"no U-Net can have {'; '.join(faults)}", "import the model again")
        return made

    def faults(self) -> list[str]:
        """What keeps these options from being a network."""
        stages = len(self.features)
        counts = *self.features, *self.blocks, *self.decoder, self.outputs, *([] if self.stem is None else [self.stem])
        rules = {
            f"{self.dims} dims": self.dims in (2, 3),
            f"{stages} stages": stages >= 2,
            "lists of different lengths": {len(self.kernels), len(self.strides), len(self.blocks),
                                           len(self.decoder) + 1} == {stages},
            "sizes of other axes than its own": all(len(size) == self.dims for size in (*self.kernels, *self.strides)),
            "a count below 1": all(count >= 1 for count in counts),
            "an even or negative kernel": all(k >= 1 and k % 2 for size in self.kernels for k in size),
            "a stride below 1": all(s >= 1 for size in self.strides for s in size),
            f"norm {self.norm!r}": self.norm in NORMS,
            f"nonlinearity {self.nonlinear!r}": self.nonlinear in NONLINEAR,
        }
        return [what for what, right in rules.items() if not right]

    def odd_sides(self, patch: tuple[int, ...]) -> list[str]:
        """Sides of a patch (its last `dims` count) that are no multiples of all strides: skips would not meet."""
        by = [prod(strides) for strides in zip(*self.strides, strict=True)]
        return [f"{side} by {n}" for side, n in zip(patch[-self.dims :], by, strict=True) if side % n]


class _Unit(nn.Module):
    """Convolution, norm, nonlinearity; `same` padding for odd kernels."""

    def __init__(self, o: UNetOptions, before: int, after: int, kernel: tuple[int, ...], stride: tuple[int, ...], *,
                 bias: bool | None = None, active: bool = True) -> None:
        super().__init__()
        padding = tuple((k - 1) // 2 for k in kernel)
        with_bias = o.bias if bias is None else bias
        self.conv = _CONVOLUTION[o.dims](before, after, kernel, stride, padding, bias=with_bias)
        self.norm = _norm(o, after)
        self.nonlinear = _NONLINEAR[o.nonlinear](o.slope) if active else nn.Identity()
        self.nonlinear_first = o.nonlinear_first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return self.norm(self.nonlinear(x)) if self.nonlinear_first else self.nonlinear(self.norm(x))


class _Block(nn.Module):
    """Two units and a way around them: averaged where the stride is over 1, projected where channels change."""

    def __init__(self, o: UNetOptions, before: int, after: int, kernel: tuple[int, ...],
                 stride: tuple[int, ...]) -> None:
        super().__init__()
        one = (1,) * o.dims
        self.first = _Unit(o, before, after, kernel, stride)
        self.second = _Unit(o, after, after, kernel, one, active=False)
        self.pool = _MEAN[o.dims](stride, stride) if stride != one else nn.Identity()
        self.project = _Unit(o, before, after, one, one, bias=False, active=False) if before != after else nn.Identity()
        self.nonlinear = _NONLINEAR[o.nonlinear](o.slope)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        around = self.project(self.pool(x))
        return self.nonlinear(self.second(self.first(x)) + around)


class UNet(nn.Module):
    """float32 (n, 1, *patch) -> logits (n, outputs, *patch); the patch a multiple of all strides."""

    def __init__(self, o: UNetOptions, *, residual: bool) -> None:
        super().__init__()
        one = (1,) * o.dims
        before = 1
        self.stem: nn.Module = nn.Identity()
        if residual:
            first = o.features[0] if o.stem is None else o.stem
            self.stem = _Unit(o, before, first, o.kernels[0], one)
            before = first
        kind = _Block if residual else _Unit
        self.down = nn.ModuleList()
        for after, kernel, stride, count in zip(o.features, o.kernels, o.strides, o.blocks, strict=True):
            rest = [kind(o, after, after, kernel, one) for _ in range(count - 1)]
            self.down.append(nn.Sequential(kind(o, before, after, kernel, stride), *rest))
            before = after
        self.widen, self.up = nn.ModuleList(), nn.ModuleList()
        for at, count in zip(range(len(o.features) - 1, 0, -1), o.decoder, strict=True):
            below, after, stride, kernel = o.features[at], o.features[at - 1], o.strides[at], o.kernels[at - 1]
            self.widen.append(_TRANSPOSED[o.dims](below, after, stride, stride, bias=o.bias))
            units = [_Unit(o, 2 * after if n == 0 else after, after, kernel, one) for n in range(count)]
            self.up.append(nn.Sequential(*units))
        self.head = _CONVOLUTION[o.dims](o.features[0], o.outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        skips = []
        for stage in self.down:
            x = stage(x)
            skips.append(x)
        skips.pop()
        for widen, units in zip(self.widen, self.up, strict=True):
            x = units(torch.cat([widen(x), skips.pop()], 1))
        return self.head(x)


def _norm(o: UNetOptions, channels: int) -> nn.Module:
    if o.norm == "none":
        return nn.Identity()
    return _NORM[o.norm][o.dims](channels, eps=o.eps, affine=o.affine)
