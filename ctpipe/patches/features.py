"""What a model sees of a volume: planes of HU turned into normalised float32 channels, the same bits in any slab."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ctpipe.config import InputSpec
from ctpipe.errors import NotThereError, RunError, UsageError
from ctpipe.volume import Grid, Level

# Gaussians are cut off at this many standard deviations.
TRUNCATE = 4.0
# Smoothed channels look at no more than this many mm: a wider one would make every slab read the whole volume.
WIDEST_MM = 50.0


class PlaneSeries(Protocol):
    """The part of `ctpipe.store.Series` that is read here."""

    id: str
    levels: list[Level]

    def read_planes(self, start: int, stop: int, level: int = 0) -> NDArray[np.generic]:
        """(stop - start, y, x) HU of planes start..stop-1 of a pyramid level."""


class PlaneReader:
    """Reads planes of one series as the channels that a recipe's `[input]` asks for.

    Steps, in this order (DESIGN 4, MODELS 4):

    1. HU of pyramid level `input.level`.
    2. `equalise`: histogram equalisation of each plane by itself, exact (one bin per HU, or per distinct value of a
       float volume): v -> 2 (cdf(v) - cdf(lowest)) / (n - cdf(lowest)) - 1; a plane of one value becomes -1. The HU
       window and the reference then have no meaning and are not applied.
    3. otherwise: `reference_hu` is subtracted, the result clipped to `window_hu` and mapped linearly to -1 .. 1.
       Clipping comes before smoothing, so that metal and air do not leak into their surroundings.
    4. one channel per entry of `channels_mm`: 0 is the plane itself, s > 0 a 3-D Gaussian with a standard deviation
       of s mm, cut off at 4 of them; beyond the volume the nearest voxel counts.
    """

    pad_value = -1.0  # what constant padding holds: the lowest normalised value

    def __init__(self, series: PlaneSeries, input: InputSpec, reference_hu: float | None = None) -> None:
        """`reference_hu`: HU of this patient's `input.relative_to`; UsageError where one is given without the other."""
        if not 0 <= input.level < len(series.levels):
            raise NotThereError(f"series {series.id} has no pyramid level {input.level}",
                                f"choose one of 0..{len(series.levels) - 1}")
        if (reference_hu is None) != (input.relative_to is None):
            raise UsageError(f"reference HU {reference_hu} does not fit relative_to = {input.relative_to!r}",
                             "give a reference exactly where the recipe's input is relative to a class")
        low, high = input.window_hu
        if not (np.isfinite([low, high]).all() and low < high):
            raise UsageError(f"window_hu {low}..{high} is no range", "give two finite HU, the lower first")
        if not input.channels_mm or not all(0 <= s <= WIDEST_MM for s in input.channels_mm):
            raise UsageError(f"channels_mm {input.channels_mm} cannot be made", f"give lengths of 0 to {WIDEST_MM} mm")
        self.series, self.input, self.reference_hu = series, input, reference_hu
        self.grid: Grid = series.levels[input.level].grid

    @property
    def channels(self) -> int:
        return len(self.input.channels_mm)

    @property
    def halo(self) -> int:
        """Planes that are read on both sides for the smoothed channels."""
        return max(_radius(sigma) for sigma, _, _ in map(self._sigmas, self.input.channels_mm))

    def hu(self, start: int, stop: int) -> NDArray[np.generic]:
        """Raw HU (stop - start, y, x) of planes start..stop-1 of the input level, as stored."""
        self._check(start, stop)
        return self.series.read_planes(start, stop, level=self.input.level)

    def features(self, start: int, stop: int) -> NDArray[np.float32]:
        """float32 (stop - start, channels, y, x), -1 .. 1; RunError where HU are NaN or infinite."""
        self._check(start, stop)
        low, high = max(0, start - self.halo), min(self.grid.shape.z, stop + self.halo)
        planes = self._normalised(self.hu(low, high), low)
        out = np.empty((stop - start, self.channels, *planes.shape[1:]), np.float32)
        for channel, mm in enumerate(self.input.channels_mm):
            out[:, channel] = _smooth(planes, self._sigmas(mm), start - low, stop - low)
        return out

    def _check(self, start: int, stop: int) -> None:
        if not 0 <= start < stop <= self.grid.shape.z:
            raise UsageError(f"planes {start}..{stop} do not lie in 0..{self.grid.shape.z}", "ask for existing planes")

    def _sigmas(self, mm: float) -> tuple[float, float, float]:
        z, y, x = (mm / spacing for spacing in self.grid.spacing_mm)
        return z, y, x

    def _normalised(self, hu: NDArray[np.generic], first: int) -> NDArray[np.float32]:
        if hu.dtype.kind == "f" and not np.isfinite(hu).all():
            plane = first + int(np.flatnonzero(~np.isfinite(hu).all(axis=(1, 2)))[0])
            raise RunError(f"series {self.series.id}: plane {plane} holds NaN or infinite HU",
                           "ingest the series again from its source")
        if self.input.equalise:
            return np.stack([equalised(plane) for plane in hu])
        low, high = self.input.window_hu
        out = hu.astype(np.float32)
        out -= np.float32(low + (self.reference_hu or 0.0))
        out *= np.float32(2.0 / (high - low))
        out -= np.float32(1.0)
        return np.clip(out, -1.0, 1.0, out=out)


def equalised(plane: NDArray[np.generic]) -> NDArray[np.float32]:
    """Histogram equalisation of one plane (y, x) to -1 .. 1, float32, exact: one bin per distinct value."""
    if plane.dtype.kind in "iu":
        lowest = int(plane.min())
        bins = plane.astype(np.int64) - lowest
        counts = np.bincount(bins.ravel())
    else:
        _, bins, counts = np.unique(plane, return_inverse=True, return_counts=True)
    cdf = np.cumsum(counts)
    spread = cdf[-1] - cdf[0]
    if spread == 0:
        return np.full(plane.shape, -1.0, np.float32)
    return (2.0 * (cdf - cdf[0]) / spread - 1.0).astype(np.float32)[bins.reshape(plane.shape)]


def _radius(sigma: float) -> int:
    """Voxels that `scipy.ndimage.gaussian_filter1d` looks at on each side."""
    return int(TRUNCATE * sigma + 0.5)


def _smooth(planes: NDArray[np.float32], sigmas: tuple[float, float, float], start: int,
            stop: int) -> NDArray[np.float32]:
    """Planes start..stop-1 of the 3-D Gaussian; along z first, so that the halo is dropped before y and x."""
    out = planes
    for axis, sigma in enumerate(sigmas):
        if _radius(sigma):
            from scipy.ndimage import gaussian_filter1d  # 0.2 s of import, wanted only by smoothed channels
            out = gaussian_filter1d(out, sigma, axis=axis, mode="nearest", truncate=TRUNCATE)
        if axis == 0:
            out = out[start:stop]
    return out
