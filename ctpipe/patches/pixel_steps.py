"""What becomes of the pixels of a row on their way into a batch: channels, equalisation, normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ctpipe.config import InputSpec
from ctpipe.errors import NotThereError, UsageError

if TYPE_CHECKING:
    import pandas as pd

Number = float | str  # a text is the name of a column: each row has its own


@dataclass(frozen=True, kw_only=True)
class PixelSteps:
    """Steps in this order; without any, a patch is its HU as stored (int16), windowing is left to the device.

    neighbours: 2.5-D, so many planes on each side as channels, `apart` planes from each other; 0: no channel axis.
    channels_mm: instead, one channel each: 0 the plane itself, s > 0 smoothed in 3-D by a Gaussian of s mm (after the
        HU window). equalise: histogram equalisation of each whole plane to -1 .. 1; takes the place of the HU window.
    relative_to: HU subtracted first: a number, a column, or a class of the table, of which each series' median counts.
    window_hu: (low, high), clipped and mapped linearly to -1 .. 1. zscore: (mean, standard deviation) in HU.
    Every number may be the name of a column instead; `equalise` as well: the rows where it is true are equalised.
    """

    neighbours: int = 0
    apart: int = 1
    channels_mm: tuple[float, ...] = ()
    equalise: bool | str = False
    relative_to: Number | None = None
    window_hu: tuple[Number, Number] | None = None
    zscore: tuple[Number, Number] | None = None
    references: tuple[tuple[str, float], ...] = ()  # filled in by the table: {series: median HU of the class}

    def __post_init__(self) -> None:
        if self.neighbours < 0 or self.apart < 1:
            raise UsageError(f"{self.neighbours} neighbours {self.apart} planes apart cannot be", "give 0, 1, 2, …")
        if self.neighbours and self.channels_mm:
            raise UsageError("neighbours and channels_mm both make channels", "give one of the two")
        if self.window_hu and self.zscore:
            raise UsageError("window_hu and zscore both normalise", "give one of the two")
        if self.equalise and (self.window_hu or self.zscore or self.relative_to is not None):
            raise UsageError("equalisation destroys HU: nothing can be normalised by them", "give equalise alone")
        if self.channels_mm and (self.zscore or not (self.window_hu or self.equalise)):
            raise UsageError("smoothed channels need a HU window or equalisation", "give window_hu=(low, high)")
        if self.channels_mm and any(isinstance(v, str) for v in (*(self.window_hu or ()), self.equalise)):
            raise UsageError("smoothed channels are made of whole planes, not row by row", "give numbers, no columns")
        if self.channels_mm and self.relative_to is not None:
            raise UsageError("smoothed channels relative to an organ are a recipe's input", "use ctpipe.train")

    @property
    def channels(self) -> int:
        return len(self.channels_mm) or 2 * self.neighbours + 1

    @property
    def offsets(self) -> tuple[int, ...]:
        """Planes beside the centre that become channels."""
        return tuple(range(-self.neighbours * self.apart, self.neighbours * self.apart + 1, self.apart))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that a row's own numbers come from."""
        relative = None if self.references else self.relative_to
        values = (relative, *(self.window_hu or ()), *(self.zscore or ()), self.equalise)
        return tuple(dict.fromkeys(value for value in values if isinstance(value, str)))

    @property
    def per_plane(self) -> InputSpec | None:
        """What is done to whole planes before they are cut; None: they are cut as stored."""
        if self.channels_mm:
            low, high = self.window_hu or (-160.0, 240.0)
            return InputSpec(channels_mm=self.channels_mm, equalise=bool(self.equalise),
                             window_hu=(float(low), float(high)))
        if self.equalise is True:
            return InputSpec(equalise=True)
        return None

    def normalised(self, pixels: NDArray[np.generic], rows: pd.DataFrame) -> NDArray[np.generic]:
        """Pixels (n, …) with the steps that are taken row by row; float32 where there are any."""
        if self.per_plane or (self.relative_to is None and not self.window_hu and not self.zscore):
            return pixels
        out = pixels.astype(np.float32)

        def of(value: Number) -> NDArray[np.float32]:
            if self.references and value == self.relative_to:
                known = dict(self.references)
                numbers = np.array([known[name] for name in rows["series"].astype(str)], np.float32)
                return numbers.reshape(-1, *[1] * (pixels.ndim - 1))
            numbers = rows[value].to_numpy(np.float32) if isinstance(value, str) else np.full(1, value, np.float32)
            if not np.isfinite(numbers).all():
                raise UsageError(f"{value!r} is not a number in every row", "keep only rows where it is")
            return numbers.reshape(-1, *[1] * (pixels.ndim - 1))

        if self.relative_to is not None:
            out -= of(self.relative_to)
        if self.window_hu:
            low, high = of(self.window_hu[0]), of(self.window_hu[1])
            if not (low < high).all():
                raise UsageError("a HU window has its lower end above its upper", "give (low, high)")
            out -= low
            out *= np.float32(2) / (high - low)
            out -= np.float32(1)
            np.clip(out, -1, 1, out=out)
        if self.zscore:
            deviation = of(self.zscore[1])
            if not (deviation > 0).all():
                raise UsageError("a standard deviation of zscore is not above 0", "give HU above 0")
            out -= of(self.zscore[0])
            out /= deviation
        return out

    def checked(self, columns: list[str]) -> PixelSteps:
        """Itself; NotThereError where a column of a step is not among `columns`."""
        for name in self.columns:
            if name not in columns:
                raise NotThereError(f"the table has no column {name!r} for a pixel step",
                                    f"its columns are {', '.join(columns)}")
        return self
