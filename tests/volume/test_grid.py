"""The arithmetic of grids, slabs and pyramid levels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctpipe.errors import UsageError
from ctpipe.volume import SLAB_PLANES, Grid, pyramid_levels, slabs_of
from ctpipe.words import ZYX

AXIAL = np.array([[0, 0, 0.7, -120.0], [0, 0.8, 0, -110.0], [2.5, 0, 0, 30.0], [0, 0, 0, 1]])


def rotated(degrees: float) -> np.ndarray:
    a = np.deg2rad(degrees)
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    affine = AXIAL.copy()
    affine[:3, :3] = turn @ AXIAL[:3, :3]
    return affine


def test_indexes_go_to_the_patient_and_back() -> None:
    grid = Grid.from_affine((40, 50, 60), rotated(17))
    indexes = np.array([[0, 0, 0], [39, 49, 59], [3.5, 7.25, 11]])
    assert np.allclose(grid.to_index(grid.to_lps(indexes)), indexes, atol=1e-9)


def test_an_axial_grid_says_left_posterior_superior() -> None:
    grid = Grid.from_affine((40, 50, 60), AXIAL)
    assert grid.letters == ("S", "P", "L")
    assert grid.orientations == ("inferior-to-superior", "anterior-to-posterior", "right-to-left")
    assert grid.spacing_mm == pytest.approx((2.5, 0.8, 0.7))
    assert grid.translation_mm == pytest.approx((30, -110, -120))


def test_a_feet_first_grid_keeps_its_own_directions() -> None:
    affine = AXIAL.copy()
    affine[:3, 0] *= -1
    affine[:3, 2] *= -1
    grid = Grid.from_affine((40, 50, 60), affine)
    assert grid.letters == ("I", "P", "R")
    # with positive scales, the coordinate along an axis that goes to the right is minus the L coordinate
    assert grid.translation_mm == pytest.approx((-30, -110, 120))


def test_an_oblique_grid_has_no_anatomical_words() -> None:
    assert Grid.from_affine((4, 5, 6), rotated(1)).orientations is None
    assert Grid.from_affine((4, 5, 6), rotated(0.001)).orientations is not None


def test_grid_id_tells_grids_apart_and_ignores_the_last_bits() -> None:
    grid = Grid.from_affine((4, 5, 6), AXIAL, "u-1")
    noise = AXIAL + 1e-8
    noise[3] = AXIAL[3]
    assert Grid.from_affine((4, 5, 6), noise, "u-1").grid_id == grid.grid_id
    moved = AXIAL.copy()
    moved[0, 3] += 1e-5
    others = [Grid.from_affine((4, 5, 6), moved, "u-1"), Grid.from_affine((4, 5, 7), AXIAL, "u-1"),
              Grid.from_affine((4, 5, 6), AXIAL, "u-2")]  # fmt: skip
    assert len({g.grid_id for g in [grid, *others]}) == 4


def test_a_grid_without_a_way_back_is_refused() -> None:
    with pytest.raises(UsageError):
        Grid.from_affine((4, 5, 6), np.zeros((4, 4)))
    with pytest.raises(UsageError):
        Grid.from_affine((0, 5, 6), AXIAL)


@given(st.integers(1, 400), st.integers(1, 70))
def test_slabs_cover_every_plane_once(n_planes: int, height: int) -> None:
    planes = [plane for slab in slabs_of(n_planes, height) for plane in range(slab.start, slab.stop)]
    assert planes == list(range(n_planes))


@given(
    st.tuples(st.integers(1, 90), st.integers(1, 600), st.integers(1, 600)),
    st.sampled_from([(0.5, 1.0, 1.0), (1.0, 0.5, 0.5), (3.0, 0.7, 0.7), (0.3, 0.3, 0.3)]),
)
def test_slabs_of_every_level_cover_its_planes_once(shape: tuple[int, int, int], spacing: tuple[float, ...]) -> None:
    affine = np.eye(4)
    affine[:3, :3] = np.diag(spacing)[::-1]
    for level in pyramid_levels(Grid.from_affine(shape, affine)):
        planes = [p for slab in slabs_of(shape[0]) for p in range(level.slab(slab).start, level.slab(slab).stop)]
        assert planes == list(range(level.grid.shape.z))
        assert level.factors.z * level.slab_planes == SLAB_PLANES


def test_z_is_halved_only_while_it_is_the_finer_axis() -> None:
    affine = np.eye(4)
    affine[:3, :3] = np.diag((1.0, 0.7, 0.7))[::-1]
    levels = pyramid_levels(Grid.from_affine((64, 512, 512), affine))
    assert [tuple(level.factors) for level in levels] == [(1, 1, 1), (1, 2, 2), (2, 4, 4)]


def test_a_coarser_voxel_sits_in_the_middle_of_its_block() -> None:
    grid = Grid.from_affine((40, 50, 60), rotated(17))
    coarse = grid.coarser(ZYX(2, 4, 4))
    block = np.stack(np.meshgrid([0, 1], range(4), range(4), indexing="ij"), -1).reshape(-1, 3)
    assert np.allclose(coarse.to_lps([0, 0, 0]), grid.to_lps(block).mean(axis=0))
    assert np.allclose(coarse.to_lps([1, 1, 1]), grid.to_lps(block + [2, 4, 4]).mean(axis=0))
