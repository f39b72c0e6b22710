"""WindowGrid: the rule *lattice* in integers."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctpipe.errors import UsageError
from ctpipe.patches import WindowGrid
from ctpipe.words import ZYX

lengths = st.tuples(*[st.integers(1, 40)] * 3)


@given(lengths, lengths, lengths)
def test_centres_are_all_multiples_of_the_stride_inside_the_shape(shape, window, stride):
    grid = WindowGrid(shape, window, stride)
    for axis, n, s in zip(grid.axes(), shape, stride, strict=True):
        assert axis.tolist() == [i for i in range(n) if i % s == 0]
    assert grid.counts == tuple(axis.size for axis in grid.axes())
    assert len(grid) == grid.counts.z * grid.counts.y * grid.counts.x


@given(lengths, lengths, lengths, st.data())
def test_a_window_starts_half_a_window_before_its_centre_and_holds_it(shape, window, stride, data):
    grid = WindowGrid(shape, window, stride)
    index = data.draw(st.integers(0, len(grid) - 1))
    for at, c, w, n in zip(grid.start(index), grid.centre(index), window, shape, strict=True):
        assert at == c - w // 2
        assert at <= c < at + w
        assert 0 <= c < n


@given(st.integers(1, 60), st.integers(1, 9), st.data())
def test_the_lattice_planes_of_all_slabs_are_those_of_the_volume(n, stride, data):
    grid = WindowGrid((n, 1, 1), (1, 1, 1), (stride, 1, 1))
    cuts = sorted({0, n, *data.draw(st.lists(st.integers(0, n), max_size=4))})
    planes = [z for a, b in itertools.pairwise(cuts) for z in grid.planes_within(a, b)]
    assert planes == grid.axes()[0].tolist()


def test_the_original_257_window_at_stride_7_has_74_by_74_centres_on_512_pixels():
    grid = WindowGrid((1, 512, 512), (1, 257, 257), (1, 7, 7))
    assert grid.counts == ZYX(1, 74, 74)
    assert grid.start(0) == ZYX(0, -128, -128)


@pytest.mark.parametrize("wrong", [(0, 1, 1), (1, 1), (1, 1, -3)])
def test_a_window_without_voxels_is_refused(wrong):
    with pytest.raises(UsageError, match="window"):
        WindowGrid((4, 4, 4), wrong, (1, 1, 1))


def test_a_window_that_does_not_exist_is_refused():
    with pytest.raises(UsageError, match="window 8 of 8"):
        WindowGrid((2, 2, 2), (1, 1, 1), (1, 1, 1)).centre(8)
