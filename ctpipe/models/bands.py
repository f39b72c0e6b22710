"""A dense form within a memory budget: its input comes in bands along the first axis, and no row is computed twice.

Each layer keeps the rows of its input that the next band still needs, so that a band costs its own rows only::

    input    |band 0|band 1|band 2|        layer of reach 3:  |..kept|band 1|  ->  rows of band 1, two rows late
                  ^^ kept

What a row's sums are added in which order depends on the shape of its band: bands are the same for equal inputs and
budgets, whatever else runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch

from ctpipe.errors import BudgetError
from ctpipe.models.dense import DenseForm, Step, corner, outputs


@dataclass(frozen=True)
class Bands:
    """How an input of so many voxels is cut: `rows` of it at a time, `bytes` at most held besides it."""

    rows: int
    bytes: int


def plan_bands(form: DenseForm, windows: tuple[int, ...], budget: int, value_bytes: int = 4) -> Bands:
    """The highest bands within `budget` bytes; BudgetError where the lowest ones do not fit."""
    least = prod(step.stride[0] for step in form.steps)
    most = -(-form.space(windows)[0] // least)

    def needed(k: int) -> int:
        return peak_bytes(form, windows, k * least, value_bytes)

    if needed(1) > budget:
        raise BudgetError(f"one band of {least} row(s) over {windows} windows takes {needed(1)} bytes, {budget} are "
                          "allowed", "predict on a coarser level or a narrower region, or give more memory")
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if needed(middle) <= budget else (low, middle - 1)
    # bands of one height: a last band of a few rows would cost a pass of its own
    count = -(-most // low)
    rows = -(-most // count) * least
    return Bands(rows, peak_bytes(form, windows, rows, value_bytes))


def peak_bytes(form: DenseForm, windows: tuple[int, ...], rows: int, value_bytes: int = 4) -> int:
    """Upper estimate of what a pass over `windows` in bands of `rows` holds at once, input and result apart.

    All kept rows, and at the most demanding layer its band, the same with the kept rows before it, and twice the
    output: pooling works axis by axis, convolutions may bring their output into another order.
    """
    space, channels = form.space(windows), form.channels
    kept = worst = 0
    height = min(rows, space[0])
    for step in form.steps:
        after = outputs(space, step)
        line = channels * prod(space[1:])
        if not step.pointwise:
            carried = min(step.reach[0] - 1, space[0])
            kept += carried * line
            band = min(height + carried, space[0])
            high = min(-(-height // step.stride[0]), after[0])
            worst = max(worst, height * line + band * line + 2 * high * step.channels * prod(after[1:]))
            height = high
        space, channels = after, step.channels
    return value_bytes * (kept + worst)


def in_bands(form: DenseForm, pixels: torch.Tensor, rows: int) -> torch.Tensor:
    """What `form(pixels)` gives, computed in bands of `rows` along the first axis of space."""
    windows = form.windows(pixels.shape[2:])
    if min(windows) < 1 or rows >= pixels.shape[2]:
        return form(pixels)
    layers = [_Rows(step) for step in form.steps]
    found = []
    for start in range(0, pixels.shape[2], rows):
        band: torch.Tensor | None = pixels[:, :, start : start + rows]
        for layer in layers:
            if band is not None:
                band = layer.take(band)
        if band is not None:
            found.append(band)
    return corner(torch.cat(found, 2), windows)


class _Rows:
    """One layer that is given its input band by band."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self.kept: torch.Tensor | None = None
        self.skip = 0  # rows still to come that no output sees: a stride wider than the reach

    def take(self, band: torch.Tensor) -> torch.Tensor | None:
        """Outputs that `band` completes, or None."""
        if self.step.pointwise:
            return self.step.run(band)
        if self.skip:
            dropped = min(self.skip, band.shape[2])
            self.skip -= dropped
            band = band[:, :, dropped:]
            if not band.shape[2]:
                return None
        if self.kept is not None and self.kept.shape[2]:
            band = torch.cat([self.kept, band], 2)
        reach, stride = self.step.reach[0], self.step.stride[0]
        n = max(0, (band.shape[2] - reach) // stride + 1)
        used = n * stride
        self.kept = band[:, :, used:].clone()  # a view would keep the whole band
        self.skip = max(0, used - band.shape[2])
        return self.step.run(band[:, :, : (n - 1) * stride + reach]) if n else None
