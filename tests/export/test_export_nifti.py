"""NIfTI read back by SimpleITK, nibabel and our own ingest: the same voxels in patient coordinates (V6)."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from exports_made import RUN, WITH_ONE_AFFINE, add_labels, made, on_grid, sitk_on_grid

import ctpipe
from ctpipe.errors import InputError, UsageError
from ctpipe.pipeline import export
from ctpipe.store import open_store

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.mark.parametrize("grid", WITH_ONE_AFFINE)
def test_other_readers_see_the_same_voxels(case_of, tmp_path, grid):
    case = case_of(grid)
    path = tmp_path / "labels.nii.gz"
    export(case.store, case.series.id, RUN, "nifti", path)
    image = nibabel.load(path)
    assert image.get_data_dtype() == np.uint8
    voxels = np.asarray(image.dataobj)
    sform, code = image.get_sform(coded=True)
    assert code == 1
    assert np.array_equal(on_grid(voxels, RAS_TO_LPS @ sform, case.grid), case.labels)
    qform, code = image.get_qform(coded=True)
    if grid == "tilt kept":  # a rotation and three steps cannot say a shear, and SimpleITK does not read one
        assert code == 0
    else:
        assert np.abs(qform - sform).max() < 1e-4
        assert np.array_equal(sitk_on_grid(path, case.grid), case.labels)


@pytest.mark.parametrize("grid", ["oblique", "feet first"])
def test_our_own_ingest_takes_it_back(case_of, tmp_path, grid):
    case = case_of(grid)
    export(case.store, case.series.id, RUN, "nifti", tmp_path / "labels.nii.gz")
    ctpipe.ingest([case.files], tmp_path / "back", labels=[tmp_path / "labels.nii.gz"],
                  classes="liver=1:labels1,livertumor=2:labels2,ours=3:labels3")  # fmt: skip
    (series,) = open_store(tmp_path / "back").values()
    assert np.array_equal(series.labels["truth"].read_planes(0, len(case.labels)), case.labels)


def test_plain_and_packed_hold_the_same_and_twice_is_the_same_file(case_of, tmp_path):
    case = case_of("axial")
    for name in ("a.nii", "a.nii.gz", "b.nii.gz"):
        export(case.store, case.series.id, RUN, "nifti", tmp_path / name)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert np.array_equal(nibabel.load(tmp_path / "a.nii").dataobj, nibabel.load(tmp_path / "a.nii.gz").dataobj)
    assert not [path.name for path in tmp_path.iterdir() if "partial" in path.name]


def test_labels_above_255_need_16_bits(tmp_path):
    case = made(tmp_path)
    labels = case.labels.astype(np.uint16) * 300
    add_labels(case.store, labels, {300: "liver", 600: "tumor", 900: "rest"}, name="1616" * 8)
    export(case.store, case.series.id, "1616", "nifti", tmp_path / "l.nii")
    image = nibabel.load(tmp_path / "l.nii")
    assert image.get_data_dtype() == np.uint16
    assert np.array_equal(np.asarray(image.dataobj).T, labels)


def test_planes_at_their_own_positions_are_refused(case_of, tmp_path):
    case = case_of("gap kept")
    for kind, name in (("nifti", "l.nii"), ("stl", "l.stl"), ("csv", "l.csv"), ("sr", "l.dcm")):
        with pytest.raises(InputError, match="stand at their own positions"):
            export(case.store, case.series.id, RUN, kind, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_nibabel_would_not_open_is_refused(case_of, tmp_path):
    case = case_of("axial")
    with pytest.raises(UsageError, match=r"end it in \.nii or \.nii\.gz"):
        export(case.store, case.series.id, RUN, "nifti", tmp_path / "labels")


def test_a_place_that_is_no_plain_file_is_left_alone(case_of, tmp_path):
    case = case_of("axial")
    (tmp_path / "link.nii").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="no plain file"):
        export(case.store, case.series.id, RUN, "nifti", tmp_path / "link.nii")
    assert not (tmp_path / "elsewhere").exists()
