"""Which window centres of a volume a classifier evaluates: its pyramid level, its lattice planes, its region.

A label of a plane is decided by the scores of the lattice planes around it (`reduce.centre_planes`); of those planes
the centres of the model's region are evaluated: all, the body's, or those near the organ that the run before has found.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ctpipe import reduce
from ctpipe.errors import RunError
from ctpipe.models import Model
from ctpipe.patches import BODY_HU, WindowGrid
from ctpipe.pipeline import organ
from ctpipe.predict import plane_work, window_work
from ctpipe.store import Series
from ctpipe.volume import Level, Slab
from ctpipe.words import Region


def input_level(series: Series, model: Model) -> Level:
    """The pyramid level that the model's windows lie on; RunError where the volume has none so coarse."""
    number = model.recipe.input.level
    if number >= len(series.levels):
        raise RunError(
            f"the model works on pyramid level {number}, series {series.id} has {len(series.levels)} level(s)",
            "train a model on a lower level for volumes this small",
        )
    return series.levels[number]


def lattice_planes(model: Model, series: Series, slab: Slab) -> list[int]:
    """Lattice planes whose scores decide the labels of a slab."""
    level, predict = input_level(series, model), model.recipe.predict
    band = level.slab(slab)
    return reduce.centre_planes(predict.stride.z, band.start, band.stop, level.grid.shape.z, predict.fill)


def whole_plane_work(model: Model, series: Series) -> int:
    """Multiply-adds of all centres of one lattice plane."""
    grid = input_level(series, model).grid
    lattice = WindowGrid(grid.shape, model.recipe.windows.window, model.recipe.predict.stride).counts
    return plane_work(model, np.ones((lattice.y, lattice.x), bool), window_work(model))


def centres_for(
    model: Model, series: Series, before: str | None, start: int, stop: int
) -> tuple[list[int], NDArray[np.bool_] | None]:
    """(lattice planes whose scores decide planes start..stop-1 of the input level, `mask_of` them)."""
    level, predict = input_level(series, model), model.recipe.predict
    planes = reduce.centre_planes(predict.stride.z, start, stop, level.grid.shape.z, predict.fill)
    return planes, mask_of(model, series, before, planes)


def mask_of(model: Model, series: Series, before: str | None, planes: list[int]) -> NDArray[np.bool_] | None:
    """Which centres of lattice planes are evaluated, (len(planes), ny, nx); None: all.

    before: labels of the run before, for region `organ`.
    """
    level, predict = input_level(series, model), model.recipe.predict
    if predict.region is Region.ALL:
        return None
    _, ys, xs = WindowGrid(level.grid.shape, model.recipe.windows.window, predict.stride).axes()
    if predict.region is Region.BODY:
        hu = series.read_planes(min(planes), max(planes) + 1, level.number)
        picked = hu[np.asarray(planes) - min(planes)]
        return picked[:, ys][:, :, xs] > BODY_HU
    if before is None:
        raise RunError("region 'organ' needs a model that runs before", "name one in the recipe: before = \"NAME\"")
    depth, height, width = series.grid.shape
    zs = np.minimum(np.asarray(planes) * level.factors.z, depth - 1)
    near = organ.near_mask(series.labels[before], series.grid, int(zs.min()), int(zs.max()) + 1, predict.margin_mm)
    fine_y = np.minimum(ys * level.factors.y, height - 1)
    fine_x = np.minimum(xs * level.factors.x, width - 1)
    return near[zs - zs.min()][:, fine_y][:, :, fine_x]
