"""Labels as one HTML page: planes, a 3-D picture, every lesion measured. Names pseudonyms only, as the store does."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctpipe import report
from ctpipe.export.case import Case
from ctpipe.export.surface import surface
from ctpipe.report import Body
from ctpipe.scoring import Box, Measured, boxes_of_labels, measure
from ctpipe.volume import Grid, Level, pyramid_levels, slabs_of
from ctpipe.words import LABEL_COLOURS, LabelKind

_MOST_VOXELS = 6_000_000  # of a body's box, before it is drawn from a coarser level
_MOST_BONE_VOXELS = 12_000_000
_BONE_HU, _BONE_ML = 200, 1.0  # lowest HU of bone; smaller pieces are calcium, contrast, noise
_BONE_COLOUR, _BONE_CLEAR = (226, 218, 200), 0.80
_GLASS, _GLASS_TIMES = 0.76, 4.0  # how clear a body is that is so many times larger than the smallest class
_ROUND_MM, _LEAST_MM = 45.0, 160.0  # what is shown around the labels, and at least


def write_page(case: Case, out: Path) -> None:
    """The page of one case. Raises UsageError without scikit-image, InputError for uneven planes."""
    case.refuse_uneven("a volume in mL")
    grid, labels = case.grid, case.labels
    classes = {label: name for label, name in labels.classes.items() if label}
    lesions = measure(labels.read_planes, case.series.read_planes, grid, classes)
    title = f"{labels.kind.capitalize()} of volume {case.series.id}"
    planes, rows, columns = grid.shape
    z_mm, y_mm, x_mm = grid.spacing_mm
    about = (f"Labels {labels.name}, patient {case.series.patient}; {columns} × {rows} × {planes} voxels of "
             f"{x_mm:.3g} × {y_mm:.3g} × {z_mm:.3g} mm.")  # fmt: skip
    provenance = {
        "volume": case.series.id, "patient": case.series.patient, "labels": labels.name, "grid": grid.grid_id,
        **{key: value for key, value in labels.provenance.items() if isinstance(value, str | int | float)},
    }  # fmt: skip
    report.labels_html(out, title=title, about=about, planes=_planes(case), solid=_solid(case, lesions),
                       classes=classes, lesions=lesions, provenance=provenance)  # fmt: skip


def _planes(case: Case) -> bytes:
    truth = case.labels if case.labels.kind is LabelKind.TRUTH else None
    with tempfile.TemporaryDirectory() as folder:
        drawn = report.case_png(Path(folder) / "planes.png", case.series, truth, None if truth else case.labels,
                                "CT and labels", second=str(case.labels.kind))  # fmt: skip
        return drawn.read_bytes()


def _solid(case: Case, lesions: list[Measured]) -> bytes | None:
    """The 3-D picture; None where there is no voxel to draw."""
    volumes: dict[int, float] = {}
    for one in lesions:
        volumes[one.label] = volumes.get(one.label, 0.0) + one.volume_ml
    boxes = boxes_of_labels(case.labels.read_planes, case.grid)
    bodies = []
    for label in sorted(volumes, key=lambda label: volumes[label]):
        clear = _GLASS if volumes[label] > _GLASS_TIMES * min(volumes.values()) else 0.0
        body = _body(case, label, boxes[label], clear)
        if body is not None:
            bodies.append(body)
    if not bodies:
        return None
    points = np.concatenate([body.points for body in bodies])
    low, high = points.min(axis=0) - _ROUND_MM, points.max(axis=0) + _ROUND_MM
    more = np.maximum(_LEAST_MM - (high - low), 0) / 2
    bone = _bone(case)
    return report.solid_png([*bodies, *([] if bone is None else [bone])], (low - more, high + more))


def _body(case: Case, label: int, box: Box, clear: float) -> Body | None:
    """A class as a smooth surface, from the finest level at which its box is small enough."""
    voxels = np.prod([side.stop - side.start for side in box])
    for level in pyramid_levels(case.grid):
        if voxels / np.prod(level.factors) <= _MOST_VOXELS:
            break
    z, y, x = (slice(side.start // f, -(-side.stop // f)) for side, f in zip(box, level.factors, strict=True))
    mask = case.labels.read_planes(z.start, z.stop, level=level.number)[:, y, x] == label
    return _surface(mask, _part(level.grid, (z, y, x)), LABEL_COLOURS[(label - 1) % len(LABEL_COLOURS)], clear)


def _bone(case: Case) -> Body | None:
    """What is denser than soft tissue, as a ghost to see the labels in their place."""
    level = next((one for one in pyramid_levels(case.grid) if np.prod(one.grid.shape) <= _MOST_BONE_VOXELS), None)
    if level is None:
        return None
    mask = _dense(case, level)
    return _surface(mask, level.grid, _BONE_COLOUR, _BONE_CLEAR)


def _dense(case: Case, level: Level) -> NDArray[np.bool_]:
    """Voxels of bone on a level, without small pieces."""
    from scipy.ndimage import label

    mask = np.concatenate([
        case.series.read_planes(at.start, at.stop, level=level.number) > _BONE_HU
        for at in map(level.slab, slabs_of(case.grid.shape.z))
    ])  # fmt: skip
    numbers, _ = label(mask)
    ml = abs(float(np.linalg.det(level.grid.affine[:3, :3]))) / 1000
    large = np.bincount(numbers.ravel()) * ml >= _BONE_ML
    large[0] = False
    return np.asarray(large[numbers])


def _surface(mask: NDArray[np.bool_], grid: Grid, colour: tuple[int, int, int], clear: float) -> Body | None:
    mesh = surface(lambda start, stop: mask[start:stop], 1, grid)
    if not len(mesh.faces):
        return None
    return Body(report.smoothed(mesh.points, mesh.faces), mesh.faces, colour, clear)


def _part(grid: Grid, box: Box) -> Grid:
    affine = grid.affine.copy()
    affine[:3, 3] = grid.to_lps([side.start for side in box])
    return Grid.from_affine([side.stop - side.start for side in box], affine)
