"""Stores with labels to export, the files that they came from, and readers that are not ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from builders import ORIENTATIONS, ct_series, hu_block, write_files
from numpy.typing import NDArray

import ctpipe
from ctpipe.store import LabelsMeta, Series, open_store
from ctpipe.volume import Grid
from ctpipe.words import LabelKind

SHAPE = (35, 20, 24)  # two slabs
CLASSES = {1: "liver", 2: "livertumor", 3: "something of ours", 9: "spleen"}  # nothing of the last one
RUN = "4be1" * 8
BIN = Path(sys.executable).parent
# Name -> what `made` is given. Geometry that exports have to survive.
GRIDS: dict[str, dict[str, Any]] = {
    "axial": {},
    "oblique": {"orientation": "oblique"},
    "reversed": {"orientation": "reversed"},
    "feet first": {"orientation": "feet first"},
    "sagittal": {"orientation": "sagittal"},
    "tilt resampled": {"tilt_deg": 12.0, "ingest": {"on_tilt": "resample"}},
    "tilt kept": {"tilt_deg": 12.0, "ingest": {"on_tilt": "keep"}},
    "gap kept": {"drop": (7, 8), "ingest": {"on_gap": "keep-positions"}},
}
WITH_ONE_AFFINE = [name for name in GRIDS if name != "gap kept"]
RECTANGULAR = [name for name in WITH_ONE_AFFINE if name != "tilt kept"]


def blobs(shape: tuple[int, ...] = SHAPE) -> NDArray[np.uint8]:
    """An organ with a hole and a tumour, specks that touch at corners only, a body across the slabs' border."""
    z, y, x = np.indices(shape)
    out = np.zeros(shape, np.uint8)
    middle = np.array(shape) / 2 - (0, 2, 1)
    away = ((z - 28) / 5) ** 2 + ((y - middle[1]) / 6) ** 2 + ((x - middle[2]) / 9) ** 2
    out[away <= 1] = 1
    out[(away <= 0.25) & (x > middle[2])] = 2
    out[(away <= 0.12) & (x < middle[2])] = 0  # a cavity
    out[3:6, 2:4, 3:5] = 3
    out[3:6, 4:6, 5:8] = 3  # meets the one before at a corner
    out[-1, -1, -1] = 3
    return out


@dataclass(frozen=True)
class Made:
    """A store of one volume with labels RUN, its source files, and what the labels are."""

    store: Path
    files: Path
    labels: NDArray[np.uint8]

    @property
    def series(self) -> Series:
        (found,) = open_store(self.store).values()
        return found

    @property
    def grid(self) -> Grid:
        return self.series.grid


def made(folder: Path, orientation: str = "axial", *, ingest: dict[str, Any] | None = None, **settings: Any) -> Made:
    """Synthetic CT through ingest, then labels of a run."""
    files = ct_series(hu_block(SHAPE), orientation=ORIENTATIONS[orientation], **settings)
    return stored(folder, write_files(folder / "ct", files), **(ingest or {}))


def stored(folder: Path, files: Path, **ingest: Any) -> Made:
    """The CT in `files` through ingest, then labels of a run."""
    store = folder / "S"
    report = ctpipe.ingest([files], store, **ingest)
    assert len(report.volumes) == 1, report.as_json()
    (series,) = open_store(store).values()
    labels = blobs(tuple(series.grid.shape))
    add_labels(store, labels)
    return Made(store, files, labels)


def add_labels(
    store: Path, labels: NDArray[np.uint8], classes: dict[int, str] = CLASSES, name: str = RUN,
    kind: LabelKind = LabelKind.PREDICTION,
) -> None:  # fmt: skip
    opened = open_store(store, mode="a")
    (series,) = opened.values()
    writer = opened.labels_writer(series.id, LabelsMeta(name, kind, series.grid, classes, str(labels.dtype)))
    with opened.lease(writer.target) as lease:
        writer.prepare()
        writer.commit([writer.write_slab(slab, labels[slab.start : slab.stop]) for slab in writer.slabs], lease)


# ------------------------------------------------------------------------------------------------ other readers
def on_grid(voxels: NDArray, affine: NDArray[np.float64], grid: Grid) -> NDArray:
    """Voxels of another reader on our grid by patient coordinates; each must lie on a voxel's centre (V6: 0.001 mm).

    affine: (4, 4), index of `voxels` in its own axis order -> LPS mm.
    """
    at = np.argwhere(voxels)
    mm = at @ affine[:3, :3].T + affine[:3, 3]
    index = np.rint(grid.to_index(mm)).astype(int)
    assert np.abs(grid.to_lps(index) - mm).max() < 1e-3
    out = np.zeros(tuple(grid.shape), voxels.dtype)
    out[tuple(index.T)] = voxels[tuple(at.T)]
    return out


def sitk_on_grid(path: Path, grid: Grid) -> NDArray:
    """Whatever SimpleITK reads, on our grid."""
    import SimpleITK as sitk  # noqa: N813

    image = sitk.ReadImage(str(path))
    affine = np.eye(4)
    step = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, :3], affine[:3, 3] = step, image.GetOrigin()
    return on_grid(sitk.GetArrayFromImage(image).transpose(2, 1, 0), affine, grid)


def dcmqi_on_grid(path: Path, folder: Path, grid: Grid) -> tuple[dict[str, NDArray], dict[str, Any]]:
    """(segment label -> mask on our grid, what dcmqi tells of the segments) of a DICOM SEG."""
    folder.mkdir()
    run("segimage2itkimage", "--inputDICOM", path, "--outputDirectory", folder, "--outputType", "nrrd", "--prefix", "s")
    told = json.loads((folder / "s-meta.json").read_text())
    masks: dict[str, NDArray] = {}
    for number, group in enumerate(told["segmentAttributes"], start=1):
        values = sitk_on_grid(folder / f"s-{number}.nrrd", grid)
        for segment in group:
            masks[segment["SegmentLabel"]] = values == segment["labelID"]
    return masks, told


def run(program: str, *arguments: object) -> str:
    """A program of the environment; its output. LC_ALL: Qt or a locale of the machine must not change a number."""
    done = subprocess.run([str(BIN / program), *map(str, arguments)], capture_output=True, text=True, timeout=120,
                          env={**os.environ, "LC_ALL": "C"}, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout + done.stderr


_IODS = ("CTImage", "Segmentation", "LabelMapSegmentation", "RTStructureSet", "ComprehensiveSR")


def faults(path: Path) -> list[str]:
    """What dciodvfy of dicom3tools finds wrong with a DICOM file: its lines that begin with Error."""
    done = subprocess.run([str(BIN / "dciodvfy"), str(path)], capture_output=True, text=True, timeout=60, check=False)
    told = (done.stdout + done.stderr).splitlines()
    assert any(line in _IODS for line in told), told  # it knew what to judge by
    return [line for line in told if "Error" in line]
