"""Builders of the label tests: lopsided volumes, grids of any orientation, NIfTI files."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813

from ctpipe.dicom import Pseudonyms, VolumeSource, check
from ctpipe.volume import Grid

KEY = Pseudonyms(b"\x05" * 32)
SHAPE = (6, 9, 12)
# An oblique frame whose cosines are plain decimals.
TURNED = np.array([[0.0, 0.6, 0.8], [0.0, -0.8, 0.6], [1.0, 0.0, 0.0]])


def grid(
    shape: tuple[int, int, int] = SHAPE,
    spacing: tuple[float, float, float] = (2.5, 0.75, 0.7),
    directions: Any = ((0, 0, 1), (0, 1, 0), (1, 0, 0)),
    origin: tuple[float, float, float] = (-12.5, 31.25, -100.0),
    frame: str | None = None,
) -> Grid:
    """Columns of `directions` are the unit vectors (LPS) of z, y and x; the default is axial, head first."""
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(directions, float) * np.asarray(spacing)
    affine[:3, 3] = origin
    return Grid.from_affine(shape, affine, frame)


def lopsided(shape: tuple[int, int, int] = SHAPE, value: int = 1) -> np.ndarray:
    """A region that no flip and no swap of axes leaves as it is."""
    out = np.zeros(shape, np.uint8)
    out[1 : shape[0] - 1, 2:4, 1 : shape[2] - 2] = value
    out[0, 0, : shape[2] // 2] = value
    out[shape[0] // 2, shape[1] - 2 :, -1] = value
    return out


def hu(shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1024, 3072, shape).astype(np.int16)


def write_nifti(path: Path, labels: np.ndarray, on: Grid, **header: Any) -> Path:
    """`labels` (z, y, x) on the grid as NIfTI: array (x, y, z), affine in RAS."""
    affine = np.eye(4)
    affine[:3, :3] = on.affine[:3, [2, 1, 0]]
    affine[:3, 3] = on.affine[:3, 3]
    return save_nifti(path, labels.transpose(2, 1, 0), np.diag([-1.0, -1, 1, 1]) @ affine, **header)


def save_nifti(path: Path, array: np.ndarray, ras: np.ndarray, sform: int = 1, qform: int = 0) -> Path:
    image = nib.Nifti1Image(array, None)
    image.header.set_sform(ras, sform)
    image.header.set_qform(ras if qform else None, qform)
    image.header["qform_code"], image.header["sform_code"] = qform, sform
    nib.save(image, path)
    return path


def only_volume(path: Path) -> VolumeSource:
    """The one CT volume of a folder or archive."""
    sources = [v.source for v in check(path, KEY) if v.source is not None]
    assert len(sources) == 1
    return sources[0]


def ct_by_simpleitk(archive: Path, folder: Path) -> tuple[Grid, np.ndarray]:
    """(grid, HU) of the CT in a zip, read by a second reader, in order of position."""
    with zipfile.ZipFile(archive) as source:
        source.extractall(folder)
    paths = [str(path) for path in folder.rglob("*") if path.is_file()]
    images = sorted((sitk.ReadImage(path) for path in paths), key=lambda image: image.GetOrigin()[2])
    first, last = images[0], images[-1]
    step = (last.GetOrigin()[2] - first.GetOrigin()[2]) / (len(images) - 1)
    spacing = (step, first.GetSpacing()[1], first.GetSpacing()[0])
    on = grid((len(images), *first.GetSize()[1::-1]), spacing, origin=first.GetOrigin())
    return on, np.concatenate([sitk.GetArrayFromImage(image) for image in images])
