from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from labels_made import KEY, TURNED, grid, hu, lopsided, only_volume

from ctpipe.dicom import check, read_planes, write_ct_series, write_mask_series, write_rtstruct
from ctpipe.errors import BudgetError, UsageError
from ctpipe.words import VerdictKind

DCIODVFY = Path(sys.executable).parent / "dciodvfy"  # of the package dicom3tools

NAMES = {"patient": "P1", "study_key": "study one"}
DIRECTIONS = {
    "axial": ((0, 0, 1), (0, 1, 0), (1, 0, 0)),
    "feet-first": ((0, 0, -1), (0, 1, 0), (-1, 0, 0)),
    "coronal": ((0, 0, 1), (1, 0, 0), (0, -1, 0)),
    "sagittal": ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
    "oblique": TURNED,
}


def as_zyx_lps(image: sitk.Image) -> tuple[np.ndarray, np.ndarray]:
    """(array, index (z, y, x, 1) -> LPS mm) of what SimpleITK read."""
    affine = np.eye(4)
    affine[:3, :3] = (np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing())[:, ::-1]
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image), affine


def by_simpleitk(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return as_zyx_lps(reader.Execute())


@pytest.mark.parametrize("name", DIRECTIONS)
def test_simpleitk_reads_the_same_hu_at_the_same_place(tmp_path, name):
    on, voxels = grid(directions=DIRECTIONS[name]), hu()
    write_ct_series(tmp_path, voxels, on, **NAMES)
    array, affine = by_simpleitk(tmp_path)
    points = on.to_lps(np.argwhere(voxels > -2000))
    index = np.rint((np.linalg.inv(affine) @ np.c_[points, np.ones(len(points))].T)[:3]).astype(int)
    assert np.array_equal(array[tuple(index)], voxels.ravel())
    assert np.allclose((affine @ np.r_[index, np.ones((1, index.shape[1]))])[:3].T, points, atol=1e-6)


@pytest.mark.parametrize("name", DIRECTIONS)
def test_check_accepts_the_series_and_reads_the_same_voxels(tmp_path, name):
    on, voxels = grid(directions=DIRECTIONS[name]), hu()
    write_ct_series(tmp_path, voxels, on, **NAMES, order=[4, 2, 0, 1, 3, 5])
    (verdict,) = check(tmp_path, KEY)
    assert verdict.kind is VerdictKind.ACCEPT
    found = verdict.source.grid
    normal = np.cross(on.directions[:, 2], on.directions[:, 1])
    ascends = float(normal @ on.directions[:, 0]) > 0
    read = read_planes(verdict.source, 0, 6)
    assert np.array_equal(read if ascends else read[::-1], voxels)
    assert np.allclose(found.to_lps((0 if ascends else 5, 0, 0)), on.to_lps((0, 0, 0)))
    assert found.frame_of_reference is not None


@pytest.mark.parametrize(
    ("low", "high", "bits"), [(-1024, 3071, 12), (-1024, 3072, 16), (-1025, 100, 16), (-32768, 32767, 16)]
)
def test_every_int16_value_survives_in_the_plainest_encoding(tmp_path, low, high, bits):
    voxels = hu().clip(-1024, 3071)
    voxels[0, 0, :2] = low, high
    paths = write_ct_series(tmp_path, voxels, grid(), **NAMES)
    assert pydicom.dcmread(paths[0]).BitsStored == bits
    assert np.array_equal(read_planes(only_volume(tmp_path), 0, 6), voxels)


def test_a_plane_left_out_is_a_gap(tmp_path):
    paths = write_ct_series(tmp_path, hu(), grid(), **NAMES, order=[0, 1, 2, 4, 5])
    assert [path.name for path in paths] == ["IM0001", "IM0002", "IM0003", "IM0004", "IM0005"]
    (verdict,) = check(tmp_path, KEY)
    assert (verdict.kind, verdict.reason) == (VerdictKind.REJECT, "gap")


def test_equal_keys_give_equal_files_and_other_keys_other_uids(tmp_path):
    for folder, names in (("a", NAMES), ("b", NAMES), ("c", {**NAMES, "study_key": "study two"})):
        write_ct_series(tmp_path / folder, hu(), grid(), **names)
    a, b, c = ((tmp_path / folder / "IM0003").read_bytes() for folder in "abc")
    assert a == b != c
    one, other = (pydicom.dcmread(tmp_path / folder / "IM0003") for folder in "ac")
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
        assert one[keyword].value.startswith("2.25.")
        assert one[keyword].value.is_valid
        assert one[keyword].value != other[keyword].value


def test_masks_lie_as_in_3d_ircadb_and_are_no_ct(tmp_path):
    top = write_mask_series(
        tmp_path, {"liver": lopsided() > 0, "livertumor01": lopsided() > 9}, grid(), **NAMES, linked=False
    )
    assert top == tmp_path / "MASKS_DICOM"
    assert sorted(p.relative_to(top).as_posix() for p in top.rglob("image_5")) == [
        "liver/image_5",
        "livertumor01/image_5",
    ]
    ds = pydicom.dcmread(top / "liver" / "image_3")
    assert (ds.Modality, ds.SOPClassUID.name, ds.BitsAllocated) == ("CT", "CT Image Storage", 8)
    assert set(np.unique(ds.pixel_array)) == {0, 255}
    assert "FrameOfReferenceUID" not in ds
    array, affine = by_simpleitk(top / "liver")
    assert np.array_equal(array > 0, lopsided() > 0)
    assert np.allclose(affine, grid().affine)


def test_a_wrong_shape_dtype_or_name_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError):
        write_ct_series(tmp_path, hu()[1:], grid(), **NAMES)
    with pytest.raises(UsageError):
        write_ct_series(tmp_path, hu().astype(np.float32), grid(), **NAMES)
    with pytest.raises(UsageError):
        write_mask_series(tmp_path, {"liver": lopsided()[1:] > 0}, grid(), **NAMES)
    for name in ("../liver", "", ".", "a/b"):
        with pytest.raises(UsageError):
            write_mask_series(tmp_path, {name: lopsided() > 0}, grid(), **NAMES)


def test_a_full_disk_is_a_budget_error(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(BudgetError, match="disk is full"):
        write_ct_series(tmp_path, hu(), grid(), **NAMES)


def test_dciodvfy_finds_no_error(tmp_path):
    ct = write_ct_series(tmp_path / "ct", hu(), grid(), **NAMES)[0]
    triangle = np.array([[0.0, 40.0, -100.0], [1 / 3, 40.0, -100.0], [0.0, 41.0, -100.0]])
    rtstruct = write_rtstruct(tmp_path / "rs.dcm", {"GTV": [triangle]}, **NAMES)
    for path in (ct, rtstruct):  # masks in CT objects of 8 bits, as public data sets have them, are no valid CT
        said = subprocess.run([str(DCIODVFY), str(path)], capture_output=True, text=True, check=False).stderr
        assert "Error" not in said, said
