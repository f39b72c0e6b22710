"""The options for gaps, tilt and changes of spacing: what each takes, and all that it must not take (V3)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tilts import COLUMNS, ORIENTATIONS, PIXEL_MM, ROWS, phantom, planes_at, real_planes, resampled

from ctpipe.dicom.arrange import WORDS, Options, arrange
from ctpipe.dicom.geometry import Stack, grid_of, stack_faults
from ctpipe.dicom.steps import step_changes
from ctpipe.errors import UsageError

TWO_STEPS = np.r_[np.arange(8) * 4.0, 28 + 1.081 + np.arange(7) * 7.0]  # as GE's head: 4 mm, one step of 1.081, 7 mm
CORNER = np.r_[np.arange(8) * 2.5, 17.5 + np.arange(1, 7) * 5.0]  # the eighth plane is even with both
GAP = np.delete(np.arange(14) * 2.0, 6)
ALL_ON = {"on_gap": "keep-positions", "on_tilt": "resample", "on_step_change": "split"}


def reasons(one):
    return [reason for reason, _ in one.faults]


def sizes(arrangements):
    return [len(one.indices) for one in arrangements]


# ------------------------------------------------------------------------------------------------ defaults
@pytest.mark.parametrize("heights", [np.arange(9) * 2.0, GAP, TWO_STEPS, np.arange(2) * 2.0, np.arange(9) ** 1.3])
@pytest.mark.parametrize("tilt", [(0, 0), (14, 0)])
def test_by_default_a_stack_is_judged_as_ever(heights, tilt):
    """V3: one arrangement, with the faults of the policy or its grid, and nothing done."""
    planes = planes_at(heights, tilt)
    (one,) = planes.arranged()
    faults = stack_faults(planes.stack)
    assert list(one.faults) == faults
    assert one.indices == tuple(range(len(heights)))
    assert (one.deshear, one.notes, one.options_used, one.uneven) == (None, (), (), False)
    assert one.grid == (None if faults else grid_of(planes.stack, ROWS, COLUMNS, PIXEL_MM, None))


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_a_plainly_right_stack_is_the_same_under_every_option(name):
    planes = planes_at(np.arange(9) * 2.0, orientation=ORIENTATIONS[name])
    assert planes.arranged(**ALL_ON) == planes.arranged()
    assert planes.arranged(**ALL_ON | {"on_tilt": "keep"}) == planes.arranged()


@pytest.mark.parametrize(
    ("option", "word"),
    [("on_gap", "keep"), ("on_tilt", "split"), ("on_step_change", "Split"), ("on_tilt", ""), ("on_gap", "resample")],
)
def test_a_word_that_an_option_does_not_know_is_refused_with_those_it_knows(option, word):
    with pytest.raises(UsageError) as caught:
        Options(**{option: word})
    assert "--" + option.replace("_", "-") in str(caught.value)
    assert "reject, " in caught.value.cure


def test_every_option_refuses_by_default():
    """V3."""
    assert Options() == Options(**{name: words[0] for name, words in WORDS.items()})
    assert {words[0] for words in WORDS.values()} == {"reject"}


# ------------------------------------------------------------------------------------------------ gaps
def test_kept_positions_put_the_first_and_the_last_plane_where_they_are():
    planes = planes_at(GAP)
    assert reasons(planes.arranged()[0]) == ["gap"]
    (one,) = planes.arranged(on_gap="keep-positions")
    assert (one.uneven, one.options_used, one.deshear) == (True, ("gap",), None)
    assert one.grid.shape.z == len(GAP)
    ends = one.grid.to_lps([[0, 0, 0], [len(GAP) - 1, 0, 0]])
    assert np.allclose(ends, planes.stack.positions[[0, -1]])
    assert one.grid.spacing_mm[0] == pytest.approx(26 / 12)
    assert "missing" in one.notes[0]
    assert "mean step" in one.notes[0]


def test_uneven_planes_are_kept_too_and_say_so():
    (one,) = planes_at(TWO_STEPS).arranged(on_gap="keep-positions")
    assert (one.uneven, one.options_used) == (True, ("uneven-spacing",))
    assert "uneven" in one.notes[0]


def test_two_planes_are_too_few_under_every_option():
    (one,) = planes_at(np.arange(2) * 2.0).arranged(**ALL_ON)
    assert reasons(one) == ["too-few-slices"]


# ------------------------------------------------------------------------------------------------ tilt
@pytest.mark.parametrize("tilt", [(18.5, 0), (-18.5, 0), (0, 12), (7, -7)])
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_a_kept_tilt_has_a_sheared_affine_that_is_true_for_every_voxel(name, tilt):
    planes = planes_at(np.arange(9) * 2.0, tilt, ORIENTATIONS[name])
    (one,) = planes.arranged(on_tilt="keep")
    assert (one.deshear, one.uneven, one.options_used) == (None, False, ("gantry-tilt",))
    indexes = np.moveaxis(np.indices(planes.hu.shape), 0, -1)
    assert np.abs(one.grid.to_lps(indexes) - planes.points()).max() < 1e-6
    assert "sheared" in one.notes[0]


def test_a_resampled_tilt_says_how_far_and_how_much():
    planes = planes_at(np.arange(13) * 2.0, (-18.5, 0))
    (one,) = planes.arranged(on_tilt="resample")
    assert one.options_used == ("gantry-tilt",)
    (note,) = one.notes
    assert "resampled" in note
    assert f"{24 * np.tan(np.radians(18.5)):.3g} mm" in note
    assert "18.5 degrees" in note


@pytest.mark.parametrize("word", ["resample", "keep"])
def test_a_shift_that_is_not_linear_is_never_taken(word):
    planes = planes_at(np.arange(9) * 2.0, (10, 0))
    planes.stack.positions[4, 0] += 0.5
    (one,) = planes.arranged(**ALL_ON | {"on_tilt": word})
    assert reasons(one) == ["in-plane-shift"]
    assert one.grid is None


def test_a_tilted_stack_with_a_gap_is_refused_for_the_gap():
    planes = planes_at(GAP, (14, 0))
    assert reasons(planes.arranged()[0]) == ["gap", "gantry-tilt"]
    assert reasons(planes.arranged(on_tilt="resample")[0]) == ["gap"]
    assert reasons(planes.arranged(on_tilt="resample", on_step_change="split")[0]) == ["gap"]
    assert reasons(planes.arranged(on_gap="keep-positions")[0]) == ["gantry-tilt"]


def test_a_tilted_stack_with_a_gap_is_resampled_by_each_planes_own_height_where_both_are_asked_for():
    planes = planes_at(GAP, (14, 0))
    (one,) = planes.arranged(**ALL_ON)
    assert (one.uneven, one.options_used) == (True, ("gap", "gantry-tilt"))
    assert len(one.notes) == 2
    shifts = np.array([shift for shift, _ in one.deshear.shifts])
    assert np.allclose(shifts, GAP * np.tan(np.radians(14)) / PIXEL_MM[0], atol=1e-3)


def test_a_shear_that_would_grow_the_planes_beyond_reason_is_refused_before_anything_is_allocated():
    planes = planes_at(np.arange(9) * 1000.0, (80, 0))
    (one,) = planes.arranged(on_tilt="resample")
    assert reasons(one) == ["gantry-tilt"]
    assert "too far" in one.faults[0][1]
    assert planes.arranged(on_tilt="keep")[0].grid is not None


# ------------------------------------------------------------------------------------------------ changes of spacing
@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize(
    ("heights", "parts"),
    [
        (TWO_STEPS, [8, 7]),  # the step between is of neither
        (CORNER, [8, 6]),  # the plane of both goes with the finer
        (np.r_[np.arange(5) * 5.0, 20 + np.arange(1, 8) * 2.0], [4, 8]),
        (np.r_[np.arange(4) * 2.0, 6 + np.arange(1, 6) * 5.0, 31 + np.arange(1, 5) * 2.0], [4, 4, 5]),
        (np.r_[0, 3, 6, 106, 111, 116], [3, 3]),
    ],
)
def test_a_stack_is_cut_where_its_spacing_changes(heights, parts, flipped):
    if flipped:
        heights, parts = (heights.max() - heights)[::-1], parts[::-1]
    planes = planes_at(heights)
    assert planes.arranged()[0].faults
    found = planes.arranged(on_step_change="split")
    assert sizes(found) == parts
    assert [index for one in found for index in one.indices] == list(range(len(heights)))
    for one in found:
        assert not one.faults
        assert not one.uneven
        steps = np.diff(heights[list(one.indices)])
        assert one.grid.spacing_mm[0] == pytest.approx(steps[0])
        assert np.allclose(one.grid.to_lps([0, 0, 0]), planes.stack.positions[one.indices[0]])
        assert one.options_used[0] in ("gap", "uneven-spacing")
        assert "step change" in one.notes[0]


NOT_CUT = {
    "one plane missing": GAP,
    "two gaps": np.delete(np.arange(20) * 2.0, [6, 12]),
    "a wide gap": np.delete(np.arange(20) * 2.0, [6, 7, 8, 9]),
    "last but one missing": np.delete(np.arange(9) * 2.0, 7),
    "every other missing": np.delete(np.arange(10) * 2.0, [2, 4, 6, 8]),
    "one plane off its place": np.r_[0, 2, 4, 6, 8.3, 10, 12, 14, 16],
    "a slow drift": np.cumsum(1.75 * 1.005 ** np.arange(24)),
    "a fast drift": np.cumsum(1.75 * 1.03 ** np.arange(24)),
    "two planes of the other spacing": np.r_[np.arange(8) * 4.0, 35, 42],
    "a plane of neither spacing between": np.r_[np.arange(8) * 4.0, 29, 31.5, 31.5 + np.arange(1, 6) * 7.0],
    "five spacings": np.cumsum(np.repeat([2.0, 4, 2, 4, 2], 5)),
    "a lone plane that is a gap to either spacing": np.r_[0, 4, 8, 12, 20, 34, 41, 48],
    "a plane off its place before another spacing": np.r_[0, 2, 4, 6, 8.3, 10, 12, 14, 20, 25, 30],
    "a drift and another spacing": np.r_[np.cumsum(1.75 * 1.004 ** np.arange(9)), 30, 40, 50],
    "disorder and three even planes": np.r_[np.cumsum([1, 3, 2, 5, 1, 4, 2, 2, 6, 1.0]), 40, 47, 54],
}


@pytest.mark.parametrize("what", NOT_CUT)
def test_what_is_no_step_change_is_not_cut(what):
    """V3: a gap stays a gap; drift and disorder stay refused."""
    planes = planes_at(NOT_CUT[what])
    assert planes.arranged(on_step_change="split") == planes.arranged()
    assert planes.arranged()[0].faults


def test_digits_that_were_never_written_are_no_change_of_spacing():
    planes = planes_at(np.round(np.arange(30) * 0.625, 1), unit=0.1)
    assert planes.arranged(on_step_change="split") == planes.arranged()
    assert step_changes(np.round(np.arange(30) * 0.625, 1), 0.1) == []


def test_positions_as_exact_as_scanners_write_them_still_show_a_change_of_spacing():
    """Steps within 1 % of their part's spacing, or rounded to a tenth of a millimetre."""
    noisy = TWO_STEPS + np.random.default_rng(4).uniform(-0.015, 0.015, len(TWO_STEPS))
    rounded = np.round(np.r_[np.arange(12) * 0.625, 6.875 + np.arange(1, 9) * 1.25], 1)
    assert sizes(planes_at(noisy).arranged(on_step_change="split")) == [8, 7]
    found = planes_at(rounded, unit=0.1).arranged(on_step_change="split")
    assert sizes(found) == [12, 8]
    assert not any(one.faults for one in found)


def test_each_part_is_judged_alone():
    """V3: a part with a gap is refused for it, the other is taken."""
    heights = np.r_[np.delete(np.arange(12) * 4.0, 5), 45.1 + np.arange(6) * 7.0]
    low, high = planes_at(heights).arranged(on_step_change="split")
    assert (reasons(low), reasons(high)) == (["gap"], [])
    low, high = planes_at(heights).arranged(on_step_change="split", on_gap="keep-positions")
    assert (low.uneven, high.uneven) == (True, False)
    low, high = planes_at(heights, (12, 0)).arranged(on_step_change="split")
    assert (reasons(low), reasons(high)) == (["gap", "gantry-tilt"], ["gantry-tilt"])


def test_tilt_and_two_steps_give_two_rectangular_volumes_in_place():
    planes = planes_at(TWO_STEPS, (-18.5, 0))
    found = planes.arranged(on_tilt="resample", on_step_change="split")
    assert sizes(found) == [8, 7]
    for one in found:
        assert np.allclose(one.grid.directions.T @ one.grid.directions, np.eye(3), atol=1e-12)
        assert one.options_used == ("uneven-spacing", "gantry-tilt")
        assert len(one.deshear.shifts) == len(one.indices)
        voxels = resampled(planes, one)
        middle = np.argwhere(np.ones(voxels.shape))
        middle = middle[(np.abs(middle[:, 1:] - np.array(voxels.shape)[1:] / 2) < 10).all(axis=1)]
        assert np.abs(voxels[tuple(middle.T)] - phantom(one.grid.to_lps(middle))).max() < 6


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0.4, 8),
    st.floats(-30, 30),
    st.floats(-30, 30),
    st.sampled_from(sorted(ORIENTATIONS)),
    st.integers(3, 12),
)
def test_kept_and_resampled_tilt_agree_on_the_place_of_every_plane(step, down, right, name, n):
    """V6: any tilt, any orientation: the canvas puts a plane's corners where the sheared affine has them."""
    planes = planes_at(np.arange(n) * step, (down, right), ORIENTATIONS[name])
    (kept,) = planes.arranged(on_tilt="keep")
    (one,) = planes.arranged(on_tilt="resample")
    if one.deshear is None:  # hardly any tilt, or one that grows the planes too far
        assert one.faults or kept == one
        return
    corners = np.array([[0, 0], [ROWS - 1, 0], [0, COLUMNS - 1], [ROWS - 1, COLUMNS - 1]])
    for k in range(n):
        there = kept.grid.to_lps(np.c_[np.full(4, k), corners])
        here = one.grid.to_lps(np.c_[np.full(4, k), corners + one.deshear.shifts[k]])
        assert np.abs(there - here).max() < 0.015


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([1.0, 2.0, 2.1, 3.0, 4.0, 7.0]), min_size=2, max_size=24))
def test_whatever_the_steps_each_plane_is_in_one_part_and_taken_parts_are_even(steps):
    """V3."""
    heights = np.r_[0, np.cumsum(steps)]
    stack = Stack(np.outer(heights, [0, 0, 1.0]), (1, 0, 0, 0, 1, 0), 1e-6)
    found = arrange(stack, 8, 8, PIXEL_MM, None, Options(on_step_change="split"))
    assert [index for one in found for index in one.indices] == list(range(len(heights)))
    for one in found:
        if not one.faults:
            assert len(one.indices) >= 3
            assert np.ptp(np.diff(heights[list(one.indices)])) < 0.1
    turned = Stack(np.outer((heights.max() - heights)[::-1], [0, 0, 1.0]), (1, 0, 0, 0, 1, 0), 1e-6)
    again = arrange(turned, 8, 8, PIXEL_MM, None, Options(on_step_change="split"))
    assert sizes(again) == sizes(found)[::-1] or any(one.faults for one in (*again, *found))


# ------------------------------------------------------------------------------------------------ real series
@pytest.mark.real
@pytest.mark.parametrize("archive", ["ge_lightspeed16_gap/CT.zip", "siemens_tilt_gap/CT.zip"])
def test_real_gaps_stay_gaps_unless_positions_are_kept(real_data, archive):
    planes = real_planes(real_data / "vendors" / archive)
    assert "gap" in reasons(planes.arranged()[0])
    assert reasons(planes.arranged(on_step_change="split", on_tilt="resample")[0]) == ["gap"]
    (one,) = planes.arranged(**ALL_ON)
    assert one.uneven
    ends = one.grid.to_index(planes.stack.positions[[0, -1]])
    assert np.allclose(ends[:, 0], [0, len(planes.hu) - 1], atol=1e-3)


@pytest.mark.real
def test_the_two_step_tilted_head_needs_both_options(real_data):
    planes = real_planes(real_data / "vendors" / "ge_hispeed_dual_tilt_two_step" / "CT.zip")
    assert reasons(planes.arranged()[0]) == ["uneven-spacing", "gantry-tilt"]
    assert reasons(planes.arranged(on_tilt="resample")[0]) == ["uneven-spacing"]
    assert [reasons(one) for one in planes.arranged(on_step_change="split")] == [["gantry-tilt"]] * 2
