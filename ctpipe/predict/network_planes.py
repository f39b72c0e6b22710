"""Planes as a segmenter's network sees them: normalised and resampled, band by band, equal to the whole volume's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ctpipe.errors import RunError
from ctpipe.models.segment_plan import SegmentPlan
from ctpipe.models.segment_spec import SegmenterSpec
from ctpipe.predict.facts import Facts, clip

# Planes that are read and resampled at a time.
BAND = 16


class PlaneSource(Protocol):
    """The part of `ctpipe.store.Series` that is read here."""

    id: str

    def read_planes(self, start: int, stop: int, level: int = 0) -> NDArray[Any]:
        """HU (stop - start, y, x) of planes start..stop-1."""


class NetworkPlanes:
    """Planes of one volume on the network grid of a plan.

    facts: of the volume; None where `needs_facts` is false.
    """

    def __init__(self, source: PlaneSource, spec: SegmenterSpec, plan: SegmentPlan, facts: Facts | None) -> None:
        self.source, self.spec, self.plan, self.facts = source, spec, plan, facts
        self._limited = spec.resample_in.limit and any(along.cubic for along in plan.inward)
        self._in_plane = [axis for axis in (1, 2) if not plan.inward[axis].identity]

    def produce(self, first: int, stop: int) -> Iterator[NDArray[np.float32]]:
        """Network planes first..stop-1 in bands (n, y, x) of float32, ascending; RunError names a plane of NaN."""
        along = self.plan.inward[0]
        kept, begin = np.empty((0, 0, 0)), 0  # box planes begin, begin + 1, … after the steps within planes
        for low in range(first, stop, BAND):
            high = min(low + BAND, stop)
            need = along.reach(low, high)
            kept = kept[max(0, need[0] - begin) :] if begin + len(kept) > need[0] else kept[:0]
            begin = max(begin, need[0]) if len(kept) else need[0]
            if need[1] > begin + len(kept):
                fresh = self._within_planes(begin + len(kept), need[1])
                kept = np.concatenate([kept, fresh]) if len(kept) else fresh
            yield self._across_planes(kept, begin, low, high)

    def _within_planes(self, first: int, stop: int) -> NDArray[Any]:
        """Box planes first..stop-1, read, normalised if that comes first, and resampled along y and x."""
        (z, _), (y0, y1), (x0, x1) = self.plan.box
        hu = self.source.read_planes(z + first, z + stop)[:, y0:y1, x0:x1]
        if hu.dtype.kind == "f" and not np.isfinite(hu).all():
            plane = z + first + int(np.argwhere(~np.isfinite(hu))[0][0])
            raise RunError(f"series {self.source.id}: the HU of plane {plane} are NaN or infinite",
                           "ingest the series again from its source")
        if not self._in_plane and self.plan.inward[0].identity:
            return self._values(hu)
        # one plane at a time: buffers stay small, and in the cache
        last = self.plan.inward[0].identity and not (self._limited and self.plan.separate != 0)
        out = np.empty((len(hu), *self.plan.shape[1:]), np.float32 if last else np.float64)
        for plane, resampled in zip(hu, out, strict=True):
            resampled[...] = self._resampled(self._values(plane))
        return out

    def _values(self, hu: NDArray[Any]) -> NDArray[np.float32]:
        """Read values as they are resampled: normalised, if that comes first."""
        return self._normalised(hu) if self.spec.normalise_first else hu.astype(np.float32)

    def _resampled(self, plane: NDArray[np.float32]) -> NDArray[np.float64]:
        """One plane (y, x) after the taps along y and x."""
        from ctpipe.volume.tap_kernels import resample  # numba

        exact = plane[None].astype(np.float64)
        for axis in self._in_plane:
            exact = resample(exact, self.plan.inward[axis], axis)
        if self._limited and self.plan.separate == 0:
            np.clip(exact, plane.min(), plane.max(), out=exact)
        return exact[0]

    def _across_planes(self, kept: NDArray[Any], begin: int, first: int, stop: int) -> NDArray[np.float32]:
        along = self.plan.inward[0]
        if along.identity:
            exact = kept[first - begin : stop - begin]
        else:
            from ctpipe.volume.tap_kernels import resample  # numba

            exact = resample(kept, along, 0, begin, first, stop)
        if self._limited and self.plan.separate != 0:
            exact = np.clip(exact, *self._limits())
        values = exact.astype(np.float32, copy=False)
        return values if self.spec.normalise_first else self._normalised(values)

    def _limits(self) -> tuple[NDArray[np.float32] | float, NDArray[np.float32] | float]:
        """The range of resampled values: of the volume, or of each row or column of the axis taken by itself."""
        assert self.facts is not None  # needs_facts
        axis = self.plan.separate
        if axis is None:
            ends: Any = np.array([self.facts.low, self.facts.high], np.float32)
        else:
            nearest = np.clip(self.plan.inward[axis].first, 0, self.plan.sizes[axis] - 1)
            ends = self.facts.ranges[axis][:, nearest]
            ends = ends[:, :, None] if axis == 1 else ends[:, None, :]
        ends = self._scaled(ends) if self.spec.normalise_first else ends
        return ends[0], ends[1]

    def _normalised(self, values: NDArray[Any]) -> NDArray[np.float32]:
        return self._scaled(clip(values, self.spec))

    def _scaled(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Clipped values less the mean, by the deviation; in float32, as nnU-Net and MONAI do it."""
        how = self.spec.normalise
        mean, std = how.mean, how.std
        if how.scheme != "stated":
            assert self.facts is not None  # needs_facts
            volume = how.scheme == "volume"
            mean = self.facts.mean if volume else self.facts.low
            std = max(self.facts.std if volume else self.facts.high - self.facts.low, 1e-8)
        out = values - np.float32(mean)
        out /= np.float32(std)
        return out
