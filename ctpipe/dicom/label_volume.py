"""Label volumes in NIfTI or NRRD: one structure a value, or a segment where the header names them.

A file with one non-zero value is one structure named by the file (without .nii, .nii.gz, .nrrd, .seg.nrrd); with
several, the value is added to the name. Values that are no labels refuse the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from ctpipe.dicom.lattice import LatticeMap, corner_indexes
from ctpipe.dicom.nifti import is_nifti, nifti_header
from ctpipe.dicom.nrrd import HEADER_BYTES, is_nrrd, nrrd_header
from ctpipe.dicom.raster_file import RasterHeader, Rows
from ctpipe.dicom.sources import Item, Locator
from ctpipe.dicom.structure import LabelFaultError, Structure, clean_name, digest_of
from ctpipe.errors import InputError
from ctpipe.volume import Grid

MAX_VALUES = 255  # more distinct values than this are an image: 8 bits of grey have 256
KEPT_VOLUMES = 2  # unpacked label volumes that one process keeps
_SUFFIX = re.compile(r"\.(nii(\.gz)?|(seg\.)?nrrd)$", re.IGNORECASE)


@dataclass(frozen=True)
class VolumeLabel(Structure):
    """One value of one label volume.

    file_digest: of the whole file. value: as stored, before any slope. shape: voxels (i, j, k). rows: 4x4 affine,
        (i, j, k, 1) index -> LPS mm. layer: of several volumes in one file.
    nearest: set where the user's only volume has another lattice.
    """

    locator: Locator
    file_digest: str
    value: float
    shape: tuple[int, int, int]
    rows: Rows
    layer: int = 0
    nearest: bool = False

    def fits(self, grid: Grid) -> str | None:
        if self.nearest or LatticeMap.between(self.rows, grid).covers(self.shape, grid):
            return None
        return f"its {' x '.join(map(str, self.shape))} voxels are not those of the volume"

    def inside(self, grid: Grid) -> bool:
        """Whether every labelled voxel lies within `grid`, to half a voxel."""
        low, high = _box(np.asarray(self._voxels() == self.value))
        corners = (corner_indexes((2, 2, 2)) * (high - low) + low) @ np.asarray(self.rows)[:3, :3].T
        at = grid.to_index(corners + np.asarray(self.rows)[:3, 3])
        return bool((at >= -0.5).all() and (at <= np.asarray(grid.shape) - 0.5).all())

    def planes(self, grid: Grid, start: int, stop: int) -> NDArray[np.bool_]:
        return LatticeMap.between(self.rows, grid).gather(self._voxels(), self.value, grid, start, stop)

    def _voxels(self) -> NDArray[np.generic]:
        return np.asarray(_layers(self.locator, self.file_digest)[self.layer])


@dataclass(frozen=True)
class NiftiLabel(VolumeLabel):
    """One value of one NIfTI file."""

    kind = "nifti"


@dataclass(frozen=True)
class NrrdLabel(VolumeLabel):
    """One value, or one segment, of one NRRD file."""

    kind = "nrrd"


# No voxel is so large, none lies so far from the origin: such an affine is no place in a patient.
FARTHEST_MM = 1e6


def is_raster(head: bytes) -> bool:
    """Whether the first bytes of a file are those of a NIfTI or NRRD file."""
    return is_nifti(head) or is_nrrd(head)


def raster_header(locator: Locator, size: int) -> RasterHeader:
    """Header of a NIfTI or NRRD file of `size` bytes, held against that size. Raises LabelFaultError, InputError."""
    head = locator.head()
    header = nrrd_header(locator.head(HEADER_BYTES)) if is_nrrd(head) else nifti_header(head)
    header.refuse_size(size)
    if np.abs(header.rows).max() > FARTHEST_MM:
        raise LabelFaultError("missing-orientation", f"a {header.kind} file whose affine holds lengths of a kilometre",
                              "write it with the affine of its CT, in mm")  # fmt: skip
    return header


def read_label_volume(item: Item) -> list[VolumeLabel]:
    """One structure for each non-zero value, ascending, or each named segment. Raises LabelFaultError, InputError."""
    header = raster_header(item.locator, item.size)
    digest = digest_of(item.locator)
    layers = _layers(item.locator, digest)
    stem = clean_name(_SUFFIX.sub("", item.name))
    if header.segments:
        labels: tuple[tuple[str, float, int], ...] = header.segments
        for layer, voxels in enumerate(layers):
            _refuse_unnamed(voxels, {value for _, value, of in labels if of == layer})
    elif header.n_layers > 1:
        problem = "a NRRD file of several layers whose segments have no names"
        raise LabelFaultError("not-labels", problem, "save it with 3D Slicer, or give one 3-D label volume")
    else:
        labels = tuple(_named_by_value(header, layers[0], stem))
    of_kind = NrrdLabel if header.kind == "NRRD" else NiftiLabel
    return [
        of_kind(
            name=name,
            origin=f"{header.kind} {clean_name(item.name)}",
            frame_of_reference=None,
            digest=sha256(f"{digest} {stored}{f' {layer}' if layer else ''}".encode()).hexdigest()[:32],
            notes=(),
            locator=item.locator,
            file_digest=digest,
            value=stored,
            shape=header.shape,
            rows=header.rows,
            layer=layer,
        )
        for name, stored, layer in labels
    ]


def _named_by_value(header: RasterHeader, voxels: NDArray[np.generic], stem: str) -> Iterator[tuple[str, float, int]]:
    """(name, stored value, layer) of each label."""
    values = _values(voxels)
    meant = [value * header.slope + header.inter for value in values]
    _refuse_no_labels(meant, header.kind)
    labels = [(stored, int(value)) for stored, value in zip(values, meant, strict=True) if value != 0]
    if len(labels) == len(values) > 1:
        problem = f"a {header.kind} volume has several values and no background 0"
        raise LabelFaultError("not-labels", problem, "give 0 to background")
    if not labels:  # all background: a structure that is there and empty, as in a patient without lesions
        labels = [(values[0] + 1, 1)]
    for stored, value in labels:
        yield (stem if len(labels) == 1 else f"{stem}{value}"), stored, 0


@lru_cache(maxsize=KEPT_VOLUMES)
def _layers(locator: Locator, digest: str) -> NDArray[np.generic]:
    """Stored values (layer, i, j, k), read-only: mapped where they lie plain on disk, else unpacked once a process.

    Raises InputError where the content is no longer that of `digest`, LabelFaultError where voxels are missing.
    """
    if digest_of(locator) != digest:
        raise InputError("a label file changed since it was listed", "run the command again")
    head = locator.head()
    header = nrrd_header(locator.head(HEADER_BYTES)) if is_nrrd(head) else nifti_header(head)
    shape, dtype = (header.n_layers, *header.shape), np.dtype(header.dtype)
    if header.packed_at is None and not locator.members:
        try:
            return np.memmap(locator.path, dtype, "r", header.offset, shape, order="F")
        except ValueError as error:
            problem = f"a {header.kind} file is truncated: voxels are missing"
            raise LabelFaultError("truncated", problem, "fetch the file again") from error
    data = bytearray(header.voxel_bytes)
    for k, plane in enumerate(header.planes(locator)):
        data[k * header.plane_bytes : (k + 1) * header.plane_bytes] = plane
    out = np.frombuffer(data, dtype).reshape(shape, order="F")
    out.setflags(write=False)
    return out


def _values(voxels: NDArray[np.generic]) -> list[float]:
    """Distinct stored values, ascending; at most MAX_VALUES and a few (the rest is refused anyway)."""
    found: set[float] = set()
    for k in range(voxels.shape[2]):
        plane = np.asarray(voxels[:, :, k])
        # most planes of a label volume hold one value: no sort for them
        first = plane.flat[0]
        found.update([first.item()] if (plane == first).all() else np.unique(plane).tolist())
        if len(found) > MAX_VALUES:
            break
    return sorted(found)


def _refuse_unnamed(voxels: NDArray[np.generic], named: set[float]) -> None:
    """Raises LabelFaultError where a value is no segment's: it would be lost in silence."""
    for k in range(voxels.shape[2]):
        if not set(np.unique(np.asarray(voxels[:, :, k])).tolist()) <= named | {0}:
            problem = "a NRRD file with values that none of its segments names"
            raise LabelFaultError("not-labels", problem, "save it again with all its segments")


def _refuse_no_labels(values: list[float], kind: str) -> None:
    if any(not np.isfinite(v) or v != int(v) for v in values):
        raise LabelFaultError(
            "not-labels",
            f"a {kind} volume of fractions is no label volume",
            "round or threshold it, then write whole numbers",
        )
    if min(values) < 0 or len(values) > MAX_VALUES:
        problem = f"a {kind} volume with negative or very many values is an image, no label volume"
        raise LabelFaultError("not-labels", problem, "give labels")


def _box(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Lowest and highest index (i, j, k) of a mask, of the whole array where it is empty."""
    if not mask.any():
        return np.zeros(3, np.int64), np.asarray(mask.shape) - 1
    spans = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return np.array([s[0] for s in spans]), np.array([s[-1] for s in spans])
