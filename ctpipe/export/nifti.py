"""NIfTI-1 of one label volume: RAS affine in sform and qform, voxels streamed slab by slab.

A NIfTI array runs i (column) fastest, then j (row), then k (plane): the bytes of (z, y, x) in C order, as they stand.
qform holds a rotation and three steps only; a sheared grid has sform alone. Source: nifti1.h, methods 2 and 3.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ctpipe.errors import InputError
from ctpipe.export.case import Case
from ctpipe.export.files import whole_file
from ctpipe.volume import Grid

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
SCANNER, UNKNOWN = 1, 0  # codes of what an affine leads to
INTENT_LABEL = 1002
MAX_EXTENT = 32767  # voxels along one axis of NIfTI-1


def write_nifti(case: Case, path: Path) -> None:
    """The labels as .nii or, by the ending of `path`, .nii.gz. Raises InputError for planes that no affine places."""
    case.refuse_uneven("NIfTI")
    if max(case.grid.shape) > MAX_EXTENT:
        raise InputError(f"volume {case.series.id} is longer than the {MAX_EXTENT} voxels of NIfTI-1", "export a part")
    with whole_file(path) as file, _packed(file, path.name.endswith(".gz")) as out:
        out.write(_header(case))
        for _, labels in case.slabs():
            out.write(np.ascontiguousarray(labels, labels.dtype.newbyteorder("<")).data)


def ras_affine(grid: Grid) -> NDArray[np.float64]:
    """(4, 4): (i, j, k, 1) = (column, row, plane, 1) -> RAS mm."""
    return LPS_TO_RAS @ grid.affine[:, [2, 1, 0, 3]]


def _header(case: Case) -> bytes:
    import nibabel as nib

    header = nib.Nifti1Header(endianness="<")
    z, y, x = case.grid.shape
    header.set_data_shape((x, y, z))
    header.set_data_dtype(np.dtype(case.labels.dtype))
    header.set_xyzt_units("mm")
    affine = ras_affine(case.grid)
    header.set_sform(affine, SCANNER)
    if case.grid.is_sheared:
        header.set_qform(None, UNKNOWN)
    else:
        header.set_qform(affine, SCANNER, strip_shears=True)
    header["intent_code"] = INTENT_LABEL
    header["descrip"] = f"ctpipe labels {case.labels.name}".encode("ascii", "replace")[:79]
    header["vox_offset"] = 352
    header["magic"] = b"n+1\0"
    return bytes(header.binaryblock) + b"\0" * 4  # no extension follows


@contextmanager
def _packed(file: BinaryIO, packed: bool) -> Iterator[BinaryIO]:
    if not packed:
        yield file
        return
    # no name and no time in the gzip header: equal labels, equal bytes
    with gzip.GzipFile(filename="", mode="wb", compresslevel=5, fileobj=file, mtime=0) as out:
        yield out  # type: ignore[misc]
