"""Columns beside the class shares: HU moments, flags, lesions, patient coordinates, all as a naive loop finds them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label as components
from volumes import MemorySeries, labelled

from ctpipe.errors import UsageError
from ctpipe.patches import patch_table, rows
from ctpipe.patches.columns import ClassCounter
from ctpipe.patches.windows import WindowGrid
from ctpipe.words import Pad


def windows_of(voxels: np.ndarray, window, stride, pad, fill):
    """Every window of the lattice, by a loop over np.pad."""
    spans = [(w // 2, w - w // 2 - 1) for w in window]
    padded = np.pad(voxels, spans, mode="edge") if pad == "edge" else np.pad(voxels, spans, constant_values=fill)
    for z in range(0, voxels.shape[0], stride[0]):
        for y in range(0, voxels.shape[1], stride[1]):
            for x in range(0, voxels.shape[2], stride[2]):
                yield padded[z:z + window[0], y:y + window[1], x:x + window[2]]


@st.composite
def lattices(draw):
    shape = tuple(draw(st.integers(1, 9)) for _ in range(3))
    window = tuple(draw(st.integers(1, 12)) for _ in range(3))
    stride = tuple(draw(st.integers(1, 6)) for _ in range(3))
    return shape, window, stride, draw(st.sampled_from(["edge", "constant"])), draw(st.integers(0, 9))


@settings(max_examples=40, deadline=None)
@given(lattices(), st.sampled_from(["int16", "float32"]), st.sampled_from([1, 2, 4]))
def test_hu_moments_equal_those_of_the_pixels_of_every_window(lattice, dtype, slab):
    shape, window, stride, pad, seed = lattice
    series = labelled(shape, seed, slab, id="a")
    series.hu = (series.hu if dtype == "int16" else series.hu / np.float32(3)).astype(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "PART_VOXELS", 50)
        found = patch_table({"a": series}, window, stride, pad, statistics=True).compute()
    wanted = [(one.mean(dtype=np.float64), one.std(dtype=np.float64))
              for one in windows_of(series.hu, window, stride, pad, -1024)]
    within = {"rtol": 1e-6, "atol": 1e-4} if dtype == "int16" else {"rtol": 1e-5, "atol": 1 / 64}
    np.testing.assert_allclose(found[["hu_mean", "hu_std"]].to_numpy(), np.array(wanted), **within)
    centres = found[["z", "y", "x"]].to_numpy()
    assert found["in_body"].tolist() == (series.hu[tuple(centres.T)] > -500).tolist()


@settings(max_examples=25, deadline=None)
@given(lattices(), st.integers(1, 12))
def test_any_number_of_classes_is_counted_word_by_word(lattice, n_classes):
    shape, window, stride, pad, seed = lattice
    truth = np.random.default_rng(seed).integers(0, n_classes + 1, shape).astype(np.uint8)
    classes = {number: f"c{number}" for number in range(1, n_classes + 1)}
    series = MemorySeries(np.zeros(shape, np.int16), id="a", slab_planes=4).with_truth(truth, classes)
    found = patch_table({"a": series}, window, stride, pad).compute()
    for number, name in classes.items():
        wanted = [np.float32((one == number).sum() / one.size) for one in windows_of(truth, window, stride, pad, 0)]
        assert found[f"fraction_{name}"].tolist() == wanted


def test_a_window_too_large_to_count_is_refused_before_any_work():
    grid = WindowGrid((1, 1, 1), (2**21, 2**21, 2**21), (1, 1, 1))
    with pytest.raises(UsageError, match="smaller window"):
        ClassCounter(np.zeros((1, 1, 1), np.uint8), 0, grid, Pad.EDGE, [1])


@settings(max_examples=25, deadline=None)
@given(lattices(), st.sampled_from([1, 2, 4]))
def test_lesions_are_the_components_of_the_whole_volume_however_it_is_cut(lattice, slab):
    shape, window, stride, pad, seed = lattice
    truth = (np.random.default_rng(seed).random(shape) < 0.3).astype(np.uint8) * 2
    series = MemorySeries(np.zeros(shape, np.int16), id="a", slab_planes=slab).with_truth(truth, {1: "o", 2: "lesion"})
    found = patch_table({"a": series}, window, stride, pad, lesions=["lesion"]).compute()
    wanted, _ = components(truth == 2, np.ones((3, 3, 3)))
    centres = tuple(found[["z", "y", "x"]].to_numpy().T)
    assert found["lesion"].tolist() == wanted[centres].tolist()


def test_computed_columns_are_held_nowhere_and_follow_the_affine():
    series = labelled((8, 12, 10), 3, 4, id="a", patient="p-7", spacing=(2.5, 0.7, 0.9))
    table = patch_table({"a": series}, (1, 3, 3), (2, 4, 3), organ=["lesion"])
    found = table.compute(["z", "y", "x", "label", "l_mm", "p_mm", "s_mm", "plane", "in_organ", "source", "weight"])
    wanted = series.grid.to_lps(found[["z", "y", "x"]].to_numpy())
    np.testing.assert_allclose(found[["l_mm", "p_mm", "s_mm"]].to_numpy(), wanted, rtol=1e-6)
    assert found["plane"].tolist() == found["z"].tolist()
    assert found["in_organ"].tolist() == (found["label"] == 2).tolist()
    assert set(found["source"]) == {"truth"}
    assert set(found["weight"]) == {1.0}
    assert not {"l_mm", "plane", "source", "fraction_background"} & set(table.columns)
    near = table.where("l_mm < 3 and fraction_background > 0.2 and in_organ")
    assert len(near) == ((found["l_mm"] < 3) & found["in_organ"]
                         & (table.compute(["fraction_background"])["fraction_background"] > 0.2)).sum() > 0


def test_rows_of_all_kinds_take_forty_bytes_or_less():
    truth = np.random.default_rng(0).integers(0, 4, (4, 9, 9)).astype(np.uint8)
    series = MemorySeries(np.zeros((4, 9, 9), np.int16), id="a").with_truth(truth, {1: "a", 2: "b", 3: "c"})
    plain = patch_table({"a": series}, (1, 5, 5), (1, 2, 2))
    assert plain.row_bytes <= 24
    full = patch_table({"a": series}, (1, 5, 5), (1, 2, 2), statistics=True, lesions=["c"])
    assert full.row_bytes <= 40
    frame = full.compute()
    dictionaries = sum(frame[name].cat.categories.memory_usage(deep=True) for name in ("series", "patient"))
    assert frame.memory_usage(index=False, deep=True).sum() <= full.row_bytes * len(frame) + dictionaries


def test_arithmetic_in_conditions_does_not_overflow_the_small_types_that_are_held():
    table = patch_table({"a": labelled((3, 40, 4), 1, id="a")}, (1, 3, 3), (1, 1, 1))
    assert len(table.where("y * 2000 > 70000")) == sum(y * 2000 > 70000 for y in range(40)) * 12
