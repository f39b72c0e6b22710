"""Codestreams of every compressed syntax, made by encoders that are not ctpipe's decoders where there are such."""

from __future__ import annotations

from typing import Any

import imagecodecs
import jpeg_ls
import numpy as np
import openjpeg.utils
from numpy.typing import NDArray
from pydicom import uid
from pydicom.pixels import get_encoder

from ctpipe.dicom.pixels import PixelFormat

JPEG_6_8, JPEG_10_12 = uid.UID("1.2.840.10008.1.2.4.53"), uid.UID("1.2.840.10008.1.2.4.55")
LOSSLESS = (uid.RLELossless, uid.JPEGLossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless,
            uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL)  # fmt: skip


def form_of(
    syntax: str, shape: tuple[int, int] = (40, 48), bits: int = 12, signed: bool = False, allocated: int = 16
) -> PixelFormat:
    return PixelFormat(*shape, allocated, bits, bits - 1, signed, syntax)


def ct_values(form: PixelFormat, seed: int = 0) -> NDArray[Any]:
    """Stored values that use the whole range: a smooth part, noise, both ends."""
    rng = np.random.default_rng(seed)
    low, high = (-(1 << form.bits_stored - 1), 1 << form.bits_stored - 1) if form.signed else (0, 1 << form.bits_stored)
    values = np.linspace(low, high - 1, form.rows * form.columns).astype(np.int64).reshape(form.rows, form.columns)
    values[:10] = rng.integers(low, high, (10, form.columns))
    values[-2, ::2], values[-2, 1::2] = low, high - 1
    return values


def words_of(values: NDArray[Any], form: PixelFormat) -> NDArray[Any]:
    """The values as unsigned words of BitsStored bits, as codecs without a sign hold them."""
    return (values & ((1 << form.bits_stored) - 1)).astype(f"<u{form.bits_allocated // 8}")


def made(values: NDArray[Any], form: PixelFormat, predictor: int = 1) -> bytes:
    """One frame of `values`, encoded without loss as form.syntax and form.signed say."""
    words = words_of(values, form)
    if form.syntax in (uid.JPEGLossless, uid.JPEGLosslessSV1):
        return bytes(
            imagecodecs.jpeg8_encode(words, lossless=True, predictor=predictor, bitspersample=form.bits_stored)
        )
    if form.syntax == uid.JPEGLSLossless:
        return bytes(_jpeg_ls(words, form))
    own = values.astype(f"{'i' if form.signed else 'u'}{form.bits_allocated // 8}")
    if form.syntax == uid.JPEG2000Lossless:
        return bytes(openjpeg.utils.encode_array(own, bits_stored=form.bits_stored, photometric_interpretation=2))
    if form.syntax in (uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL):
        return bytes(imagecodecs.htj2k_encode(own, reversible=True))
    assert form.syntax == uid.RLELossless
    return _rle(words, form)


def made_lossy(values: NDArray[Any], form: PixelFormat, level: int = 98) -> bytes:
    """One frame of `values` in a syntax that loses."""
    words = words_of(values, form)
    if form.syntax == uid.JPEGLSNearLossless:
        return bytes(_jpeg_ls(words, form, lossy_error=2))
    if form.syntax == uid.JPEG2000:
        return bytes(openjpeg.utils.encode_array(
            words, bits_stored=form.bits_stored, photometric_interpretation=2, compression_ratios=[3.0]
        ))  # fmt: skip
    return bytes(imagecodecs.jpeg8_encode(words, level=level, bitspersample=form.bits_stored))


def _jpeg_ls(words: NDArray[Any], form: PixelFormat, lossy_error: int = 0) -> bytearray:
    return jpeg_ls.encode_pixel_data(
        words.tobytes(), lossy_error, rows=form.rows, columns=form.columns, samples_per_pixel=1,
        bits_allocated=form.bits_allocated, bits_stored=form.bits_stored, pixel_representation=0,
        photometric_interpretation="MONOCHROME2", planar_configuration=0,
    )  # fmt: skip


def _rle(words: NDArray[Any], form: PixelFormat) -> bytes:
    encoder = get_encoder(uid.RLELossless)
    return encoder.encode(
        words.tobytes(), encoding_plugin="pydicom", rows=form.rows, columns=form.columns, samples_per_pixel=1,
        number_of_frames=1, bits_allocated=form.bits_allocated, bits_stored=form.bits_allocated,
        pixel_representation=0, photometric_interpretation="MONOCHROME2",
    )  # fmt: skip
