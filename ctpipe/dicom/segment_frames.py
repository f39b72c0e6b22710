"""Frames of a DICOM SEG: where the bits of each stand, and what they say (PS3.3 C.8.20.2, PS3.5 8.1.1, A.4).

Binary frames are one bit a pixel and follow each other without a gap, so that a frame may begin within a byte. In a
compressed object each frame stands alone: packed bits under RLE and deflate, one sample a pixel under the JPEG family.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import ExplicitVRBigEndian, RLELossless

from ctpipe.dicom import elements
from ctpipe.dicom.codestreams import COMPRESSED, LOSSY, NATIVE, CodestreamFaultError, Span, frame_spans
from ctpipe.dicom.parse import Parsed, PixelElement
from ctpipe.dicom.pixels import PixelFormat, decode
from ctpipe.dicom.structure import LabelFaultError

DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"  # Deflated Image Frame Compression, PS3.5 A.4.13; pydicom 3.0 has no name
MAX_FRAMES = 1_000_000
MAX_FRAME_BYTES = 64 << 20  # of one frame, decoded; sizes are checked before anything is allocated
_EXPORT = "export it again"


@dataclass(frozen=True)
class FrameForm:
    """How every frame of one SEG is stored. bits: allocated to a pixel, 1, 8 or 16. swapped: in big-endian words."""

    rows: int
    columns: int
    bits: int
    syntax: str
    swapped: bool = False

    @property
    def compressed(self) -> bool:
        """Whether each frame is a codestream of its own."""
        return self.syntax == DEFLATED_FRAMES or self.syntax in COMPRESSED

    @property
    def packed_bytes(self) -> int:
        """Bytes of one frame that begins on a byte border."""
        return (self.rows * self.columns * self.bits + 7) // 8

    def span(self, start: int, frame: int) -> Span:
        """(offset, length) of the bytes that hold an uncompressed frame; `start` is that of the first."""
        first_bit = frame * self.rows * self.columns * self.bits
        last_bit = first_bit + self.rows * self.columns * self.bits
        low, high = first_bit // 8, (last_bit + 7) // 8
        if self.swapped:  # whole words
            low, high = low - low % 2, high + high % 2
        return start + low, high - low

    def pixels(self, data: bytes, frame: int) -> NDArray[np.unsignedinteger]:
        """Pixels (rows, columns) of one frame's bytes, as `spans_of` told them. Raises CodestreamFaultError."""
        if self.syntax == DEFLATED_FRAMES:
            return self._unpacked(_inflated(data, self.packed_bytes), 0)
        if self.syntax == RLELossless and self.bits == 1:
            return self._unpacked(self._unrolled(data), 0)
        if self.compressed:
            stored = self.bits
            form = PixelFormat(self.rows, self.columns, max(stored, 8), stored, stored - 1, False, self.syntax)
            return np.asarray(decode(data, form))
        first_bit = frame * self.rows * self.columns * self.bits
        if self.swapped:
            data = np.frombuffer(data[: len(data) - len(data) % 2], "<u2").byteswap().tobytes()
        return self._unpacked(data, first_bit % (16 if self.swapped else 8))

    def _unpacked(self, data: bytes, first_bit: int) -> NDArray[np.unsignedinteger]:
        """Pixels of packed bytes, the first one `first_bit` bits in (PS3.5 D: the low bit of a byte comes first)."""
        n_pixels = self.rows * self.columns
        if len(data) * 8 < first_bit + n_pixels * self.bits:
            raise CodestreamFaultError("truncated", "a frame is shorter than Rows x Columns: truncated")
        if self.bits == 1:
            bits = np.unpackbits(np.frombuffer(data, np.uint8), count=first_bit + n_pixels, bitorder="little")
            return bits[first_bit:].reshape(self.rows, self.columns)
        words = np.frombuffer(data, f"<u{self.bits // 8}", n_pixels, first_bit // 8)
        return words.reshape(self.rows, self.columns)

    def _unrolled(self, data: bytes) -> bytes:
        """Packed bits out of RLE: decoded as an image of bytes, of a shape that such images can have."""
        n_bytes = self.packed_bytes
        shapes = [(self.rows, n_bytes // self.rows), (n_bytes // self.columns, self.columns), (1, n_bytes)]
        rows, columns = next((s for s in shapes if s[0] * s[1] == n_bytes and max(s) < 65536), (0, 0))
        if not rows:
            raise CodestreamFaultError("transfer-syntax", "run lengths over packed bits of this size are not read")
        return decode(data, PixelFormat(rows, columns, 8, 8, 7, False, self.syntax)).astype(np.uint8).tobytes()


def frame_form(parsed: Parsed, binary: bool) -> FrameForm:
    """The form of an object's frames. Raises LabelFaultError for one that is not read."""
    ds, syntax = parsed.ds, parsed.syntax
    if syntax in LOSSY or elements.text(ds, "LossyImageCompression") == "01":
        raise LabelFaultError("transfer-syntax", "a DICOM SEG compressed with loss", "export it without loss")
    if syntax not in COMPRESSED | NATIVE | {DEFLATED_FRAMES}:
        raise LabelFaultError("transfer-syntax", "a DICOM SEG in an unknown transfer syntax", "export it uncompressed")
    rows, columns, bits = (elements.integer(ds, word) or 0 for word in ("Rows", "Columns", "BitsAllocated"))
    if min(rows, columns) < 1 or rows * columns * max(bits, 8) // 8 > MAX_FRAME_BYTES:
        raise LabelFaultError("unsupported-pixels", "a DICOM SEG whose Rows or Columns are 0 or too many", _EXPORT)
    if bits not in ((1, 8) if binary else (8, 16)) or (bits > 1 and elements.integer(ds, "BitsStored") != bits):
        raise LabelFaultError("bits", "a DICOM SEG of other bits than its type has", _EXPORT)
    if (elements.integer(ds, "SamplesPerPixel") or 1) != 1 or elements.integer(ds, "PixelRepresentation") not in (
        0,
        None,
    ):
        raise LabelFaultError("bits", "a DICOM SEG of signed or several samples", _EXPORT)
    in_words = _pixel_element(parsed).vr != "OB"
    return FrameForm(rows, columns, bits, syntax, syntax == ExplicitVRBigEndian and in_words)


def spans_of(parsed: Parsed, form: FrameForm, n_frames: int) -> list[tuple[Span, ...]]:
    """Where each frame's bytes stand in `parsed.view`. Raises LabelFaultError where they do not add up."""
    element = _pixel_element(parsed)
    start, length = element.start, element.length
    if element.encapsulated != form.compressed:
        raise LabelFaultError("decode", "the transfer syntax of a DICOM SEG does not fit its pixel data", _EXPORT)
    if form.compressed:
        try:
            return frame_spans(parsed.view, start, length, n_frames)
        except CodestreamFaultError as fault:
            raise LabelFaultError(fault.reason, fault.detail, "fetch the file again") from fault
    wanted = (n_frames * form.rows * form.columns * form.bits + 7) // 8
    if not wanted <= length <= wanted + 1:
        reason, word = ("truncated", "shorter") if length < wanted else ("frames", "longer")
        raise LabelFaultError(
            reason, f"the pixel data of a DICOM SEG is {word} than its frames", "fetch the file again"
        )
    return [(form.span(start, frame),) for frame in range(n_frames)]


def _pixel_element(parsed: Parsed) -> PixelElement:
    if parsed.pixels is None:
        raise LabelFaultError("no-pixels", "a DICOM SEG without pixel data", _EXPORT)
    return parsed.pixels


def _inflated(data: bytes, size: int) -> bytes:
    """`size` bytes out of one deflated frame; never more is unpacked."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size)
    except zlib.error:
        raise CodestreamFaultError("decode", "a deflated frame is corrupt") from None
