"""Raster volumes: a NIfTI or NRRD file that the user names becomes a CT volume, its voxels as they are.

::

    array axes of the file (i, j, k), i fastest  ──►  index (z, y, x) = (k, j, i); no flip, no resampling
    affine of the file, RAS or LPS               ──►  rows of the grid, LPS mm

Such a file says neither that it is CT nor in which unit: the values are taken as HU, and a note says so. Whatever
does not make one even, rectangular stack is refused (corpus policy, rules 2, 7, 8 and 9).
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ctpipe.dicom.codestreams import CodestreamFaultError
from ctpipe.dicom.geometry import MIN_PLANES
from ctpipe.dicom.identity import Pseudonyms
from ctpipe.dicom.label_volume import is_raster, raster_header
from ctpipe.dicom.pixels import INT16, Rescale
from ctpipe.dicom.raster_file import RasterHeader
from ctpipe.dicom.structure import LabelFaultError
from ctpipe.dicom.verdict import Verdict
from ctpipe.dicom.volumes import PlaneSource, VolumeSource, series_digest
from ctpipe.errors import InputError
from ctpipe.volume import Grid
from ctpipe.words import ZYX, VerdictKind

if TYPE_CHECKING:
    from ctpipe.dicom.sources import Item

__all__ = ["RasterForm", "is_raster", "raster_verdict"]

UNIT_TOLERANCE = 1e-4  # how far axes may be from orthogonal, as cosines (corpus policy, rule 9)


@dataclass(frozen=True)
class RasterForm:
    """How one plane's voxels are stored. dtype: NumPy's, with byte order. packed_at: see RasterHeader."""

    rows: int
    columns: int
    dtype: str
    packed_at: int | None

    def decode(self, data: bytes) -> NDArray[Any]:
        """Stored values (rows, columns). Raises CodestreamFaultError."""
        if len(data) != self.rows * self.columns * np.dtype(self.dtype).itemsize:
            raise CodestreamFaultError("truncated", "a plane is shorter or longer than its rows and columns")
        return np.frombuffer(data, self.dtype).reshape(self.rows, self.columns)

    def key(self) -> list[Any]:
        """What decides the values beside the stored bytes, plain for JSON; packed or not makes no difference."""
        return ["raster", self.dtype, self.rows, self.columns]

    def static_range(self) -> tuple[int, int] | None:
        """Lowest and highest stored value that the type can hold; None for floating point."""
        dtype = np.dtype(self.dtype)
        return None if dtype.kind == "f" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))


def raster_verdict(item: Item, names: Pseudonyms) -> Verdict:
    """The verdict on one NIfTI or NRRD file as a CT volume; all its voxels are looked at, a plane at a time."""
    try:
        header = raster_header(item.locator, item.size)
        _refuse_no_ct(header)
        return _accepted(item, header, names)
    except LabelFaultError as fault:
        return Verdict(fault.kind, fault.reason, fault.detail, fault.cure, n_files=1)
    except InputError as error:
        return Verdict(VerdictKind.REJECT, "unreadable", error.problem, error.cure, n_files=1)


def _refuse_no_ct(header: RasterHeader) -> None:
    """Raises LabelFaultError for labels, and for what is no even, rectangular stack."""
    if header.states_labels or np.dtype(header.dtype) == np.uint8 or header.n_layers > 1:
        problem = f"a {header.kind} label volume: its header says so, or its values are 8-bit"
        raise LabelFaultError("not-ct", problem, "give it with --labels", VerdictKind.SET_ASIDE)
    if header.shape[2] < MIN_PLANES:
        problem = f"too few slices: {header.shape[2]}, at least {MIN_PLANES} are needed"
        raise LabelFaultError("too-few-slices", problem, "give the whole volume")
    if header.slope == 0 or not np.isfinite([header.slope, header.inter]).all():
        raise LabelFaultError("bad-rescale", f"the slope of a {header.kind} file is no number", "write the file again")
    i, j, k = (np.asarray(header.rows)[:3, :3] / np.linalg.norm(np.asarray(header.rows)[:3, :3], axis=0)).T
    if abs(i @ j) > UNIT_TOLERANCE:
        problem = f"rows and columns of a {header.kind} file are not orthogonal"
        raise LabelFaultError("bad-orientation", problem, "resample it to a rectangular grid")
    tilt = float(np.linalg.norm([k @ i, k @ j]))
    if tilt > UNIT_TOLERANCE:
        angle = np.degrees(np.arcsin(min(tilt, 1.0)))
        problem = f"gantry tilt: planes are sheared by {angle:.3g} degrees against their normal"
        raise LabelFaultError("gantry-tilt", problem, "give the DICOM series, or resample it to a rectangular grid")


def _accepted(item: Item, header: RasterHeader, names: Pseudonyms) -> Verdict:
    i, j, k = header.shape
    affine = np.asarray(header.rows)
    grid = Grid.from_affine(ZYX(k, j, i), affine[:, [2, 1, 0, 3]])
    form = RasterForm(j, i, header.dtype, header.packed_at)
    rescale = Rescale(header.slope, header.inter)
    seen = _Seen()
    planes = []
    for z, data in enumerate(header.planes(item.locator)):
        seen.add(form.decode(data), rescale)
        x, y, s = (float(v) for v in grid.to_lps((z, 0, 0)))
        planes.append(
            PlaneSource(
                locator=item.locator,
                spans=((header.offset + z * header.plane_bytes, header.plane_bytes),),
                in_place=header.packed_at is None,
                form=form,
                rescale=rescale,
                digest=sha256(data).hexdigest(),
                position=(x, y, s),
                sop_instance="",
            )
        )
    # what the voxels are and where they lie is all that such a file says of whom it shows
    content = sha256("\n".join([grid.grid_id, *(plane.digest for plane in planes)]).encode()).hexdigest()
    uid = f"2.25.{int(content[:32], 16)}"  # PS3.5 B.2, so that it is a UID where UIDs are kept
    notes = _notes(header, grid)
    source = VolumeSource(
        grid=grid,
        dtype=seen.dtype,
        series_id=series_digest(grid, planes, None, False),
        patient=names.patient(f"file:{content}"),
        study=names.uid(uid),
        series=names.uid(uid),
        planes=tuple(planes),
        attributes={"source_format": header.kind.lower()},
        notes=notes,
    )
    return Verdict(VerdictKind.ACCEPT, "", "; ".join(notes), "", 1, source.series, source)


class _Seen:
    """What all planes together say of the dtype that holds their HU."""

    def __init__(self) -> None:
        self.fits_int16 = True

    def add(self, stored: NDArray[Any], rescale: Rescale) -> None:
        """Raises LabelFaultError for values that no volume can hold."""
        hu = stored.astype(np.float64) * rescale.slope + rescale.intercept
        lowest, highest = float(hu.min()), float(hu.max())
        if not np.isfinite([lowest, highest]).all() or max(-lowest, highest) > float(np.finfo(np.float32).max):
            problem = "a volume with values that are no finite numbers"
            raise LabelFaultError("unsupported-pixels", problem, "write it again, with -1024 where there is no value")
        if self.fits_int16:
            self.fits_int16 = INT16.min <= lowest and highest <= INT16.max and bool((hu == np.rint(hu)).all())

    @property
    def dtype(self) -> Literal["int16", "float32"]:
        return "int16" if self.fits_int16 else "float32"


def _notes(header: RasterHeader, grid: Grid) -> tuple[str, ...]:
    notes = [
        f"units: values are taken as HU, {header.kind} names no unit",
        f"patient: {header.kind} names none; the content of the file stands for it",
    ]
    if grid.letters != ("S", "P", "L"):
        notes.append(f"axes: planes, rows and columns run towards {', '.join(grid.letters)}, kept as they are stored")
    return tuple(notes)
