"""cut_patches and cut_labels: equal to a naive loop over np.pad."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctpipe.config import WindowSpec
from ctpipe.errors import UsageError
from ctpipe.patches import cut_labels, cut_patches, pad_planes
from ctpipe.words import ZYX, Pad


def value(features, pad, z, c, y, x):
    n, _, height, width = features.shape
    if pad is Pad.CONSTANT and not (0 <= z < n and 0 <= y < height and 0 <= x < width):
        return -1.0
    return features[min(max(z, 0), n - 1), c, min(max(y, 0), height - 1), min(max(x, 0), width - 1)]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_patches_equal_a_naive_loop(data):
    small = st.integers(1, 7)
    shape = tuple(data.draw(small) for _ in range(4))
    window = ZYX(*(data.draw(small) for _ in range(3)))
    pad = data.draw(st.sampled_from(Pad))
    tiles = data.draw(st.booleans())
    size = (window.y + data.draw(small), window.x + data.draw(small)) if tiles else None
    overhang = 5 if tiles else 0
    features = np.random.default_rng(0).random(shape, np.float32)
    rows = data.draw(st.lists(st.tuples(st.integers(0, shape[0] - 1), st.integers(-overhang, shape[2] - 1 + overhang),
                                        st.integers(-overhang, shape[3] - 1 + overhang)), min_size=1, max_size=4))
    z, y, x = np.array(rows).T
    found = cut_patches(features, WindowSpec(window=window, stride=ZYX(1, 1, 1), pad=pad), z, y, x, size)
    height, width = size or window[1:]
    assert found.shape == (len(rows), shape[1] * window.z, height, width)
    assert found.dtype == np.float32
    for i, (cz, cy, cx) in enumerate(rows):
        for c in range(shape[1]):
            for dz in range(window.z):
                first = cz - window.z // 2 + dz, c, cy - window.y // 2, cx - window.x // 2
                wanted = [[value(features, pad, *first[:2], first[2] + j, first[3] + k) for k in range(width)]
                          for j in range(height)]
                assert np.array_equal(found[i, c * window.z + dz], np.array(wanted, np.float32))


def test_planes_padded_once_give_the_same_patches():
    features = np.random.default_rng(1).random((3, 2, 20, 24), np.float32)
    spec = WindowSpec(window=ZYX(1, 9, 8), stride=ZYX(1, 1, 1))
    padded = pad_planes(features, spec, size=(17, 16), reach=8)
    z, y, x = [0, 2, 1], [-8, 0, 19], [5, 23, -3]
    assert np.array_equal(padded.cut(z, y, x, (17, 16)), cut_patches(features, spec, z, y, x, (17, 16)))


@pytest.mark.parametrize(("y", "x"), [(-1, 0), (20, 0), (0, 24)])
def test_a_window_beyond_the_padding_is_refused_and_never_wraps_around(y, x):
    spec = WindowSpec(window=ZYX(1, 5, 5), stride=ZYX(1, 1, 1))
    with pytest.raises(UsageError, match="beyond"):
        pad_planes(np.zeros((1, 1, 20, 24), np.float32), spec).cut([0], [y], [x])


@settings(deadline=None)
@given(st.data())
def test_tile_labels_are_those_at_the_centres_of_its_windows(data):
    labels = np.random.default_rng(0).integers(0, 9, (3, 6, 7)).astype(np.uint8)
    pad = data.draw(st.sampled_from(Pad))
    tile, step = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    z, y, x = data.draw(st.integers(0, 2)), data.draw(st.integers(-5, 9)), data.draw(st.integers(-5, 9))
    found = cut_labels(labels, [z], [y], [x], tile, step, pad)
    assert found.shape == (1, tile, tile)
    assert found.dtype == np.uint8
    for i in range(tile):
        for j in range(tile):
            at = y + i * step, x + j * step
            inside = 0 <= at[0] < 6 and 0 <= at[1] < 7
            nearest = labels[z, min(max(at[0], 0), 5), min(max(at[1], 0), 6)]
            assert found[0, i, j] == (nearest if inside or pad is Pad.EDGE else 0)


def test_no_rows_give_no_patches():
    spec = WindowSpec(window=ZYX(1, 5, 5), stride=ZYX(1, 1, 1))
    assert cut_patches(np.zeros((1, 2, 8, 8), np.float32), spec, [], [], []).shape == (0, 2, 5, 5)
