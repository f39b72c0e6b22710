"""SegmentPlan: where everything of a segmenter's run over one volume lies. Arithmetic only.

::

    stored grid --crop--> box --taps--> network grid (its spacing) --pad--> windows
                 z, y, x               still in the order z, y, x, each axis running as it is stored

The network's own axes (turned, flipped) matter only where a window is cut and its scores come back; everything else is
in stored order, so that planes and slabs are the store's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Literal, cast

import numpy as np

from ctpipe.errors import RunError
from ctpipe.models.segment_spec import Resampling, SegmenterSpec
from ctpipe.volume import Grid
from ctpipe.volume.frame import Frame
from ctpipe.volume.taps import Taps, taps
from ctpipe.words import ZYX

# Over this ratio of coarsest to finest spacing the coarsest axis is resampled by itself (nnU-Net's ANISO_THRESHOLD).
ANISOTROPY = 3.0
# A network grid of more voxels than this many times the stored one is a wrong spacing, not a fine one.
MOST_VOXELS = 64

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Window:
    """First voxel (z, y, x) of a window on the padded network grid, stored order; place: its number on each axis."""

    start: ZYX
    place: ZYX


@dataclass(frozen=True)
class Frontier:
    """What windows to come leave alone, on the network grid: planes below `plane`, and rows below `row` of those
    below `row_plane`.
    """

    plane: int
    row: int
    row_plane: int


@dataclass(frozen=True)
class SegmentPlan:
    """Geometry of one volume for one segmenter; all triples in stored order z, y, x.

    box: (first, stop) of the stored voxels that are looked at. shape: of the network grid. below: voxels of padding
    before it. padded: its shape with padding. patch: voxels of a window. starts: of windows along each axis, on the
    padded grid, ascending. inward, outward: taps from box to network grid and back, along each axis. separate: the
    axis that resampling takes by itself, None where there is none.
    """

    frame: Frame
    box: Box
    shape: ZYX
    below: ZYX
    padded: ZYX
    patch: ZYX
    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    inward: tuple[Taps, Taps, Taps] = field(compare=False, repr=False)
    outward: tuple[Taps, Taps, Taps] = field(compare=False, repr=False)
    separate: int | None

    @classmethod
    def of(cls, spec: SegmenterSpec, grid: Grid, box: Box | None = None) -> SegmentPlan:
        """Plan for a volume on `grid`; box: what `crop` left of it, None: all. RunError: a spacing that cannot be."""
        frame = Frame.of(spec.axes, grid)
        box = box or cast("Box", tuple((0, n) for n in grid.shape))
        sizes = ZYX(*(stop - first for first, stop in box))
        spacing = grid.spacing_mm
        asked = frame.stored(spec.spacing_mm or (None,) * 3)
        wanted = tuple(mm if mm is not None else here for mm, here in zip(asked, spacing, strict=True))
        shape = ZYX(*(_resampled_size(n, old, new, spec.resample_in.align)
                      for n, old, new in zip(sizes, spacing, wanted, strict=True)))
        if min(shape) < 1 or int(np.prod(shape)) > MOST_VOXELS * int(np.prod(sizes)):
            many, few = ("x".join(map(str, n)) for n in (shape, sizes))
            raise RunError(f"the model's spacing makes {many} voxels of {few}",
                           "check the spacing in its spec (mm, along the network's axes)")
        patch = ZYX(*frame.stored(spec.patch))
        padded = ZYX(*(max(n, p) for n, p in zip(shape, patch, strict=True)))
        flipped = frame.stored(frame.flipped)
        # a volume smaller than the window lies in its middle; of an odd rest the network's far end has one more
        below = ZYX(*((rest + back) // 2 for rest, back in
                      zip((p - n for p, n in zip(padded, shape, strict=True)), flipped, strict=True)))
        starts = tuple(_starts(n, p, spec, back) for n, p, back in zip(padded, patch, flipped, strict=True))
        inward, separate = _taps_of(spec.resample_in, sizes, shape, spacing, wanted, flipped)
        outward, _ = _taps_of(spec.resample_out, shape, sizes, wanted, spacing, flipped)
        return cls(frame, box, shape, below, padded, patch, starts, inward, outward, separate)  # type: ignore[arg-type]

    @property
    def sizes(self) -> ZYX:
        """Shape of the box."""
        return ZYX(*(stop - first for first, stop in self.box))

    @property
    def n_windows(self) -> int:
        return int(np.prod([len(starts) for starts in self.starts]))

    def windows(self, first: int, stop: int) -> list[Window]:
        """All windows that touch network planes first..stop-1, ordered along z, then y, then x."""
        zs = [(i, z) for i, z in enumerate(self.starts[0])
              if z - self.below.z < stop and z - self.below.z + self.patch.z > first]
        rows, columns = enumerate(self.starts[1]), list(enumerate(self.starts[2]))
        return [Window(ZYX(z, y, x), ZYX(i, j, k)) for (i, z), (j, y), (k, x) in product(zs, list(rows), columns)]

    def frontiers(self, windows: Sequence[Window]) -> list[Frontier | None]:
        """What is left alone by all behind each of `windows` (ordered as `windows` orders them); None: no more come."""
        zs = sorted({window.start.z for window in windows})
        after = dict(zip(zs, [*zs[1:], self.padded.z], strict=True))
        return [*(Frontier(window.start.z - self.below.z, window.start.y - self.below.y,
                           after[window.start.z] - self.below.z) for window in windows[1:]), None]  # fmt: skip

    def planes_for(self, first: int, stop: int) -> tuple[int, int]:
        """Network planes (first, stop) whose scores decide box planes first..stop-1."""
        return self.outward[0].reach(first, stop)


def _starts(padded: int, patch: int, spec: SegmenterSpec, backwards: bool) -> tuple[int, ...]:
    """First voxels of the windows along an axis, in stored order; counted along the network's axis."""
    room = padded - patch
    if patch == 1:
        return tuple(range(padded))
    if spec.windows == "nnunet":
        count = int(np.ceil(room / (patch * spec.step))) + 1
        ahead = [round(room / (count - 1) * i) for i in range(count)] if count > 1 else [0]
    else:
        step = max(1, int(patch * spec.step))
        ahead = [min(at, room) for at in range(0, room + step, step)]
    return tuple(sorted({room - at if backwards else at for at in ahead}))


def _resampled_size(n: int, old: float, new: float, align: Literal["extent", "first"]) -> int:
    return round(old / new * n) if align == "extent" else round((n - 1) * old / new) + 1


def _taps_of(
    how: Resampling, sizes: ZYX, shape: ZYX, old: tuple[float, ...], new: tuple[float, ...], flipped: tuple[bool, ...],
) -> tuple[tuple[Taps, Taps, Taps], int | None]:
    """Taps along each axis from `sizes` voxels at `old` mm to `shape` at `new`, and the axis taken by itself."""
    separate = _separate(how, old, new)
    made = []
    for axis in range(3):
        order = how.order_separate if axis == separate else how.order
        n, m = sizes[axis], shape[axis]
        if how.align == "extent":
            made.append(taps(n, m, order))
            continue
        scale = new[axis] / old[axis]
        # the first voxel along the network's axis stays; stored backwards, that is the last one
        offset = (n - 1) - (m - 1) * scale if flipped[axis] else 0.0
        made.append(taps(n, m, order, scale, offset))
    return (made[0], made[1], made[2]), separate


def _separate(how: Resampling, old: tuple[float, ...], new: tuple[float, ...]) -> int | None:
    """nnU-Net's determine_do_sep_z_and_axis: the one coarse axis of the spacing before, else of that behind."""
    if how.separate == "never":
        return None
    spacing = old if how.separate == "always" or max(old) / min(old) > ANISOTROPY else new
    if how.separate == "auto" and max(spacing) / min(spacing) <= ANISOTROPY:
        return None
    coarsest = [axis for axis in range(3) if spacing[axis] == max(spacing)]
    return coarsest[0] if len(coarsest) == 1 else None
