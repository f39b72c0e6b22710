"""NIfTI label volumes: one structure a value, placed by the file's own affine (RAS, turned to LPS).

A file with one non-zero value is one structure named by the file (without .nii, .nii.gz); with several, the value is
added to the name. Nothing is guessed: a file without orientation (sform and qform codes both 0), or whose sform and
qform place it differently, or whose values are no labels, is refused. Source: nifti1.h, "method 2" and "method 3".
"""

from __future__ import annotations

import gzip
import re
import zlib
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from io import BytesIO
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from ctpipe.dicom.lattice import LatticeMap, corner_indexes
from ctpipe.dicom.sources import MAX_ITEM_BYTES, Item, Locator
from ctpipe.dicom.structure import LabelFaultError, Structure, clean_name
from ctpipe.errors import InputError
from ctpipe.volume import Grid

HEADER_BYTES = 544  # of NIfTI-2 with its extension flag; NIfTI-1 needs 352
MAX_VALUES = 255  # more distinct values than this are an image: 8 bits of grey have 256
SAME_PLACE_VOX = 0.1  # sform and qform must agree to this at every corner
KEPT_VOLUMES = 2  # unpacked label volumes that one process keeps

Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class NiftiLabel(Structure):
    """One value of one NIfTI file.

    file_digest: of the whole file. value: as stored, before scl_slope. shape: voxels (i, j, k). rows: 4x4 affine,
        (i, j, k, 1) index -> LPS mm.
    nearest: set by `nearest_on` where the user's only volume has another lattice.
    """

    kind = "nifti"

    locator: Locator
    file_digest: str
    value: float
    shape: tuple[int, int, int]
    rows: Rows
    nearest: bool = False

    def fits(self, grid: Grid) -> str | None:
        if self.nearest or LatticeMap.between(self.rows, grid).covers(self.shape, grid):
            return None
        return f"its {' x '.join(map(str, self.shape))} voxels are not those of the volume"

    def inside(self, grid: Grid) -> bool:
        """Whether every labelled voxel lies within `grid`, to half a voxel."""
        low, high = _box(np.asarray(_voxels(self.locator, self.file_digest) == self.value))
        corners = (corner_indexes((2, 2, 2)) * (high - low) + low) @ np.asarray(self.rows)[:3, :3].T
        at = grid.to_index(corners + np.asarray(self.rows)[:3, 3])
        return bool((at >= -0.5).all() and (at <= np.asarray(grid.shape) - 0.5).all())

    def planes(self, grid: Grid, start: int, stop: int) -> NDArray[np.bool_]:
        voxels = _voxels(self.locator, self.file_digest)
        return LatticeMap.between(self.rows, grid).gather(voxels, self.value, grid, start, stop)


def is_nifti(head: bytes) -> bool:
    """Whether the first bytes of a file, compressed or not, are a single-file NIfTI-1 or NIfTI-2."""
    head = _unzipped_head(head)
    return head[344:348] == b"n+1\0" or head[4:12] == b"n+2\0\r\n\x1a\n"


def read_nifti(item: Item) -> list[NiftiLabel]:
    """One structure for each non-zero value, ascending. Raises LabelFaultError, InputError."""
    header = _header(item.head())
    shape, rows = _shape(header), _lps_rows(header)
    digest = _digest(item.locator)
    values = _values(_voxels(item.locator, digest))
    slope, inter = header.get_slope_inter()
    meant = [value * (slope if slope is not None else 1.0) + (inter or 0.0) for value in values]
    _refuse_no_labels(meant)
    labels = [(stored, int(value)) for stored, value in zip(values, meant, strict=True) if value != 0]
    if len(labels) == len(values) > 1:
        raise LabelFaultError(
            "not-labels", "a NIfTI volume has several values and no background 0", "give 0 to background"
        )
    if not labels:  # all background: a structure that is there and empty, as in a patient without lesions
        labels = [(values[0] + 1, 1)]
    stem = clean_name(re.sub(r"\.nii(\.gz)?$", "", item.name, flags=re.IGNORECASE))
    return [
        NiftiLabel(
            name=stem if len(labels) == 1 else f"{stem}{value}",
            origin=f"NIfTI {clean_name(item.name)}",
            frame_of_reference=None,
            digest=sha256(f"{digest} {stored}".encode()).hexdigest()[:32],
            notes=(),
            locator=item.locator,
            file_digest=digest,
            value=stored,
            shape=shape,
            rows=rows,
        )
        for stored, value in labels
    ]


def _unzipped_head(head: bytes) -> bytes:
    if head[:3] != b"\x1f\x8b\x08":
        return head
    try:
        return zlib.decompressobj(wbits=31).decompress(head, HEADER_BYTES)
    except zlib.error:
        return b""


def _header(head: bytes) -> Any:
    head = _unzipped_head(head)
    kind = nib.Nifti2Header if head[4:8] == b"n+2\0" else nib.Nifti1Header
    try:
        header = kind.from_fileobj(BytesIO(head[:540] if kind is nib.Nifti2Header else head[:348]), check=False)
        dtype = header.get_data_dtype()
    except (nib.spatialimages.HeaderDataError, nib.wrapstruct.WrapStructError, ValueError, KeyError) as error:
        raise LabelFaultError("unreadable", "a NIfTI header cannot be read", "write the file again") from error
    if dtype.kind not in "uif":
        raise LabelFaultError("not-labels", "a NIfTI volume of colours or complex numbers", "give whole numbers")
    return header


def _shape(header: Any) -> tuple[int, int, int]:
    shape = tuple(int(n) for n in header.get_data_shape())
    if len(shape) < 3 or min(shape, default=0) < 1 or any(n != 1 for n in shape[3:]):
        raise LabelFaultError("not-labels", f"a NIfTI volume of {len(shape)} axes, not 3", "give one 3-D label volume")
    if int(np.prod(shape, dtype=object)) * header.get_data_dtype().itemsize > MAX_ITEM_BYTES:
        raise LabelFaultError(
            "bomb", "a NIfTI volume is too large: the limit is 4 GiB of voxels", "use a smaller dtype"
        )
    return shape[0], shape[1], shape[2]


def _lps_rows(header: Any) -> Rows:
    """4x4 affine (i, j, k, 1) -> LPS mm, by sform, else qform. Raises LabelFaultError where neither or both differ."""
    try:
        sform, qform = header.get_sform(coded=True)[0], header.get_qform(coded=True)[0]
    except (ValueError, nib.spatialimages.HeaderDataError) as error:
        raise LabelFaultError(
            "bad-orientation", "a NIfTI orientation is no rotation", "write the file again"
        ) from error
    affine = qform if sform is None else sform
    if affine is None:
        raise LabelFaultError(
            "missing-orientation",
            "a NIfTI volume without orientation: sform and qform codes are 0",
            "write it with the affine of its CT",
        )
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise LabelFaultError(
            "bad-orientation", "a NIfTI affine cannot be inverted", "write it with the affine of its CT"
        )
    if sform is not None and qform is not None and np.isfinite(qform).all():
        corners = corner_indexes(_shape(header))
        apart = corners @ (sform - qform)[:3, :3].T + (sform - qform)[:3, 3]
        if np.abs(apart).max() > SAME_PLACE_VOX * np.linalg.norm(affine[:3, :3], axis=0).min():
            raise LabelFaultError(
                "bad-orientation",
                "a NIfTI volume whose sform and qform place it differently",
                "write both alike, or set the code of the wrong one to 0",
            )
    return tuple(tuple(float(v) for v in row) for row in np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)


def _digest(locator: Locator) -> str:
    if locator.members:
        return sha256(locator.read()).hexdigest()[:32]
    try:
        running = sha256()
        with open(locator.path, "rb") as file:
            while block := file.read(1 << 20):
                running.update(block)
    except OSError as error:
        raise InputError(f"a label file cannot be read ({error.strerror})", "see that it is still there") from error
    return running.hexdigest()[:32]


@lru_cache(maxsize=KEPT_VOLUMES)
def _voxels(locator: Locator, digest: str) -> NDArray[np.generic]:
    """Stored values (i, j, k), read-only: mapped where the file lies plain on disk, else unpacked once a process.

    Raises InputError where the content is no longer that of `digest`, LabelFaultError where voxels are missing.
    """
    if _digest(locator) != digest:
        raise InputError("a label file changed since it was listed", "run the command again")
    head = locator.head()
    header = _header(head)
    shape, dtype, offset = _shape(header), header.get_data_dtype(), int(header.get_data_offset())
    wanted = int(np.prod(shape)) * dtype.itemsize
    try:
        if head[:2] == b"\x1f\x8b":
            # never more than the header declares, so that a small file cannot fill the memory
            with gzip.GzipFile(fileobj=BytesIO(locator.read())) as stream:
                stream.read(offset)
                data: Any = stream.read(wanted)
                stream.read(1)  # at its end the stream's checksum is held against its bytes
        elif locator.members:
            data = locator.read()[offset : offset + wanted]
        else:
            return np.memmap(locator.path, dtype, "r", offset, shape, order="F")
        return np.frombuffer(data, dtype, count=wanted // dtype.itemsize).reshape(shape, order="F")
    except (ValueError, EOFError, OSError, zlib.error) as error:
        raise LabelFaultError(
            "truncated", "a NIfTI file is truncated or corrupt: voxels are missing", "fetch the file again"
        ) from error


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


def _refuse_no_labels(values: list[float]) -> None:
    if any(not np.isfinite(v) or v != int(v) for v in values):
        raise LabelFaultError(
            "not-labels",
            "a NIfTI volume of fractions is no label volume",
            "round or threshold it, then write whole numbers",
        )
    if min(values) < 0 or len(values) > MAX_VALUES:
        raise LabelFaultError(
            "not-labels", "a NIfTI volume with negative or very many values is an image, no label volume", "give labels"
        )


def _box(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Lowest and highest index (i, j, k) of a mask, of the whole array where it is empty."""
    if not mask.any():
        return np.zeros(3, np.int64), np.asarray(mask.shape) - 1
    spans = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return np.array([s[0] for s in spans]), np.array([s[-1] for s in spans])
