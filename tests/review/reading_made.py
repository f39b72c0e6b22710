"""Builders for reading: series in all positions as DICOM, in a store and as SimpleITK reads them; a mouse event."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import SimpleITK as sitk  # noqa: N813

from ctpipe.volume import Grid

SHAPE = (12, 150, 140)  # two levels
SPACING = (3.0, 0.8, 0.6)
ORIGIN = (-40.0, -70.0, 30.0)


def turned(degrees: float, axis: int) -> np.ndarray:
    """A rotation in LPS."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.eye(3)
    a, b = [n for n in range(3) if n != axis]
    matrix[a, a], matrix[a, b], matrix[b, a], matrix[b, b] = cos, -sin, sin, cos
    return matrix


_SUPINE = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]], float)  # columns: z to the head, y to the back, x to the left
POSITIONS = {
    "supine": _SUPINE,
    "planes from head to feet": _SUPINE @ np.diag([-1.0, 1, -1]),
    "prone": _SUPINE @ np.diag([1.0, -1, -1]),
    "feet first, mirrored": _SUPINE @ np.diag([-1.0, -1, 1]),
    "oblique": turned(25, 2) @ turned(15, 0) @ _SUPINE,
    "coronal planes": np.array([[0, 0, 1], [1, 0, 0], [0, -1, 0]], float),
}


def grid_at(position: str, shape=SHAPE, spacing=SPACING) -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = POSITIONS[position] * np.asarray(spacing)
    affine[:3, 3] = ORIGIN
    return Grid.from_affine(shape, affine, "frame")


def noise(shape=SHAPE) -> np.ndarray:
    """HU without symmetry: every voxel tells where it is."""
    z, y, x = np.indices(shape)
    return (z * 90 + y * 3 + x - 700 + np.random.default_rng(1).integers(0, 40, shape)).astype(np.int16)


@dataclass(frozen=True)
class Case:
    """A store of one series, and SimpleITK's reading of the same files."""

    store: Path
    image: sitk.Image

    def at(self, index) -> np.ndarray:
        """SimpleITK's point (L, P, S mm) of a continuous index (z, y, x)."""
        return np.array(self.image.TransformContinuousIndexToPhysicalPoint(np.asarray(index)[::-1].tolist()))

    def theirs(self, lps_mm) -> tuple[np.ndarray, float]:
        """SimpleITK's continuous index (z, y, x) of a point, and its value at the nearest voxel."""
        at = np.asarray(self.image.TransformPhysicalPointToContinuousIndex([float(mm) for mm in lps_mm]))
        index = np.rint(at).astype(int).tolist()
        return at[::-1], float(self.image.GetPixel(*index))


def synthetic_case(folder: Path, position: str) -> Case:
    import ctpipe
    from ctpipe.dicom.synthetic import write_ct_series

    files = write_ct_series(folder / "dicom", noise(), grid_at(position), patient="x", study_key=position)
    ctpipe.ingest([folder / "dicom"], folder / "S")
    return Case(folder / "S", by_simpleitk(files))


def by_simpleitk(files: list[Path]) -> sitk.Image:
    """The files of a series in the order of their positions along the normal, as SimpleITK wants them given."""
    reader = sitk.ImageFileReader()
    along = []
    for path in files:
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        direction = np.array(reader.GetDirection()).reshape(3, 3)
        along.append(float(direction[:, 2] @ np.array(reader.GetOrigin())))
    series = sitk.ImageSeriesReader()
    series.SetFileNames([str(files[n]) for n in np.argsort(along)])
    return series.Execute()


def opened(store: Path, series: str | None = None):
    """(session, reading) on a ViewerModel, the series shown."""
    from napari.components import ViewerModel

    from ctpipe.review.reading import Reading
    from ctpipe.review.session import ReviewSession

    session = ReviewSession(ViewerModel(), store)
    reading = Reading(session)
    session.show(series)
    return session, reading


def drag(viewer, button: int, path: list[tuple], modifiers=()) -> None:
    """A press, moves and a release through napari's own mouse callbacks. path: (canvas pixel (x, y), point in mm)."""
    from napari.utils._proxies import ReadOnlyWrapper
    from napari.utils.interactions import mouse_move_callbacks, mouse_press_callbacks, mouse_release_callbacks

    steps = [("mouse_press", path[0]), *(("mouse_move", at) for at in path[1:]), ("mouse_release", path[-1])]
    for kind, (pos, position) in steps:
        event = SimpleNamespace(type=kind, button=button, pos=np.array(pos, float), position=tuple(position),
                                modifiers=modifiers, handled=False,
                                is_dragging=kind == "mouse_move",
                                dims_displayed=list(viewer.dims.displayed))  # fmt: skip
        call = {"mouse_press": mouse_press_callbacks, "mouse_move": mouse_move_callbacks,
                "mouse_release": mouse_release_callbacks}[kind]  # fmt: skip
        call(viewer, ReadOnlyWrapper(event, exceptions=("handled",)))
