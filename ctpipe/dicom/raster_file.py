"""Raster files (NIfTI, NRRD): what the header says in one form for both, and their voxels as a stream of planes.

Voxels stand in the file as they are or in one gzip stream. That is read forwards only: one cursor a thread stays where
it was, so that slabs read in ascending order unpack the file once, and never more than a plane is in memory.
"""

from __future__ import annotations

import gzip
import threading
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO

import numpy as np

from ctpipe.dicom.sources import MAX_ITEM_BYTES, Locator
from ctpipe.dicom.structure import LabelFaultError
from ctpipe.errors import InputError

READ_BYTES = 1 << 20
MAX_PLANE_BYTES = 128 << 20
# Archives have the same limit: voxels may be this many times their packed bytes, above a size that hurts.
RATIO_COUNTS_ABOVE = 64 << 20
MAX_RATIO = 200

Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class RasterHeader:
    """One 3-D volume as its file says.

    kind: "NIfTI" or "NRRD". shape: voxels (i, j, k), i fastest. rows: 4x4 affine, (i, j, k, 1) index -> LPS mm.
    dtype: NumPy's, with byte order. packed_at: where in the file its gzip stream begins, None for plain voxels.
    offset: of the first voxel, in the file or in what is unpacked. slope, inter: stored -> value.
    n_layers: volumes of one shape that interleave, voxel by voxel. segments: (name, value, layer) where the header
    names them. states_labels: whether the header itself says that the values are labels.
    """

    kind: str
    shape: tuple[int, int, int]
    rows: Rows
    dtype: str
    packed_at: int | None
    offset: int
    slope: float = 1.0
    inter: float = 0.0
    n_layers: int = 1
    segments: tuple[tuple[str, int, int], ...] = ()
    states_labels: bool = False

    def __post_init__(self) -> None:
        affine = np.asarray(self.rows)
        if not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-12:
            problem = f"the affine of a {self.kind} file cannot be inverted"
            raise LabelFaultError("bad-orientation", problem, "write it with the affine of its CT")
        if self.voxel_bytes > MAX_ITEM_BYTES or self.plane_bytes > MAX_PLANE_BYTES:
            problem = f"a {self.kind} volume is too large: the limit is 4 GiB of voxels, 128 MiB a plane"
            raise LabelFaultError("bomb", problem, "use a smaller type, or crop it")

    @property
    def plane_bytes(self) -> int:
        """Bytes of one plane (j, i), all its layers."""
        return self.shape[0] * self.shape[1] * np.dtype(self.dtype).itemsize * self.n_layers

    @property
    def voxel_bytes(self) -> int:
        """Bytes of all voxels, unpacked."""
        return self.plane_bytes * self.shape[2]

    def refuse_size(self, file_bytes: int) -> None:
        """Raises LabelFaultError where the header declares more than a file of this size can or should hold."""
        if self.packed_at is None and self.offset + self.voxel_bytes > file_bytes:
            raise self._truncated()
        if self.voxel_bytes > max(RATIO_COUNTS_ABOVE, MAX_RATIO * file_bytes):
            problem = f"a {self.kind} file expands beyond the ratio limit: it declares too many voxels for its size"
            raise LabelFaultError("bomb", problem, "write it uncompressed, if it is right")

    def planes(self, locator: Locator) -> Iterator[bytes]:
        """Stored bytes of each plane in turn, to the end of the file. Raises LabelFaultError, InputError."""
        try:
            with _stream(locator, self.packed_at) as stream:
                _skip(stream, self.offset)
                for _ in range(self.shape[2]):
                    plane = stream.read(self.plane_bytes)
                    if len(plane) < self.plane_bytes:
                        raise EOFError
                    yield plane
                # at its end a gzip stream's checksum is held against its bytes
                if stream.read(1):
                    problem = f"a {self.kind} file holds more than the voxels that it declares"
                    raise LabelFaultError("unsupported-pixels", problem, "write the file again")
        except (EOFError, zlib.error, OSError) as error:
            raise self._truncated() from error

    def _truncated(self) -> LabelFaultError:
        problem = f"a {self.kind} file is truncated or corrupt: voxels are missing"
        return LabelFaultError("truncated", problem, "fetch the file again")


@contextmanager
def _stream(locator: Locator, packed_at: int | None) -> Iterator[IO[bytes]]:
    """The voxels' stream: offset 0 is that of the file, or of what is unpacked."""
    with locator.open() as file:
        if packed_at is None:
            yield file
            return
        file.seek(packed_at)
        with gzip.GzipFile(fileobj=file, mode="rb") as stream:
            yield stream  # type: ignore[misc]


def _skip(stream: IO[bytes], count: int) -> None:
    while count > 0:
        read = len(stream.read(min(count, READ_BYTES)))
        if not read:
            raise EOFError
        count -= read


@dataclass
class _Cursor:
    """How far one thread has unpacked one file; held: what keeps it open."""

    key: tuple[Locator, int, str]
    held: ExitStack
    stream: IO[bytes]
    at: int = 0


_own = threading.local()


def read_packed(locator: Locator, packed_at: int, at: int, length: int) -> bytes:
    """Bytes at..at+length of the gzip stream that begins at `packed_at`; fewer where it ends before.

    Raises InputError where the file is gone or no longer unpacks.
    """
    try:
        cursor = _cursor((locator, packed_at, locator.signature()), at)
        _skip(cursor.stream, at - cursor.at)
        data = cursor.stream.read(length)
        cursor.at = at + len(data)
    except EOFError:
        _close_cursor()
        return b""
    except (zlib.error, OSError):
        _close_cursor()
        raise InputError("a source file changed since it was checked", "check the input again") from None
    return data


def _cursor(key: tuple[Locator, int, str], at: int) -> _Cursor:
    """The calling thread's cursor in the file, at `at` or before it."""
    cursor: _Cursor | None = getattr(_own, "cursor", None)
    if cursor is not None and cursor.key == key and cursor.at <= at:
        return cursor
    _close_cursor()
    held = ExitStack()
    _own.cursor = _Cursor(key, held, held.enter_context(_stream(key[0], key[1])))
    return _own.cursor


def _close_cursor() -> None:
    cursor: _Cursor | None = getattr(_own, "cursor", None)
    _own.cursor = None
    if cursor is not None:
        cursor.held.close()
