"""RLE Lossless of label maps (PS3.5 annex G): rows packed one by one by imagecodecs, byte planes from the highest.

pydicom hands this to GDCM where it is installed, whose encoder ends the whole process on some odd frame sizes (GDCM
3.2.6, 143 x 161).
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import RLELossless

SEGMENTS = 15  # of the header (PS3.5 G.5)


def pack(ds: Dataset) -> None:
    """Turns the native frames of a data set of one sample a pixel into RLE Lossless, in place."""
    rows, columns, frames = int(ds.Rows), int(ds.Columns), int(ds.NumberOfFrames)
    dtype = np.dtype("<u1" if ds.BitsAllocated == 8 else "<u2")
    native = np.frombuffer(ds.PixelData, dtype, frames * rows * columns).reshape(frames, rows, columns)
    ds.PixelData = encapsulate([_frame(frame) for frame in native])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = RLELossless


def _frame(frame: NDArray) -> bytes:
    from imagecodecs import packbits_encode

    size = frame.dtype.itemsize
    planes = np.ascontiguousarray(frame).view(np.uint8).reshape(*frame.shape, size)[..., ::-1]
    segments = [packbits_encode(planes[..., byte].copy(), axis=-1) for byte in range(size)]
    segments = [segment + b"\0" * (len(segment) % 2) for segment in segments]
    offsets = [64 + sum(map(len, segments[:n])) for n in range(size)]
    return struct.pack("<16L", size, *offsets, *[0] * (SEGMENTS - size)) + b"".join(segments)
