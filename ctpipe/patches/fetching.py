"""Pixels of any rows: slabs from the cache of this process, windows cut out of them, padding filled on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ctpipe.config import InputSpec, WindowSpec
from ctpipe.errors import NotThereError, UsageError
from ctpipe.patches.columns import PAD_HU
from ctpipe.patches.features import PlaneReader
from ctpipe.patches.pixel_steps import PixelSteps
from ctpipe.patches.slab_cache import SLABS
from ctpipe.patches.sources import SeriesSource
from ctpipe.words import Pad

if TYPE_CHECKING:
    import pandas as pd


def cut_rows(rows: pd.DataFrame, sources: Mapping[str, SeriesSource], windows: WindowSpec, steps: PixelSteps,
             buffer: NDArray[np.generic] | None = None) -> NDArray[np.generic]:
    """(n, *window), or (n, channels, *window) where the steps make channels; row i of `rows` is patch i.

    rows: columns series, z, y, x (centres) and those that steps ask for. int16 as stored without steps that normalise,
    float32 with them. Beyond the volume: the nearest voxel, or `PAD_HU` (-1 for whole-plane steps). `buffer` is
    written to where it fits in shape and type: memory that is new to a process costs as much as the copy.
    """
    if isinstance(steps.equalise, str):
        return _by_row(rows, sources, windows, steps)
    n, window = len(rows), windows.window
    many = bool(steps.neighbours or steps.channels_mm)
    shape = (n, *([steps.channels] if many else []), *window)
    at = {axis: rows[axis].to_numpy(np.int64) for axis in "zyx"}
    out: NDArray[np.generic] | None = None
    for name, mine in by_series(rows):
        if name not in sources:
            raise NotThereError(f"the table has no series {name!r}", f"it has {', '.join(sources)}")
        source = sources[name]
        outside = [a for a, length in zip("zyx", source.shape, strict=True)
                   if (own := at[a][mine]).min() < 0 or own.max() >= length]
        if outside:
            raise UsageError(f"rows of series {name} have their centre outside the volume along {outside[0]}",
                             "fetch rows of this table")
        if out is None:
            kind = _dtype(source, steps)
            fits = buffer is not None and buffer.shape == shape and buffer.dtype == kind and buffer.flags.c_contiguous
            out = buffer if buffer is not None and fits else np.empty(shape, kind)
        _cut_series(source, mine, at, windows, steps, out)
    if out is None:
        out = np.empty(shape, np.int16)
    return steps.normalised(out, rows)


def by_series(rows: pd.DataFrame) -> list[tuple[str, NDArray[np.int64]]]:
    """(series id, its places among `rows`), each series once."""
    names = rows["series"]
    if hasattr(names.dtype, "categories"):
        codes, known = names.cat.codes.to_numpy(), names.cat.categories
    else:
        codes, known = _factorised(names)
    present = np.unique(codes)
    if len(present) == 1:
        return [(str(known[present[0]]), np.arange(len(rows)))]
    return [(str(known[code]), np.flatnonzero(codes == code)) for code in present]


def _factorised(names: pd.Series) -> tuple[NDArray[np.int64], pd.Index]:
    import pandas as pd
    return pd.factorize(names)  # type: ignore[return-value]


def _by_row(rows: pd.DataFrame, sources: Mapping[str, SeriesSource], windows: WindowSpec, steps: PixelSteps
            ) -> NDArray[np.generic]:
    """Rows whose column says so are equalised, the others are left as they are, in float32."""
    chosen = rows[steps.equalise].to_numpy(bool)
    out: NDArray[np.float32] | None = None
    for wanted, mine in ((True, np.flatnonzero(chosen)), (False, np.flatnonzero(~chosen))):
        pixels = cut_rows(rows.iloc[mine], sources, windows, replace(steps, equalise=wanted))
        if out is None:
            out = np.empty((len(rows), *pixels.shape[1:]), np.float32)
        out[mine] = pixels
    assert out is not None
    return out


def _dtype(source: SeriesSource, steps: PixelSteps) -> np.dtype:
    if steps.per_plane:
        return np.dtype(np.float32)
    return np.dtype(getattr(source.series, "dtype", np.int16))


def _cut_series(source: SeriesSource, mine: NDArray[np.int64], at: Mapping[str, NDArray[np.int64]],
                windows: WindowSpec, steps: PixelSteps, out: NDArray[np.generic]) -> None:
    """Patches `mine` of one series. A window of several planes or channels is as many cuts, slab by slab."""
    from ctpipe.patches import kernels
    window, edge = windows.window, windows.pad is Pad.EDGE
    offsets = steps.offsets if not steps.channels_mm else (0,)
    depth = np.arange(window.z) - window.z // 2
    smoothed = len(steps.channels_mm) or 1
    # cuts in the order of `out`: row, channel, plane of the window
    along = (at["z"][mine][:, None, None, None] + np.asarray(offsets)[None, None, :, None] + depth)
    along = np.broadcast_to(along, (len(mine), smoothed, len(offsets), window.z))
    channel = np.broadcast_to(np.arange(smoothed)[None, :, None, None], along.shape).ravel()
    per_row = smoothed * len(offsets) * window.z
    plane = along.ravel()
    where = (mine[:, None] * per_row + np.arange(per_row)).ravel()
    y = np.repeat(at["y"][mine] - window.y // 2, per_row)
    x = np.repeat(at["x"][mine] - window.x // 2, per_row)
    flat = out.reshape(-1, window.y, window.x)
    fill = out.dtype.type(-1 if steps.per_plane else PAD_HU)
    if edge:
        plane = np.clip(plane, 0, source.shape[0] - 1)
    else:
        beyond = (plane < 0) | (plane >= source.shape[0])
        flat[where[beyond]] = fill
        keep = ~beyond
        plane, where, y, x, channel = plane[keep], where[keep], y[keep], x[keep], channel[keep]
    band = plane // source.band_planes
    order = np.argsort(band, kind="stable")
    numbers, starts = np.unique(band[order], return_index=True)
    for number, some in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
        start = number * source.band_planes
        slab = slab_of(source, number, steps.per_plane)
        for one in range(smoothed):
            now = some if smoothed == 1 else some[channel[some] == one]
            if len(now):
                kernels.cut(slab[one], plane[now] - start, y[now], x[now], window.y, window.x, edge, fill, where[now],
                            flat)


def slab_of(source: SeriesSource, number: int, per_plane: InputSpec | None = None) -> NDArray[np.generic]:
    """(channels, planes, y, x) of slab `number` of a series, as stored or with whole-plane steps, from the cache."""
    start = number * source.band_planes
    stop = min(start + source.band_planes, source.shape[0])
    key = (str(source.store) if not isinstance(source.store, Mapping) else id(source.store),
           source.id, source.content, source.level, number, per_plane)

    def read() -> NDArray[np.generic]:
        if per_plane is None:
            return np.ascontiguousarray(source.hu_planes(start, stop))[None].view()
        spec = replace(per_plane, level=source.level)
        return np.ascontiguousarray(PlaneReader(source.series, spec).features(start, stop).transpose(1, 0, 2, 3))

    return SLABS.get(key, read)
