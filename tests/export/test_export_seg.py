"""DICOM SEG read back by highdicom, dcmqi with SimpleITK, dciodvfy and our own ingest: voxel by voxel, in mm."""

from __future__ import annotations

import highdicom
import numpy as np
import pydicom
import pytest
from exports_made import CLASSES, GRIDS, RECTANGULAR, RUN, WITH_ONE_AFFINE, dcmqi_on_grid, faults, on_grid

import ctpipe
from ctpipe.pipeline import export
from ctpipe.store import open_store

FORMS = ("binary", "labelmap")
BOTH = ("oblique", "tilt resampled")  # grids on which label maps are read back as well as masks


def grids_and_forms(names):
    return [(name, form) for name in names for form in FORMS if form == "binary" or name in BOTH]


PRESENT = {1: "liver", 2: "livertumor", 3: "something of ours"}


def seg_of(case, path, form="binary", **settings):
    report = export(case.store, case.series.id, RUN, "seg", path, source=[case.files], form=form, **settings)
    return report.exports[0].written


@pytest.mark.parametrize(("grid", "form"), grids_and_forms(GRIDS))
def test_every_frame_lies_where_its_plane_does_and_names_its_instance(case_of, tmp_path, grid, form):
    """Frame by frame, so for sheared and uneven stacks too (V6)."""
    case = case_of(grid)
    seg_of(case, tmp_path / "seg.dcm", form)
    assert faults(tmp_path / "seg.dcm") == []
    ds = pydicom.dcmread(tmp_path / "seg.dcm")
    source = {str(file.SOPInstanceUID): file for file in map(pydicom.dcmread, case.files.iterdir())}
    spacing = [float(v) for v in ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing]
    assert np.allclose(spacing, case.grid.spacing_mm[1:], atol=1e-9)
    assert ds.FrameOfReferenceUID == next(iter(source.values())).FrameOfReferenceUID
    pixels = ds.pixel_array
    seen = np.zeros(case.labels.shape, np.uint8)
    numbers = {s.SegmentNumber: s.SegmentLabel for s in ds.SegmentSequence if s.SegmentLabel != "Background"}
    labels = {number: next(k for k, v in PRESENT.items() if v == name) for number, name in numbers.items()}
    for frame, group in zip(pixels, ds.PerFrameFunctionalGroupsSequence, strict=True):
        place = [float(v) for v in group.PlanePositionSequence[0].ImagePositionPatient]
        (image,) = group.DerivationImageSequence[0].SourceImageSequence
        named = source[image.ReferencedSOPInstanceUID]
        away = np.subtract(place, [float(v) for v in named.ImagePositionPatient])
        if grid == "tilt resampled":  # in the plane of its image, on other pixels of it
            assert image.SpatialLocationsPreserved == "NO"
            row, column = np.reshape([float(v) for v in named.ImageOrientationPatient], (2, 3))
            away = np.cross(row, column) @ away
        assert np.abs(away).max() < 1e-3
        order = sorted(source.values(), key=lambda ds: np.dot(_normal(ds), [float(v) for v in ds.ImagePositionPatient]))
        z = [str(ds.SOPInstanceUID) for ds in order].index(image.ReferencedSOPInstanceUID)
        if form == "labelmap":
            seen[z] = frame
        else:
            identified = (*group.get("SegmentIdentificationSequence", ()),)[0]
            seen[z][frame > 0] = labels[identified.ReferencedSegmentNumber]
    assert np.array_equal(seen, case.labels)


def _normal(ds):
    row, column = np.reshape([float(v) for v in ds.ImageOrientationPatient], (2, 3))
    return np.cross(row, column)


@pytest.mark.parametrize(("grid", "form"), grids_and_forms(RECTANGULAR))
def test_other_readers_see_the_same_voxels_in_patient_coordinates(case_of, tmp_path, grid, form):
    case = case_of(grid)
    seg_of(case, tmp_path / "seg.dcm", form)
    volume = highdicom.seg.segread(tmp_path / "seg.dcm").get_volume(combine_segments=True)
    assert np.array_equal(on_grid(volume.array, volume.affine, case.grid), case.labels)
    masks, told = dcmqi_on_grid(tmp_path / "seg.dcm", tmp_path / "dcmqi", case.grid)
    masks.pop("Background", None)
    assert set(masks) == set(PRESENT.values())
    for label, name in PRESENT.items():
        assert np.array_equal(masks[name], case.labels == label), name
    kinds = {s["SegmentLabel"]: s["SegmentedPropertyTypeCodeSequence"]["CodeValue"]
             for group in told["segmentAttributes"] for s in group}  # fmt: skip
    assert kinds["liver"] == "10200004"
    assert kinds["livertumor"] == "108369006"


@pytest.mark.parametrize(("grid", "form"), grids_and_forms(WITH_ONE_AFFINE))
def test_our_own_ingest_takes_it_back(case_of, tmp_path, grid, form):
    case = case_of(grid)
    seg_of(case, tmp_path / "seg.dcm", form)
    options = {"tilt resampled": {"on_tilt": "resample"}, "tilt kept": {"on_tilt": "keep"}}.get(grid, {})
    back = tmp_path / "back"
    report = ctpipe.ingest([case.files], back, labels=[tmp_path / "seg.dcm"], **options,
                           classes="liver=1,livertumor=2,ours=3:something of ours")  # fmt: skip
    assert report.exit_code == 0, report.as_json()
    (series,) = open_store(back).values()
    assert series.id == case.series.id
    assert np.array_equal(series.labels["truth"].read_planes(0, len(case.labels)), case.labels)


def test_classes_are_coded_and_those_without_a_voxel_are_named(case_of, tmp_path):
    case = case_of("axial")
    written = seg_of(case, tmp_path / "seg.dcm")
    assert written.empty == ("spleen",)
    assert "empty: spleen" in written.notes
    assert written.voxels == {name: int((case.labels == label).sum()) for label, name in CLASSES.items()}
    segments = pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence
    assert [(s.SegmentNumber, s.SegmentLabel) for s in segments] == [(1, "liver"), (2, "livertumor"),
                                                                     (3, "something of ours")]  # fmt: skip
    liver, tumour, ours = segments
    assert _code(liver.SegmentedPropertyCategoryCodeSequence) == ("91723000", "SCT")
    assert _code(liver.SegmentedPropertyTypeCodeSequence) == ("10200004", "SCT")
    assert _code(tumour.SegmentedPropertyCategoryCodeSequence) == ("49755003", "SCT")
    assert _code(tumour.SegmentedPropertyTypeCodeSequence) == ("108369006", "SCT")
    assert _code(tumour.AnatomicRegionSequence) == ("10200004", "SCT")
    assert _code(ours.SegmentedPropertyTypeCodeSequence)[1] == "99CTPIPE"
    assert ours.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "something of ours"
    assert [s.SegmentAlgorithmType for s in segments] == ["AUTOMATIC"] * 3
    assert any("no coded term is known for something of ours" in note for note in written.notes)


def test_a_label_map_keeps_the_labels_as_segment_numbers(case_of, tmp_path):
    seg_of(case_of("axial"), tmp_path / "seg.dcm", "labelmap")
    ds = pydicom.dcmread(tmp_path / "seg.dcm")
    assert [s.SegmentNumber for s in ds.SegmentSequence] == [0, 1, 2, 3]
    assert ds.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.7"


def test_codes_of_the_users_own_win(case_of, tmp_path):
    (tmp_path / "codes.toml").write_text(
        '["something of ours"]\ncategory = ["49755003", "SCT", "Morphologically Abnormal Structure"]\n'
        'type = ["14799000", "SCT", "Neoplasm, Secondary"]\nregion = ["39607008", "SCT", "Lung"]\n'
    )
    written = seg_of(case_of("axial"), tmp_path / "seg.dcm", codes=tmp_path / "codes.toml")
    ours = pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence[2]
    assert _code(ours.SegmentedPropertyTypeCodeSequence) == ("14799000", "SCT")
    assert _code(ours.AnatomicRegionSequence) == ("39607008", "SCT")
    assert not any("no coded term" in note for note in written.notes)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_exported_twice_is_the_same_file(case_of, tmp_path, form):
    for name in ("a", "b"):
        seg_of(case_of("oblique"), tmp_path / name, form)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def _code(sequence):
    return sequence[0].CodeValue, sequence[0].CodingSchemeDesignator
