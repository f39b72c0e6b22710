"""How good a network is on the validation patients: Dice over a fixed lattice of windows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn

from ctpipe.config import Recipe
from ctpipe.patches import PatchTable, pad_planes
from ctpipe.training.loader import Reader, ReaderOf, Tiling, label_lookup
from ctpipe.words import Region

# Planes of each series that are scored: such as show a class, and others.
PLANES_WITH, PLANES_WITHOUT = 32, 8


@dataclass(frozen=True)
class _Plane:
    """pixels: float32 (1, c, h, w), padded; truth: uint8 (ny, nx); counted: bool (ny, nx)."""

    pixels: NDArray[np.float32]
    truth: NDArray[np.uint8]
    counted: NDArray[np.bool_]


class ValidationSet:
    """Fixed windows of the validation patients, scored alike after every epoch.

    From each series: up to 32 planes, evenly spread over those that show a class, and up to 8 over the others; on
    them the windows whose centres lie at multiples of the network's own step. For a recipe of region `organ` only
    centres within its margin of a true class count, as only such are evaluated when it predicts.
    """

    def __init__(self, table: PatchTable, recipe: Recipe, reader_of: ReaderOf, tiling: Tiling,
                 classes: tuple[str, ...]) -> None:
        self.classes = classes
        lookup = label_lookup(table, classes)
        self.planes: list[_Plane] = []
        for name in table.series:
            reader = reader_of(name)
            truth = lookup[table.label_planes(name, 0, reader.grid.shape.z)]
            self.planes += _planes(reader, truth, recipe, tiling)

    def dice(self, network: nn.Module) -> dict[str, float]:
        """Dice of each class over all windows counted; NaN for a class that is neither there nor predicted."""
        counts = np.zeros((len(self.classes) + 1,) * 2, np.int64)
        network.eval()
        with torch.inference_mode():
            for plane in self.planes:
                found = network(torch.from_numpy(plane.pixels))[0].argmax(0).numpy()
                pairs = plane.truth[plane.counted].astype(np.int64) * len(counts) + found[plane.counted]
                counts += np.bincount(pairs, minlength=counts.size).reshape(counts.shape)
        hits, total = np.diag(counts), counts.sum(0) + counts.sum(1)
        return {name: float(2 * hits[i] / total[i]) if total[i] else float("nan")
                for i, name in enumerate(self.classes, 1)}


def mean_dice(dice: dict[str, float]) -> float:
    """Mean over the classes that count; 0 where none does."""
    known = [value for value in dice.values() if not np.isnan(value)]
    return float(np.mean(known)) if known else 0.0


def _planes(reader: Reader, truth: NDArray[np.uint8], recipe: Recipe, tiling: Tiling) -> Iterator[_Plane]:
    """The planes to score of one series, with the pixels of the box of windows that count."""
    n_planes, *sides = truth.shape
    with_class = truth.any(axis=(1, 2))
    step, depth = tiling.step, recipe.windows.window.z
    whole = [window + (side - 1) // step * step for window, side in zip(tiling.window, sides, strict=True)]
    for z in (*_spread(np.flatnonzero(with_class), PLANES_WITH), *_spread(np.flatnonzero(~with_class), PLANES_WITHOUT)):
        counted = _counted(truth[z], reader, recipe)[::step, ::step]
        if not counted.any():
            continue
        y, x = ndimage.find_objects(counted.astype(np.uint8))[0]
        low, high = max(0, z - depth // 2), min(n_planes, z + depth - depth // 2)
        padded = pad_planes(reader.features(low, high), recipe.windows, (whole[0], whole[1]))
        size = tuple(window + (part.stop - part.start - 1) * step
                     for window, part in zip(tiling.window, (y, x), strict=True))
        pixels = padded.cut([z - low], [y.start * step], [x.start * step], (size[0], size[1]))
        yield _Plane(pixels, truth[z, ::step, ::step][y, x], counted[y, x])


def _counted(truth: NDArray[np.uint8], reader: Reader, recipe: Recipe) -> NDArray[np.bool_]:
    if recipe.predict.region is not Region.ORGAN:
        return np.ones(truth.shape, bool)
    if not truth.any():
        return np.zeros(truth.shape, bool)
    return ndimage.distance_transform_edt(truth == 0, sampling=reader.grid.spacing_mm[1:]) <= recipe.predict.margin_mm


def _spread(planes: NDArray[np.int64], n: int) -> list[int]:
    """At most `n` of `planes`, evenly spread."""
    if len(planes) <= n:
        return planes.tolist()
    return planes[np.linspace(0, len(planes) - 1, n).round().astype(int)].tolist()
