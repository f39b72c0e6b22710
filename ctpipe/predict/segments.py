"""Scores of a segmenter's windows, in the order of their planes: each window is cut, scored and given away once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from ctpipe.errors import RunError
from ctpipe.models.segment_plan import SegmentPlan, Window
from ctpipe.models.segmenter import Segmenter
from ctpipe.predict.ahead import ahead
from ctpipe.predict.facts import Facts
from ctpipe.predict.network_planes import NetworkPlanes, PlaneSource

# Windows that begin on so many micro-batches' worth of planes are cut from one block, so that few batches are padded.
BATCHES_A_BLOCK = 4


@dataclass(frozen=True, eq=False)
class Block:
    """Windows cut from the same planes. voxels: padded network planes from plane `first` (of the padded grid) on."""

    windows: list[Window]
    voxels: NDArray[np.float32]
    first: int


@dataclass(frozen=True, eq=False)
class WindowScores:
    """Scores of one window, (heads, z, y, x) in stored order; spread: variance over folds (z, y, x), None for one.
    clamped: as Scored has it.

    done: no window that follows begins before that plane of the network grid; planes below it are finished.
    """

    window: Window
    scores: NDArray[np.float32]
    spread: NDArray[np.float32] | None
    clamped: bool
    done: int


def score_windows(model: Segmenter, plan: SegmentPlan, source: PlaneSource, facts: Facts | None, first: int,
                  stop: int) -> Iterator[WindowScores]:
    """Scores of all windows that touch network planes first..stop-1, ordered along z.

    Reading and resampling run ahead in a thread of their own, and so do the forward passes. Scores depend on the
    model and the volume alone, not on first and stop.
    """
    planes = NetworkPlanes(source, model.spec, plan, facts)
    with ahead(_blocks(plan, planes, model.spec.micro_batch, first, stop)) as blocks:
        with ahead(scores for block in blocks for scores in _scored(model, plan, block)) as found:
            yield from found


def block_planes(plan: SegmentPlan, micro_batch: int) -> int:
    """Planes from the first to the last that windows of one block touch, at most."""
    groups = _groups(plan.windows(0, plan.shape.z), micro_batch)
    return max(group[-1].start.z - group[0].start.z for group in groups) + plan.patch.z


def _scored(model: Segmenter, plan: SegmentPlan, block: Block) -> Iterator[WindowScores]:
    size = model.spec.micro_batch
    for at in range(0, len(block.windows), size):
        some = block.windows[at : at + size]
        batch = np.stack([plan.frame.to_network(_cut(block, plan, window)) for window in some])
        try:
            found = model.scores(batch)
        except RunError as error:
            first, last = (_where(window, plan) for window in (some[0], some[-1]))
            where = first if len(some) == 1 else f"{first} to {last}"
            raise RunError(f"{error.problem}, in the window at {where}", error.cure) from error
        for i, window in enumerate(some):
            there = plan.frame.to_stored(found.scores[i])
            varied = None if found.spread is None else plan.frame.to_stored(found.spread[i][None])[0]
            yield WindowScores(window, there, varied, found.clamped, block.first - plan.below.z)


def _where(window: Window, plan: SegmentPlan) -> str:
    z, y, x = (at - pad for at, pad in zip(window.start, plan.below, strict=True))
    return f"z {z}, y {y}, x {x} of the network's grid"


def _cut(block: Block, plan: SegmentPlan, window: Window) -> NDArray[np.float32]:
    z = window.start.z - block.first
    (_, y, x), (depth, height, width) = window.start, plan.patch
    return block.voxels[z : z + depth, y : y + height, x : x + width]


def _blocks(plan: SegmentPlan, planes: NetworkPlanes, micro_batch: int, first: int, stop: int) -> Iterator[Block]:
    """Windows with the padded planes that they are cut from, ascending; planes that two blocks share are made once."""
    windows = plan.windows(first, stop)
    if not windows:
        return
    low = max(0, windows[0].start.z - plan.below.z)
    high = min(plan.shape.z, windows[-1].start.z - plan.below.z + plan.patch.z)
    coming = planes.produce(low, high)
    made, kept = low, np.zeros((0, plan.padded.y, plan.padded.x), np.float32)  # kept: planes made - len(kept) .. made
    for group in _groups(windows, micro_batch):
        begin, end = group[0].start.z - plan.below.z, group[-1].start.z - plan.below.z + plan.patch.z
        kept = kept[max(0, begin - (made - len(kept))) :]
        parts = [kept]
        while made < min(end, plan.shape.z):
            band = next(coming)
            parts.append(_padded(band, plan))
            made += len(band)
        kept = np.concatenate(parts) if len(parts) > 1 else kept
        bottom = made - len(kept)
        if begin >= bottom and end <= made:  # no padding along z
            voxels = kept[begin - bottom : end - bottom]
        else:
            voxels = np.zeros((end - begin, *kept.shape[1:]), np.float32)
            inside = slice(max(begin, bottom), min(end, made))
            voxels[inside.start - begin : inside.stop - begin] = kept[inside.start - bottom : inside.stop - bottom]
        yield Block(group, voxels, group[0].start.z)


def _padded(band: NDArray[np.float32], plan: SegmentPlan) -> NDArray[np.float32]:
    if plan.padded[1:] == plan.shape[1:]:
        return band
    out = np.zeros((len(band), plan.padded.y, plan.padded.x), np.float32)
    (_, y, x), (_, height, width) = plan.below, plan.shape
    out[:, y : y + height, x : x + width] = band
    return out


def _groups(windows: list[Window], micro_batch: int) -> Iterator[list[Window]]:
    """Windows of as many neighbouring starts along z as fill BATCHES_A_BLOCK micro-batches of more than one window."""
    least = 1 if micro_batch == 1 else BATCHES_A_BLOCK * micro_batch
    group: list[Window] = []
    for _, some in groupby(windows, key=lambda window: window.start.z):
        group += some
        if len(group) >= least:
            yield group
            group = []
    if group:
        yield group
