"""Stored bytes to HU: bits, sign, rescale, padding, codecs (V4, V5, X5)."""

import io

import numpy as np
import pydicom
import pytest
from builders import ct_series, hu_block, setter, write_files
from pydicom import uid

from ctpipe.dicom import Pseudonyms, check, read_planes
from ctpipe.dicom.codestreams import CodestreamFaultError
from ctpipe.dicom.pixels import PixelFormat, Rescale, decode, facts_of, stored_values

KEY = Pseudonyms(b"k" * 32)


def form(bits=12, signed=False, high=None, allocated=16, syntax=uid.ExplicitVRLittleEndian):
    return PixelFormat(1, 4, allocated, bits, bits - 1 if high is None else high, signed, syntax)


def taken(tmp_path, files):
    (verdict,) = check(write_files(tmp_path, files), KEY)
    assert verdict.source is not None, verdict.detail
    return verdict.source, read_planes(verdict.source, 0, verdict.source.grid.shape[0])


@pytest.mark.parametrize(
    ("kwargs", "words", "values"),
    [
        ({}, [0, 1, 0xFFF, 0xF123], [0, 1, 4095, 0x123]),
        ({"signed": True}, [0, 0x7FF, 0x800, 0xFFFF], [0, 2047, -2048, -1]),
        ({"high": 15}, [0, 16, 0xFFF0, 0x123F], [0, 1, 4095, 0x123]),
        ({"bits": 16}, [0, 1, 0x8000, 0xFFFF], [0, 1, 32768, 65535]),
        ({"bits": 16, "signed": True}, [0, 1, 0x8000, 0xFFFF], [0, 1, -32768, -1]),
        ({"bits": 32, "allocated": 32, "signed": True}, [0, 1, 0x80000000, 0xFFFFFFFF], [0, 1, -(2**31), -1]),
    ],
)
def test_bits_are_masked_and_signed_by_the_header(kwargs, words, values):
    """V5."""
    what = form(**kwargs)
    array = np.array([words], f"<u{what.bits_allocated // 8}")
    assert stored_values(array, what).tolist() == [values]
    assert decode(array.tobytes(), what).tolist() == [values]


@pytest.mark.parametrize(
    ("slope", "intercept", "stored", "fits"),
    [(1, -1024, 33791, True), (1, -1024, 33792, False), (0.5, 0, 4, True), (0.5, 0, 3, False), (1, 0.25, 4, False),
     (-1, 0, 32768, True)],
)  # fmt: skip
def test_int16_is_for_whole_values_that_fit(slope, intercept, stored, fits):
    """V4."""
    assert facts_of(np.array([[0 if fits else stored, stored]]), Rescale(slope, intercept)).fits_int16 is fits


def test_one_voxel_past_int16_makes_the_volume_float32_and_wraps_nothing(tmp_path):
    """V4."""

    def edit(z, ds):
        if z == 4:
            words = np.frombuffer(ds.PixelData, "<u2").copy()
            words[17] = 65535
            ds.PixelData = words.tobytes()

    source, hu = taken(tmp_path, ct_series(hu_block(), edit=edit))
    assert source.dtype == "float32"
    assert hu.max() == 65535 - 1024


def test_each_plane_has_its_own_rescale(tmp_path):
    """V4."""

    def edit(z, ds):
        ds.RescaleSlope, ds.RescaleIntercept = str(1 + z % 3), str(-1024 + z)

    source, hu = taken(tmp_path, ct_series(hu_block(), edit=edit))
    slopes, intercepts = 1 + np.arange(8) % 3, -1024 + np.arange(8)
    assert np.array_equal(hu, (hu_block() + 1024) * slopes[:, None, None] + intercepts[:, None, None])
    assert source.plane_table()["slope"].tolist() == slopes.tolist()


def test_padding_becomes_air_and_is_counted(tmp_path):
    hu = hu_block()
    hu[:, :2, :3] = -2000
    source, out = taken(tmp_path, ct_series(hu, signed=True, edit=setter(PixelPaddingValue=-2000)))
    assert (out[:, :2, :3] == -1024).all()
    assert source.attributes["padded_voxels"] == 8 * 6
    assert any("padding" in note for note in source.notes)


def test_padding_written_as_the_other_sign_is_still_padding(tmp_path):
    hu = hu_block()
    hu[:, 0, 0] = -2000

    def edit(z, ds):
        ds.add_new("PixelPaddingValue", "US", 63536)

    assert (taken(tmp_path, ct_series(hu, signed=True, edit=edit))[1][:, 0, 0] == -1024).all()


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    "syntax",
    [uid.ImplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian, uid.RLELossless, uid.JPEGLSLossless,
     uid.JPEG2000Lossless],
    ids=["implicit", "deflated", "rle", "jpeg-ls", "jpeg 2000"],
)  # fmt: skip
def test_every_syntax_gives_the_same_voxels(tmp_path, syntax, signed):
    """V5."""
    hu = hu_block((4, 40, 48))  # OpenJPEG's encoder wants 32 x 32 at least
    assert np.array_equal(taken(tmp_path, ct_series(hu, signed=signed, syntax=syntax))[1], hu)


def test_a_codestream_of_another_size_is_refused_before_it_is_decoded(monkeypatch):
    """X5: a decoder allocates what the codestream asks for."""
    import openjpeg.utils

    data = np.zeros((48, 64), np.uint16)
    stream = bytearray(openjpeg.utils.encode_array(data, bits_stored=12, photometric_interpretation=2))
    at = stream.index(b"\xff\x51")
    stream[at + 6 : at + 14] = (60000).to_bytes(4, "big") * 2
    monkeypatch.setattr("ctpipe.dicom.pixels.decode_apart", lambda *a: pytest.fail("the codestream was decoded"))
    what = PixelFormat(48, 64, 16, 12, 11, False, uid.JPEG2000Lossless)
    with pytest.raises(CodestreamFaultError, match="size"):
        decode(bytes(stream), what)
    huge = PixelFormat(60000, 60000, 16, 12, 11, False, uid.JPEG2000Lossless)
    with pytest.raises(CodestreamFaultError, match="too large"):
        decode(bytes(stream), huge)


def test_a_cut_codestream_is_refused(tmp_path):
    files = ct_series(hu_block((6, 40, 48)), syntax=uid.JPEG2000Lossless)
    ds = pydicom.dcmread(io.BytesIO(files[3]))
    stream = pydicom.encaps.get_frame(ds.PixelData, 0, number_of_frames=1)
    ds.PixelData = pydicom.encaps.encapsulate([stream[: len(stream) // 4 * 2]])
    ds["PixelData"].is_undefined_length = True
    out = io.BytesIO()
    ds.save_as(out)
    files[3] = out.getvalue()
    (verdict,) = check(write_files(tmp_path, files), KEY)
    assert (verdict.kind, verdict.reason) == ("reject", "decode")


def test_a_plane_element_longer_or_shorter_than_its_size_is_refused():
    with pytest.raises(CodestreamFaultError, match="shorter"):
        decode(bytes(7), form())


REAL_CODECS = [(f"CT{n}_{codec}", f"CT{n}_UNC") for n in (1, 2) for codec in ("J2KR", "JLSL", "JPLL", "RLE")]


@pytest.mark.real
def test_lossless_codestreams_of_other_encoders_equal_their_uncompressed_twins(real_data):
    """V5: NEMA's WG-04 samples, written by encoders that are not ours."""
    from ctpipe.dicom.headers import planes_of
    from ctpipe.dicom.parse import parse
    from ctpipe.dicom.pixels import decode as decode_frame
    from ctpipe.dicom.sources import iter_items

    def frames(archive):
        out = {}
        for item in iter_items(real_data / "vendors" / "syntaxes_wg04" / archive):
            data = item.read()
            (plane,) = planes_of(parse(data), item.locator, item.number, Pseudonyms(b"k" * 32))
            stored = b"".join(data[at : at + n] for at, n in plane.spans)
            out[item.name.upper().partition(".")[0]] = decode_frame(stored, plane.form)
        return out

    packed, plain = frames("COMPRESSED.zip"), frames("UNCOMPRESSED.zip")
    checked = 0
    for name, twin in REAL_CODECS:
        for key in [k for k in packed if name.split("_")[0] in k and k.endswith(name.split("_")[1])]:
            truth = next(v for k, v in plain.items() if twin.split("_")[0] in k)
            assert np.array_equal(packed[key], truth), key
            checked += 1
    assert checked == len(REAL_CODECS)
