"""NIfTI headers: a single-file NIfTI-1 or NIfTI-2, plain or in gzip, placed by its own affine (RAS, turned to LPS).

Nothing is guessed: a file without orientation (sform and qform codes both 0), or whose sform and qform place it
differently, is refused. Source: nifti1.h, "method 2" and "method 3".
"""

from __future__ import annotations

import zlib
from io import BytesIO
from typing import Any

import numpy as np

from ctpipe.dicom.lattice import corner_indexes
from ctpipe.dicom.raster_file import RasterHeader, Rows
from ctpipe.dicom.structure import LabelFaultError

HEADER_BYTES = 544  # of NIfTI-2 with its extension flag; NIfTI-1 needs 352
SAME_PLACE_VOX = 0.1  # sform and qform must agree to this at every corner
INTENT_LABEL = 1002
MILLIMETRES = (0, 2)  # codes of the unit: unknown, which is what most writers leave, and mm


def is_nifti(head: bytes) -> bool:
    """Whether the first bytes of a file, compressed or not, are a single-file NIfTI-1 or NIfTI-2."""
    head = _unzipped_head(head)
    return head[344:348] == b"n+1\0" or head[4:12] == b"n+2\0\r\n\x1a\n"


def nifti_header(head: bytes) -> RasterHeader:
    """What the first bytes of a file say. Raises LabelFaultError."""
    from nibabel.spatialimages import HeaderDataError  # a tenth of a second, for those who bring a NIfTI

    header = _header(_unzipped_head(head))
    try:
        slope, inter = header.get_slope_inter()
        intent = int(header["intent_code"])
        unit = int(header["xyzt_units"]) & 7
    except (HeaderDataError, ValueError) as error:
        raise LabelFaultError("bad-rescale", "a NIfTI slope is no number", "write the file again") from error
    if unit not in MILLIMETRES:
        raise LabelFaultError("bad-pixel-spacing", "a NIfTI volume in another unit than mm", "write it in mm")
    return RasterHeader(
        kind="NIfTI",
        shape=_shape(header),
        rows=_lps_rows(header),
        dtype=header.get_data_dtype().str,
        packed_at=0 if head[:2] == b"\x1f\x8b" else None,
        offset=_offset(header),
        slope=1.0 if slope is None else float(slope),
        inter=float(inter or 0.0),
        states_labels=intent == INTENT_LABEL,
    )


def _unzipped_head(head: bytes) -> bytes:
    if head[:3] != b"\x1f\x8b\x08":
        return head
    try:
        return zlib.decompressobj(wbits=31).decompress(head, HEADER_BYTES)
    except zlib.error:
        return b""


def _header(head: bytes) -> Any:
    import nibabel as nib
    from nibabel.wrapstruct import WrapStructError

    kind = nib.Nifti2Header if head[4:8] == b"n+2\0" else nib.Nifti1Header
    try:
        header = kind.from_fileobj(BytesIO(head[:540] if kind is nib.Nifti2Header else head[:348]), check=False)
        dtype = header.get_data_dtype()
    except (nib.spatialimages.HeaderDataError, WrapStructError, ValueError, KeyError) as error:
        raise LabelFaultError("unreadable", "a NIfTI header cannot be read", "write the file again") from error
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        problem = "a NIfTI volume of colours, complex or very long numbers"
        raise LabelFaultError("unsupported-pixels", problem, "write whole numbers or float32")
    return header


def _shape(header: Any) -> tuple[int, int, int]:
    shape = tuple(int(n) for n in header.get_data_shape())
    if len(shape) < 3 or min(shape, default=0) < 1:
        problem = f"a NIfTI volume of {len(shape)} axes, not 3"
        raise LabelFaultError("too-few-slices", problem, "write one 3-D volume")
    if any(n != 1 for n in shape[3:]):
        problem = f"a NIfTI file of {int(np.prod(shape[3:], dtype=object))} volumes, not 1"
        raise LabelFaultError("frames", problem, "write each volume as a file of its own")
    return shape[0], shape[1], shape[2]


def _offset(header: Any) -> int:
    offset = float(header["vox_offset"])
    if not header.sizeof_hdr <= offset < 1 << 30 or offset != int(offset):
        raise LabelFaultError("unreadable", "a NIfTI header says no place for its voxels", "write the file again")
    return int(offset)


def _lps_rows(header: Any) -> Rows:
    """4x4 affine (i, j, k, 1) -> LPS mm, by sform, else qform. Raises LabelFaultError where neither or both differ."""
    from nibabel.spatialimages import HeaderDataError

    try:
        sform, qform = header.get_sform(coded=True)[0], header.get_qform(coded=True)[0]
    except (ValueError, HeaderDataError) as error:
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
    if sform is not None and qform is not None and np.isfinite(sform).all() and np.isfinite(qform).all():
        corners = corner_indexes(_shape(header))
        apart = corners @ (sform - qform)[:3, :3].T + (sform - qform)[:3, 3]
        if np.abs(apart).max() > SAME_PLACE_VOX * np.linalg.norm(affine[:3, :3], axis=0).min():
            raise LabelFaultError(
                "bad-orientation",
                "a NIfTI volume whose sform and qform place it differently",
                "write both alike, or set the code of the wrong one to 0",
            )
    return tuple(tuple(float(v) for v in row) for row in affine * np.array([[-1.0], [-1.0], [1.0], [1.0]]))
