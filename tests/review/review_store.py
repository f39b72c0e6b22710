"""Builders: a phantom on an anisotropic grid, written by the store's own writers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ctpipe.volume import Grid, pyramid_levels
from ctpipe.words import LabelKind

SHAPE = (40, 160, 144)  # two levels, two slabs
SPACING = (2.5, 0.6, 1.2)
ORIGIN = (-80.0, -60.0, 100.0)  # L, P, S
CLASSES = {1: "liver", 2: "lesion"}
SERIES, RUN = "7f3a9c0000000001", "4be1c0ffee000000"


def grid_of(shape=SHAPE, spacing=SPACING) -> Grid:
    """Axial planes ascending to the head, rows to the back, columns to the left."""
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, spacing[2]], [0, spacing[1], 0], [spacing[0], 0, 0]])
    affine[:3, 3] = ORIGIN
    return Grid.from_affine(shape, affine, "frame")


def phantom(shape=SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """HU and labels: a body of water, a liver that is 60 x 60 mm in the plane (100 rows x 50 columns), a lesion."""
    hu = np.full(shape, -1000, np.int16)
    hu[:, 10:-10, 10:-10] = 0
    labels = np.zeros(shape, np.uint8)
    labels[8:30, 30:130, 45:95] = 1
    labels[16:22, 60:80, 60:70] = 2
    return hu + np.int16(60) * (labels > 0) - np.int16(40) * (labels == 2), labels


def write_volume(store, series_id: str, *, grid: Grid | None = None, voi=(50.0, 300.0), arrays=None) -> str:
    """Commit a phantom (or `arrays` = (hu, labels)) under `series_id`, its labels as a run's prediction."""
    from ctpipe.store import LabelsMeta, VolumeMeta

    hu, labels = arrays if arrays is not None else phantom()
    grid = grid or grid_of(hu.shape)
    volume = VolumeMeta(
        id=series_id,
        grid=grid,
        dtype="int16",
        patient="p-1",
        study="u-1",
        series="u-2",
        voi=voi,
        attributes={},
        provenance={},
    )
    commit(store, store.volume_writer(volume), hu)
    if labels is not None:
        meta = LabelsMeta(RUN, LabelKind.PREDICTION, grid, CLASSES, "uint8", {"model": "none"})
        commit(store, store.labels_writer(series_id, meta), labels)
    return series_id


def commit(store, writer, voxels: np.ndarray) -> None:
    with store.lease(writer.lease_target) as lease:
        writer.prepare()
        writer.commit([writer.write_slab(slab, voxels[slab.start : slab.stop]) for slab in writer.slabs], lease)


@dataclass
class FakeVolume:
    """The members of Series and Labels that layers read; counts the planes it was asked for."""

    voxels: np.ndarray
    grid: Grid
    id: str = SERIES
    voi: Any = (50.0, 300.0)
    name: str = RUN
    kind: LabelKind = LabelKind.PREDICTION
    classes: dict = field(default_factory=lambda: dict(CLASSES))
    series_id: str = SERIES
    content: str = "c0ffee"
    asked: list = field(default_factory=list)

    @property
    def dtype(self) -> str:
        return str(self.voxels.dtype)

    @property
    def path(self) -> str:
        return f"fake-{id(self)}"

    @property
    def levels(self):
        return pyramid_levels(self.grid)

    @property
    def arrays(self):
        return [FakeArray(self, level) for level in self.levels]

    def read_planes(self, start, stop, level=0):
        return self.arrays[level].read(start, stop)


@dataclass
class FakeArray:
    """One level of a FakeVolume, as ctpipe.store.reader.LevelArray has it."""

    volume: FakeVolume
    level: Any

    def read(self, start, stop, rows=slice(None), columns=slice(None)):
        self.volume.asked.append((start, stop, self.level.number))
        z, y, x = self.level.factors
        return self.volume.voxels[::z, ::y, ::x][start:stop, rows, columns]
