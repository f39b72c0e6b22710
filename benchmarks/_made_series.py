"""A made CT series of any length: a body with organs and the noise of a scanner, raw, as JPEG-LS or as JPEG 2000."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ctpipe.dicom import write_ct_series
from ctpipe.volume import Grid

SIDE = 512
# Planes that differ; longer series repeat them, which no converter can know.
DIFFERENT = 60


def planes(count: int) -> NDArray[np.int16]:
    """HU (count, 512, 512): air, fat, muscle, two organs, bone, and noise of 13 HU that neighbours share."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    made = np.empty((min(count, DIFFERENT), SIDE, SIDE), np.int16)
    for z, plane in enumerate(made):
        t = z / DIFFERENT - 0.5
        radius = np.hypot(x / (0.4 - 0.06 * t * t), y / (0.3 + 0.03 * np.cos(6 * t)))
        hu = np.where(radius < 1, -95.0, -1000.0)
        hu[radius < 0.92] = 50
        for cx, cy, size, value in ((-0.16, -0.04, 0.14, 105), (0.17, 0.02, 0.08, 120), (0, 0.2, 0.045, 380)):
            hu[np.hypot(x - cx, y - cy) < size * (1 + 0.2 * np.sin(7 * t + cx * 20))] = value
        noise = gaussian_filter(rng.normal(0, 1, (SIDE, SIDE)), 0.6)
        hu = gaussian_filter(hu, 0.8) + noise / noise.std() * np.where(radius < 1, 13, 7)
        hu[np.hypot(x, y) > 0.4999] = -1024
        plane[...] = np.clip(np.rint(hu), -1024, 3071)
    return made[np.arange(count) % len(made)]


def write_raw(folder: Path, count: int) -> None:
    """A series of `count` planes, 0.8 x 0.8 x 1 mm, 12 bits in explicit little endian."""
    affine = np.array([[0, 0, 0.8, -200], [0, 0.8, 0, -200], [1.0, 0, 0, 0], [0, 0, 0, 1]])
    hu = planes(count)
    write_ct_series(folder, hu, Grid.from_affine(hu.shape, affine), patient="B", study_key=f"benchmark {count}")


def write_compressed(raw: Path, folder: Path, kind: str) -> None:
    """The same series as "jpegls" or "j2k", lossless, one fragment a plane."""
    import imagecodecs
    import pydicom
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEG2000Lossless, JPEGLSLossless

    folder.mkdir()
    for path in sorted(raw.iterdir()):
        ds = pydicom.dcmread(path)
        stored = ds.pixel_array
        if kind == "jpegls":
            code, syntax = imagecodecs.jpegls_encode(stored), JPEGLSLossless
        else:
            code = imagecodecs.jpeg2k_encode(stored, codecformat="j2k", reversible=True, level=0, bitspersample=12)
            syntax = JPEG2000Lossless
        ds.PixelData = encapsulate([code])
        ds["PixelData"].VR = "OB"
        ds["PixelData"].is_undefined_length = True
        ds.file_meta.TransferSyntaxUID = syntax
        ds.save_as(folder / path.name)
