"""A small synthetic abdomen and labels in memory, with the faces of ctpipe.store."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctpipe.volume import Grid

CLASSES = {1: "liver", 2: "lesion"}


@dataclass
class FakeSeries:
    voxels: np.ndarray
    grid: Grid
    id: str = "7f3a9c0d1e2b4a58"

    def read_planes(self, start, stop):
        return self.voxels[start:stop]


@dataclass
class FakeLabels:
    voxels: np.ndarray
    grid: Grid
    classes: dict[int, str]
    name: str
    series_id: str = "7f3a9c0d1e2b4a58"

    def read_planes(self, start, stop):
        return self.voxels[start:stop]


def axial_grid(shape, spacing_mm=(3.0, 1.5, 1.5)):
    """z to the head, y to the back, x to the patient's left."""
    z, y, x = spacing_mm
    return Grid.from_affine(shape, [[0, 0, x, -150], [0, y, 0, -120], [z, 0, 0, 40], [0, 0, 0, 1]])


def abdomen(seed=3, shape=(64, 200, 240)):
    """HU int16 (z, y, x) on `axial_grid`, and its labels: 1 liver (on the patient's right), 2 lesions."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices(shape, dtype=np.float32)
    z, y, x = (z - shape[0] / 2) * 3.0, (y - shape[1] / 2) * 1.5, (x - shape[2] / 2) * 1.5
    hu = np.full(shape, -1000, np.float32)

    def ball(cz, cy, cx, rz, ry, rx):
        return ((z - cz) / rz) ** 2 + ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1

    hu[ball(0, 0, 0, 400, 118, 158)] = -95  # fat
    hu[ball(0, 2, 0, 400, 104, 142)] = 45  # muscle
    cavity = ball(0, -6, 0, 400, 92, 128)
    hu[cavity] = -60
    hu[ball(0, 72, 0, 400, 22, 22)] = 320  # spine
    hu[ball(0, 92, 0, 400, 9, 6)] = 260
    hu[ball(0, 78, 0, 400, 9, 9)] = 30
    for angle in np.linspace(-2.6, 2.6, 11):
        hu[ball(0, -6 + 97 * -np.cos(angle), 134 * np.sin(angle), 400, 6, 9)] = 380  # ribs
    hu[ball(10, -14, 62, 40, 34, 34) & cavity] = -20  # stomach
    hu[ball(16, -34, 66, 14, 16, 20) & cavity] = -950
    hu[ball(12, 36, 92, 38, 26, 20) & cavity] = 118  # spleen
    hu[ball(-34, 46, 58, 42, 22, 20) & cavity] = 160
    hu[ball(-38, 48, -58, 42, 22, 20) & cavity] = 160  # kidneys
    hu[ball(0, 40, 14, 400, 11, 11)] = 190  # aorta
    liver = (ball(4, -8, -58, 62, 66, 64) | ball(18, -34, -2, 34, 34, 52)) & cavity & (hu < 150)
    hu[liver] = 108
    labels = liver.astype(np.uint8)
    for _ in range(9):
        cz, cy, cx = rng.uniform(-32, 40), rng.uniform(-40, 26), rng.uniform(-100, -20)
        hu[ball(cz, cy, cx, 80, 3, 3) & liver] = 150  # vessels
    lesions = ((6, -22, -70, 17), (26, 14, -44, 9), (-14, 20, -84, 7), (20, -40, -20, 6), (-24, -20, -50, 3))
    for cz, cy, cx, r in lesions:
        lesion = ball(cz, cy, cx, r, r, r) & liver
        hu[lesion], labels[lesion] = 58, 2
    hu += rng.normal(0, 14, shape).astype(np.float32)
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16), labels


def moved(labels):
    """A prediction that is wrong the way a classifier is: shifted, one lesion lost, one made up."""
    out = np.zeros_like(labels)
    out[:, 1:, 2:] = labels[:, :-1, :-2]
    out[:27][out[:27] == 2] = 1
    out[40:43, 110:117, 90:97][out[40:43, 110:117, 90:97] == 1] = 2
    return out
