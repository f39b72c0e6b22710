"""Stored bytes of one plane -> stored values -> Hounsfield units (PS3.3 C.7.6.3, C.11.1; PS3.5 8)."""

from __future__ import annotations

import math
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import uid

from ctpipe.dicom.codestreams import COMPRESSED, JPEG_2000, JPEG_LS, NATIVE, CodestreamFaultError, inspect
from ctpipe.dicom.parse import quiet

PADDING_HU = -1024
# A compressed frame larger than this must not be more than this ratio of its codestream: decoders allocate it all.
BOMB_FLOOR_BYTES = 64 << 20
BOMB_RATIO = 500
INT16 = np.iinfo(np.int16)


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
    shift = form.high_bit + 1 - form.bits_stored
    if form.bits_stored == form.bits_allocated == 8 * words.dtype.itemsize:
        return words.view(f"{words.dtype.byteorder}i{words.dtype.itemsize}") if form.signed else words
    values = (words.astype(np.int64) >> shift) & ((1 << form.bits_stored) - 1)
    if form.signed:
        sign = 1 << (form.bits_stored - 1)
        values = (values ^ sign) - sign
    return values


def decode(data: bytes, form: PixelFormat) -> NDArray[Any]:
    """Stored values (rows, columns) of one frame's bytes. Raises CodestreamFaultError."""
    if not form.compressed:
        return stored_values(_native_words(data, form), form)
    if form.frame_bytes > BOMB_FLOOR_BYTES and form.frame_bytes > BOMB_RATIO * len(data):
        raise CodestreamFaultError("bomb", "the frame is too large for its codestream: beyond the ratio limit")
    if form.syntax == uid.RLELossless:
        return stored_values(_by_pydicom(data, form, form.bits_stored, "pydicom"), form)
    return _from_codestream(data, form)


def _native_words(data: bytes, form: PixelFormat) -> NDArray[Any]:
    if len(data) < form.frame_bytes:
        raise CodestreamFaultError("truncated", "the pixel data is shorter than Rows x Columns: truncated")
    order = ">" if form.syntax == uid.ExplicitVRBigEndian else "<"
    words = np.frombuffer(data, f"{order}u{form.bits_allocated // 8}", form.rows * form.columns)
    return words.reshape(form.rows, form.columns)


def _from_codestream(data: bytes, form: PixelFormat) -> NDArray[Any]:
    """Decodes a JPEG-family codestream after its own header has been held against the data set's."""
    code = inspect(data, form.syntax)
    if (code.rows, code.columns) != (form.rows, form.columns):
        raise CodestreamFaultError("decode", "the codestream's size is not Rows x Columns")
    if code.precision > form.bits_allocated:
        raise CodestreamFaultError("decode", "the codestream has more bits than BitsAllocated")
    if form.syntax in JPEG_2000:
        pixels = _by_openjpeg(data)
    elif form.syntax in JPEG_LS:
        pixels = _by_charls(data, form, code.precision)
    else:
        pixels = _by_pydicom(data, form, code.precision, "gdcm")
    if pixels.shape != (form.rows, form.columns):
        raise CodestreamFaultError("decode", "the decoded frame's size is not Rows x Columns")
    return _reconcile(pixels, code.precision, code.signed, form)


def _reconcile(pixels: NDArray[Any], precision: int, signed: bool, form: PixelFormat) -> NDArray[Any]:
    """Stored values where codestream and header may differ in depth or sign; what cannot be told is refused."""
    whole_word = precision == form.bits_allocated
    justified = form.high_bit == form.bits_stored - 1
    if not justified and not whole_word:
        raise CodestreamFaultError("bits", "HighBit and the codestream's bits cannot be brought together")
    if signed:
        values = pixels.astype(np.int64)
        low, high = (
            (-(1 << (form.bits_stored - 1)), (1 << (form.bits_stored - 1)) - 1)
            if form.signed
            else (0, (1 << form.bits_stored) - 1)
        )
        if not justified or values.min() < low or values.max() > high:
            raise CodestreamFaultError("bits", "the codestream's signed values do not fit BitsStored: decode is unsure")
        return values
    if precision == form.bits_stored or whole_word:
        return stored_values(pixels.astype(f"u{form.bits_allocated // 8}"), form)
    if precision < form.bits_stored and not form.signed:
        return pixels
    raise CodestreamFaultError("bits", "the codestream's bits differ from BitsStored: decode is unsure")


def _by_openjpeg(data: bytes) -> NDArray[Any]:
    from openjpeg.utils import decode as decode_j2k

    try:
        with quiet():
            return decode_j2k(data, j2k_format=0)
    except (RuntimeError, ValueError, TypeError, IndexError):
        raise CodestreamFaultError("decode", "the JPEG 2000 codestream cannot be decoded: corrupt") from None


def _by_charls(data: bytes, form: PixelFormat, precision: int) -> NDArray[Any]:
    import jpeg_ls

    try:
        raw, _ = jpeg_ls.decode_pixel_data(data)
    except (RuntimeError, ValueError, TypeError):
        raise CodestreamFaultError("decode", "the JPEG-LS codestream cannot be decoded: corrupt") from None
    words = np.frombuffer(raw, "u1" if precision <= 8 else "<u2")
    if words.size != form.rows * form.columns:
        raise CodestreamFaultError("decode", "the decoded frame's size is not Rows x Columns")
    return words.reshape(form.rows, form.columns)


def _by_pydicom(data: bytes, form: PixelFormat, precision: int, plugin: str) -> NDArray[Any]:
    """Unsigned words by one of pydicom's plugins: its own for RLE, GDCM for JPEG."""
    from pydicom.encaps import encapsulate
    from pydicom.pixels import get_decoder

    rle = form.syntax == uid.RLELossless
    allocated = form.bits_allocated if rle else 8 * math.ceil(precision / 8)
    options: dict[str, Any] = {
        "rows": form.rows, "columns": form.columns, "samples_per_pixel": 1, "number_of_frames": 1,
        "photometric_interpretation": "MONOCHROME2", "pixel_keyword": "PixelData", "bits_allocated": allocated,
        "bits_stored": allocated if rle else precision, "pixel_representation": 0,
    }  # fmt: skip
    try:
        with quiet(), _what_libjpeg_says() as said:
            _silence_gdcm()
            frame, _ = get_decoder(uid.UID(form.syntax)).as_array(
                encapsulate([data]), raw=True, decoding_plugin=plugin, **options
            )
    except Exception:  # C++ and plugin errors of any type; their texts may quote the file
        raise CodestreamFaultError(
            "decode", "the codestream cannot be decoded: corrupt, or a codec that is missing"
        ) from None
    if b"Corrupt JPEG" in said() or b"Premature" in said():
        raise CodestreamFaultError("decode", "the JPEG codestream is corrupt or truncated: incomplete")
    return frame.reshape(form.rows, form.columns) if frame.size == form.rows * form.columns else frame


_stderr_lock = threading.RLock()


@contextmanager
def _what_libjpeg_says() -> Iterator[Callable[[], bytes]]:
    """What is written to file descriptor 2 meanwhile, kept from the terminal.

    GDCM's libjpeg fills a scan that ends early with zeros and says so only there; nothing else tells a truncated JPEG
    from a whole one.
    """
    with _stderr_lock, tempfile.TemporaryFile() as kept:
        terminal = os.dup(2)
        os.dup2(kept.fileno(), 2)
        said: list[bytes] = []
        try:
            yield lambda: b"".join(said)
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            kept.seek(0)
            said.append(kept.read(65536))


@cache
def _silence_gdcm() -> None:
    """GDCM writes warnings to the terminal, past Python."""
    try:
        import gdcm
    except ImportError:
        return
    gdcm.Trace.DebugOff()
    gdcm.Trace.WarningOff()
    gdcm.Trace.ErrorOff()
