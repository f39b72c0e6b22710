"""RT Structure Sets: closed planar contours, rasterised on the CT's planes.

Linked by frame of reference and position along the normal, never by SOP instance UID: real files refer to images that
do not exist. A voxel belongs to a region when its centre lies inside by the even-odd rule over all contours of that
plane together, so that an inner contour is a hole. Source: PS3.3 C.8.8.5, C.8.8.6.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from ctpipe.dicom import elements
from ctpipe.dicom.identity import Pseudonyms
from ctpipe.dicom.parse import quiet
from ctpipe.dicom.sources import Item, Locator
from ctpipe.dicom.structure import LabelFaultError, Structure, clean_name, parse_whole
from ctpipe.errors import InputError
from ctpipe.volume import Grid
from ctpipe.words import VerdictKind

# A contour may lie this far off its plane: positions are written to 0.01 or 0.1 mm.
PLANE_TOLERANCE_MM = 0.05
PLANE_TOLERANCE_VOX = 0.05
AREA_TYPES = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
KEPT_FILES = 4

Contours = tuple[NDArray[np.float64], ...]


@dataclass(frozen=True)
class Roi(Structure):
    """One ROI of one RT Structure Set; number: its ROINumber, which is all that points into the file."""

    kind = "rtstruct"

    locator: Locator
    file_digest: str
    number: int

    def fits(self, grid: Grid) -> str | None:
        if grid.frame_of_reference is None:
            return "the volume has no frame of reference to link contours by"
        if self.frame_of_reference != grid.frame_of_reference:
            return "its frame of reference is another one than the volume's"
        contours = self._contours()
        tolerance = max(PLANE_TOLERANCE_VOX, PLANE_TOLERANCE_MM / grid.spacing_mm[0])
        off = sum(_plane_of(contour, grid, tolerance) is None for contour in contours)
        if off:
            return f"{off} of its {len(contours)} contours lie on no plane of the volume"
        return None

    def planes(self, grid: Grid, start: int, stop: int) -> NDArray[np.bool_]:
        out = np.zeros((stop - start, grid.shape.y, grid.shape.x), bool)
        by_plane: dict[int, list[NDArray[np.float64]]] = {}
        for contour in self._contours():
            index = grid.to_index(contour)
            by_plane.setdefault(int(np.rint(index[:, 0].mean())), []).append(index[:, 1:])
        for z, polygons in by_plane.items():
            if start <= z < stop:
                out[z - start] = fill_even_odd(polygons, (grid.shape.y, grid.shape.x))
        return out

    def _contours(self) -> Contours:
        """Contours that enclose something: one of less than 3 points encloses no pixel centre."""
        contours = _file_contours(self.locator, self.file_digest)[self.number]
        return tuple(contour.points for contour in contours if len(contour.points) > 2)


def read_rois(item: Item, data: bytes, pseudonyms: Pseudonyms) -> list[Roi | LabelFaultError]:
    """Every ROI of a file as a structure, or why it is none. Raises LabelFaultError for a file broken as a whole."""
    file_digest = sha256(data).hexdigest()[:32]
    heads = _heads(parse_whole(data).ds)
    contours = _file_contours(item.locator, file_digest)
    if not heads:
        raise LabelFaultError("not-labels", "an RTSTRUCT without regions", "export it again")
    if len({head.number for head in heads}) < len(heads):
        raise LabelFaultError("uid-conflict", "an RTSTRUCT gives one ROI number twice", "export it again")
    out: list[Roi | LabelFaultError] = []
    for head in heads:
        try:
            _refuse_no_region(contours.get(head.number, ()))
            if not elements.is_uid(head.frame):
                problem = "a region without frame of reference cannot be linked to a CT"
                raise LabelFaultError("missing-position", problem, "export it again")
            out.append(
                Roi(
                    name=head.name or f"ROI{head.number}",
                    origin=f"RTSTRUCT region {head.number}",
                    frame_of_reference=pseudonyms.uid(head.frame),
                    digest=sha256(f"{file_digest} {head.number}".encode()).hexdigest()[:32],
                    notes=(),
                    locator=item.locator,
                    file_digest=file_digest,
                    number=head.number,
                )
            )
        except LabelFaultError as fault:
            out.append(fault)
    return out


def fill_even_odd(polygons: list[NDArray[np.float64]], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels (y, x) whose centre lies inside an odd number of the closed polygons: bool of `shape`.

    polygons: (n, 2) vertices (y, x) in pixel indexes. One pass over all edges: an edge that spans row r crosses it at
    x, and every pixel from ceil(x) on changes sides. Rows are spanned half-open (y0 <= r < y1), so that a vertex on
    a row counts once.
    """
    edges = np.concatenate([np.stack([p, np.roll(p, -1, axis=0)], axis=1) for p in polygons])  # (n, 2 ends, yx)
    edges = np.where(edges[:, :1, :1] <= edges[:, 1:, :1], edges, edges[:, ::-1])  # upwards: both ways cross alike
    (y0, x0), (y1, x1) = edges[:, 0].T, edges[:, 1].T
    first = np.clip(np.ceil(y0), 0, shape[0]).astype(np.int64)
    rows_each = np.clip(np.ceil(y1), 0, shape[0]).astype(np.int64) - first
    edge = np.repeat(np.arange(len(edges)), rows_each)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(rows_each) - rows_each, rows_each) + first[edge]
    x = x0[edge] + (row - y0[edge]) * (x1 - x0)[edge] / (y1 - y0)[edge]
    column = np.clip(np.ceil(x), 0, shape[1]).astype(np.int64)
    flips = np.bincount(row * (shape[1] + 1) + column, minlength=shape[0] * (shape[1] + 1))
    return (np.cumsum(flips.reshape(shape[0], shape[1] + 1)[:, :-1], axis=1) & 1).astype(bool)


def _plane_of(contour: NDArray[np.float64], grid: Grid, tolerance_vox: float) -> int | None:
    """The plane that every point of the contour lies on, or None."""
    z = grid.to_index(contour)[:, 0]
    plane = int(np.rint(z.mean()))
    return plane if 0 <= plane < grid.shape.z and np.abs(z - plane).max() <= tolerance_vox else None


@dataclass(frozen=True)
class _Head:
    """What StructureSetROISequence says of one region; frame: raw UID, "" where absent."""

    number: int
    name: str
    frame: str


@dataclass(frozen=True)
class _Contour:
    """One contour as written: its geometric type and (n, 3) points in LPS mm."""

    kind: str
    points: NDArray[np.float64]


def _refuse_no_region(contours: tuple[_Contour, ...]) -> None:
    kinds = {contour.kind for contour in contours}
    if kinds.isdisjoint(AREA_TYPES):
        problem = "a region of points or open lines has no inside" if kinds else "a region without contours"
        raise LabelFaultError("not-labels", problem, "none needed, unless it was meant as one", VerdictKind.SET_ASIDE)
    if not kinds <= set(AREA_TYPES):
        raise LabelFaultError("not-labels", "a region of both closed and other contours", "export closed ones only")
    if len({contour.points.tobytes() for contour in contours}) < len(contours):
        # even-odd would make a hole of it in silence
        raise LabelFaultError("duplicate-file", "a region holds the same contour twice", "export it again")


def _heads(ds: Dataset) -> list[_Head]:
    try:
        with quiet():
            return [
                _Head(
                    int(roi.ROINumber),
                    clean_name(str(roi.get("ROIName") or "")),
                    elements.text(roi, "ReferencedFrameOfReferenceUID") or "",
                )
                for roi in elements.items(ds, "StructureSetROISequence")
            ]
    except Exception as error:  # values and nested items are parsed only here, and pydicom raises nearly anything
        raise _broken() from error


@lru_cache(maxsize=KEPT_FILES)
def _file_contours(locator: Locator, digest: str) -> dict[int, tuple[_Contour, ...]]:
    """ROI number -> its contours; parsed once a process. Raises InputError where the file changed, LabelFaultError."""
    data = locator.read()
    if sha256(data).hexdigest()[:32] != digest:
        raise InputError("an RTSTRUCT changed since it was listed", "run the command again")
    out: dict[int, tuple[_Contour, ...]] = {}
    ds = parse_whole(data).ds
    try:
        with quiet():
            for roi in elements.items(ds, "ROIContourSequence"):
                number = int(roi.ReferencedROINumber)
                contours = [_read_contour(contour) for contour in elements.items(roi, "ContourSequence")]
                out[number] = (*out.get(number, ()), *contours)
    except Exception as error:  # as in _heads
        raise _broken() from error
    return out


def _read_contour(contour: Dataset) -> _Contour:
    """From the raw text: pydicom's objects for each number would take most of the time. Raises ValueError."""
    if any(elements.truncated_elements(contour)):
        raise ValueError("a contour ends early")
    raw = elements.raw_element(contour, "ContourData")
    numbers = [float(v) for v in raw.value.decode("ascii").strip(" \0").split("\\")] if raw and raw.value else []
    points = np.asarray(numbers, np.float64).reshape(-1, 3)
    if not np.isfinite(points).all() or elements.integer(contour, "NumberOfContourPoints") not in (None, len(points)):
        raise ValueError("a contour of other points than it declares")
    kinds = elements.texts(contour, "ContourGeometricType")
    return _Contour(kinds[0] if kinds else "", points)


def _broken() -> LabelFaultError:
    return LabelFaultError("bad-number", "an RTSTRUCT whose regions or contours cannot be read", "export it again")
