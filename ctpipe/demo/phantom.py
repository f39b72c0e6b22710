"""A synthetic abdomen: patient-specific anatomy with a liver, lesions of known place and size, and what imitates them.

Organs are level sets (millimetres from a surface, negative inside) of ellipsoids with smooth random surfaces, painted
one over the other into the HU of the volume with a soft edge; each is computed inside its own box only. The noise is
that of a filtered back projection: correlated in plane, without the lowest frequencies, stronger in the middle.
Nothing here comes from a patient.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ctpipe.errors import UsageError
from ctpipe.volume import Grid

SHAPE = (48, 208, 256)
SPACING_MM = (3.0, 1.5, 1.5)
EDGE_MM = 1.2  # width of the partial volume at a surface
MAX_CONTRAST_HU = 60.0  # of a lesion, unless the least contrast asked for is higher
LESION_MM = (4.0, 40.0)  # diameters
LARGEST_LESION_MM = (24.0, 36.0)  # the largest of a patient lies here at least
CAVITY_MM = (92.0, 132.0)  # semi-axes y, x of the peritoneal cavity

Volume = NDArray[np.float32]
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Phantom:
    """One synthetic patient.

    hu: (z, y, x) int16. masks: bool (z, y, x) by structure name as 3D-IRCADb names them: "liver" (with its lesions and
    vessels) and "livertumor01", … in order of falling size; gallbladder and fissure belong to no structure.
    grid: axial, LPS: z to the head, y to the back, x to the left. facts: what was drawn (seed, liver_hu, noise_hu,
    lesions as [(diameter_mm, contrast_hu, voxels)]).
    """

    hu: NDArray[np.int16]
    masks: dict[str, NDArray[np.bool_]]
    grid: Grid
    facts: dict[str, Any]


def phantom(seed: int, min_contrast_hu: float = 30.0) -> Phantom:
    """The synthetic patient of `seed`: 48 x 208 x 256 voxels of 3.0 x 1.5 x 1.5 mm, bit for bit repeatable.

    min_contrast_hu: every lesion is at least so much darker than the liver around it.
    """
    if not 0 < min_contrast_hu <= 150:
        raise UsageError(f"a lesion contrast of {min_contrast_hu} HU cannot be drawn", "give 0 < contrast <= 150")
    rng = np.random.default_rng(seed)
    canvas = _Canvas(rng)
    _draw_trunk(canvas)
    liver_centre = (rng.uniform(4, 18), rng.uniform(-14, -5), rng.uniform(-61, -52))
    liver_hu = rng.uniform(88, 122)
    liver = _draw_liver(canvas, liver_centre, liver_hu)
    _draw_bait(canvas, liver, liver_centre)
    liver_mask = liver < 0
    lesions = list(_draw_lesions(canvas, liver_mask, liver_hu, min_contrast_hu))
    lesions.sort(key=lambda lesion: -int(lesion[0].sum()))
    noise_hu = rng.uniform(10, 15)
    masks = {"liver": liver_mask} | {f"livertumor{i:02}": mask for i, (mask, _, _) in enumerate(lesions, 1)}
    facts = {"seed": seed, "liver_hu": round(liver_hu, 1), "noise_hu": round(noise_hu, 1),
             "lesions": [(round(mm, 1), round(contrast, 1), int(mask.sum())) for mask, mm, contrast in lesions]}
    return Phantom(_scan(canvas.hu, noise_hu, rng), masks, _grid(), facts)


def _grid() -> Grid:
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2] = SPACING_MM
    affine[:3, 3] = [-(n - 1) / 2 * mm for n, mm in zip(SHAPE[::-1], SPACING_MM[::-1], strict=True)]
    affine[3, 3] = 1
    return Grid.from_affine(SHAPE, affine)


class _Canvas:
    """HU under construction (float32) in millimetres around the middle of the volume."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.scale = rng.uniform(0.93, 1.06)  # size of this patient
        self.hu = np.full(SHAPE, -1000, np.float32)
        self.axes = [((np.arange(n) - (n - 1) / 2) * mm).astype(np.float32)
                     for n, mm in zip(SHAPE, SPACING_MM, strict=True)]

    def box(self, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Box:
        """Voxels that may lie within `radii` of `centre`, both in mm."""
        limits = []
        for axis, at, reach in zip(self.axes, centre, radii, strict=True):
            start, stop = np.searchsorted(axis, [at - reach, at + reach])
            limits.append(slice(max(0, int(start) - 1), min(len(axis), int(stop) + 1)))
        return limits[0], limits[1], limits[2]

    def offsets(self, box: Box, centre: tuple[float, float, float]) -> tuple[Volume, Volume, Volume]:
        """Millimetres from `centre` along z, y, x, each broadcastable over the box."""
        z, y, x = (axis[part] - np.float32(at) for axis, part, at in zip(self.axes, box, centre, strict=True))
        return z[:, None, None], y[None, :, None], x[None, None, :]

    def field(self, box: Box, length_mm: float, amplitude: float) -> Volume:
        """Smooth random field over the box: correlation length and standard deviation (of the coarse field) given."""
        weights, coarse_shape = [], []
        for part, mm in zip(box, SPACING_MM, strict=True):
            n = part.stop - part.start
            step = max(1.0, length_mm / mm / 2)
            m = int(np.ceil(n / step)) + 2
            at = np.arange(n) / step + self.rng.uniform(0, 1)
            weights.append(np.maximum(0, 1 - np.abs(at[:, None] - np.arange(m))).astype(np.float32))
            coarse_shape.append(m)
        coarse = self.rng.standard_normal([m + 4 for m in coarse_shape]).astype(np.float32)
        coarse = ndimage.gaussian_filter(coarse, 1.0)[2:-2, 2:-2, 2:-2]
        coarse *= np.float32(amplitude * 6.7)  # a Gaussian of 1 node leaves 1 / 6.7 of white noise's deviation in 3-D
        out = np.tensordot(weights[0], coarse, (1, 0))  # linear between the nodes, one axis after the other
        out = np.einsum("ya,zax->zyx", weights[1], out, optimize=True)
        return np.ascontiguousarray(out @ weights[2].T, dtype=np.float32)

    def ellipsoid(self, centre: tuple[float, float, float], radii: tuple[float, float, float], wobble_mm: float = 0.0,
                  length_mm: float = 40.0, scaled: bool = True) -> tuple[Box, Volume]:
        """Level set of an ellipsoid in its box; an infinite radius makes a cylinder."""
        size = self.scale if scaled else 1.0
        at = (centre[0] * size, centre[1] * size, centre[2] * size)
        r = (radii[0] * size, radii[1] * size, radii[2] * size)
        reach = 3.5 * wobble_mm + EDGE_MM
        # the level grows by at least 1 mm a mm along the shortest radius, slower along the others
        slack = [reach * radius / min(r) if np.isfinite(radius) else 0.0 for radius in r]
        box = self.box(at, (r[0] + slack[0], r[1] + slack[1], r[2] + slack[2]))
        z, y, x = self.offsets(box, at)
        level = (np.sqrt((z / np.float32(r[0])) ** 2 + (y / np.float32(r[1])) ** 2 + (x / np.float32(r[2])) ** 2) - 1)
        level *= np.float32(min(r))
        if wobble_mm:
            level = level + self.field(box, length_mm, wobble_mm)
        return box, level

    def paint(self, box: Box, level: Volume, hu: float, texture_hu: float = 0.0, texture_mm: float = 6.0) -> None:
        """Replace what lies inside the level set by `hu`, mixed over EDGE_MM at its surface."""
        weight = np.clip(np.float32(0.5) - level / np.float32(EDGE_MM), 0, 1)
        value = self.field(box, texture_mm, texture_hu) + np.float32(hu) if texture_hu else np.float32(hu)
        self.hu[box] += weight * (value - self.hu[box])


def _draw_trunk(canvas: _Canvas) -> None:
    """Skin, fat, muscle, spine, vessels, stomach, spleen, kidneys and bowel: everything but the liver."""
    draw, wall = canvas.rng.uniform, (draw_wall := canvas.rng.uniform(12, 28))
    tall = np.inf

    def organ(centre: tuple[float, float, float], radii: tuple[float, float, float], hu: float, texture: float,
              wobble: float = 0.0, length: float = 30.0) -> None:
        box, level = canvas.ellipsoid(centre, radii, wobble, length)
        canvas.paint(box, level, hu, texture)

    organ((0, 0, 0), (tall, 132, 172), -100, 8, wobble=2, length=60)  # skin and the fat below it
    organ((0, 0, 0), (tall, 132 - wall, 172 - draw_wall * draw(1.0, 1.3)), 55, 6, wobble=3, length=50)  # muscle
    organ((0, -6, 0), (tall, *CAVITY_MM), -95, 10, wobble=3, length=50)  # fat of the cavity
    organ((0, 70, 0), (tall, 24, 27), draw(180, 260), 40, wobble=1)  # vertebrae
    for side in (-1, 1):  # ribs, cut across
        for angle in np.linspace(0.3, 2.2, 5) + draw(-0.1, 0.1):
            y, x = 8 + 112 * -np.cos(angle), side * 152 * np.sin(angle)
            organ((draw(-50, 50), y, x), (draw(25, 45), 5, 6), draw(250, 400), 30)
    organ((0, 45, -8), (tall, 9, 9), draw(150, 190), 3)  # aorta
    organ((draw(-10, 10), 5, 75), (60, 42, 40), draw(0, 30), 6, wobble=3)  # stomach, fluid
    organ((0, -22, 75), (40, 14, 28), -850, 0, wobble=2)  # and its gas
    organ((20, 40, 95), (40, 34, 22), draw(105, 130), 4, wobble=3)  # spleen
    for x in (-62, 66):  # kidneys: bright cortex, darker middle
        cortex = draw(150, 200)
        organ((-40, 50, x), (38, 22, 20), cortex, 8, wobble=2)
        organ((-40, 50, x), (20, 9, 8), cortex - 60, 8, wobble=1)
    for _ in range(9):  # bowel
        organ((draw(-70, -25), draw(-60, 10), draw(-60, 90)), (draw(12, 25), draw(9, 16), draw(9, 16)), draw(15, 60), 8,
              wobble=1.5, length=20)


def _draw_liver(canvas: _Canvas, centre: tuple[float, float, float], hu: float) -> Volume:
    """Two overlapping lobes inside the cavity, with their vessels; the level set over the whole volume."""
    draw = canvas.rng.uniform
    level = np.full(SHAPE, 99, np.float32)
    for at, radii, wobble in ((centre, (66, 70, 62), 4), ((centre[0] + 12, -30, centre[2] + 60), (36, 28, 52), 3)):
        box, lobe = canvas.ellipsoid(at, radii, wobble, 40)
        np.minimum(level[box], lobe, out=level[box])
    everywhere = (slice(0, SHAPE[0]), slice(0, SHAPE[1]), slice(0, SHAPE[2]))
    box, cavity = canvas.ellipsoid((0, -6, 0), (np.inf, *CAVITY_MM))
    inside = np.full(SHAPE, 99, np.float32)
    inside[box] = cavity
    np.maximum(level, inside, out=level)
    box, aorta = canvas.ellipsoid((0, 45, -8), (np.inf, 14, 14))
    np.maximum(level[box], -aorta, out=level[box])
    canvas.paint(everywhere, level, hu, draw(2, 4))
    vessels = _vessels(canvas, centre)
    vessels[level > -2] = 99  # they do not break the surface
    canvas.paint(everywhere, vessels, hu + draw(25, 60), 2)
    return level


def _vessels(canvas: _Canvas, liver_centre: tuple[float, float, float]) -> Volume:
    """Level set of three branching trees: random walks of falling radius, from the hilum into the liver."""
    rng = canvas.rng
    level = np.full(SHAPE, 99, np.float32)
    middle = np.asarray(liver_centre) * canvas.scale
    hilum = middle + (-10, 25, 25)
    tips = [(hilum, rng.standard_normal(3), rng.uniform(6, 8)) for _ in range(3)]
    while tips:
        at, course, radius = tips.pop()
        for _ in range(int(rng.uniform(8, 15))):
            course = course / np.linalg.norm(course)
            place = (float(at[0]), float(at[1]), float(at[2]))
            box = canvas.box(place, (radius + 3,) * 3)
            if min(part.stop - part.start for part in box) < 1:
                break  # left the volume
            z, y, x = canvas.offsets(box, place)
            np.minimum(level[box], np.sqrt(z**2 + y**2 + x**2) - np.float32(radius), out=level[box])
            at = at + course * max(1.5, 0.7 * radius)
            course = course + 0.35 * rng.standard_normal(3) + (middle - at) / 800
        if radius > 2.2:
            tips += [(at, course + 0.9 * rng.standard_normal(3), radius * rng.uniform(0.65, 0.8)) for _ in range(2)]
    return level


def _draw_bait(canvas: _Canvas, liver: Volume, centre: tuple[float, float, float]) -> None:
    """Gallbladder and fatty fissure: dark, at or in the liver, and no lesion; they are cut out of the liver."""
    draw = canvas.rng.uniform
    box, level = canvas.ellipsoid((centre[0] - 38, -35, centre[2] + 42), (24, 13, 12), 1.5, 20)
    canvas.paint(box, level, draw(5, 20), 2)
    np.maximum(liver[box], -level, out=liver[box])
    middle = (0.0, 0.0, (centre[2] + 40) * canvas.scale)
    box = canvas.box(middle, (np.inf, np.inf, 14))
    _, _, x = canvas.offsets(box, middle)
    sheet = np.abs(x - canvas.field(box, 30, 3)) - 3  # 6 mm thick
    sheet = np.maximum(sheet, canvas.axes[1][None, box[1], None] + 25)  # in the front only
    sheet = np.where(liver[box] < 0, sheet, np.float32(99))
    canvas.paint(box, sheet, -20, 4)
    np.maximum(liver[box], -sheet, out=liver[box])


def _draw_lesions(canvas: _Canvas, liver: NDArray[np.bool_], liver_hu: float, min_contrast_hu: float
                  ) -> Iterator[tuple[NDArray[np.bool_], float, float]]:
    """3 to 8 lesions that do not touch one another: (mask, diameter in mm, contrast in HU)."""
    rng = canvas.rng
    low, high = np.log(LESION_MM)
    diameters = np.exp(rng.uniform(low, high, int(rng.integers(3, 9))))
    diameters[0] = max(diameters[0], rng.uniform(*LARGEST_LESION_MM))
    free = liver.copy()
    around: Box = ndimage.find_objects(liver.astype(np.uint8))[0]  # distances are dear: in the liver's box only
    for diameter in np.sort(diameters)[::-1]:
        depth = ndimage.distance_transform_edt(np.pad(free[around], 1), sampling=SPACING_MM)[1:-1, 1:-1, 1:-1]
        places = np.argwhere(depth > 0.45 * diameter)  # near the surface at most
        if not len(places):
            continue
        index = places[rng.integers(len(places))] + [part.start for part in around]
        z, y, x = (float(axis[i]) for axis, i in zip(canvas.axes, index, strict=True))
        rz, ry, rx = (float(r) for r in diameter / 2 * rng.uniform(0.8, 1.2, 3))
        box, level = canvas.ellipsoid((z, y, x), (rz, ry, rx), 0.05 * diameter, max(8.0, diameter / 2), scaled=False)
        level = np.where(free[box], level, np.float32(99))
        contrast = rng.uniform(min_contrast_hu, max(MAX_CONTRAST_HU, min_contrast_hu))
        mask = np.zeros(SHAPE, bool)
        mask[box] = level < 0
        if not mask.any():
            continue  # smaller than a voxel
        canvas.paint(box, level, liver_hu - contrast, 3)
        free[around] &= ~ndimage.binary_dilation(mask[around])
        yield mask, float(diameter), float(contrast)


def _scan(hu: Volume, noise_hu: float, rng: np.random.Generator) -> NDArray[np.int16]:
    """Blur of the scanner and noise of its reconstruction; whole HU."""
    blurred = ndimage.gaussian_filter(hu, (0.4, 0.5, 0.5))
    noise = ndimage.gaussian_filter(rng.standard_normal(SHAPE, dtype=np.float32), (0.3, 0.75, 0.75), truncate=3)
    noise -= ndimage.gaussian_filter(noise, (0, 3, 3), truncate=3)  # reconstruction passes no slow drifts
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in SHAPE[1:])
    middle = np.clip(1 - 1.4 * y[:, None] ** 2 - 1.27 * x**2, 0, 1)
    noise *= np.float32(noise_hu) / noise.std() * (0.8 + 0.5 * middle)
    return np.clip(np.rint(blurred + noise), -1024, 3071).astype(np.int16)
