"""Coarser levels: block means and modes, and where their voxels lie."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_made import ID, grid, hu, labels, store_of, voxels_of

from ctpipe.store.pyramid import mean_levels, mode_levels
from ctpipe.volume import pyramid_levels

SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(129, 140))


def blocks(voxels: np.ndarray, factors, reduce) -> np.ndarray:
    """The slow, plain way: every block cut out and reduced on its own."""
    shape = [-(-n // f) for n, f in zip(voxels.shape, factors, strict=True)]
    out = np.empty(shape, voxels.dtype)
    for at in np.ndindex(*shape):
        out[at] = reduce(voxels[tuple(slice(i * f, (i + 1) * f) for i, f in zip(at, factors, strict=True))])
    return out


def mode(block: np.ndarray) -> int:
    return int(np.argmax(np.bincount(block.ravel())))


@settings(max_examples=4, deadline=None)
@given(shape=SHAPES, spacing=st.sampled_from([(0.5, 0.7, 0.7), (3.0, 0.7, 0.7)]), seed=st.integers(0, 9))
def test_a_level_is_the_mean_of_its_blocks_the_cut_ones_too(shape, spacing, seed) -> None:
    levels = pyramid_levels(grid(shape, spacing))
    values = hu(shape, seed=seed)
    for level, found in zip(levels, mean_levels(values, levels), strict=True):
        assert found.shape == tuple(level.grid.shape)
        np.testing.assert_array_equal(found, blocks(values, level.factors, lambda block: np.rint(block.mean())))
    real = values.astype(np.float32) / 3
    for level, found in zip(levels, mean_levels(real, levels), strict=True):
        np.testing.assert_allclose(found, blocks(real, level.factors, lambda b: b.mean(dtype=np.float64)), rtol=1e-6)


@settings(max_examples=4, deadline=None)
@given(shape=SHAPES, spacing=st.sampled_from([(0.5, 0.7, 0.7), (3.0, 0.7, 0.7)]), seed=st.integers(0, 9))
def test_a_level_of_labels_is_the_mode_of_its_blocks_ties_to_the_lower_class(shape, spacing, seed) -> None:
    levels = pyramid_levels(grid(shape, spacing))
    values = np.random.default_rng(seed).integers(0, 4, shape).astype(np.uint8)
    for level, found in zip(levels, mode_levels(values, levels, [0, 1, 2, 3]), strict=True):
        np.testing.assert_array_equal(found, blocks(values, level.factors, mode))


def test_slabs_make_the_levels_of_the_whole_volume(tmp_path) -> None:
    """Slab by slab or at once: no seam between slabs at any level, z halved as well."""
    shape = (75, 90, 260)
    series = store_of(tmp_path / "s", shape, spacing=(0.5, 0.7, 0.8))[ID]
    assert [tuple(level.factors) for level in series.levels] == [(1, 1, 1), (2, 2, 2), (4, 4, 4)]
    for number, whole in enumerate(mean_levels(hu(shape), series.levels)):
        np.testing.assert_array_equal(voxels_of(series, number), whole)
    for number, whole in enumerate(mode_levels(labels(shape), series.levels, [0, 1, 2])):
        np.testing.assert_array_equal(voxels_of(series.labels["truth"], number), whole)


def test_the_extremes_of_int16_do_not_overflow() -> None:
    levels = pyramid_levels(grid((32, 20, 300), (0.5, 0.7, 0.7)))
    for extreme in (-32768, 32767):
        for level in mean_levels(np.full((32, 20, 300), extreme, np.int16), levels):
            assert (level == extreme).all()


@pytest.mark.parametrize("oblique", [False, True])
def test_a_coarse_voxel_lies_at_the_middle_of_its_block(oblique) -> None:
    levels = pyramid_levels(grid((64, 300, 300), (0.5, 0.7, 0.7), oblique))
    for level in levels:
        middle = levels[0].grid.to_lps([(f - 1) / 2 for f in level.factors])
        np.testing.assert_allclose(level.grid.to_lps((0, 0, 0)), middle, atol=1e-9)
        expected = [
            t + s * (f - 1) / 2
            for t, s, f in zip(levels[0].grid.translation_mm, levels[0].grid.spacing_mm, level.factors, strict=True)
        ]
        np.testing.assert_allclose(level.grid.translation_mm, expected, atol=1e-9)
