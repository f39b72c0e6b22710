"""Volumes in memory for tests of training: a bright ball in noise, and a store that is a plain dict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctpipe.config import Recipe, recipe_from_dict
from ctpipe.patches import PatchTable, PlaneReader, patch_table
from ctpipe.volume import Grid, Level, pyramid_levels

SHAPE = (6, 56, 60)


@dataclass
class BallLabels:
    voxels: NDArray[np.uint8]
    grid: Grid
    name: str = "truth"
    classes: dict[int, str] = field(default_factory=lambda: {1: "organ", 2: "ball"})

    def read_planes(self, start: int, stop: int, level: int = 0) -> NDArray[np.uint8]:
        return self.voxels[start:stop]


class BallSeries:
    """HU 0 outside, 50 in the organ (left half), 150 in a ball within it; noise of 10 HU."""

    def __init__(self, seed: int, patient: str | None = None, shape: tuple[int, int, int] = SHAPE) -> None:
        rng = np.random.default_rng(seed)
        self.id, self.patient, self.content = f"series{seed}", patient or f"p-{seed}", f"content{seed}"
        affine = np.diag([1.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]]
        self.grid = Grid.from_affine(shape, affine)
        z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
        self.voxels = np.broadcast_to(x < shape[2] * 0.6, shape).astype(np.uint8)
        at = rng.uniform(0.3, 0.7), rng.uniform(0.2, 0.4)
        self.voxels[((y - at[0] * shape[1]) ** 2 + (x - at[1] * shape[2]) ** 2 < 81) & (z >= 0)] = 2
        hu = np.array([0, 50, 150])[self.voxels] + rng.normal(0, 10, shape)
        self.hu = hu.round().astype(np.int16)
        self.labels = {"truth": BallLabels(self.voxels, self.grid)}
        self.levels: list[Level] = pyramid_levels(self.grid)

    def read_planes(self, start: int, stop: int, level: int = 0) -> NDArray[np.int16]:
        return self.hu[start:stop]


def ball_recipe(**changes: Any) -> Recipe:
    """A recipe that learns the ball in a few seconds; `changes` as "train.steps" with __ for the dot."""
    values: dict[str, Any] = {
        "name": "ball", "network": "vgg-small", "options": {"widths": [4, 6, 8, 12]}, "classes": ["organ", "ball"],
        "input": {"window_hu": [-50, 200]},
        "windows": {"window": [1, 36, 36], "stride": [1, 3, 3]},
        "train": {"steps": 24, "epochs": 3, "batch": 6, "tile": 3, "learning_rate": 1e-2, "threads": 1,
                  "shift": 0.05, "gain": 0.05, "noise": 0.02},
        "predict": {"stride": [1, 4, 4]},
    }  # fmt: skip
    for key, value in changes.items():
        *path, last = key.split("__")
        inner = values
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return recipe_from_dict(values)


def table_of(recipe: Recipe, series: list[BallSeries]) -> PatchTable:
    windows = recipe.windows
    return patch_table({one.id: one for one in series}, windows.window, windows.stride, windows.pad,
                       classes=recipe.merge or recipe.classes or None)  # fmt: skip


def reader_of(recipe: Recipe, series: list[BallSeries]) -> Callable[[str], PlaneReader]:
    known = {one.id: one for one in series}
    return lambda name: PlaneReader(known[name], recipe.input)
