"""RLE Lossless of label maps, decoded by pydicom's own decoder and by imagecodecs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import pixel_array
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from ctpipe.export.rle import pack


def packed(frames):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.NumberOfFrames, ds.Rows, ds.Columns = frames.shape
    ds.BitsAllocated = ds.BitsStored = frames.dtype.itemsize * 8
    ds.SamplesPerPixel, ds.PixelRepresentation, ds.PhotometricInterpretation = 1, 0, "MONOCHROME2"
    ds.PixelData = frames.tobytes() + b"\0" * (frames.nbytes % 2)
    pack(ds)
    assert ds.file_meta.TransferSyntaxUID == RLELossless
    return ds


# frames that RLE makes exactly as long as they were: pydicom asks, and reads them right
@pytest.mark.filterwarnings("ignore:The number of bytes of compressed pixel data matches")
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 40), st.integers(1, 300), st.sampled_from(["u1", "u2"]))
@example(352, 1, 22, 22, "u1")
def test_frames_come_back(seed, n, rows, columns, dtype):
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 3, (n, rows, columns)).astype(dtype) * (rng.random((n, rows, columns)) < rng.random())
    frames = (frames * (1 if dtype == "u1" else 300)).astype(dtype)
    ds = packed(frames)
    found = pixel_array(ds, decoding_plugin="pydicom")
    assert np.array_equal(found.reshape(frames.shape), frames)


@pytest.mark.parametrize("size", [(143, 161), (1, 1), (512, 512)])
def test_odd_sizes_end_no_process(size):
    frames = np.zeros((2, *size), np.uint8)
    frames[1, size[0] // 2 :, size[1] // 3 :] = 5
    ds = packed(frames)
    assert np.array_equal(pixel_array(ds, decoding_plugin="pydicom"), frames)
    assert len(ds.PixelData) < frames.size / 10 or size == (1, 1)
