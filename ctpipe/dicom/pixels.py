"""Stored bytes of one plane -> stored values -> Hounsfield units (PS3.3 C.7.6.3, C.11.1; PS3.5 8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import uid

from ctpipe.dicom import codec_child
from ctpipe.dicom.codec_host import Job, decode_apart
from ctpipe.dicom.codestreams import COMPRESSED, NATIVE, CodestreamFaultError, Kind, inspect

PADDING_HU = -1024
# A compressed frame larger than this must not be more than this ratio of its codestream: decoders allocate it all.
BOMB_FLOOR_BYTES = 64 << 20
BOMB_RATIO = 500
INT16 = np.iinfo(np.int16)
_CODECS: dict[Kind, int] = {
    "dct": codec_child.JPEG_DCT,
    "lossless": codec_child.JPEG_LOSSLESS,
    "jpeg-ls": codec_child.JPEG_LS,
    "jpeg-2000": codec_child.JPEG_2000,
}


@dataclass(frozen=True)
class PixelFormat:
    """How one plane's voxels are stored; the header's word, never the codestream's."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    syntax: str

    @property
    def frame_bytes(self) -> int:
        """Bytes of one uncompressed frame."""
        return self.rows * self.columns * self.bits_allocated // 8

    @property
    def compressed(self) -> bool:
        """Whether the pixel data is encapsulated."""
        return self.syntax in COMPRESSED

    def decode(self, data: bytes) -> NDArray[Any]:
        """Stored values (rows, columns) of one frame's bytes. Raises CodestreamFaultError."""
        return decode(data, self)

    def key(self) -> list[Any]:
        """All that decides what the bytes mean, as plain JSON."""
        return [self.bits_allocated, self.bits_stored, self.high_bit, self.signed, self.syntax]

    def static_range(self) -> tuple[int, int]:
        """Lowest and highest stored value that the bits can hold."""
        half = 1 << (self.bits_stored - 1)
        return (-half, half - 1) if self.signed else (0, 2 * half - 1)

    def fault(self) -> tuple[str, str] | None:
        """(reason, detail) where such pixels are not read at all."""
        if self.syntax not in COMPRESSED | NATIVE:
            return "transfer-syntax", "the transfer syntax is unknown or not supported"
        if self.bits_allocated not in (8, 16, 32):
            return "bits", "BitsAllocated is not 8, 16 or 32"
        if not 1 <= self.bits_stored <= self.bits_allocated:
            return "bits", "BitsStored does not fit BitsAllocated"
        if not self.bits_stored - 1 <= self.high_bit < self.bits_allocated:
            return "bits", "HighBit does not fit BitsStored and BitsAllocated"
        if self.rows < 1 or self.columns < 1:
            return "unsupported-pixels", "Rows or Columns is missing or 0: no pixels"
        return None


@dataclass(frozen=True)
class Rescale:
    """Stored value -> HU of one plane: slope and intercept, and the stored values (low, high) that are padding."""

    slope: float
    intercept: float
    padding: tuple[int, int] | None = None

    def to_hu(self, stored: NDArray[Any]) -> tuple[NDArray[np.float64], int]:
        """(HU in float64, number of padded voxels); padding becomes -1024 HU."""
        hu = stored.astype(np.float64)
        hu *= self.slope
        hu += self.intercept
        if self.padding is None:
            return hu, 0
        low, high = self.padding
        padded = (stored >= low) & (stored <= high)
        hu[padded] = PADDING_HU
        return hu, int(np.count_nonzero(padded))


@dataclass(frozen=True)
class PlaneFacts:
    """What one look at a plane's voxels tells: range of HU, whether all are whole, padding, and how mask-like it is."""

    lowest: float
    highest: float
    whole: bool
    n_padded: int
    two_valued: bool

    @property
    def fits_int16(self) -> bool:
        """Whether int16 holds every voxel exactly."""
        return self.whole and self.lowest >= INT16.min and self.highest <= INT16.max


def facts_of(stored: NDArray[Any], rescale: Rescale) -> PlaneFacts:
    """Facts of one decoded plane."""
    hu, n_padded = rescale.to_hu(stored)
    lowest, highest = float(hu.min()), float(hu.max())
    whole = float(rescale.slope).is_integer() and float(rescale.intercept).is_integer()
    whole = whole or bool(np.all(hu == np.rint(hu)))
    return PlaneFacts(lowest, highest, whole, n_padded, bool(np.all((hu == lowest) | (hu == highest))))


def stored_values(words: NDArray[Any], form: PixelFormat) -> NDArray[Any]:
    """Words of unsigned integers -> stored values: shift, mask and sign by the header (corpus policy, rule 3)."""
    if form.bits_stored == form.bits_allocated == 8 * words.dtype.itemsize:
        return words.view(f"{words.dtype.byteorder}i{words.dtype.itemsize}") if form.signed else words
    size = words.dtype.itemsize
    native = words.astype(f"u{size}", copy=False)
    if form.signed:  # up to the top of the word and down again, which carries the sign
        top = (native << (8 * size - 1 - form.high_bit)).view(f"i{size}")
        return top >> (8 * size - form.bits_stored)
    return (native >> (form.high_bit + 1 - form.bits_stored)) & ((1 << form.bits_stored) - 1)


def decode(data: bytes, form: PixelFormat) -> NDArray[Any]:
    """Stored values (rows, columns) of one frame's bytes; compressed ones are decoded in a process of its own.

    May be called from several threads at once. Raises CodestreamFaultError; RunError where no process can be started.
    """
    if not form.compressed:
        return stored_values(_native_words(data, form), form)
    if form.frame_bytes > BOMB_FLOOR_BYTES and form.frame_bytes > BOMB_RATIO * len(data):
        raise CodestreamFaultError("bomb", "the frame is too large for its codestream: beyond the ratio limit")
    if form.syntax == uid.RLELossless:
        return stored_values(_from_rle(data, form), form)
    return _from_codestream(data, form)


def _native_words(data: bytes, form: PixelFormat) -> NDArray[Any]:
    if len(data) < form.frame_bytes:
        raise CodestreamFaultError("truncated", "the pixel data is shorter than Rows x Columns: truncated")
    order = ">" if form.syntax == uid.ExplicitVRBigEndian else "<"
    words = np.frombuffer(data, f"{order}u{form.bits_allocated // 8}", form.rows * form.columns)
    return words.reshape(form.rows, form.columns)


def _from_rle(data: bytes, form: PixelFormat) -> NDArray[Any]:
    """PS3.5 annex G: one segment for each byte of a word, so one segment more or less is another kind of image."""
    job = Job(codec_child.RLE, form.bits_allocated, form.rows, form.columns, f"u{form.bits_allocated // 8}")
    if len(data) < 64 or int.from_bytes(data[:4], "little") != form.bits_allocated // 8:
        raise CodestreamFaultError("decode", "the RLE data has not one segment for each byte of BitsAllocated")
    return decode_apart(data, job)


def _from_codestream(data: bytes, form: PixelFormat) -> NDArray[Any]:
    """Decodes a JPEG-family codestream after its own header has been held against the data set's."""
    code = inspect(data, form.syntax)
    if (code.rows, code.columns) != (form.rows, form.columns):
        raise CodestreamFaultError("decode", "the codestream's size is not Rows x Columns")
    if code.precision > form.bits_allocated:
        raise CodestreamFaultError("decode", "the codestream has more bits than BitsAllocated")
    itemsize = next(size for size in (1, 2, 4) if code.precision <= 8 * size)
    job = Job(_CODECS[code.kind], code.precision, form.rows, form.columns, f"{'i' if code.signed else 'u'}{itemsize}")
    return _reconcile(decode_apart(data, job), code.precision, code.signed, form)


def _reconcile(pixels: NDArray[Any], precision: int, signed: bool, form: PixelFormat) -> NDArray[Any]:
    """Stored values where codestream and header may differ in depth or sign; what cannot be told is refused."""
    whole_word = precision == form.bits_allocated
    justified = form.high_bit == form.bits_stored - 1
    if not justified and not whole_word:
        raise CodestreamFaultError("bits", "HighBit and the codestream's bits cannot be brought together")
    if signed:
        low, high = (
            (-(1 << (form.bits_stored - 1)), (1 << (form.bits_stored - 1)) - 1)
            if form.signed
            else (0, (1 << form.bits_stored) - 1)
        )
        if not justified or pixels.min() < low or pixels.max() > high:
            raise CodestreamFaultError("bits", "the codestream's signed values do not fit BitsStored: decode is unsure")
        return pixels
    if precision == form.bits_stored or whole_word:
        return stored_values(pixels.astype(f"u{form.bits_allocated // 8}", copy=False), form)
    if precision < form.bits_stored and not form.signed:
        return pixels
    raise CodestreamFaultError("bits", "the codestream's bits differ from BitsStored: decode is unsure")
