"""Pixels of windows: cut from padded planes through views, only when a batch is built (DESIGN 4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from ctpipe.config import WindowSpec
from ctpipe.errors import UsageError
from ctpipe.patches.features import PlaneReader
from ctpipe.words import ZYX, Pad


@dataclass(frozen=True)
class PaddedPlanes:
    """Planes with their padding, made once; `cut` takes any windows out of them at memory speed.

    voxels: (z, c, y, x) with `before` voxels of padding in front of each axis (z, y, x).
    window: of one prediction; a cut starts at centre - window // 2.
    """

    voxels: NDArray[np.float32]
    before: ZYX
    window: ZYX

    def cut(self, z: ArrayLike, y: ArrayLike, x: ArrayLike, size: tuple[int, int] | None = None) -> NDArray[np.float32]:
        """(rows, c * window.z, h, w) float32, see `cut_patches`; UsageError for a window beyond the padding."""
        height, width = size or (self.window.y, self.window.x)
        extent = ZYX(self.window.z, height, width)
        starts = [np.asarray(at, np.int64) + b - w // 2 for at, b, w in zip((z, y, x), self.before, self.window,
                                                                            strict=True)]
        lengths = (self.voxels.shape[0], *self.voxels.shape[2:])
        for at, length, long in zip(starts, lengths, extent, strict=True):
            if at.size and (at.min() < 0 or at.max() + long > length):  # a negative index would wrap around, silently
                raise UsageError("a window reaches beyond the padded planes", "pad for the size that is cut")
        view = sliding_window_view(self.voxels, extent, axis=(0, 2, 3))  # type: ignore[call-overload]
        # (z, c, y, x, ...) -> (z, y, x, c, ...): a gather of whole patches; broadcast indexes are 25 times slower
        rows = view.transpose(0, 2, 3, 1, 4, 5, 6)[tuple(starts)]
        return rows.reshape(len(rows), rows.shape[1] * rows.shape[2], height, width)


def pad_planes(features: NDArray[np.float32], windows: WindowSpec, size: tuple[int, int] | None = None,
               reach: int = 0) -> PaddedPlanes:
    """Planes (z, c, y, x) padded for cuts of `size` around any centre inside them.

    size: (h, w) of what is cut, the window by default. reach: how many voxels before the first row and column the
        centre of a cut may lie (tiles whose first window is drawn outside; DESIGN 4's rows never need it).
    Along z only existing planes are asked for: hand in the planes that windows reach, `pad` fills beyond them.
    """
    height, width = size or (windows.window.y, windows.window.x)
    half = ZYX(*(w // 2 for w in windows.window))
    before = ZYX(half.z, half.y + reach, half.x + reach)
    after = (windows.window.z - half.z - 1, max(0, height - half.y - 1), max(0, width - half.x - 1))
    spans = [(before.z, after[0]), (0, 0), (before.y, after[1]), (before.x, after[2])]
    if windows.pad is Pad.EDGE:
        voxels = np.pad(features, spans, mode="edge")
    else:
        voxels = np.pad(features, spans, constant_values=PlaneReader.pad_value)
    return PaddedPlanes(voxels, before, windows.window)


def cut_patches(features: NDArray[np.float32], windows: WindowSpec, z: ArrayLike, y: ArrayLike, x: ArrayLike,
                size: tuple[int, int] | None = None) -> NDArray[np.float32]:
    """Pixels of windows around centres (z, y, x): (rows, c * window.z, h, w) float32.

    features: (planes, c, y, x), as of `PlaneReader.features`. z counts from its first plane; a window of several planes
        needs those on both sides in `features`, what lacks there is padding (right only at the end of the volume).
    size: (h, w), the window by default; a larger cut starts where the window of its centre starts, so that it holds
        the windows at centre, centre + step, … (a tile for a fully convolutional network). y and x may be negative
        or lie beyond the plane for tiles that overhang.
    Planes of one channel stay together: channel 0 of all planes first. Whoever cuts from the same planes again and
    again pads them once with `pad_planes` and uses its `cut`.
    """
    y, x = np.asarray(y), np.asarray(x)
    reach = max(0, -int(min(y.min(), x.min()))) if y.size else 0
    beyond = [max(0, int(at.max()) + 1 - n) if at.size else 0 for at, n in zip((y, x), features.shape[2:], strict=True)]
    high, wide = size or (windows.window.y, windows.window.x)
    padded = pad_planes(features, windows, (high + beyond[0], wide + beyond[1]), reach)
    return padded.cut(z, y, x, (high, wide))


def cut_labels(labels: NDArray[np.uint8], z: ArrayLike, y: ArrayLike, x: ArrayLike, tile: int, step: int,
               pad: Pad = Pad.EDGE) -> NDArray[np.uint8]:
    """Labels at the centres of tiles: (rows, tile, tile) uint8, at (y + i * step, x + j * step).

    labels: (planes, y, x); z counts from its first plane; y and x are the centre of a tile's first window. Centres
    beyond the plane take the nearest voxel's label (edge) or background (constant), as the pixels do.
    """
    offsets = np.arange(tile) * step
    rows = np.asarray(y, np.int64)[:, None] + offsets
    columns = np.asarray(x, np.int64)[:, None] + offsets
    height, width = labels.shape[1:]
    found = labels[np.asarray(z, np.int64)[:, None, None], np.clip(rows, 0, height - 1)[:, :, None],
                   np.clip(columns, 0, width - 1)[:, None, :]]
    if pad is Pad.CONSTANT:
        inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
        found = np.where(inside, found, np.uint8(0))
    return found
