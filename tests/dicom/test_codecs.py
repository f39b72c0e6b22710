"""Every compressed syntax, exactly or not at all: against the truth, against a second decoder, and damaged."""

import contextlib

import imagecodecs
import jpeg_ls
import numpy as np
import openjpeg.utils
import pytest
from codestreams_made import JPEG_6_8, JPEG_10_12, LOSSLESS, ct_values, form_of, made, made_lossy, words_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder

from ctpipe.dicom.codestreams import JPEG_2000, CodestreamFaultError, inspect, loses
from ctpipe.dicom.pixels import decode

NAMES = {syntax: uid.UID(syntax).name.split("(")[0].strip() for syntax in LOSSLESS}


def second(data, form, precision):
    """Another library's pixels of the same bytes, as it gives them."""
    if form.syntax in (uid.JPEGLossless, uid.JPEGLosslessSV1):
        return imagecodecs.jpeg8_decode(data)
    if form.syntax in (uid.JPEGLSLossless, uid.JPEGLSNearLossless):
        raw, _ = jpeg_ls.decode_pixel_data(data)
        return np.frombuffer(raw, "u1" if precision <= 8 else "<u2").reshape(form.rows, form.columns)
    if form.syntax in (uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL):
        return imagecodecs.htj2k_decode(data)
    if form.syntax in JPEG_2000:
        return openjpeg.utils.decode(data, j2k_format=0)
    decoder = get_decoder(uid.RLELossless)
    return decoder.as_array(
        encapsulate([data]), raw=True, decoding_plugin="pydicom", rows=form.rows, columns=form.columns,
        samples_per_pixel=1, number_of_frames=1, photometric_interpretation="MONOCHROME2", pixel_keyword="PixelData",
        bits_allocated=form.bits_allocated, bits_stored=form.bits_allocated, pixel_representation=0,
    )[0]  # fmt: skip


def depths(syntax):
    """(bits, allocated, signed) that the encoder at hand makes of a syntax."""
    htj2k = syntax in (uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL)
    bits = [(8, 8), (16, 16)] if htj2k else [(8, 8), (10, 16), (12, 16), (13, 16), (15, 16), (16, 16)]
    return [(*pair, signed) for pair in bits for signed in (False, True)]


@pytest.mark.parametrize(
    ("syntax", "bits", "allocated", "signed"),
    [(syntax, *depth) for syntax in LOSSLESS for depth in depths(syntax)],
    ids=lambda value: NAMES.get(value, str(value)),
)
def test_lossless_values_come_back_exactly_and_two_decoders_agree(syntax, bits, allocated, signed):
    """V5."""
    form = form_of(syntax, bits=bits, allocated=allocated, signed=signed)
    values = ct_values(form)
    data = made(values, form)
    assert np.array_equal(decode(data, form), values)
    other = second(data, form, bits).astype(np.int64) & ((1 << bits) - 1)
    assert np.array_equal(other, words_of(values, form))
    assert not loses(data, syntax)


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("bits", [2, 7, 8, 9, 12, 14, 16])
def test_jpeg_lossless_is_exact_with_every_predictor_and_depth(predictor, bits):
    """V5."""
    form = form_of(uid.JPEGLossless, bits=bits, allocated=8 if bits <= 8 else 16)
    values = ct_values(form)
    data = made(values, form, predictor)
    assert np.array_equal(decode(data, form), values)
    assert np.array_equal(imagecodecs.ljpeg_decode(data), values)


@pytest.mark.parametrize(("bits", "allocated"), [(8, 8), (12, 16)])
@pytest.mark.parametrize("syntax", [uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, JPEG_6_8, JPEG_10_12])
def test_lossy_jpeg_of_8_and_12_bits_is_near_the_truth_and_says_that_it_loses(syntax, bits, allocated):
    form = form_of(syntax, bits=bits, allocated=allocated)
    smooth = np.add.outer(np.arange(40), np.arange(48)) * (2 if bits == 8 else 40) % (1 << bits)
    values = np.sort(smooth, axis=1)
    data = made_lossy(values, form)
    assert np.abs(decode(data, form).astype(int) - values).max() <= (6 if bits == 8 else 60)
    assert loses(data, syntax)


@pytest.mark.parametrize("syntax", [uid.JPEGLSNearLossless, uid.JPEG2000])
def test_other_lossy_codestreams_decode_as_a_second_decoder_does(syntax):
    """V5."""
    form = form_of(syntax)
    values = ct_values(form)
    data = made_lossy(values, form)
    assert np.array_equal(decode(data, form), second(data, form, 12))
    assert loses(data, syntax)


def test_a_lossy_codestream_under_a_lossless_syntax_is_seen():
    """Recorded as lossy, whatever the transfer syntax promises (corpus policy, rule 15)."""
    near = form_of(uid.JPEGLSNearLossless)
    data = made_lossy(ct_values(near), near)
    assert loses(data, uid.JPEGLSLossless)
    image = made_lossy(ct_values(form_of(uid.JPEG2000)), form_of(uid.JPEG2000))
    assert inspect(image, uid.JPEG2000Lossless).lossy
    dct = made_lossy(ct_values(form_of(uid.JPEGExtended12Bit)), form_of(uid.JPEGExtended12Bit))
    with pytest.raises(CodestreamFaultError, match="not of the kind"):
        decode(dct, form_of(uid.JPEGLosslessSV1))


def test_signed_values_in_an_unsigned_codestream_are_decoded_rightly():
    """V5: such as Hitachi's JPEG 2000 with PixelRepresentation 1 (pydicom/pydicom#1149)."""
    header = form_of(uid.JPEG2000Lossless, bits=13, signed=True)
    values = ct_values(header)
    unsigned = form_of(uid.JPEG2000Lossless, bits=13)
    assert np.array_equal(decode(made(words_of(values, header), unsigned), header), values)


def test_a_signed_codestream_under_an_unsigned_header_is_decoded_where_it_fits_and_else_refused():
    """V5."""
    header = form_of(uid.JPEG2000Lossless, bits=12)
    signed = form_of(uid.JPEG2000Lossless, bits=12, signed=True)
    values = ct_values(header) // 2
    assert np.array_equal(decode(made(values, signed), header), values)
    with pytest.raises(CodestreamFaultError, match="signed values do not fit"):
        decode(made(values - 5, signed), header)


@pytest.mark.parametrize("syntax", LOSSLESS, ids=NAMES.get)
def test_a_codestream_that_ends_early_is_refused_wherever_it_ends(syntax):
    """X7: no decoder's filler becomes voxels."""
    form = form_of(syntax)
    if syntax in (uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL):
        form = form_of(syntax, bits=16)
    data = made(ct_values(form), form)
    end = b"" if syntax == uid.RLELossless else b"\xff\xd9"
    for length in (len(data) // 2, len(data) - 40, len(data) - 12, len(data) - 5):
        with pytest.raises(CodestreamFaultError):
            decode(data[:length] + end, form)


@pytest.mark.parametrize("syntax", [uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit])
def test_a_lossy_jpeg_that_ends_early_is_refused(syntax):
    """X7: libjpeg-turbo fills the rest and says nothing."""
    bits = 8 if syntax == uid.JPEGBaseline8Bit else 12
    form = form_of(syntax, bits=bits, allocated=8 if bits == 8 else 16)
    data = made_lossy(ct_values(form), form)
    for length in (len(data) // 2, len(data) - 40, len(data) - 6):
        with pytest.raises(CodestreamFaultError):
            decode(data[:length] + b"\xff\xd9", form)


@pytest.mark.parametrize("rows", [39, 41])
def test_rle_data_of_another_size_is_refused(rows):
    """RLE has no header that says its size: what comes out must be just what the data set says."""
    form = form_of(uid.RLELossless)
    data = made(ct_values(form), form)
    with pytest.raises(CodestreamFaultError):
        decode(data, form_of(uid.RLELossless, (rows, 48)))


def test_damaged_blocks_of_a_high_throughput_codestream_are_seen():
    """X7: imagecodecs loses what OpenJPH says of them, all 20; OpenJPEG tells."""
    form = form_of(uid.HTJ2KLossless, (128, 128), bits=16)
    data = made(ct_values(form), form)
    rng = np.random.default_rng(3)
    refused = 0
    for at in rng.integers(data.index(b"\xff\x93") + 20, len(data) - 60, 20):
        damaged = data[:at] + rng.bytes(40) + data[at + 40 :]
        try:
            decode(damaged, form)
        except CodestreamFaultError:
            refused += 1
    assert refused


SAMPLES = [
    *((made(ct_values(f), f), f) for f in (form_of(s, bits=16) for s in LOSSLESS)),
    *((made_lossy(ct_values(f), f), f) for f in map(form_of, (uid.JPEGExtended12Bit, uid.JPEGLSNearLossless))),
]


@pytest.mark.parametrize(("data", "form"), SAMPLES, ids=[uid.UID(form.syntax).name for _, form in SAMPLES])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_damaged_codestream_ends_in_an_array_or_a_fault(data, form, draw):
    """X7: bytes changed, cut out, doubled or put in, anywhere; a small part in the header, where it does most."""
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.one_of(st.integers(0, min(120, len(damaged) - 1)), st.integers(0, len(damaged) - 1)))
        how = draw.draw(st.sampled_from(["change", "cut", "double", "put"]))
        count = draw.draw(st.integers(1, 40))
        if how == "change":
            damaged[at] = draw.draw(st.integers(0, 255))
        elif how == "cut" and len(damaged) > count + 1:
            del damaged[at : at + count]
        elif how == "double":
            damaged[at:at] = damaged[at : at + count]
        else:
            damaged[at:at] = draw.draw(st.binary(min_size=1, max_size=8))
        if not damaged:
            break
    with contextlib.suppress(CodestreamFaultError):
        assert decode(bytes(damaged), form).shape == (form.rows, form.columns)
