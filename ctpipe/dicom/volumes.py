"""VolumeSource: where the voxels of one judged volume stand, small enough to send to any worker; and reading them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ctpipe.dicom.sources import Locator
from ctpipe.errors import InputError, UsageError
from ctpipe.volume import Grid
from ctpipe.words import ZYX

if TYPE_CHECKING:
    import pandas as pd

    from ctpipe.dicom.deshear import Deshear
    from ctpipe.dicom.pixels import Rescale

FORMAT_VERSION = 2
_AGAIN = "see that the input is whole and as it was, then check it again"


class StoredForm(Protocol):
    """How one plane's voxels are stored: PixelFormat of DICOM, RasterForm of NIfTI and NRRD."""

    def decode(self, data: bytes) -> NDArray[Any]:
        """Stored values (rows, columns). Raises CodestreamFaultError."""

    def key(self) -> list[Any]:
        """All that decides what the bytes mean, as plain JSON."""


class Stored(Protocol):
    """What has stored bytes somewhere: a plane's header, or its source."""

    @property
    def locator(self) -> Locator: ...
    @property
    def spans(self) -> tuple[tuple[int, int], ...]: ...
    @property
    def in_place(self) -> bool: ...
    @property
    def signature(self) -> str: ...
    @property
    def form(self) -> Any: ...


@dataclass(frozen=True)
class PlaneSource:
    """One plane: where its stored pixels stand and what turns them into HU.

    spans: (offset, length) of the stored bytes in the file, or in its inflated data set where `in_place` is False.
    digest: SHA-256 of those bytes. position: LPS mm of the first voxel's centre. sop_instance: pseudonym. signature: of
    the file as it was when that was found out; "" where only the digest can tell.
    """

    locator: Locator
    spans: tuple[tuple[int, int], ...]
    in_place: bool
    form: StoredForm
    rescale: Rescale
    digest: str
    position: tuple[float, float, float]
    sop_instance: str
    exposure: float | None = None
    signature: str = ""


@dataclass(frozen=True)
class VolumeSource:
    """One volume as it was judged; planes ascend along the slice normal.

    grid: index (z, y, x) -> LPS mm. dtype: of the HU; `assumed` where only the header spoke for it. series_id: the
    store's name for it. patient, study, series: pseudonyms. voi: (centre, width) of the header's first window, or None.
    notes: what was not as usual, one line each. deshear: how tilted planes come onto the grid (--on-tilt resample).
    uneven: planes stand at their own positions, the grid has their mean step (--on-gap keep-positions). padded: voxels
    of padding; None where nobody looked. first: number of the first plane, where this is a part of a volume.
    """

    grid: Grid
    dtype: Literal["int16", "float32"]
    series_id: str
    patient: str
    study: str
    series: str
    planes: tuple[PlaneSource, ...] = field(repr=False)
    voi: tuple[float, float] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    deshear: Deshear | None = field(default=None, repr=False)
    uneven: bool = False
    assumed: bool = False
    padded: int | None = None
    first: int = 0

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


def series_digest(grid: Grid, planes: Sequence[PlaneSource], deshear: Deshear | None, uneven: bool) -> str:
    """The series id (DESIGN 2): 32 hex digits of format version, grid, options, and per plane what makes its HU."""
    rows = [
        [p.digest, p.rescale.slope, p.rescale.intercept, p.rescale.padding, p.form.key(),
         p.position if uneven else None]
        for p in planes
    ]
    options = [deshear and [deshear.canvas, deshear.shifts], uneven]
    return sha256(json.dumps([FORMAT_VERSION, grid.grid_id, options, rows]).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class SlabFacts:
    """What reading some planes told. n_padded: voxels of padding; fits_int16: whether int16 holds every value."""

    n_padded: int
    fits_int16: bool


def read_planes(source: VolumeSource, start: int, stop: int) -> NDArray[Any]:
    """Planes start..stop-1 as HU: (stop - start, y, x) of source.dtype; padding is -1024.

    Opens only those planes' files. Raises InputError where one vanished, changed since it was checked, does not decode,
    or holds a value that the dtype does not; UsageError for planes that the volume does not have.
    """
    return read_slab(source, start, stop)[0]


def read_slab(source: VolumeSource, start: int, stop: int) -> tuple[NDArray[Any], SlabFacts]:
    """`read_planes`, and what was seen on the way."""
    depth, rows, columns = source.grid.shape
    if not 0 <= start <= stop <= depth:
        raise UsageError(f"planes {start} to {stop} of a volume of {depth}", f"give 0 <= start <= stop <= {depth}")
    out = np.empty((stop - start, rows, columns), source.dtype)
    n_padded, fits = 0, True
    for index in range(start, stop):
        padded, fits_too = _read_plane(source, index, out[index - start])
        n_padded, fits = n_padded + padded, fits and fits_too
    return out, SlabFacts(n_padded, fits)


def part_of(source: VolumeSource, start: int, stop: int) -> VolumeSource:
    """Planes start..stop-1 as a source of their own: small enough to send, however long the volume is."""
    _, rows, columns = source.grid.shape
    affine = source.grid.affine.copy()
    affine[:3, 3] += start * affine[:3, 0]
    grid = Grid.from_affine(ZYX(stop - start, rows, columns), affine, source.grid.frame_of_reference)
    deshear = source.deshear and replace(source.deshear, shifts=source.deshear.shifts[start:stop])
    return replace(source, grid=grid, planes=source.planes[start:stop], deshear=deshear, first=start)


def fits_int16(hu: NDArray[Any]) -> bool:
    """Whether int16 holds every value exactly."""
    low, high = np.iinfo(np.int16).min, np.iinfo(np.int16).max
    return bool(hu.min() >= low and hu.max() <= high and np.array_equal(hu, np.rint(hu)))


def _read_plane(source: VolumeSource, index: int, out: NDArray[Any]) -> tuple[int, bool]:
    from ctpipe.dicom.codestreams import CodestreamFaultError
    from ctpipe.dicom.hounsfield import NotInTypeError, into_hu

    plane, number = source.planes[index], source.first + index
    data = stored_bytes(plane, f"the file of plane {number}")
    if not plane.signature and sha256(data).hexdigest() != plane.digest:
        raise InputError(f"the file of plane {number} changed since it was checked", _AGAIN)
    try:
        stored = plane.form.decode(data)
        hu = out if source.deshear is None else np.empty(stored.shape, out.dtype)
        n_padded = into_hu(stored, plane.rescale, hu)
    except CodestreamFaultError as fault:
        raise InputError(f"plane {number} does not decode: {fault.detail}", _AGAIN) from None
    except NotInTypeError:
        raise InputError(f"plane {number} holds a value that {source.dtype} does not", _AGAIN) from None
    if source.deshear is not None:
        out[...] = source.deshear.apply(hu, index, out.dtype)
    # what the scanner wrote decides the type, not what interpolation makes of it
    return n_padded, source.dtype == "int16" or fits_int16(hu)


def stored_bytes(plane: Stored, what: str = "a source file") -> bytes:
    """The stored pixel bytes of one plane. Raises InputError, also where the file changed since it was listed."""
    if plane.signature and not plane.locator.is_remote and plane.locator.signature() != plane.signature:
        raise InputError(f"{what} changed since it was checked", _AGAIN)
    packed_at = getattr(plane.form, "packed_at", None)
    if packed_at is not None:
        from ctpipe.dicom.raster_file import read_packed

        return b"".join(read_packed(plane.locator, packed_at, at, length) for at, length in plane.spans)
    if not plane.in_place:
        body = _inflated(plane.locator)
        return b"".join(body[at : at + length] for at, length in plane.spans)
    parts = [plane.locator.read_range(at, length) for at, length in plane.spans]
    return parts[0] if len(parts) == 1 else b"".join(parts)


@lru_cache(maxsize=1)
def _inflated(locator: Locator) -> bytes:
    """The inflated data set of a deflated file; the last one stays, for the frames of one object."""
    from ctpipe.dicom.parse import ParseFaultError, parse

    try:
        return parse(locator.read()).body
    except ParseFaultError as fault:
        raise InputError(f"a source file changed since it was checked: {fault.detail}", _AGAIN) from None
