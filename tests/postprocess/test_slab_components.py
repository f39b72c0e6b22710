"""Components counted slab by slab are those of the whole volume."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ctpipe.errors import UsageError
from ctpipe.postprocess import ComponentTally, label_components


def whole(mask, connectivity):
    """The oracle: scipy on the whole volume, renumbered by first voxel."""
    labels, count = ndimage.label(mask, ndimage.generate_binary_structure(3, 1 if connectivity == 6 else 3))
    flat = labels.ravel()
    first = [int(np.flatnonzero(flat == n)[0]) for n in range(1, count + 1)]
    number = np.zeros(count + 1, int)
    number[1 + np.argsort(first)] = np.arange(1, count + 1)
    return number[labels], count


@st.composite
def cut_volumes(draw):
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 9), st.integers(1, 9)))
    share = draw(st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.8, 1.0]))
    mask = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).random(shape) < share
    cuts = sorted(draw(st.sets(st.integers(1, shape[0]), max_size=5)) | {0, shape[0]})
    return mask, [mask[a:b] for a, b in itertools.pairwise(cuts)]


@settings(max_examples=150, deadline=None)
@given(cut_volumes(), st.sampled_from([6, 26]))
def test_components_of_any_slab_cuts_equal_scipy_on_the_whole_volume(volume, connectivity):
    mask, slabs = volume
    found = label_components(slabs.__getitem__, len(slabs), connectivity)
    expected, count = whole(mask, connectivity)
    assert found.count == count
    np.testing.assert_array_equal(np.concatenate([found.slab(i) for i in range(len(slabs))]), expected)
    np.testing.assert_array_equal(found.sizes, np.bincount(expected.ravel(), minlength=count + 1)[1:])
    np.testing.assert_array_equal(expected.ravel()[found.first], np.arange(1, count + 1))


@settings(max_examples=50, deadline=None)
@given(cut_volumes(), st.integers(0, 2**32 - 1))
def test_overlaps_count_the_voxels_of_the_second_mask_in_each_component(volume, seed):
    mask, slabs = volume
    second = np.random.default_rng(seed).random(mask.shape) < 0.2
    tally, at = ComponentTally(26), 0
    for slab in slabs:
        tally.add(slab, second[at : at + len(slab)])
        at += len(slab)
    expected, count = whole(mask, 26)
    np.testing.assert_array_equal(tally.finish().overlaps, np.bincount(expected[second], minlength=count + 1)[1:])


def test_a_u_shape_whose_arms_meet_in_the_last_slab_is_one_component():
    mask = np.zeros((9, 1, 5), bool)
    mask[:, 0, 0] = mask[:, 0, 4] = mask[8] = True
    assert label_components(lambda i: mask[3 * i : 3 * i + 3], 3, 6).count == 1
    assert label_components(lambda i: mask[4 * i : min(4 * i + 4, 8)], 2, 6).count == 2


def test_corners_join_across_a_slab_face_only_under_26():
    mask = np.zeros((2, 2, 2), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    assert label_components(lambda i: mask[i : i + 1], 2, 26).count == 1
    assert label_components(lambda i: mask[i : i + 1], 2, 6).count == 2


def test_another_connectivity_is_refused():
    with pytest.raises(UsageError, match="connectivity 18"):
        ComponentTally(18)


def test_slabs_of_different_plane_shapes_are_refused():
    tally = ComponentTally()
    tally.add(np.ones((1, 2, 2), bool))
    with pytest.raises(UsageError, match="different shapes"):
        tally.add(np.ones((1, 2, 3), bool))


def test_components_made_by_a_tally_do_not_pretend_to_have_their_voxels():
    tally = ComponentTally()
    tally.add(np.ones((1, 2, 2), bool))
    with pytest.raises(UsageError, match="label_components"):
        tally.finish().slab(0)
