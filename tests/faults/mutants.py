"""Valid files made hostile, one step at a time: what the fuzz tests and the long run by hand feed to the readers.

A mutation is a tuple of plain numbers, so that hypothesis can shrink it and a found one can be written down as a case.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from io import BytesIO

import builders
import pydicom
from pydicom import uid as uids

Mutation = tuple[int, int, int]  # which one, where, with what; each 0 to 2^32 - 1, taken modulo what there is

SYNTAXES = {
    "explicit": uids.ExplicitVRLittleEndian,
    "implicit": uids.ImplicitVRLittleEndian,
    "big-endian": uids.ExplicitVRBigEndian,
    "deflated": uids.DeflatedExplicitVRLittleEndian,
    "rle": uids.RLELossless,
    "jpeg-ls": uids.JPEGLSLossless,
    "jpeg-2000": uids.JPEG2000Lossless,
}
SHAPE = (3, 34, 36)  # the fewest planes that make a volume

LENGTHS = [0, 1, 2, 7, 8, 0xFF, 0xFFFE, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFE, 0xFFFFFFFF]
VRS = [b"SQ", b"UN", b"OB", b"OW", b"OV", b"UT", b"DS", b"IS", b"AT", b"FD", b"US", b"SS", b"UL", b"SV", b"PN", b"DA",
       b"TM", b"LO", b"CS", b"UI", b"AS", b"??", b"\0\0", b"sq"]  # fmt: skip
TEXTS = [b"", b"\\", b"\\" * 200, b"NaN", b"inf", b"-inf\\1\\1", b"1e400", b"1e-400", b"-0", b"9" * 64, b"0x10",
         b"1\\2", b"1.2.3.", b"..", b"\0" * 16, b"\x1b[2J\r\n", b"\xff\xfe" * 8, b"1,5", b" ", b"1\0", b"16 ", b"-1",
         b"\x00\x00", b"\xff\xff", b"\x00\x80", b"\x01\x00", b"ISO 2022 IR 87", b"\x1b$B\x1b(J"]  # fmt: skip
DEPTHS = [1, 2, 9, 100, 2000]


@cache
def plane_files(name: str) -> tuple[bytes, ...]:
    """The planes of one small CT series in a transfer syntax of `SYNTAXES`, in order."""
    return tuple(builders.ct_series(builders.hu_block(SHAPE), syntax=SYNTAXES[name]))


def mutate(data: bytes, mutations: Sequence[Mutation]) -> bytes:
    """`data` after each mutation in turn."""
    for kind, where, what in mutations:
        data = KINDS[kind % len(KINDS)](data, where, what)
    return data


def elements_at(data: bytes) -> list[tuple[int, int, int]]:
    """(start of the element, start of its value, length) of what pydicom still finds at the top of a file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds = pydicom.dcmread(BytesIO(data), force=True)
        found = [ds.get_item(tag) for tag in [*ds.file_meta.keys(), *ds.keys()]]
        places = [(e.value_tell, e.length, e.is_implicit_VR, e.VR) for e in found if hasattr(e, "value_tell")]
    except Exception:  # a file that is past reading has no elements to bend
        return []
    long_form = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"}
    return [(at - (8 if implicit or vr not in long_form else 12), at, length) for at, length, implicit, vr in places]


def _flip(data: bytes, where: int, what: int) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    changed[where % len(data)] ^= 1 << what % 8
    return bytes(changed)


def _byte(data: bytes, where: int, what: int) -> bytes:
    at = where % (len(data) + 1)
    return data[:at] + bytes([what % 256]) + data[at + 1 :]


def _cut(data: bytes, where: int, what: int) -> bytes:
    return data[: where % (len(data) + 1)]


def _drop(data: bytes, where: int, what: int) -> bytes:
    at = where % (len(data) + 1)
    return data[:at] + data[at + 1 + what % 64 :]


def _splice(data: bytes, where: int, what: int) -> bytes:
    at, source = where % (len(data) + 1), what % (len(data) + 1)
    return data[:at] + data[source : source + 1 + (where ^ what) % 256] + data[at:]


def _length(data: bytes, where: int, what: int) -> bytes:
    """A length field that lies."""
    places = elements_at(data)
    if not places:
        return _byte(data, where, what)
    start, value, _ = places[where % len(places)]
    stated = LENGTHS[what % len(LENGTHS)]
    explicit_short = value - start == 8 and data[start + 4 : start + 6].isalpha()
    field = struct.pack("<H", stated & 0xFFFF) if explicit_short else struct.pack("<I", stated)
    return data[: value - len(field)] + field + data[value:]


def _vr(data: bytes, where: int, what: int) -> bytes:
    places = elements_at(data)
    if not places:
        return _byte(data, where, what)
    start = places[where % len(places)][0]
    return data[: start + 4] + VRS[what % len(VRS)] + data[start + 6 :]


def _value(data: bytes, where: int, what: int) -> bytes:
    """Another value of the length it says; the file stays well formed where that is possible."""
    places = [place for place in elements_at(data) if place[2] < len(data)]
    if not places:
        return _byte(data, where, what)
    start, value, length = places[where % len(places)]
    text = TEXTS[what % len(TEXTS)]
    text += b" " * (len(text) % 2)
    short = value - start == 8 and data[start + 4 : start + 6].isalpha()
    size = struct.pack("<H", len(text)) if short else struct.pack("<I", len(text))
    return data[: value - len(size)] + size + text + data[value + length :]


def _again(data: bytes, where: int, what: int) -> bytes:
    """An element that comes twice, or at a place where it does not belong."""
    places = [place for place in elements_at(data) if place[2] < len(data)]
    if not places:
        return _splice(data, where, what)
    start, value, length = places[where % len(places)]
    at = places[what % len(places)][0]
    return data[:at] + data[start : value + length] + data[at:]


def _nest(data: bytes, where: int, what: int) -> bytes:
    """Sequences in sequences, of undefined or of lying length, put before an element (little endian)."""
    places = elements_at(data)
    at = places[where % len(places)][0] if places else where % (len(data) + 1)
    depth, lying = DEPTHS[what % len(DEPTHS)], LENGTHS[(what >> 8) % len(LENGTHS)]
    explicit = what >> 16 & 1
    tag = [b"\x08\x00\x40\x11", b"\x28\x00\x00\x30", b"\x00\x52\x29\x92", b"\x09\x00\x10\x10"][what >> 17 & 3]
    head = tag + (b"SQ\0\0" if explicit else b"") + struct.pack("<I", 0xFFFFFFFF if what >> 19 & 1 else lying)
    item = b"\xfe\xff\x00\xe0" + struct.pack("<I", 0xFFFFFFFF if what >> 20 & 1 else lying)
    ends = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0" if what >> 21 & 1 else b""
    return data[:at] + (head + item) * depth + ends * depth + data[at:]


KINDS: list[Callable[[bytes, int, int], bytes]] = [
    _flip, _byte, _cut, _drop, _splice, _length, _length, _vr, _value, _value, _again, _nest,
]  # fmt: skip
