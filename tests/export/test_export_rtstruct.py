"""RTSTRUCT read back: by our ingest, by even-odd and winding fills of other libraries, by dciodvfy; areas exact."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from exports_made import GRIDS, RUN, WITH_ONE_AFFINE, add_labels, faults, made

import ctpipe
from ctpipe.errors import InputError
from ctpipe.pipeline import export
from ctpipe.store import open_store

PRESENT = {1: "liver", 2: "livertumor", 3: "something of ours"}


def rs_of(case, path):
    return export(case.store, case.series.id, RUN, "rtstruct", path, source=[case.files]).exports[0].written


@pytest.mark.parametrize("grid", GRIDS)
def test_contours_lie_in_the_plane_of_the_instance_they_name_and_hold_its_voxels(case_of, tmp_path, grid):
    """V6. Filled by matplotlib, contour by contour, in the coordinates of the instance itself."""
    from matplotlib.path import Path as Outline

    case = case_of(grid)
    rs_of(case, tmp_path / "rs.dcm")
    assert faults(tmp_path / "rs.dcm") == []
    ds = pydicom.dcmread(tmp_path / "rs.dcm")
    source = {str(file.SOPInstanceUID): file for file in map(pydicom.dcmread, case.files.iterdir())}
    names = {roi.ROINumber: roi.ROIName for roi in ds.StructureSetROISequence}
    assert list(names.values()) == list(PRESENT.values())
    drawn = {}
    for roi in ds.ROIContourSequence:
        for contour in roi.ContourSequence:
            (image,) = contour.ContourImageSequence
            named = source[image.ReferencedSOPInstanceUID]
            row, column = np.reshape([float(v) for v in named.ImageOrientationPatient], (2, 3))
            points = np.reshape([float(v) for v in contour.ContourData], (-1, 3))
            away = points - [float(v) for v in named.ImagePositionPatient]
            assert np.abs(away @ np.cross(row, column)).max() < 1e-3
            if grid == "tilt resampled":  # other pixels in the same plane
                continue
            pixels = np.column_stack([away @ row, away @ column]) / [float(v) for v in named.PixelSpacing][::-1]
            y, x = np.indices((named.Rows, named.Columns))
            inside = Outline(pixels).contains_points(np.column_stack([x.ravel(), y.ravel()])).reshape(y.shape)
            mask = drawn.setdefault((image.ReferencedSOPInstanceUID, names[roi.ReferencedROINumber]), inside & False)
            assert not (mask & inside).any()  # contours of one plane and region do not overlap: any rule gives the same
            mask |= inside
    order = sorted(source.values(), key=lambda ds: np.dot(_normal(ds), [float(v) for v in ds.ImagePositionPatient]))
    for z, file in enumerate(order if grid != "tilt resampled" else []):
        for label, name in PRESENT.items():
            mask = drawn.get((file.SOPInstanceUID, name), np.zeros(case.labels.shape[1:], bool))
            assert np.array_equal(mask, case.labels[z] == label), (z, name)


def _normal(ds):
    row, column = np.reshape([float(v) for v in ds.ImageOrientationPatient], (2, 3))
    return np.cross(row, column)


@pytest.mark.parametrize("grid", WITH_ONE_AFFINE)
def test_our_own_ingest_takes_a_structure_set_back(case_of, tmp_path, grid):
    case = case_of(grid)
    rs_of(case, tmp_path / "rs.dcm")
    options = {"tilt resampled": {"on_tilt": "resample"}, "tilt kept": {"on_tilt": "keep"}}.get(grid, {})
    ctpipe.ingest([case.files], tmp_path / "back", labels=[tmp_path / "rs.dcm"], **options,
                  classes="liver=1,livertumor=2,ours=3:something of ours")  # fmt: skip
    (series,) = open_store(tmp_path / "back").values()
    assert np.array_equal(series.labels["truth"].read_planes(0, len(case.labels)), case.labels)


def test_numbers_fit_a_decimal_string_and_areas_are_exact(case_of, tmp_path):
    case = case_of("oblique")
    rs_of(case, tmp_path / "rs.dcm")
    ds = pydicom.dcmread(tmp_path / "rs.dcm")
    _, dy, dx = case.grid.spacing_mm
    for label, roi in zip(PRESENT, ds.ROIContourSequence, strict=True):
        area = 0.0
        for contour in roi.ContourSequence:
            raw = contour.get_item("ContourData").value
            assert max(map(len, raw.decode("ascii").split("\\"))) <= 16
            points = np.reshape([float(v) for v in contour.ContourData], (-1, 3))
            area += np.linalg.norm(np.cross(points, np.roll(points, -1, axis=0)).sum(axis=0)) / 2
        assert area == pytest.approx((case.labels == label).sum() * dy * dx, rel=1e-4)


def test_findings_are_no_organs_and_nothing_is_approved(case_of, tmp_path):
    rs_of(case_of("axial"), tmp_path / "rs.dcm")
    ds = pydicom.dcmread(tmp_path / "rs.dcm")
    assert [o.RTROIInterpretedType for o in ds.RTROIObservationsSequence] == ["ORGAN", "", ""]
    assert [r.ROIGenerationAlgorithm for r in ds.StructureSetROISequence] == ["AUTOMATIC"] * 3
    assert ds.ApprovalStatus == "UNAPPROVED"


def test_labels_without_a_voxel_are_told(tmp_path):
    case = made(tmp_path)
    add_labels(case.store, case.labels * 0, name="e0e0" * 8)
    with pytest.raises(InputError, match="no voxel of any class: liver, livertumor, something of ours, spleen"):
        export(case.store, case.series.id, "e0e0", "rtstruct", tmp_path / "rs.dcm")
    assert not (tmp_path / "rs.dcm").exists()
