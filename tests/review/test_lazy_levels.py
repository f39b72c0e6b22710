"""Levels are read block by block, in memory that does not grow with the series."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from review_store import FakeVolume, grid_of

from ctpipe.review import lazy
from ctpipe.review.lazy import LazyLevel
from ctpipe.words import ZYX

SHAPE = (40, 160, 144)
VOXELS = np.random.default_rng(0).integers(-1000, 1000, SHAPE).astype(np.int16)
VOLUME = FakeVolume(VOXELS, grid_of(SHAPE))


def part_of(n: int) -> st.SearchStrategy:
    return st.one_of(st.integers(-n, n - 1), st.slices(n))


@settings(max_examples=150, deadline=None)
@given(key=st.tuples(*(part_of(n) for n in SHAPE)), cut=st.sampled_from([(3, 30), (0, 40), (16, 17)]))
def test_it_indexes_as_numpy_does(key, cut):
    """Also a part of a part, as napari takes its tiles."""
    start, stop = cut
    expected = VOXELS[start:stop]
    if any(isinstance(k, int) and not -n <= k < n for k, n in zip(key, expected.shape, strict=True)):
        with pytest.raises(IndexError):
            LazyLevel(VOLUME, 0)[start:stop][key]
        return
    assert np.array_equal(np.asarray(LazyLevel(VOLUME, 0)[start:stop][key]), expected[key])


def test_a_slice_reads_nothing_until_it_is_asked_for():
    volume = FakeVolume(VOXELS, grid_of(SHAPE))
    part = LazyLevel(volume, 0)[..., 10:20]
    assert part.shape == (40, 160, 10)
    assert volume.asked == []
    assert np.array_equal(np.asarray(part, np.float32), VOXELS[:, :, 10:20].astype(np.float32))
    with pytest.raises(TypeError):
        part[[1, 2]]


def test_a_cut_reads_its_blocks_only_and_its_neighbour_none(monkeypatch):
    monkeypatch.setattr(lazy, "BLOCKS", lazy.SlabCache(64 << 20))
    volume = FakeVolume(VOXELS, grid_of(SHAPE))
    level = LazyLevel(volume, 0)
    np.asarray(level[:, 5])
    assert len(volume.asked) == 3 * 1 * 2, "three bands of planes, one of rows, two of columns"
    np.asarray(level[:, 6])
    assert len(volume.asked) == 6
    np.asarray(level[:, 140])
    assert len(volume.asked) == 12


def test_memory_is_bounded_whatever_the_length_of_the_series(monkeypatch):
    class Endless:
        """A series of 4,000 planes that is not there: reading makes what it is asked for."""

        dtype, content, path = "int16", "c", "endless"

        @property
        def levels(self):
            return [SimpleNamespace(grid=SimpleNamespace(shape=ZYX(4000, 512, 512)))]

        @property
        def arrays(self):
            return [self]

        def read(self, start, stop, rows, columns):
            return np.ones((stop - start, rows.stop - rows.start, columns.stop - columns.start), np.int16)

    budget = 32 << 20
    cache = lazy.SlabCache(budget)
    monkeypatch.setattr(lazy, "BLOCKS", cache)
    level = LazyLevel(Endless(), 0)
    assert np.asarray(level[:, 300]).sum() == 4000 * 512
    assert np.asarray(level[..., 9]).sum() == 4000 * 512
    assert np.asarray(level[3999]).all()
    assert cache.residency.bytes <= budget
    assert cache.residency.dropped > 0
