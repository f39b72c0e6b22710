from __future__ import annotations

import pickle

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labels_made import KEY, SHAPE, TURNED, grid, hu, only_volume

from ctpipe.dicom import match_structures, read_structures, write_ct_series, write_rtstruct
from ctpipe.dicom.rtstruct import fill_even_odd
from ctpipe.errors import InputError
from ctpipe.words import VerdictKind

NAMES = {"patient": "P1", "study_key": "study one"}
STS = ["002", "003", "008", "012", "015", "018", "019", "024", "025", "026", "032", "035", "041", "042", "050", "051"]


def rectangle(on, z, y0, y1, x0, x1):
    """Contour (4, 3) in LPS mm that holds the centres y0..y1 x x0..x1 of plane z."""
    low, high = -0.3, 0.3
    return on.to_lps(
        [(z, y0 + low, x0 + low), (z, y0 + low, x1 + high), (z, y1 + high, x1 + high), (z, y1 + high, x0 + low)]
    )


@pytest.fixture
def ct(tmp_path):
    """Grid of a synthetic CT as check sees it."""
    write_ct_series(tmp_path / "ct", hu(), grid(), **NAMES)
    return only_volume(tmp_path / "ct").grid


def only(path):
    structures = read_structures([path], KEY)
    assert structures.refused == ()
    (structure,) = structures.found
    return structure


def by_rays(polygons, shape):
    """The even-odd rule, pixel by pixel: crossings to the left of the centre."""
    out = np.zeros(shape, bool)
    for y, x in np.ndindex(*shape):
        for polygon in polygons:
            for (ya, xa), (yb, xb) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
                if (ya <= y) != (yb <= y) and xa + (y - ya) * (xb - xa) / (yb - ya) <= x:
                    out[y, x] ^= True
    return out


POINT = st.tuples(st.integers(-8, 40), st.integers(-8, 40)).map(
    lambda p: (p[0] / 4, p[1] / 4)
)  # corners and borders too


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(POINT, min_size=3, max_size=7), min_size=1, max_size=3))
def test_scanlines_equal_the_rule_pixel_by_pixel(polygons):
    arrays = [np.array(p, float) for p in polygons]
    assert np.array_equal(fill_even_odd(arrays, (7, 8)), by_rays(arrays, (7, 8)))


def test_neighbours_that_share_an_edge_share_no_pixel_and_leave_none():
    left = np.array([(0.0, 0.0), (0.0, 3.0), (5.0, 3.0), (5.0, 0.0)])
    right = np.array([(0.0, 3.0), (0.0, 6.0), (5.0, 6.0), (5.0, 3.0)])
    a, b = (fill_even_odd([p], (6, 7)) for p in (left, right))
    assert not (a & b).any()
    assert (a | b).sum() == 5 * 6


def test_an_inner_contour_is_a_hole_and_an_island_in_it_is_not(tmp_path, ct):
    contours = [rectangle(ct, 2, 1, 7, 1, 10), rectangle(ct, 2, 2, 6, 2, 9), rectangle(ct, 2, 4, 4, 4, 6)]
    roi = only(write_rtstruct(tmp_path / "rs", {"GTV": contours}, **NAMES))
    wanted = np.zeros(SHAPE, bool)
    wanted[2, 1:8, 1:11] = True
    wanted[2, 2:7, 2:10] = False
    wanted[2, 4, 4:7] = True
    assert (roi.name, roi.kind, roi.fits(ct)) == ("GTV", "rtstruct", None)
    assert np.array_equal(roi.planes(ct, 0, 6), wanted)
    assert np.array_equal(roi.planes(ct, 2, 3), wanted[2:3])
    assert not roi.planes(ct, 3, 6).any()


@pytest.mark.parametrize(
    "directions", [((0, 0, -1), (0, 1, 0), (-1, 0, 0)), ((1, 0, 0), (0, 0, 1), (0, -1, 0)), TURNED]
)
def test_contours_follow_the_planes_of_any_orientation(tmp_path, directions):
    made = grid(directions=directions)
    write_ct_series(tmp_path / "ct", hu(), made, **NAMES)
    on = only_volume(tmp_path / "ct").grid
    roi = only(
        write_rtstruct(
            tmp_path / "rs", {"a": [rectangle(made, 1, 2, 3, 4, 9), rectangle(made, 4, 0, 0, 0, 3)]}, **NAMES
        )
    )
    wanted = np.zeros(SHAPE, bool)
    wanted[1, 2:4, 4:10] = wanted[4, 0, :4] = True
    assert roi.fits(on) is None
    points = np.rint(on.to_index(made.to_lps(np.argwhere(wanted)))).astype(int)
    assert {tuple(p) for p in points} == {tuple(p) for p in np.argwhere(roi.planes(on, 0, 6))}


def test_the_frame_of_reference_is_the_link(tmp_path, ct):
    contours = {"a": [rectangle(ct, 2, 1, 4, 1, 4)]}
    roi = only(write_rtstruct(tmp_path / "rs", contours, **NAMES, frame_key="another"))
    assert "frame of reference" in roi.fits(ct)
    assert "frame of reference" in roi.fits(grid())  # a volume without any
    matched, refused = match_structures([roi], {"x": ct})
    assert matched == {"x": ()}
    assert [(v.kind, v.reason) for v in refused] == [(VerdictKind.REJECT, "no-fit")]


@pytest.mark.parametrize("z", [2.1, 2.5, -1.0, 6.0])
def test_a_contour_on_no_plane_is_refused_and_counted(tmp_path, ct, z):
    roi = only(
        write_rtstruct(tmp_path / "rs", {"a": [rectangle(ct, 2, 1, 4, 1, 4), rectangle(ct, z, 1, 4, 1, 4)]}, **NAMES)
    )
    assert roi.fits(ct) == "1 of its 2 contours lie on no plane of the volume"
    _, refused = match_structures([roi], {"x": ct})
    assert refused[0].reason == "no-fit"
    assert "on no plane" in refused[0].detail


def test_a_contour_that_leans_is_refused_and_rounded_positions_are_not(tmp_path, ct):
    leaning = rectangle(ct, 2, 1, 4, 1, 4)
    leaning[0] = ct.to_lps((2.4, 1, 1))
    assert only(write_rtstruct(tmp_path / "lean", {"a": [leaning]}, **NAMES)).fits(ct)
    rounded = np.add(rectangle(ct, 2, 1, 4, 1, 4), (0, 0, 0.04))
    assert only(write_rtstruct(tmp_path / "round", {"a": [rounded]}, **NAMES)).fits(ct) is None


def test_what_sticks_out_of_the_plane_is_cut(tmp_path, ct):
    roi = only(write_rtstruct(tmp_path / "rs", {"a": [rectangle(ct, 2, -5, 20, -7, 3)]}, **NAMES))
    assert np.array_equal(np.argwhere(roi.planes(ct, 2, 3)[0]).max(0), [8, 3])
    assert roi.planes(ct, 0, 6).sum() == 9 * 4


def test_points_and_lines_are_set_aside_and_regions_beside_them_are_read(tmp_path):
    square = [rectangle(grid(), 2, 1, 4, 1, 4)]
    write_rtstruct(tmp_path / "points", {"iso": square}, **NAMES, geometric_type="POINT")
    write_rtstruct(tmp_path / "empty", {"nothing": [], "a": square}, **NAMES)
    structures = read_structures([tmp_path], KEY)
    assert [s.name for s in structures.found] == ["a"]
    assert [(v.kind, v.reason) for v in structures.refused] == [(VerdictKind.SET_ASIDE, "not-labels")] * 2


def test_a_contour_given_twice_is_refused_for_it_would_cancel_itself(tmp_path):
    square = rectangle(grid(), 2, 1, 4, 1, 4)
    write_rtstruct(tmp_path / "rs", {"twice": [square, square], "once": [square]}, **NAMES)
    structures = read_structures([tmp_path / "rs"], KEY)
    assert [s.name for s in structures.found] == ["once"]
    assert [(v.kind, v.reason) for v in structures.refused] == [(VerdictKind.REJECT, "duplicate-file")]


def edited(path, change):
    ds = pydicom.dcmread(path)
    change(ds)
    ds.save_as(path)
    return read_structures([path], KEY)


@pytest.mark.parametrize(
    "change",
    [
        lambda ds: setattr(ds.ROIContourSequence[0].ContourSequence[0], "ContourData", [1, 2]),
        lambda ds: setattr(ds.ROIContourSequence[0].ContourSequence[0], "NumberOfContourPoints", 5),
        lambda ds: setattr(ds.ROIContourSequence[0].ContourSequence[0]["ContourData"], "_value", ["nan", "0", "0"]),
        lambda ds: delattr(ds.ROIContourSequence[0], "ReferencedROINumber"),
        lambda ds: delattr(ds.StructureSetROISequence[0], "ROINumber"),
        lambda ds: delattr(ds.StructureSetROISequence[0], "ReferencedFrameOfReferenceUID"),
        lambda ds: delattr(ds, "StructureSetROISequence"),
        lambda ds: ds.StructureSetROISequence.append(ds.StructureSetROISequence[0]),
    ],
)
def test_a_broken_structure_set_is_refused(tmp_path, change):
    path = write_rtstruct(tmp_path / "rs", {"a": [rectangle(grid(), 2, 1, 4, 1, 4)]}, **NAMES)
    structures = edited(path, change)
    assert structures.found == ()
    assert {v.kind for v in structures.refused} == {VerdictKind.REJECT}


def test_a_cut_structure_set_never_loses_contours_in_silence(tmp_path):
    contours = [rectangle(grid(), z, 1, 4, 1, 4) for z in range(6)]
    path = write_rtstruct(tmp_path / "rs", {"a": contours}, **NAMES)
    whole = path.read_bytes()
    for keep in range(133, len(whole), 61):
        path.write_bytes(whole[:keep])
        structures = read_structures([path], KEY)
        assert structures.found == (), keep
        assert structures.refused


def test_names_are_shown_clean_and_never_in_a_verdict(tmp_path, ct):
    name = "GTV\x1b[2J\u202e secret " + "x" * 90
    path = write_rtstruct(tmp_path / "rs", {"a": [rectangle(ct, 2.5, 1, 4, 1, 4)]}, **NAMES)
    with pydicom.config.disable_value_validation():
        ds = pydicom.dcmread(path)
        ds.SpecificCharacterSet = "ISO_IR 192"
        ds.StructureSetROISequence[0].ROIName = name
        ds.save_as(path)
    roi = only(path)
    assert roi.name == ("GTV[2J secret " + "x" * 90)[:64]
    _, refused = match_structures([roi], {"x": ct})
    assert "secret" not in repr(refused)


def test_a_file_that_changed_is_an_input_error(tmp_path, ct):
    path = write_rtstruct(tmp_path / "rs", {"a": [rectangle(ct, 2, 1, 4, 1, 4)]}, **NAMES)
    roi = pickle.loads(pickle.dumps(only(path)))
    write_rtstruct(path, {"a": [rectangle(ct, 3, 1, 4, 1, 4)]}, **NAMES)
    from ctpipe.dicom import rtstruct

    rtstruct._file_contours.cache_clear()  # as in a worker process that reads it for the first time
    with pytest.raises(InputError, match="changed"):
        roi.planes(ct, 0, 6)


@pytest.mark.real
@pytest.mark.parametrize("patient", STS)
def test_contours_of_sts_equal_the_nifti_mask_voxel_for_voxel(real_data, patient):
    data = real_data / "sts" / f"STS_{patient}"
    on = only_volume(data / "CT.zip").grid
    structures = read_structures([data / "RS.zip", data / "CT_mask.nii.gz"], KEY)
    assert structures.refused == ()
    roi, mask = structures.found
    assert (roi.kind, mask.kind) == ("rtstruct", "nifti")
    assert roi.fits(on) is None
    assert mask.fits(on) is None
    assert mask.planes(on, 0, on.shape.z).any()
    assert np.array_equal(roi.planes(on, 0, on.shape.z), mask.planes(on, 0, on.shape.z))


@pytest.mark.real
def test_contours_of_ibsi1_equal_the_nifti_mask_voxel_for_voxel(real_data):
    data = real_data / "ibsi1_lung"
    on = only_volume(data / "CT.zip").grid
    roi, mask = read_structures([data / "RS.zip", data / "mask.nii.gz"], KEY).found
    assert roi.fits(on) is None
    assert np.array_equal(roi.planes(on, 0, 60), mask.planes(on, 0, 60))
    assert roi.planes(on, 0, 60).sum() == 125256


@pytest.mark.real
def test_structure_sets_of_another_frame_of_reference_fit_nothing(real_data):
    data = real_data / "vendors" / "ge_discovery_mi_rtstruct" / "RTSTRUCT.zip"
    structures = read_structures([data], KEY)
    assert structures.found
    sts = only_volume(real_data / "sts" / "STS_019" / "CT.zip").grid
    matched, refused = match_structures(structures.found, {"sts": sts})
    assert matched == {"sts": ()}
    assert {v.reason for v in refused} == {"no-fit"}
