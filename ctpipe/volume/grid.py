"""Grid: the shape of a volume and the one matrix that takes its indexes to the patient."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctpipe.errors import UsageError
from ctpipe.words import ZYX

# Within this of a patient axis a direction counts as anatomical; DICOM cosines are trusted to 1e-4 (PS3.3 C.7.6.2.1.1).
ANATOMICAL_TOLERANCE = 1e-4
# Cosines between axes below this are rounding: the grid is rectangular.
RECTANGULAR = 1e-9
# Axes further from right angles than this (the cosine; 0.1 degree) look wrong where a viewer draws a box of them.
VISIBLY_SHEARED = 0.002
# Affines are compared, and enter grid_id, rounded to this many mm.
AFFINE_STEP_MM = 1e-6

_TOWARDS = {  # (patient axis, sign) -> (RFC-4 word, letter), in DICOM's LPS
    (0, 1): ("right-to-left", "L"),
    (0, -1): ("left-to-right", "R"),
    (1, 1): ("anterior-to-posterior", "P"),
    (1, -1): ("posterior-to-anterior", "A"),
    (2, 1): ("inferior-to-superior", "S"),
    (2, -1): ("superior-to-inferior", "I"),
}


@dataclass(frozen=True)
class Grid:
    """A regular grid of voxels in the patient; holds no voxels.

    shape: voxels (z, y, x).
    rows: the 4x4 affine as a tuple of tuples; (z, y, x, 1) voxel index -> (L, P, S, 1) mm. Index (0, 0, 0) is the
        centre of the first voxel. Columns are the steps along z, y and x.
    frame_of_reference: pseudonym of the DICOM FrameOfReferenceUID, or None where the source has none.
    """

    shape: ZYX
    rows: tuple[tuple[float, float, float, float], ...]
    frame_of_reference: str | None = None

    def __post_init__(self) -> None:
        affine = np.asarray(self.rows, np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-12:
            raise UsageError("a grid needs a finite, invertible 4x4 affine", "give index-to-LPS millimetres")
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise UsageError(f"a grid of shape {tuple(self.shape)} has no voxels", "give (z, y, x), each at least 1")

    @classmethod
    def from_affine(cls, shape: ArrayLike, affine: ArrayLike, frame_of_reference: str | None = None) -> Grid:
        """Grid of `shape` (z, y, x) and a (4, 4) affine, index (z, y, x, 1) -> LPS mm."""
        rows = tuple(tuple(float(v) for v in row) for row in np.asarray(affine, np.float64))
        return cls(ZYX(*(int(n) for n in np.asarray(shape))), rows, frame_of_reference)  # type: ignore[arg-type]

    @cached_property
    def affine(self) -> NDArray[np.float64]:
        """(4, 4) float64, (z, y, x, 1) index -> (L, P, S, 1) mm."""
        matrix = np.asarray(self.rows, np.float64)
        matrix.setflags(write=False)
        return matrix

    @cached_property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along z, y, x, in mm."""
        z, y, x = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(z), float(y), float(x)

    @cached_property
    def directions(self) -> NDArray[np.float64]:
        """(3, 3): columns are the unit vectors (LPS) of increasing z, y and x index."""
        return self.affine[:3, :3] / np.asarray(self.spacing_mm)

    @cached_property
    def anatomical(self) -> tuple[tuple[int, int], ...] | None:
        """For z, y, x: (patient axis 0..2 of LPS, sign), or None for an oblique or sheared grid."""
        found = []
        for column in self.directions.T:
            axis = int(np.argmax(np.abs(column)))
            sign = 1 if column[axis] > 0 else -1
            if abs(column[axis]) < 1 - ANATOMICAL_TOLERANCE**2 / 2 - 1e-12:
                return None
            found.append((axis, sign))
        return tuple(found) if len({axis for axis, _ in found}) == 3 else None

    @cached_property
    def orientations(self) -> tuple[str, str, str] | None:
        """RFC-4 orientation words of z, y, x ('right-to-left' is increasing L), or None where not anatomical."""
        if self.anatomical is None:
            return None
        z, y, x = (_TOWARDS[key][0] for key in self.anatomical)
        return z, y, x

    @cached_property
    def letters(self) -> tuple[str, str, str]:
        """The patient side (L R A P S I) that increasing z, y, x index goes to most."""
        out = []
        for column in self.directions.T:
            axis = int(np.argmax(np.abs(column)))
            out.append(_TOWARDS[(axis, 1 if column[axis] > 0 else -1)][1])
        z, y, x = out
        return z, y, x

    @cached_property
    def translation_mm(self) -> tuple[float, float, float]:
        """Coordinate of the first voxel's centre along the directions of z, y, x, in mm.

        With positive scales this is what OME-NGFF 0.5 can say of any rectangular grid; the whole truth is the affine.
        """
        axes = self.directions
        sheared = np.abs(axes.T @ axes - np.eye(3)).max() > RECTANGULAR
        z, y, x = np.linalg.solve(axes, self.affine[:3, 3]) if sheared else axes.T @ self.affine[:3, 3]
        return float(z), float(y), float(x)

    @cached_property
    def is_sheared(self) -> bool:
        """Whether planes are offset against each other (a kept gantry tilt): a box drawn of it shows them straight."""
        return bool(np.abs(self.directions.T @ self.directions - np.eye(3)).max() > VISIBLY_SHEARED)

    def to_lps(self, indexes: ArrayLike) -> NDArray[np.float64]:
        """(…, 3) voxel indexes (z, y, x), fractions allowed -> (…, 3) LPS mm."""
        return np.asarray(indexes, np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_index(self, points_mm: ArrayLike) -> NDArray[np.float64]:
        """(…, 3) LPS mm -> (…, 3) voxel indexes (z, y, x) with fractions."""
        inverse = np.linalg.inv(self.affine)
        return np.asarray(points_mm, np.float64) @ inverse[:3, :3].T + inverse[:3, 3]

    @cached_property
    def grid_id(self) -> str:
        """16 hex digits over shape, affine rounded to 1e-6 mm and frame of reference: equal ids, equal grids."""
        rounded = np.rint(self.affine / AFFINE_STEP_MM).astype(np.int64).tolist()
        text = json.dumps([list(self.shape), rounded, self.frame_of_reference])
        return sha256(text.encode()).hexdigest()[:16]

    def same_lattice(self, other: Grid, tolerance_mm: float = 1e-3) -> bool:
        """Whether both have the same shape and put every corner within `tolerance_mm`; frames of reference aside."""
        if tuple(self.shape) != tuple(other.shape):
            return False
        n = np.asarray(self.shape) - 1
        corners = np.array([[(k >> 2) & 1, (k >> 1) & 1, k & 1] for k in range(8)]) * n
        return bool(np.abs(self.to_lps(corners) - other.to_lps(corners)).max() <= tolerance_mm)

    def coarser(self, factors: ZYX) -> Grid:
        """Grid of block means over `factors` voxels (z, y, x); blocks at the far border may be partial.

        A block of n voxels is centred (n - 1) / 2 voxels after its first, which is the half-voxel translation that
        OME-NGFF asks every pyramid level to carry.
        """
        shape = ZYX(*(-(-n // f) for n, f in zip(self.shape, factors, strict=True)))
        affine = self.affine.copy()
        affine[:3, 3] = self.to_lps([(f - 1) / 2 for f in factors])
        affine[:3, :3] = self.affine[:3, :3] * np.asarray(factors, np.float64)
        return Grid.from_affine(shape, affine, self.frame_of_reference)
