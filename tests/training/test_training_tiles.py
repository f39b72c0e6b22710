"""Tiles: pixels and truth of a batch belong together, whatever the place, the border and the depth of the window."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from training_case import BallSeries, ball_recipe, reader_of, table_of

from ctpipe.training import loader, validation
from ctpipe.training.loader import TileLoader, Tiling
from ctpipe.volume import Grid


class _LabelReader:
    """Features that are the truth itself: the centre pixel of a window must then be its class."""

    channels = 1

    def __init__(self, series: BallSeries) -> None:
        self.grid: Grid = series.grid
        self.voxels = series.voxels
        self.read: list[int] = []

    def features(self, start: int, stop: int) -> NDArray[np.float32]:
        self.read += range(start, stop)
        return self.voxels[start:stop, None].astype(np.float32)


SMALL = (5, 20, 44)  # smaller than a tile


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("pad", ["edge", "constant"])
@pytest.mark.parametrize(("shape", "depth", "side"), [((6, 56, 60), 1, 3), ((6, 56, 60), 3, 2), (SMALL, 1, 3),
                                                      ((6, 56, 60), 1, 1)])  # fmt: skip
@pytest.mark.parametrize("window", [36, 37])
def test_the_centre_of_every_window_of_a_tile_has_the_class_that_is_learnt(
    shape: tuple[int, int, int], depth: int, side: int, pad: str, flip: bool, window: int
) -> None:
    series = [BallSeries(1, shape=shape), BallSeries(2, shape=shape)]
    recipe = ball_recipe(windows__window=[depth, window, window], windows__pad=pad, train__shift=0.0,
                         train__gain=0.0, train__noise=0.0, train__flip=flip, train__steps=6)  # fmt: skip
    tiling = Tiling(side, 4, (window, window))
    readers = {one.id: _LabelReader(one) for one in series}
    made = TileLoader(table_of(recipe, series), recipe, readers.__getitem__, tiling, recipe.classes)
    for step in range(recipe.train.steps):
        pixels, truth = made.batch(step)
        assert pixels.shape == (6, depth, window + 4 * (side - 1), window + 4 * (side - 1))
        at = 18 + 4 * np.arange(side)
        centres = pixels[:, depth // 2][:, at][:, :, at]
        np.testing.assert_array_equal(np.maximum(centres, 0), truth)  # constant padding is -1, and background


def test_half_of_the_tiles_are_mirrored_when_the_recipe_says_so() -> None:
    series = [BallSeries(1)]
    series[0].voxels = np.broadcast_to(np.arange(60, dtype=np.uint8), (6, 56, 60))
    for flip, share in ((False, 0.0), (True, 0.5)):
        recipe = ball_recipe(train__shift=0.0, train__gain=0.0, train__noise=0.0, train__flip=flip)
        made = TileLoader(table_of(recipe, series), recipe, lambda _: _LabelReader(series[0]), Tiling(3, 4, (36, 36)),
                          recipe.classes)  # fmt: skip
        falling = [tile[0, 0, 0] > tile[0, 0, -1] for step in range(24) for tile in made.batch(step)[0]]
        assert abs(np.mean(falling) - share) < 0.15


def test_tiles_lie_inside_the_plane_at_places_that_vary() -> None:
    tiling, rng = Tiling(3, 4, (36, 36)), np.random.default_rng(0)
    at = np.repeat([0, 3, 4, 30, 55], 200)
    first = tiling.first(at, 56, rng)
    assert first.min() >= 0
    assert (first + 2 * 4).max() <= 55
    assert ((at - first) % 4 == 0).all()
    assert ((at - first) // 4 <= 2).all()
    assert set((30 - first[at == 30]).tolist()) == {0, 4, 8}


def test_classes_are_drawn_in_equal_shares_without_strata() -> None:
    series = [BallSeries(1), BallSeries(2)]
    recipe = ball_recipe(train__steps=50)
    single = Tiling(1, 4, (36, 36))
    made = TileLoader(table_of(recipe, series), recipe, reader_of(recipe, series), single, recipe.classes)
    truth = np.concatenate([made.batch(step)[1].ravel() for step in range(50)])
    assert np.bincount(truth).tolist() == [100, 100, 100]


def test_the_mix_of_a_batch_follows_the_strata() -> None:
    series = [BallSeries(1)]
    strata = [{"where": "label == 'ball'", "share": 0.75}, {"where": "label == 'organ'", "share": 0.25}]
    recipe = ball_recipe(train__steps=50, train__strata=strata)
    single = Tiling(1, 4, (36, 36))
    made = TileLoader(table_of(recipe, series), recipe, reader_of(recipe, series), single, recipe.classes)
    truth = np.concatenate([made.batch(step)[1].ravel() for step in range(50)])
    assert np.bincount(truth).tolist() == [0, 75, 225]


def test_rows_beyond_the_memory_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    series = [BallSeries(1), BallSeries(2)]
    recipe = ball_recipe()
    monkeypatch.setattr(loader, "FEATURE_BYTES", 4 * (56 + 36) * (60 + 36) * 4)  # four of twelve padded planes
    readers = {one.id: _LabelReader(one) for one in series}
    made = TileLoader(table_of(recipe, series), recipe, readers.__getitem__, Tiling(3, 4, (36, 36)), recipe.classes)
    assert sum(len(reader.read) for reader in readers.values()) == 4
    assert 0 < made.rows_left_out < 24 * 6
    assert made.at.shape == (24 * 6, 4)
    assert made.batch(23)[0].shape[0] == 6


@pytest.mark.parametrize("region", ["all", "organ"])
def test_validation_sees_the_pixels_of_the_windows_it_counts(region: str) -> None:
    series = [BallSeries(5)]
    recipe = ball_recipe(predict__region=region, predict__margin_mm=3.0)
    made = validation.ValidationSet(table_of(recipe, series), recipe, lambda _: _LabelReader(series[0]),
                                    Tiling(3, 4, (36, 36)), recipe.classes)  # fmt: skip
    for plane in made.planes:
        at = [18 + 4 * np.arange(n) for n in plane.truth.shape]
        np.testing.assert_array_equal(plane.pixels[0, 0][np.ix_(*at)], plane.truth)
        assert plane.pixels.shape[2:] == tuple(36 + 4 * (n - 1) for n in plane.truth.shape)


def test_validation_counts_only_where_a_recipe_of_region_organ_predicts() -> None:
    series = [BallSeries(1)]
    counted = {}
    for region in ("all", "organ"):
        recipe = ball_recipe(predict__region=region, predict__margin_mm=5.0)
        made = validation.ValidationSet(table_of(recipe, series), recipe, reader_of(recipe, series),
                                        Tiling(3, 4, (36, 36)), recipe.classes)  # fmt: skip
        counted[region] = sum(int(plane.counted.sum()) for plane in made.planes)
    columns = len([x for x in range(0, 60, 4) if x <= 35 + 5])  # the organ ends at x = 35
    assert counted == {"all": 6 * 14 * 15, "organ": 6 * 14 * columns}
