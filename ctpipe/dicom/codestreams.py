"""Encapsulated pixel data (PS3.5 A.4): which bytes make which frame, and what each codestream says of itself.

Sizes, depth and sign in a codestream are compared with the header before any decoder sees it: a decoder allocates what
the codestream asks for.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal, Protocol

from pydicom import uid

Span = tuple[int, int]  # (offset, length) in the bytes of the file


class Bytes(Protocol):
    """Bytes by slices: those in memory, or those of an open file."""

    def __getitem__(self, span: slice, /) -> bytes: ...


# Retired with DICOM 2004, still in archives: spectral selection (processes 6 and 8), full progression (10 and 12).
JPEG_PROGRESSIVE = frozenset({uid.UID("1.2.840.10008.1.2.4.53"), uid.UID("1.2.840.10008.1.2.4.55")})
JPEG_LOSSLESS = frozenset({uid.JPEGLossless, uid.JPEGLosslessSV1})
JPEG = JPEG_PROGRESSIVE | JPEG_LOSSLESS | {uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit}
JPEG_LS = frozenset({uid.JPEGLSLossless, uid.JPEGLSNearLossless})
JPEG_2000 = frozenset({uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K})
# Syntaxes that allow loss; the codestream itself may still be without.
LOSSY = JPEG_PROGRESSIVE | {
    uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless, uid.JPEG2000, uid.HTJ2K
}  # fmt: skip
COMPRESSED = JPEG | JPEG_LS | JPEG_2000 | {uid.RLELossless}
NATIVE = frozenset(
    {
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
    }
)

_ITEM = b"\xfe\xff\x00\xe0"
_SEQUENCE_END = b"\xfe\xff\xdd\xe0"
Kind = Literal["dct", "lossless", "jpeg-ls", "jpeg-2000"]
# Start-of-frame markers of the JPEG processes that DICOM uses (ITU T.81 B.1.1.3, T.87): baseline, extended,
# progressive, lossless, JPEG-LS.
_JPEG_FRAMES: dict[int, Kind] = {0xC0: "dct", 0xC1: "dct", 0xC2: "dct", 0xC3: "lossless", 0xF7: "jpeg-ls"}
_START_OF_SCAN = 0xDA


class CodestreamFaultError(Exception):
    """Pixel bytes that do not hold what the header says; reason code and a text without values of the file."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def frame_spans(body: Bytes, start: int, length: int, frames: int) -> list[tuple[Span, ...]]:
    """Fragments of each frame, of the encapsulated value at body[start:start + length].

    Raises CodestreamFaultError where fragments are cut, or cannot be told apart into `frames` frames.
    """
    fragments = _fragments(body, start, start + length)
    if not fragments:
        raise CodestreamFaultError("truncated", "the pixel data holds no offset table and no fragment")
    table, parts = fragments[0], fragments[1:]
    if len(parts) == frames:
        return [(part,) for part in parts]
    if frames == 1 and parts:
        return [tuple(parts)]
    if len(parts) < frames:
        raise CodestreamFaultError("truncated", "the pixel data holds fewer fragments than frames: truncated")
    starts = _starts_by_table(body, table, parts) or _starts_by_marker(body, parts)
    if len(starts) != frames or starts[0] != 0:
        raise CodestreamFaultError("frames", "the fragments of the pixel data cannot be told apart into frames")
    return [tuple(parts[a:b]) for a, b in zip(starts, [*starts[1:], len(parts)], strict=True)]


def _fragments(body: Bytes, at: int, end: int) -> list[Span]:
    out: list[Span] = []
    while at + 8 <= end:
        head, length = body[at : at + 4], struct.unpack("<I", body[at + 4 : at + 8])[0]
        if head == _SEQUENCE_END:
            break
        if head != _ITEM or at + 8 + length > end:
            raise CodestreamFaultError("truncated", "a fragment of the pixel data is truncated or malformed")
        out.append((at + 8, length))
        at += 8 + length
    return out


def _starts_by_table(body: Bytes, table: Span, parts: list[Span]) -> list[int]:
    offsets = struct.unpack(f"<{table[1] // 4}I", body[table[0] : table[0] + table[1] // 4 * 4])
    place = {offset - parts[0][0]: index for index, (offset, _) in enumerate(parts)}
    found = [place[offset] for offset in offsets if offset in place]
    return found if len(found) == len(offsets) and found == sorted(set(found)) else []


def _starts_by_marker(body: Bytes, parts: list[Span]) -> list[int]:
    return [
        index
        for index, (at, _) in enumerate(parts)
        if body[at : at + 3] == b"\xff\xd8\xff" or body[at : at + 4] == b"\xff\x4f\xff\x51"
    ]


@dataclass(frozen=True)
class Codestream:
    """What a codestream's own header says; lossy: that values changed when it was made."""

    rows: int
    columns: int
    precision: int
    signed: bool
    kind: Kind
    lossy: bool


def loses(data: bytes, syntax: str) -> bool:
    """Whether one frame's bytes say of themselves that they are lossy, whatever their transfer syntax allows.

    Raises CodestreamFaultError as `inspect`.
    """
    return syntax in JPEG | JPEG_LS | JPEG_2000 and inspect(data, syntax).lossy


def inspect(data: bytes, syntax: str) -> Codestream:
    """Header of a JPEG, JPEG-LS or JPEG 2000 codestream of one component, which must be whole and of `syntax`'s family.

    Raises CodestreamFaultError.
    """
    if syntax in JPEG_2000:
        return _inspect_j2k(data)
    return _inspect_jpeg(data, syntax)


def _inspect_j2k(data: bytes) -> Codestream:
    """ISO 15444-1 A.4, A.5.1: SOC, SIZ; then tile parts, whose lengths must lie within the codestream, then EOC."""
    if data[:4] != b"\xff\x4f\xff\x51" or len(data) < 48:
        raise CodestreamFaultError("decode", "the codestream is not the JPEG 2000 that the transfer syntax names")
    x1, y1, x0, y0 = struct.unpack(">4I", data[8:24])
    components, depth, dx, dy = struct.unpack(">HBBB", data[40:45])
    if components != 1 or (dx, dy) != (1, 1):
        raise CodestreamFaultError("decode", "the codestream has more than one component: not a gray image")
    at, lossy = 2, False
    while at + 4 <= len(data) and data[at : at + 2] != b"\xff\x90":  # main header, up to the first tile part
        if data[at : at + 2] == b"\xff\x52" and at + 14 <= len(data):  # A.6.1: the transformation, 0 is the 9-7
            lossy = data[at + 13] == 0
        at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    while data[at : at + 2] == b"\xff\x90" and at + 12 <= len(data):
        length = struct.unpack(">I", data[at + 6 : at + 10])[0]
        if length == 0:  # the last tile part runs to the end
            at = data.rfind(b"\xff\xd9")
            break
        at += max(length, 12)
    if at < 0 or data[at : at + 2] != b"\xff\xd9":
        raise CodestreamFaultError("decode", "the JPEG 2000 codestream is truncated or corrupt: incomplete")
    return Codestream(y1 - y0, x1 - x0, (depth & 0x7F) + 1, bool(depth & 0x80), "jpeg-2000", lossy)


def _inspect_jpeg(data: bytes, syntax: str) -> Codestream:
    """ITU T.81 B.2: markers up to the first start of scan."""
    if data[:2] != b"\xff\xd8":
        raise CodestreamFaultError("decode", "the codestream is not the JPEG that the transfer syntax names")
    if b"\xff\xd9" not in data[-4:]:
        raise CodestreamFaultError("decode", "the JPEG codestream is truncated: incomplete")
    at, frame = 2, None
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], struct.unpack(">H", data[at + 2 : at + 4])[0]
        if marker == 0xFF:  # fill
            at += 1
            continue
        if marker in _JPEG_FRAMES and at + 10 <= len(data):
            if frame is not None:
                break
            frame = _JPEG_FRAMES[marker]
            precision, rows, columns, components = struct.unpack(">BHHB", data[at + 4 : at + 10])
        elif marker == _START_OF_SCAN and frame is not None:
            _must_fit(frame, syntax, components)
            return Codestream(rows, columns, precision, False, frame, _scan_loses(frame, data[at : at + 10]))
        at += 2 + length
    raise CodestreamFaultError("decode", "the codestream is not of the kind that the transfer syntax names")


def _must_fit(kind: Kind, syntax: str, components: int) -> None:
    if (kind == "jpeg-ls") != (syntax in JPEG_LS) or (kind == "dct" and syntax in JPEG_LOSSLESS):
        raise CodestreamFaultError("decode", "the codestream is not of the kind that the transfer syntax names")
    if components != 1:
        raise CodestreamFaultError("decode", "the codestream has more than one component: not a gray image")


def _scan_loses(kind: Kind, scan: bytes) -> bool:
    """Of a start of scan with one component: NEAR of JPEG-LS (T.87 C.2.3), point transform of JPEG lossless (B.2.3)."""
    if kind == "dct":
        return True
    near, _, transform = scan[7:10]
    return near > 0 if kind == "jpeg-ls" else transform & 15 > 0
