"""Batches for training: rows drawn from the patch table, tiles of pixels and truth cut around them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ctpipe.config import Recipe
from ctpipe.errors import NotThereError, RunError
from ctpipe.patches import PaddedPlanes, PatchTable, cut_labels, pad_planes
from ctpipe.volume import Grid

# Padded features of so many bytes are held in memory; rows of planes beyond that are left out, and the model says so.
FEATURE_BYTES = 2 << 30
# Planes are read in runs of at most so many.
READ_PLANES = 32


class Reader(Protocol):
    """The part of `ctpipe.patches.PlaneReader` that training needs."""

    grid: Grid

    @property
    def channels(self) -> int: ...

    def features(self, start: int, stop: int) -> NDArray[np.float32]: ...


ReaderOf = Callable[[str], Reader]


@dataclass(frozen=True)
class Tiling:
    """Tiles of `side` x `side` windows at the network's own step: what one row becomes in a batch.

    side, step: windows, and pixels between them. window: (y, x) pixels.
    """

    side: int
    step: int
    window: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) pixels of a tile."""
        h, w = (window + (self.side - 1) * self.step for window in self.window)
        return h, w

    def first(self, at: NDArray[np.int64], length: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Along one axis, centre of the first window of tiles that hold a window centred `at` at a random place.

        All centres lie inside the `length` voxels of the plane where it is long enough.
        """
        highest = np.minimum(self.side - 1, at // self.step)
        lowest = np.maximum(0, self.side - 1 - (length - 1 - at) // self.step)
        lowest = np.minimum(lowest, highest)
        return at - rng.integers(lowest, highest + 1) * self.step


@dataclass(frozen=True)
class _Planes:
    """Features and truth of the wanted planes of one series. index: by plane, where it lies in both (-1: not held)."""

    index: NDArray[np.int64]
    pixels: PaddedPlanes
    truth: NDArray[np.uint8]


class TileLoader:
    """Draws batches of tiles; the same seed gives the same batches.

    All rows of the training are drawn at once, by the strata of the recipe (equal shares of classes where it has
    none), so only the planes that they lie on are read, once, and kept.
    """

    def __init__(self, table: PatchTable, recipe: Recipe, reader_of: ReaderOf, tiling: Tiling,
                 classes: tuple[str, ...]) -> None:
        train = recipe.train
        self.tiling, self.recipe = tiling, recipe
        self.rng = np.random.default_rng(train.seed)
        # with reviews in the table, rows that a reviewer changed are drawn more often inside their stratum
        weight = "weight" if table.spec.reviewed else None
        rows = table.sample(train.steps * train.batch, train.seed, by=train.strata or "label", weight=weight)
        names = rows["series"].astype(str).to_numpy()
        self.series = sorted(set(names))
        readers = {name: reader_of(name) for name in self.series}
        at = np.stack([np.searchsorted(self.series, names), *(rows[axis].to_numpy(np.int64) for axis in "zyx")], 1)
        kept = self._affordable(at, readers)
        self.rows_left_out = len(at) - int(kept.sum())
        at = at[kept]
        # rows left out give their place in the batches to the others, in order
        self.at = np.resize(at, (train.steps * train.batch, 4))
        lookup = label_lookup(table, classes)
        self.planes = [self._read(number, name, table, readers[name], lookup)
                       for number, name in enumerate(self.series)]

    def batch(self, step: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Pixels float32 (n, c, h, w) and truth int64 (n, side, side) of one optimiser step; call in order."""
        n = self.recipe.train.batch
        rows = self.at[step * n : (step + 1) * n]
        height, width = (length + 1 for length in self.tiling.size)  # one pixel more, for `mirrored`
        channels = self.planes[0].pixels.voxels.shape[1] * self.recipe.windows.window.z
        pixels = np.empty((n, channels, height, width), np.float32)
        truth = np.empty((n, self.tiling.side, self.tiling.side), np.int64)
        for number, planes in enumerate(self.planes):
            mine = np.flatnonzero(rows[:, 0] == number)
            if not len(mine):
                continue
            z = planes.index[rows[mine, 1]]
            y = self.tiling.first(rows[mine, 2], planes.truth.shape[1], self.rng)
            x = self.tiling.first(rows[mine, 3], planes.truth.shape[2], self.rng)
            pixels[mine] = planes.pixels.cut(z, y, x, (height, width))
            pad = self.recipe.windows.pad
            truth[mine] = cut_labels(planes.truth, z, y, x, self.tiling.side, self.tiling.step, pad)
        for axis, window in enumerate(self.tiling.window):
            turn = self.rng.random(n) < 0.5 if self.recipe.train.flip else np.zeros(n, bool)
            pixels, truth = mirrored(pixels, truth, axis, turn, window)
        return self._augmented(pixels), truth

    def _augmented(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Each tile with a gain, a shift and noise of its own."""
        train, one = self.recipe.train, (len(pixels), 1, 1, 1)
        if train.gain:
            pixels *= self.rng.uniform(1 - train.gain, 1 + train.gain, one).astype(np.float32)
        if train.shift:
            pixels += self.rng.uniform(-train.shift, train.shift, one).astype(np.float32)
        if train.noise:
            amount = self.rng.uniform(0, train.noise, one).astype(np.float32)
            pixels += amount * self.rng.standard_normal(pixels.shape, np.float32)
        return pixels

    def _affordable(self, at: NDArray[np.int64], readers: dict[str, Reader]) -> NDArray[np.bool_]:
        """Which rows lie on planes that fit into FEATURE_BYTES together; planes are taken in the order of the rows."""
        padding = max(self.tiling.window)
        cost = [4 * reader.channels * (reader.grid.shape.y + padding) * (reader.grid.shape.x + padding)
                for reader in (readers[name] for name in self.series)]
        planes, first = np.unique(at[:, :2], axis=0, return_index=True)
        left = FEATURE_BYTES
        held: set[tuple[int, int]] = set()
        for series, z in planes[np.argsort(first)].tolist():
            left -= cost[series] * self.recipe.windows.window.z
            if left < 0 and held:
                break
            held.add((series, z))
        return np.array([(series, z) in held for series, z in at[:, :2].tolist()], bool)

    def _read(self, number: int, name: str, table: PatchTable, reader: Reader, lookup: NDArray[np.uint8]) -> _Planes:
        depth, n_planes = self.recipe.windows.window.z, reader.grid.shape.z
        centres = np.unique(self.at[self.at[:, 0] == number, 1])
        reached = np.unique(centres[:, None] + np.arange(depth) - depth // 2)
        held = reached[(reached >= 0) & (reached < n_planes)]
        index = np.full(n_planes, -1, np.int64)
        index[held] = np.arange(len(held))
        spans = list(_spans(held))
        features = np.concatenate([reader.features(start, stop) for start, stop in spans])
        truth = np.concatenate([lookup[table.label_planes(name, start, stop)] for start, stop in spans])
        # tiles lie inside planes that are longer; of shorter ones they see the padding
        reach = [max(window, size if length <= size else 0) + 1
                 for window, size, length in zip(self.tiling.window, self.tiling.size, features.shape[2:], strict=True)]
        return _Planes(index, pad_planes(features, self.recipe.windows, (reach[0], reach[1])), truth)


def mirrored(pixels: NDArray[np.float32], truth: NDArray[np.int64], axis: int, turn: NDArray[np.bool_], window: int
             ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Tiles (n, c, h, w) and truth (n, side, side), those of `turn` mirrored along y (axis 0) or x (axis 1).

    Pixels come with one too many at the far end and lose it. The centre of an even window lies behind its middle; so
    that it still does in the mirror, a mirrored tile drops its first pixel instead.
    """
    along = 2 + axis
    length = pixels.shape[along] - 1
    first = 1 - window % 2
    plain = np.take(pixels, np.arange(length), along)
    if not turn.any():
        return plain, truth
    turned = np.take(pixels, np.arange(length)[::-1] + first, along)
    return (np.where(turn[:, None, None, None], turned, plain),
            np.where(turn[:, None, None], np.flip(truth, 1 + axis), truth))


def _spans(planes: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Runs start..stop of neighbouring planes, at most READ_PLANES each."""
    for _, run in groupby(enumerate(planes.tolist()), key=lambda pair: pair[1] - pair[0]):
        members = [plane for _, plane in run]
        for at in range(0, len(members), READ_PLANES):
            part = members[at : at + READ_PLANES]
            yield part[0], part[-1] + 1


def label_lookup(table: PatchTable, classes: tuple[str, ...]) -> NDArray[np.uint8]:
    """(256,) uint8: integer of the table's labels -> integer of the model; classes that it lacks are background."""
    lookup = np.zeros(256, np.uint8)
    names: dict[str, Any] = {name: integer for integer, name in table.classes.items()}
    for integer, name in enumerate(classes, 1):
        if name not in names:
            raise NotThereError(f"the table has no class {name!r}", f"its classes are {', '.join(names)}")
        lookup[names[name]] = integer
    return lookup


def check_apart(train: PatchTable, validate: PatchTable) -> None:
    """RunError where a patient is in both tables: the epoch would be chosen on what was learnt."""
    both = sorted(set(train.patients) & set(validate.patients))
    if both:
        raise RunError(f"patient {both[0]} is in the training and in the validation table",
                       "split the table by patient")
