"""Two label sets held against each other, voxel by voxel and place by place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lesions_made import Drawn, drawn, grid_of
from scipy import ndimage

from ctpipe.errors import InputError, NotThereError
from ctpipe.scoring import Code, Difference, disagreements


def test_each_voxel_has_the_code_of_its_two_labels():
    grid = grid_of((1, 3, 3))
    right = Drawn(np.array([[[0, 0, 0], [1, 1, 1], [2, 2, 2]]]), grid, {1: "liver", 2: "lesion"})
    other = Drawn(np.array([[[0, 5, 7], [0, 5, 7], [0, 5, 7]]]), grid, {5: "liver", 7: "lesion"})
    assert Difference(right, other).planes(0, 1).tolist() == [[[0, 2, 2], [3, 1, 4], [3, 4, 1]]]
    assert Difference(right, other, "lesion").planes(0, 1).tolist() == [[[0, 0, 2], [0, 0, 2], [3, 3, 1]]]


def test_a_label_that_no_class_names_is_a_class_of_its_own():
    grid = grid_of((1, 1, 2))
    right, other = Drawn(np.array([[[9, 1]]]), grid), Drawn(np.array([[[9, 9]]]), grid)
    assert Difference(right, other).planes(0, 1).tolist() == [[[1, 4]]]


def test_other_grids_and_classes_are_refused():
    with pytest.raises(InputError, match="on grid"):
        Difference(drawn(), Drawn(drawn().voxels, grid_of(orientation="reversed")))
    with pytest.raises(NotThereError, match="neither side"):
        Difference(drawn(), drawn(), "spleen")


def test_places_come_largest_first_with_a_voxel_in_each():
    right = drawn(((8, 10, 10), 4), ((31, 30, 30), (5, 8, 8)))
    other = drawn(((8, 10, 10), 4), ((20, 12, 40), 3))
    found = disagreements(Difference(right, other).planes, right.grid)
    assert [one.code for one in found] == [Code.FALSE_NEGATIVE, Code.FALSE_POSITIVE]
    assert found[0].at == (31, 30, 30)
    assert found[1].at == (20, 12, 40)
    assert found[1].volume_ml == pytest.approx(np.count_nonzero(other.voxels[15:26]) * 2.5 * 0.8 * 0.7 / 1000)
    assert len(disagreements(Difference(right, other).planes, right.grid, most=1)) == 1


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_places_are_the_components_of_the_codes(seed):
    rng = np.random.default_rng(seed)
    grid = grid_of((35, 7, 8))
    codes = rng.choice(5, grid.shape, p=[0.6, 0.1, 0.1, 0.1, 0.1]).astype(np.uint8)
    found = disagreements(lambda a, b: codes[a:b], grid)
    sizes = []
    for code in (2, 3, 4):
        numbers, count = ndimage.label(codes == code, np.ones((3, 3, 3)))
        sizes += np.bincount(numbers.ravel())[1:].tolist()
        mine = [one for one in found if one.code == code]
        assert len({numbers[one.at] for one in mine} - {0}) == len(mine) == count
    assert [one.voxels for one in found] == sorted(sizes, reverse=True)
    assert all(codes[one.at] == one.code for one in found)
