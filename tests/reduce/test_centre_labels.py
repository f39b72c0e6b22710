"""reduce: strided scores become labels, in integers, the same whatever the slabs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctpipe.errors import UsageError
from ctpipe.reduce import centre_planes, label_planes, refine, share_planes
from ctpipe.words import ZYX, Fill

SCALE = 1 << 20


def lattice_of(shape, stride):
    return tuple(-(-n // s) for n, s in zip(shape, stride, strict=True))


def weights_along(n, stride, fill):
    """(n, centres) whole-number weights of the rules, from their words alone."""
    centres = list(range(0, n, stride))
    out = np.zeros((n, len(centres)), np.int64)
    for v in range(n):
        if fill is Fill.NEAREST:
            out[v, min(range(len(centres)), key=lambda i: (abs(centres[i] - v), i))] = 1
        elif v >= centres[-1]:
            out[v, -1] = stride
        else:
            low = v // stride
            out[v, low], out[v, low + 1] = (low + 1) * stride - v, v - low * stride
    return out


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_labels_follow_the_stated_rule_in_any_slab_cut(data):
    shape = ZYX(*(data.draw(st.integers(1, 12)) for _ in range(3)))
    stride = ZYX(*(data.draw(st.integers(1, 8)) for _ in range(3)))
    fill = data.draw(st.sampled_from(Fill))
    k = data.draw(st.integers(1, 4))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    top = data.draw(st.sampled_from([2, SCALE]))  # few values make ties, which the lower class wins
    scores = rng.integers(0, top + 1, (*lattice_of(shape, stride), k)).astype(np.int32)
    z, y, x = (weights_along(n, s, fill) for n, s in zip(shape, stride, strict=True))
    sums = np.einsum("ai,bj,ck,ijkl->abcl", z, y, x, scores.astype(np.int64))
    expected, shares = sums.argmax(-1), sums / (SCALE * np.prod([axis[0].sum() for axis in (z, y, x)]))
    cuts = sorted({0, shape.z, *data.draw(st.lists(st.integers(0, shape.z), max_size=4))})
    found, likely = [], []
    for start, stop in itertools.pairwise(cuts):
        planes = centre_planes(stride.z, start, stop, shape.z, fill)
        used = np.flatnonzero(z[start:stop].any(axis=0)) * stride.z
        assert planes == used.tolist()  # no plane too many, none too few
        part = scores[np.asarray(planes) // stride.z]
        found.append(label_planes(part, planes, stride, fill, start, stop, shape))
        likely += share_planes(part, planes, stride, fill, start, stop, shape, SCALE)
    assert all(part.dtype == np.uint8 for part in found)
    assert np.array_equal(np.concatenate(found), expected)
    assert np.array_equal(np.stack(likely), np.moveaxis(shares.astype(np.float32), -1, 1))


def test_sums_of_many_certain_neighbours_do_not_overflow():
    stride = ZYX(16, 64, 64)
    scores = np.full((2, 2, 2, 2), SCALE, np.int32)
    scores[..., 1] += 1
    assert (label_planes(scores, [0, 16], stride, Fill.LINEAR, 0, 17, (17, 65, 65)) == 1).all()


def test_lacking_lattice_planes_and_foreign_scores_are_refused():
    with pytest.raises(UsageError, match=r"\[6\]"):
        label_planes(np.zeros((1, 2, 2, 2), np.int32), [3], ZYX(3, 4, 4), Fill.LINEAR, 3, 5, (9, 8, 8))
    with pytest.raises(UsageError, match="lattice"):
        label_planes(np.zeros((1, 3, 2, 2), np.int32), [0], ZYX(1, 4, 4), Fill.NEAREST, 0, 1, (1, 8, 8))


@given(st.tuples(*[st.integers(1, 9)] * 3), st.tuples(*[st.sampled_from([1, 2, 4])] * 3))
def test_refined_labels_are_those_of_the_block_that_holds_the_voxel(shape, factors):
    coarse_shape = lattice_of(shape, factors)
    coarse = np.arange(np.prod(coarse_shape)).reshape(coarse_shape).astype(np.uint8)
    fine = refine(coarse, ZYX(*factors), shape)
    assert fine.shape == shape
    z, y, x = np.indices(shape)
    assert np.array_equal(fine, coarse[z // factors[0], y // factors[1], x // factors[2]])


def test_coarse_labels_that_do_not_cover_the_slab_are_refused():
    with pytest.raises(UsageError, match="cover"):
        refine(np.zeros((2, 4, 4), np.uint8), ZYX(1, 2, 2), (3, 8, 8))
