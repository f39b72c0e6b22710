"""VolumeSource: where the voxels of one judged volume stand, small enough to send to any worker; and reading them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ctpipe.dicom.sources import Locator
from ctpipe.errors import InputError, UsageError
from ctpipe.volume import Grid

if TYPE_CHECKING:
    import pandas as pd

    from ctpipe.dicom.pixels import PixelFormat, Rescale

FORMAT_VERSION = 1
_AGAIN = "see that the input is whole and as it was, then check it again"


@dataclass(frozen=True)
class PlaneSource:
    """One plane: where its stored pixels stand and what turns them into HU.

    spans: (offset, length) of the stored bytes in the file, or in its inflated data set where `in_place` is False.
    digest: SHA-256 of those bytes. position: LPS mm of the first voxel's centre. sop_instance: pseudonym.
    """

    locator: Locator
    spans: tuple[tuple[int, int], ...]
    in_place: bool
    form: PixelFormat
    rescale: Rescale
    digest: str
    position: tuple[float, float, float]
    sop_instance: str
    exposure: float | None = None


@dataclass(frozen=True)
class VolumeSource:
    """One volume as `check` judged it; planes ascend along the slice normal.

    grid: index (z, y, x) -> LPS mm. dtype: of the HU. series_id: the store's name for it. patient, study, series:
    pseudonyms. voi: (centre, width) of the header's first window, or None. notes: what was not as usual, one line each.
    """

    grid: Grid
    dtype: Literal["int16", "float32"]
    series_id: str
    patient: str
    study: str
    series: str
    planes: tuple[PlaneSource, ...]
    voi: tuple[float, float] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def plane_table(self) -> pd.DataFrame:
        """One row per plane: plane, sop_instance, position_l/p/s (mm), slope, intercept, exposure, source_digest."""
        import pandas as pd

        positions = np.array([plane.position for plane in self.planes], np.float64)
        return pd.DataFrame({
            "plane": np.arange(len(self.planes), dtype=np.int32),
            "sop_instance": [plane.sop_instance for plane in self.planes],
            "position_l": positions[:, 0],
            "position_p": positions[:, 1],
            "position_s": positions[:, 2],
            "slope": np.array([plane.rescale.slope for plane in self.planes], np.float64),
            "intercept": np.array([plane.rescale.intercept for plane in self.planes], np.float64),
            "exposure": np.array([np.nan if p.exposure is None else p.exposure for p in self.planes], np.float64),
            "source_digest": [plane.digest for plane in self.planes],
        })  # fmt: skip


def plane_table(source: VolumeSource) -> pd.DataFrame:
    """`source.plane_table()`: the rows that the store keeps beside the volume."""
    return source.plane_table()


def series_digest(grid: Grid, dtype: str, planes: tuple[PlaneSource, ...]) -> str:
    """The series id (DESIGN 2): 32 hex digits over format version, grid, and per plane all that decides its HU."""
    rows = [
        [
            p.digest,
            p.rescale.slope,
            p.rescale.intercept,
            p.rescale.padding,
            p.form.bits_allocated,
            p.form.bits_stored,
            p.form.high_bit,
            p.form.signed,
            p.form.syntax,
        ]
        for p in planes
    ]
    text = json.dumps([FORMAT_VERSION, grid.grid_id, dtype, rows])
    return sha256(text.encode()).hexdigest()[:32]


def read_planes(source: VolumeSource, start: int, stop: int) -> NDArray[Any]:
    """Planes start..stop-1 as HU: (stop - start, y, x) of source.dtype; padding is -1024.

    Opens only those planes' files. Raises InputError where one vanished, changed since it was checked, or does not
    decode; UsageError for planes that the volume does not have.
    """
    depth, rows, columns = source.grid.shape
    if not 0 <= start <= stop <= depth:
        raise UsageError(f"planes {start} to {stop} of a volume of {depth}", f"give 0 <= start <= stop <= {depth}")
    out = np.empty((stop - start, rows, columns), source.dtype)
    for index in range(start, stop):
        out[index - start] = _plane_hu(source.planes[index], index, source.dtype)
    return out


def _plane_hu(plane: PlaneSource, index: int, dtype: str) -> NDArray[Any]:
    from ctpipe.dicom.codestreams import CodestreamFaultError
    from ctpipe.dicom.pixels import decode

    data = stored_bytes(plane)
    if sha256(data).hexdigest() != plane.digest:
        raise InputError(f"the file of plane {index} changed since it was checked", _AGAIN)
    try:
        hu, _ = plane.rescale.to_hu(decode(data, plane.form))
    except CodestreamFaultError as fault:
        raise InputError(f"plane {index} does not decode: {fault.detail}", _AGAIN) from None
    return hu.astype(dtype)


def stored_bytes(plane: PlaneSource) -> bytes:
    """The stored pixel bytes of one plane. Raises InputError."""
    if not plane.in_place:
        body = _inflated(plane.locator)
        return b"".join(body[at : at + length] for at, length in plane.spans)
    return b"".join(plane.locator.read_range(at, length) for at, length in plane.spans)


@lru_cache(maxsize=1)
def _inflated(locator: Locator) -> bytes:
    """The inflated data set of a deflated file; the last one stays, for the frames of one object."""
    from ctpipe.dicom.parse import ParseFaultError, parse

    try:
        return parse(locator.read()).body
    except ParseFaultError as fault:
        raise InputError(f"a source file changed since it was checked: {fault.detail}", _AGAIN) from None
