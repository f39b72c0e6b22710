"""Order, spacing, tilt and the affine (V2, V3, V6, V9)."""

import numpy as np
import pytest
import SimpleITK
from builders import AXIAL, ORIENTATIONS, ct_series, hu_block, write_files

from ctpipe.dicom import Pseudonyms, check, read_planes
from ctpipe.dicom.geometry import Stack, cluster, stack_faults

KEY = Pseudonyms(b"k" * 32)


def stack(heights, shifts=None, unit=1e-6):
    positions = np.zeros((len(heights), 3))
    positions[:, 2] = heights
    if shifts is not None:
        positions[:, 0] = shifts
    return Stack(positions, AXIAL, unit)


def reasons(*args, **kwargs):
    return [reason for reason, _ in stack_faults(stack(*args, **kwargs))]


@pytest.mark.parametrize("n", [3, 8, 400])
def test_even_planes_have_no_fault_in_any_order(n):
    heights = np.arange(n) * 0.625
    assert reasons(heights) == []
    assert reasons(heights[::-1]) == []
    assert reasons(np.random.default_rng(1).permutation(heights)) == []


@pytest.mark.parametrize(("off_mm", "found"), [(0.009, []), (0.011, ["uneven-spacing"]), (-0.011, ["uneven-spacing"])])
def test_a_plane_may_be_off_by_a_hundredth_of_a_millimetre_and_no_more(off_mm, found):
    """V3."""
    heights = np.arange(9) * 0.625
    heights[4] += off_mm
    assert reasons(heights) == found


def test_the_limit_is_one_percent_of_the_spacing_where_that_is_more():
    heights = np.arange(9) * 5.0
    heights[4] += 0.049
    assert reasons(heights) == []
    heights[4] += 0.002
    assert reasons(heights) == ["uneven-spacing"]


def test_steps_that_drift_slowly_are_seen():
    """V3."""
    assert reasons(np.cumsum(1.75 * 1.005 ** np.arange(24))) == ["uneven-spacing"]


def test_a_drift_of_which_no_single_step_is_one_percent_off_is_seen():
    """V3: each plane's place on the even row counts, not only the steps."""
    steps = 1.75 * 1.0005 ** np.arange(24)
    assert np.abs(steps / steps.mean() - 1).max() < 0.01
    assert reasons(np.cumsum(steps)) == ["uneven-spacing"]


def test_a_missing_plane_is_a_gap_and_two_steps_are_not():
    assert reasons(np.delete(np.arange(9) * 2.0, 4)) == ["gap"]
    assert reasons(np.r_[np.arange(9) * 4.0, 33.08, 33.08 + 7 * np.arange(1, 9)]) == ["uneven-spacing"]


def test_shear_is_tilt_when_it_is_linear_else_a_shift():
    heights = np.arange(9) * 2.0
    assert reasons(heights, heights * 0.1) == ["gantry-tilt"]
    assert reasons(heights, [0, 0, 0, 0.5, 0, 0, 0, 0, 0]) == ["in-plane-shift"]
    assert reasons(heights, np.full(9, 7.0)) == []


def test_digits_that_were_never_written_excuse_rounding_but_no_gap():
    heights = np.round(np.arange(24) * 0.625, 1)
    assert reasons(heights, unit=0.1) == []
    assert reasons(heights, unit=0.01) == ["uneven-spacing"]
    assert reasons(np.delete(heights, 11), unit=0.1) == ["gap"]


def test_positions_without_decimals_excuse_a_fifth_of_the_spacing_and_no_more():
    heights = np.arange(24) * 1.5
    heights[9] += 0.29
    assert reasons(heights, unit=1.0) == []
    heights[9] += 0.02
    assert reasons(heights, unit=1.0) == ["uneven-spacing"]


def test_clusters_depend_on_the_values_only():
    values = [(0.0,), (1.0,), (0.00005,), (1.0001,)]
    assert cluster(values, 1e-4) == [0, 1, 0, 1]
    assert cluster(values[::-1], 1e-4) == [1, 0, 1, 0]


def same_hu_at_the_same_place(source, image):
    """Every corner and a few hundred points between hold the same HU in both (V9)."""
    rng = np.random.default_rng(5)
    shape = np.asarray(source.grid.shape)
    corners = np.array([[(k >> 2) & 1, (k >> 1) & 1, k & 1] for k in range(8)]) * (shape - 1)
    indexes = np.r_[corners, rng.integers(0, shape, (300, 3))]
    ours = read_planes(source, 0, int(shape[0]))
    for index, point in zip(indexes, source.grid.to_lps(indexes), strict=True):
        there = image.TransformPhysicalPointToContinuousIndex(point.tolist())
        nearest = [round(v) for v in there]
        assert np.abs(np.subtract(there, nearest)).max() < 1e-3
        assert image.GetPixel(nearest) == ours[tuple(index)]


def by_simpleitk(folder):
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_simpleitk_finds_the_same_hu_at_the_same_place(tmp_path, name):
    """V6, V9."""
    write_files(tmp_path, ct_series(hu_block((7, 9, 11)), orientation=ORIENTATIONS[name]))
    (verdict,) = check(tmp_path, KEY)
    same_hu_at_the_same_place(verdict.source, by_simpleitk(tmp_path))


@pytest.mark.real
@pytest.mark.parametrize(
    "archive",
    [
        "sts/STS_002/CT.zip",
        "sts/STS_024/CT.zip",
        "ibsi1_lung/CT.zip",
        "vendors/siemens_definition_multiframe_sc/CLASSIC.zip",
    ],
)
def test_simpleitk_agrees_on_real_series(real_data, tmp_path, archive):
    """V9: head first, feet first, falling InstanceNumber, Siemens."""
    import zipfile

    with zipfile.ZipFile(real_data / archive) as members:
        for number, name in enumerate(n for n in members.namelist() if not n.endswith("/")):
            (tmp_path / f"{number:04d}").write_bytes(members.read(name))
    (verdict,) = [v for v in check(tmp_path, KEY) if v.source]
    same_hu_at_the_same_place(verdict.source, by_simpleitk(tmp_path))
