"""Volumes in memory with the faces of `ctpipe.store` that patches read: builders instead of files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ctpipe.volume import Grid, Level, pyramid_levels
from ctpipe.words import ZYX


def grid_of(shape: tuple[int, int, int], spacing: tuple[float, float, float] = (3.0, 1.5, 1.5)) -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]]) * np.asarray(spacing)
    return Grid.from_affine(shape, affine)


def coarser(voxels: np.ndarray, factors: ZYX) -> np.ndarray:
    """First voxel of each block: any rule does for these tests."""
    return voxels[:: factors.z, :: factors.y, :: factors.x]


@dataclass
class MemoryLabels:
    voxels: np.ndarray
    classes: dict[int, str]
    grid: Grid
    levels: list[Level]
    name: str = "truth-0"

    def read_planes(self, start: int, stop: int, level: int = 0) -> np.ndarray:
        return coarser(self.voxels, self.levels[level].factors)[start:stop]


@dataclass
class MemorySeries:
    hu: np.ndarray
    id: str = "s0"
    patient: str = "p-0"
    content: str = ""
    slab_planes: int = 32
    spacing: tuple[float, float, float] = (3.0, 1.5, 1.5)
    labels: dict[str, Any] = field(default_factory=dict)
    read: list[tuple[int, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.content = self.content or f"content of {self.id}"
        self.grid = grid_of(self.hu.shape, self.spacing)
        self.levels = pyramid_levels(self.grid, self.slab_planes)

    def with_truth(self, voxels: np.ndarray, classes: dict[int, str]) -> MemorySeries:
        one = MemoryLabels(voxels, classes, self.grid, self.levels)
        self.labels |= {"truth": one, one.name: one}
        return self

    def read_planes(self, start: int, stop: int, level: int = 0) -> np.ndarray:
        self.read.append((start, stop, level))
        return coarser(self.hu, self.levels[level].factors)[start:stop]


CLASSES = {1: "liver", 2: "lesion"}


def labelled(shape: tuple[int, int, int], seed: int = 0, slab_planes: int = 4, **named: Any) -> MemorySeries:
    """A series of random HU and random labels 0, 1, 2 in blotches."""
    rng = np.random.default_rng(seed)
    hu = rng.integers(-1024, 1500, shape).astype(np.int16)
    truth = (rng.random(shape) * 3).astype(np.uint8)
    return MemorySeries(hu, slab_planes=slab_planes, **named).with_truth(truth, CLASSES)
