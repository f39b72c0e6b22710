"""Stacks of planes of an analytic phantom: any orientation, tilt, heights; and real archives read without ctpipe."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from builders import AXIAL, ORIENTATIONS, ORIGIN
from numpy.typing import ArrayLike, NDArray

from ctpipe.dicom.arrange import Arrangement, Options, arrange
from ctpipe.dicom.geometry import Stack

ROWS, COLUMNS = 44, 52
PIXEL_MM = (0.8, 0.7)  # between rows, between columns
CENTRE = np.array([-13.0, 30.0, 230.0])


def phantom(points_mm: ArrayLike) -> NDArray[np.float64]:
    """HU at LPS points (…, 3): smooth, and another under every flip and swap of axes."""
    x, y, z = np.moveaxis(np.asarray(points_mm, np.float64) - CENTRE, -1, 0)
    slope = 40 + 5 * x + 8 * y - 6 * z + 0.02 * x * y
    return slope + 600 * np.exp(-((x - 6) ** 2 + (y + 4) ** 2 + (z - 5) ** 2) / 128)


@dataclass(frozen=True)
class Planes:
    """A stack with its voxels (n, rows, columns)."""

    stack: Stack
    hu: NDArray[np.float64]
    pixel_mm: tuple[float, float] = PIXEL_MM

    def arranged(self, **options: str) -> list[Arrangement]:
        _, rows, columns = self.hu.shape
        return arrange(self.stack, rows, columns, self.pixel_mm, None, Options(**options))

    def points(self) -> NDArray[np.float64]:
        """(n, rows, columns, 3) LPS mm of every voxel's centre, from its own plane's position."""
        _, rows, columns = self.hu.shape
        right, down = np.array(self.stack.orientation).reshape(2, 3) * np.array(self.pixel_mm[::-1])[:, None]
        r, c = np.indices((rows, columns))
        in_plane = r[..., None] * down + c[..., None] * right
        return self.stack.positions[:, None, None] + in_plane


def planes_at(
    heights: ArrayLike,
    tilt_deg: tuple[float, float] = (0.0, 0.0),
    orientation: tuple[float, ...] = AXIAL,
    unit: float = 1e-6,
) -> Planes:
    """The phantom on planes at `heights` mm along the normal, sheared by `tilt_deg` along the columns and the rows."""
    axes = np.array(orientation, np.float64).reshape(2, 3)
    heights = np.asarray(heights, np.float64)[:, None]
    down, right = np.tan(np.radians(tilt_deg))
    positions = ORIGIN + heights * (np.cross(*axes) + axes[1] * down + axes[0] * right)
    empty = Planes(Stack(np.round(positions, 9), tuple(orientation), unit), np.zeros((len(heights), ROWS, COLUMNS)))
    return Planes(empty.stack, phantom(empty.points()))


def resampled(planes: Planes, one: Arrangement, dtype: Any = np.float64) -> NDArray[Any]:
    """Voxels of one arrangement, on its grid."""
    hu = planes.hu[list(one.indices)]
    if one.deshear is None:
        return hu.astype(dtype)
    return np.stack([one.deshear.apply(plane, k, dtype) for k, plane in enumerate(hu)])


def real_planes(archive: Path) -> Planes:
    """The CT of an archive, ascending along its normal, read with pydicom alone."""
    with zipfile.ZipFile(archive) as members:
        read = [pydicom.dcmread(BytesIO(members.read(name))) for name in members.namelist() if not name.endswith("/")]
    orientation = tuple(float(v) for v in read[0].ImageOrientationPatient)
    normal = np.cross(orientation[:3], orientation[3:])
    read.sort(key=lambda ds: float(normal @ np.array(ds.ImagePositionPatient, np.float64)))
    hu = [ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept) for ds in read]
    positions = np.array([ds.ImagePositionPatient for ds in read], np.float64)
    row_mm, column_mm = (float(v) for v in read[0].PixelSpacing)
    return Planes(Stack(positions, orientation, 1e-3), np.array(hu), (row_mm, column_mm))


__all__ = ["ORIENTATIONS", "Planes", "phantom", "planes_at", "real_planes", "resampled"]
