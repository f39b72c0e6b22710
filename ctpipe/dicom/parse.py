"""From the bytes of one file to a pydicom data set, with limits on inflation and depth, quietly."""

from __future__ import annotations

import logging
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

import pydicom
from pydicom import config, uid
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from ctpipe.dicom.elements import truncated_elements

MIB = 1 << 20
# A deflated data set may grow to this, or to this ratio, whichever is more.
INFLATE_FLOOR = 64 * MIB
INFLATE_RATIO = 200
_SERIES_UID = re.compile(rb"\x20\x00\x0e\x00UI(..)([0-9.]{1,64})[\0 ]?", re.DOTALL)


class ParseFaultError(Exception):
    """A file that is no readable DICOM object. series_uid: where the bytes still say which series it belongs to."""

    def __init__(self, reason: str, detail: str, series_uid: str | None = None) -> None:
        super().__init__(reason, detail, series_uid)
        self.reason, self.detail, self.series_uid = reason, detail, series_uid


@dataclass(frozen=True)
class Parsed:
    """A data set, its transfer syntax, and the bytes that its value offsets count from."""

    ds: Dataset
    syntax: str
    media_class: str  # MediaStorageSOPClassUID of the file meta group, "" where absent
    body: bytes
    in_place: bool  # whether `body` is the file itself, so that offsets hold in the file
    truncated: bool


@contextmanager
def quiet() -> Iterator[list[warnings.WarningMessage]]:
    """Pydicom's warnings and logs quote values of the file: they are caught here and never shown."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with config.disable_value_validation(), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield caught
    finally:
        logger.setLevel(level)


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


def parse(data: bytes) -> Parsed:
    """The data set of one file. Raises ParseFaultError; never quotes a value."""
    start, syntax, media_class = _file_meta(data)
    with quiet() as caught:
        try:
            if syntax == uid.DeflatedExplicitVRLittleEndian:
                body, whole = _inflate(data[start:])
                ds, in_place = read_dataset(BytesIO(body), False, True), False
            else:
                body, whole, in_place = data, True, True
                ds = pydicom.dcmread(BytesIO(data), force=True)
            cut = not whole or any("End of file" in str(w.message) for w in caught) or any(truncated_elements(ds))
        except ParseFaultError:
            raise
        except RecursionError:
            raise ParseFaultError("nesting", "sequences are nested too deep to be read", _series_in(data)) from None
        except Exception as error:  # a parser over hostile bytes: whatever it raises is one verdict
            kind = type(error).__name__
            raise ParseFaultError("unreadable", f"the file cannot be read ({kind})", _series_in(data)) from None
    if not syntax and in_place:
        meta = ds.file_meta
        syntax = str(meta.get("TransferSyntaxUID", "")) or _syntax_of_bare(ds)
    return Parsed(ds, syntax, media_class, body, in_place, cut)


def _syntax_of_bare(ds: Dataset) -> str:
    """Syntax of a data set without file meta: only the two uncompressed little-endian ones are stored so."""
    implicit, little = ds.original_encoding
    if not little:
        return uid.ExplicitVRBigEndian
    return uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian


def _file_meta(data: bytes) -> tuple[int, str, str]:
    """(offset after the file meta group, transfer syntax, media storage SOP class); PS3.10 7.1."""
    at = 132 if data[128:132] == b"DICM" else 0
    found = {0x0010: "", 0x0002: ""}
    while data[at : at + 2] == b"\x02\x00" and len(data) >= at + 8:
        element = struct.unpack("<H", data[at + 2 : at + 4])[0]
        if data[at + 4 : at + 6] in (b"OB", b"OW", b"UN", b"SQ", b"UT", b"UR", b"UC"):
            length, value_at = struct.unpack("<I", data[at + 8 : at + 12].ljust(4, b"\0"))[0], at + 12
        else:
            length, value_at = struct.unpack("<H", data[at + 6 : at + 8])[0], at + 8
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


def _series_in(data: bytes) -> str | None:
    """SeriesInstanceUID found by its bytes alone, for a file that cannot be parsed (explicit VR little endian)."""
    match = _SERIES_UID.search(data)
    return match.group(2).decode("ascii") if match else None
