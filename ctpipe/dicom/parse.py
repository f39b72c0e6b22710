"""From the bytes of one file to a pydicom data set, with limits on inflation and depth, quietly."""

from __future__ import annotations

import io
import logging
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

import pydicom
from pydicom import config, uid
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from ctpipe.dicom.elements import truncated_elements

MIB = 1 << 20
# A deflated data set may grow to this, or to this ratio, whichever is more.
INFLATE_FLOOR = 64 * MIB
INFLATE_RATIO = 200
SEARCHED_BYTES = MIB  # of a file that cannot be parsed, for its series UID
_SERIES_UID = re.compile(rb"\x20\x00\x0e\x00UI(..)([0-9.]{1,64})[\0 ]?", re.DOTALL)


class ParseFaultError(Exception):
    """A file that is no readable DICOM object. series_uid: where the bytes still say which series it belongs to."""

    def __init__(self, reason: str, detail: str, series_uid: str | None = None) -> None:
        super().__init__(reason, detail, series_uid)
        self.reason, self.detail, self.series_uid = reason, detail, series_uid


class ByteView:
    """The bytes of an open file, taken by slices; nothing more than a slice is read."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.size = file.seek(0, io.SEEK_END)

    def __getitem__(self, span: slice) -> bytes:
        start, stop, _ = span.indices(self.size)
        self.file.seek(start)
        return self.file.read(max(0, stop - start))

    def __len__(self) -> int:
        return self.size


@dataclass(frozen=True)
class PixelElement:
    """Where the value of (7FE0,0010) stands: at `start` of the view, `length` bytes of it there.

    encapsulated: the length was undefined (PS3.5 A.4). vr: as written, None in implicit VR.
    """

    start: int
    length: int
    encapsulated: bool
    vr: str | None


@dataclass(frozen=True)
class Parsed:
    """A data set without its pixels, its transfer syntax, and the view that offsets count from.

    in_place: whether the view is the file itself, so that offsets hold in the file. truncated: it ends within an
    element.
    """

    ds: Dataset
    syntax: str
    media_class: str  # MediaStorageSOPClassUID of the file meta group, "" where absent
    view: ByteView
    pixels: PixelElement | None
    in_place: bool
    truncated: bool

    @property
    def body(self) -> bytes:
        """All bytes that offsets count from; for small objects only."""
        return self.view[:]


_SILENT = logging.CRITICAL + 1
_quiet = threading.RLock()


@contextmanager
def quiet() -> Iterator[list[warnings.WarningMessage]]:
    """Pydicom's warnings and logs quote values of the file: they are caught here and never shown.

    One thread at a time: Python keeps warning filters for the whole process.
    """
    logger = logging.getLogger("pydicom")
    if logger.level != _SILENT:  # for good: to set a level drops what all loggers of the process remember
        logger.setLevel(_SILENT)
    with _quiet, config.disable_value_validation(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


def looks_like_dicom(head: bytes) -> bool:
    """By content: DICM at 128, or a data set (with or without file meta) that begins at once."""
    if head[128:132] == b"DICM":
        return True
    if len(head) < 16:
        return False
    group, element = struct.unpack("<HH", head[:4])
    if group not in (2, 8) or element > 0x60:
        return False
    if re.fullmatch(rb"[A-Z]{2}", head[4:6]):
        return True
    length = struct.unpack("<I", head[4:8])[0]
    return length <= 64 and length % 2 == 0  # implicit VR: the first elements of group 8 are short


def parse(source: BinaryIO | bytes) -> Parsed:
    """The header of one file, open or in memory; pixels are found, not read.

    Raises ParseFaultError; never quotes a value.
    """
    file = BytesIO(source) if isinstance(source, bytes) else source
    view = ByteView(file)
    start, syntax, media_class = _file_meta(view)
    with quiet() as caught:
        try:
            in_place = syntax != uid.DeflatedExplicitVRLittleEndian
            if in_place:
                file.seek(0)
                ds: Dataset = pydicom.dcmread(file, force=True, stop_before_pixels=True)
                whole = True
            else:
                body, whole = _inflate(view[start:])
                view = ByteView(BytesIO(body))
                view.file.seek(0)
                ds = read_dataset(view.file, False, True, stop_when=_at_pixels)
            pixels, cut = _pixels(ds, view)
            cut = cut or not whole or any(truncated_elements(ds))
            cut = cut or any("End of file" in str(w.message) for w in caught)
            if not syntax and in_place:
                meta = getattr(ds, "file_meta", {})
                syntax = str(meta.get("TransferSyntaxUID", "")) or _syntax_of_bare(ds)
        except ParseFaultError:
            raise
        except RecursionError:
            raise ParseFaultError("nesting", "sequences are nested too deep to be read", _series_in(view)) from None
        except Exception as error:  # a parser over hostile bytes: whatever it raises is one verdict
            kind = type(error).__name__
            raise ParseFaultError("unreadable", f"the file cannot be read ({kind})", _series_in(view)) from None
    return Parsed(ds, syntax, media_class, view, pixels, in_place, cut)


_PIXEL_DATA, _FLOAT_PIXELS = 0x7FE00010, (0x7FE00008, 0x7FE00009)
_UNDEFINED = 0xFFFFFFFF


def _at_pixels(tag: int, vr: str | None, length: int) -> bool:
    return tag in (_PIXEL_DATA, *_FLOAT_PIXELS)


def _pixels(ds: Dataset, view: ByteView) -> tuple[PixelElement | None, bool]:
    """The pixel element at which reading stopped, and whether the file ends within it.

    Elements that stand behind the pixels are read into `ds` too: what a file says last counts, as for any reader.
    """
    at = view.file.tell()
    implicit, little = _encoding(ds)
    order = "<" if little else ">"
    head = view[at : at + 12]
    if len(head) < 8:
        return None, False
    group, element = struct.unpack(order + "HH", head[:4])
    vr = None if implicit else head[4:6].decode("latin-1")
    if implicit:
        length, start = struct.unpack(order + "I", head[4:8])[0], at + 8
    elif vr in EXPLICIT_VR_LENGTH_32:
        if len(head) < 12:
            return None, True
        length, start = struct.unpack(order + "I", head[8:12])[0], at + 12
    else:
        length, start = struct.unpack(order + "H", head[6:8])[0], at + 8
    tag = group << 16 | element
    if tag not in (_PIXEL_DATA, *_FLOAT_PIXELS):
        return None, False
    end = end_of_items(view, start) if length == _UNDEFINED else start + length
    whole = end is not None and end <= len(view)
    if whole and end is not None and end < len(view):
        view.file.seek(end)
        ds.update(read_dataset(view.file, implicit, little))
    ds[tag] = RawDataElement(BaseTag(tag), vr, 0, b"", start, implicit, little)  # that it is there
    if tag != _PIXEL_DATA:
        return None, not whole
    held = min(end or len(view), len(view)) - start
    return PixelElement(start, held, length == _UNDEFINED, vr), not whole


def _encoding(ds: Dataset) -> tuple[bool, bool]:
    """(implicit VR, little endian) as the elements were read, which need not be what the transfer syntax says."""
    raw = [ds.get_item(tag) for tag in list(ds.keys())[-1:]]
    if raw and isinstance(raw[0], RawDataElement):
        return raw[0].is_implicit_VR, raw[0].is_little_endian
    implicit, little = ds.original_encoding
    return bool(implicit), bool(little)


def end_of_items(view: ByteView, at: int) -> int | None:
    """Offset behind the sequence delimiter that ends encapsulated pixels; None where there is none (PS3.5 A.4)."""
    while True:
        head = view[at : at + 8]
        if len(head) < 8:
            return None
        tag, length = head[:4], struct.unpack("<I", head[4:])[0]
        if tag == b"\xfe\xff\xdd\xe0":
            return at + 8
        if tag != b"\xfe\xff\x00\xe0":
            return None
        at += 8 + length


def _syntax_of_bare(ds: Dataset) -> str:
    """Syntax of a data set without file meta: only the two uncompressed little-endian ones are stored so."""
    implicit, little = ds.original_encoding
    if not little:
        return uid.ExplicitVRBigEndian
    return uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian


def _file_meta(data: ByteView) -> tuple[int, str, str]:
    """(offset after the file meta group, transfer syntax, media storage SOP class); PS3.10 7.1."""
    at = 132 if data[128:132] == b"DICM" else 0
    found = {0x0010: "", 0x0002: ""}
    while len(head := data[at : at + 12]) >= 8 and head[:2] == b"\x02\x00":
        element = struct.unpack("<H", head[2:4])[0]
        if head[4:6] in (b"OB", b"OW", b"UN", b"SQ", b"UT", b"UR", b"UC"):
            length, value_at = struct.unpack("<I", head[8:12].ljust(4, b"\0"))[0], at + 12
        else:
            length, value_at = struct.unpack("<H", head[6:8])[0], at + 8
        if element in found and length <= 128:
            found[element] = data[value_at : value_at + length].decode("latin-1").strip(" \0")
        at = value_at + length
    return at, found[0x0010], found[0x0002]


def _inflate(packed: bytes) -> tuple[bytes, bool]:
    """The inflated data set and whether the stream was whole (PS3.5 A.5)."""
    limit = max(INFLATE_FLOOR, INFLATE_RATIO * len(packed))
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        body = stream.decompress(packed, limit)
    except zlib.error:
        raise ParseFaultError("unreadable", "the deflated data set is corrupt") from None
    if stream.unconsumed_tail and not stream.eof:
        raise ParseFaultError("bomb", "the deflated data set expands beyond the size limit", _series_in(body))
    return body, stream.eof


def _series_in(data: ByteView | bytes) -> str | None:
    """SeriesInstanceUID found by its bytes alone, for a file that cannot be parsed (explicit VR little endian)."""
    match = _SERIES_UID.search(data[:SEARCHED_BYTES])
    return match.group(2).decode("ascii") if match else None
