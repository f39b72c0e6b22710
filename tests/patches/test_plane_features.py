"""PlaneReader: what a model sees, the same bits however planes are cut."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from volumes import MemorySeries

from ctpipe.config import InputSpec
from ctpipe.errors import NotThereError, RunError, UsageError
from ctpipe.patches import PlaneReader


def volume(shape=(24, 12, 14), seed=0, dtype=np.int16, **named):
    hu = np.random.default_rng(seed).normal(20, 400, shape)
    return MemorySeries(np.rint(hu).astype(dtype), **named)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_features_have_the_same_bits_however_planes_are_cut(data):
    n = data.draw(st.integers(1, 20))
    spacing = data.draw(st.tuples(*[st.sampled_from([0.7, 1.3, 3.0, 5.0])] * 3))
    mm = tuple(data.draw(st.lists(st.sampled_from([0.0, 0.9, 1.6, 4.0]), min_size=1, max_size=3)))
    series = volume((n, data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))), spacing=spacing)
    reader = PlaneReader(series, InputSpec(channels_mm=mm, equalise=data.draw(st.booleans())))
    whole = reader.features(0, n)
    cuts = sorted({0, n, *data.draw(st.lists(st.integers(0, n), max_size=5))})
    parts = [reader.features(a, b) for a, b in itertools.pairwise(cuts)]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_channels_are_the_clipped_plane_and_its_gaussians_in_mm():
    series = volume(spacing=(2.5, 0.8, 1.1))
    reader = PlaneReader(series, InputSpec(channels_mm=(0.0, 1.6, 3.2), window_hu=(-100.0, 240.0)))
    normal = np.clip((series.hu.astype(np.float64) + 100) / 340 * 2 - 1, -1, 1).astype(np.float32)
    found = reader.features(0, 24)
    assert found.dtype == np.float32
    assert found.shape == (24, 3, 12, 14)
    np.testing.assert_allclose(found[:, 0], normal, atol=1e-6)
    for channel, mm in ((1, 1.6), (2, 3.2)):
        sigmas = [mm / s for s in (2.5, 0.8, 1.1)]
        smooth = ndimage.gaussian_filter(normal, sigmas, mode="nearest", truncate=4)
        np.testing.assert_allclose(found[:, channel], smooth, atol=1e-6)


def test_metal_counts_no_more_than_the_top_of_the_window_in_its_surroundings():
    hu = np.zeros((1, 21, 21), np.int16)
    series, bright = MemorySeries(hu), MemorySeries(hu.copy())
    series.hu[0, 10, 10], bright.hu[0, 10, 10] = 240, 30000
    spec = InputSpec(channels_mm=(3.0,), window_hu=(-160.0, 240.0))
    assert np.array_equal(PlaneReader(series, spec).features(0, 1), PlaneReader(bright, spec).features(0, 1))


def test_only_the_halo_is_read_beside_the_asked_planes():
    series = volume((40, 8, 8), spacing=(2.0, 1.0, 1.0))
    reader = PlaneReader(series, InputSpec(channels_mm=(0.0, 3.0)))
    assert reader.halo == 6  # 4 x 3 mm at 2 mm a plane
    reader.features(10, 20)
    assert series.read == [(4, 26, 0)]


def test_hu_relative_to_an_organ_are_shifted_by_its_median():
    series = volume()
    plain = PlaneReader(MemorySeries(series.hu - np.int16(105)), InputSpec(window_hu=(-120.0, 120.0)))
    relative = PlaneReader(series, InputSpec(window_hu=(-120.0, 120.0), relative_to="liver"), reference_hu=105.0)
    assert np.allclose(plain.features(0, 24), relative.features(0, 24), atol=1e-6)


@pytest.mark.parametrize(("relative", "reference"), [("liver", None), (None, 100.0)])
def test_a_reference_without_its_class_or_a_class_without_its_reference_is_refused(relative, reference):
    with pytest.raises(UsageError, match="reference"):
        PlaneReader(volume(), InputSpec(relative_to=relative), reference)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_equalised_planes_hold_the_share_of_voxels_that_are_not_brighter(dtype):
    hu = np.array([[[-1000, -1000, 40], [60, 60, 3000]]], dtype)
    found = PlaneReader(MemorySeries(hu), InputSpec(equalise=True)).features(0, 1)[0, 0]
    cdf = (np.array([[2, 2, 3], [5, 5, 6]]) - 2) / 4
    np.testing.assert_allclose(found, cdf * 2 - 1, atol=1e-6)


def test_a_plane_of_one_value_is_equalised_to_the_lowest():
    series = MemorySeries(np.full((1, 3, 3), 7, np.int16))
    assert (PlaneReader(series, InputSpec(equalise=True)).features(0, 1) == -1).all()


def test_a_coarse_level_is_read_where_the_recipe_asks_for_it():
    series = volume((6, 300, 280), spacing=(1.0, 1.0, 1.0))
    reader = PlaneReader(series, InputSpec(level=1))
    assert reader.grid.shape == (3, 150, 140)
    assert reader.features(1, 3).shape == (2, 1, 150, 140)
    assert series.read[-1] == (1, 3, 1)


def test_nan_stops_the_volume_and_its_plane_is_named():
    series = volume(dtype=np.float32)
    series.hu[13, 4, 4] = np.nan
    with pytest.raises(RunError, match="plane 13"):
        PlaneReader(series, InputSpec(channels_mm=(0.0, 3.0))).features(12, 16)


@pytest.mark.parametrize("spec", [InputSpec(window_hu=(5.0, 5.0)), InputSpec(channels_mm=()),
                                  InputSpec(channels_mm=(-1.0,))])
def test_an_input_that_cannot_be_made_is_refused(spec):
    with pytest.raises(UsageError):
        PlaneReader(volume(), spec)


def test_planes_and_levels_that_are_not_there_are_refused():
    with pytest.raises(NotThereError, match="level 3"):
        PlaneReader(volume(), InputSpec(level=3))
    with pytest.raises(UsageError, match=r"planes 20\.\.30"):
        PlaneReader(volume(), InputSpec()).features(20, 30)
