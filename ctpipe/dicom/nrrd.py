"""NRRD headers: one file with attached voxels, raw or gzip, in a space of anatomical axes.

A detached header (.nhdr), other encodings and spaces that do not say where the patient lies are refused by name.
3D Slicer's .seg.nrrd names its segments, which may stand in several layers: the first axis is then that of layers.
Source: the NRRD format definition of Teem, and Slicer's "Segmentation labelmap file format".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import nrrd
import numpy as np

from ctpipe.dicom.raster_file import RasterHeader, Rows
from ctpipe.dicom.structure import LabelFaultError, clean_name

HEADER_BYTES = 1 << 20  # Slicer writes some 600 bytes a segment
MAX_SEGMENTS = 65535
_END = re.compile(rb"\r?\n\r?\n")
_AGAIN = "write the file again, as one .nrrd with encoding raw or gzip"
# To L, P and S of an index along the named axes.
_SPACES = {
    "left-posterior-superior": (1, 1, 1), "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1), "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1), "las": (1, -1, 1),
}  # fmt: skip
_TYPES = {
    "i1": "signed char, int8, int8_t",
    "u1": "uchar, unsigned char, uint8, uint8_t",
    "i2": "short, short int, signed short, signed short int, int16, int16_t",
    "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "i4": "int, signed int, int32, int32_t",
    "u4": "uint, unsigned int, uint32, uint32_t",
    "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
    "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "f4": "float",
    "f8": "double",
}
_DTYPES = {name: code for code, names in _TYPES.items() for name in names.split(", ")}


def is_nrrd(head: bytes) -> bool:
    """Whether the first bytes of a file are those of a NRRD header, attached or detached."""
    return re.match(rb"NRRD000[1-5]\r?\n", head) is not None


def nrrd_header(head: bytes) -> RasterHeader:
    """What the first HEADER_BYTES of a file say. Raises LabelFaultError."""
    end = _END.search(head)
    if end is None:
        # a detached header may simply end
        if b"data file:" in head or b"datafile:" in head:
            raise _detached()
        raise LabelFaultError("unreadable", "a NRRD header that does not end", _AGAIN)
    try:
        fields = nrrd.read_header(iter(head[: end.start()].decode("utf-8", "replace").splitlines()))
        fields = {key.lower() if key[:7] != "Segment" else key: value for key, value in fields.items()}
        return _read(fields, end.end())  # a field by a name in other letters comes as text, which may be no number
    except (nrrd.NRRDError, ValueError, IndexError, TypeError, KeyError, OverflowError, StopIteration) as error:
        raise LabelFaultError("unreadable", "a NRRD header cannot be read", _AGAIN) from error


def _read(fields: Mapping[str, Any], voxels_at: int) -> RasterHeader:
    if "data file" in fields or "datafile" in fields:
        raise _detached()
    encoding = str(fields.get("encoding", "")).lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise LabelFaultError("unsupported-pixels", "a NRRD file of another encoding than raw or gzip", _AGAIN)
    if any(fields.get(name) for name in ("line skip", "lineskip", "byte skip", "byteskip")):
        raise LabelFaultError("unsupported-pixels", "a NRRD file that skips lines or bytes", _AGAIN)
    if any(name in fields for name in ("old min", "oldmin", "old max", "oldmax")):
        raise LabelFaultError("bad-rescale", "a NRRD file of quantized values", "write the values themselves")
    dtype = _dtype(fields)
    shape, n_layers, directions = _axes(fields)
    segments = _segments(fields, n_layers)
    packed = encoding != "raw"
    return RasterHeader(
        kind="NRRD",
        shape=shape,
        rows=_lps_rows(fields, directions),
        dtype=dtype,
        packed_at=voxels_at if packed else None,
        offset=0 if packed else voxels_at,
        n_layers=n_layers,
        segments=segments,
        states_labels=bool(segments),
    )


def _dtype(fields: Mapping[str, Any]) -> str:
    code = _DTYPES.get(str(fields.get("type", "")).lower())
    if code is None:
        raise LabelFaultError(
            "unsupported-pixels", "a NRRD file whose type is no number", "write whole numbers or float"
        )
    endian = str(fields.get("endian", "")).lower()
    if endian not in ("little", "big") and not code.endswith("1"):
        raise LabelFaultError("unsupported-pixels", "a NRRD file that does not say its byte order", _AGAIN)
    return np.dtype((">" if endian == "big" else "<") + code).str


def _axes(fields: Mapping[str, Any]) -> tuple[tuple[int, int, int], int, np.ndarray]:
    """(shape (i, j, k), layers, (3, 3) directions: a row an axis, in mm of the file's space)."""
    sizes = [int(n) for n in np.atleast_1d(fields.get("sizes", []))]
    kinds = [str(kind).lower() for kind in fields.get("kinds", [])]
    if len(sizes) not in (3, 4) or int(fields.get("dimension", 0)) != len(sizes) or min(sizes) < 1:
        raise LabelFaultError("frames", f"a NRRD file of {len(sizes)} axes, not 3", "write one 3-D volume")
    if len(sizes) == 4 and (kinds[:1] != ["list"] or kinds[1:] not in (["domain"] * 3, ["space"] * 3)):
        raise LabelFaultError("unsupported-pixels", "a NRRD file of colours, vectors or times", "write one 3-D volume")
    directions = np.atleast_2d(np.asarray(fields.get("space directions", np.nan), np.float64))
    if len(directions) != len(sizes) or directions.shape[1] != 3 or not np.isnan(directions[:-3]).all():
        raise LabelFaultError(
            "missing-orientation", "a NRRD file without space directions", "write it with space, directions and origin"
        )
    return (sizes[-3], sizes[-2], sizes[-1]), (sizes[0] if len(sizes) == 4 else 1), directions[-3:]


def _lps_rows(fields: Mapping[str, Any], directions: np.ndarray) -> Rows:
    """4x4 affine, (i, j, k, 1) index -> LPS mm."""
    signs = _SPACES.get(str(fields.get("space", "")).lower())
    origin = np.asarray(fields.get("space origin", np.nan), np.float64)
    if signs is None or origin.shape != (3,):
        raise LabelFaultError(
            "missing-orientation",
            "a NRRD file without space origin, or whose space names no sides of the patient",
            "write it with space left-posterior-superior, directions and origin",
        )
    units = {str(unit).strip('"').lower() for unit in fields.get("space units", [])}
    if not units <= {"mm", ""}:
        raise LabelFaultError("bad-pixel-spacing", "a NRRD file in another unit than mm", "write it in mm")
    affine = np.eye(4)
    affine[:3, :3] = directions.T * np.asarray(signs)[:, None]
    affine[:3, 3] = origin * signs
    return tuple(tuple(float(v) for v in row) for row in affine)


def _segments(fields: Mapping[str, Any], n_layers: int) -> tuple[tuple[str, int, int], ...]:
    """(name, value, layer) of each segment that Slicer wrote; () for a plain volume."""
    found: dict[int, dict[str, str]] = {}
    for key, value in fields.items():
        match = re.fullmatch(r"Segment(\d{1,5})_(Name|LabelValue|Layer)", key)
        if match:
            found.setdefault(int(match[1]), {})[match[2]] = str(value)
    out = []
    for number, words in sorted(found.items()):
        value, layer = words.get("LabelValue", ""), words.get("Layer", "0" if n_layers == 1 else "")
        if not re.fullmatch(r"\d{1,9}", value) or not re.fullmatch(r"\d{1,5}", layer) or int(layer) >= n_layers:
            raise LabelFaultError(
                "not-labels",
                "a segment of a NRRD file without its value and layer",
                "save it with 3D Slicer 4.11 or newer",
            )
        out.append((clean_name(words.get("Name", "")) or f"segment{number}", int(value), int(layer)))
    if len({(value, layer) for _, value, layer in out}) < len(out):
        raise LabelFaultError("uid-conflict", "two segments of a NRRD file share one value", "save it again")
    return tuple(out)


def _detached() -> LabelFaultError:
    return LabelFaultError("unsupported-pixels", "a NRRD header whose voxels stand in another file", _AGAIN)
