"""The verdict on series with one thing wrong at a time (corpus policy; V1-V5, V7)."""

import numpy as np
import pytest
from builders import ct_series, hu_block, setter, write_files
from hypothesis import given, settings
from hypothesis import strategies as st

from ctpipe.dicom import Pseudonyms, check, read_planes
from ctpipe.errors import InputError, UsageError

KEY = Pseudonyms(b"k" * 32)


def verdicts(tmp_path, *series):
    for number, files in enumerate(series):
        write_files(tmp_path / str(number), files)
    return check(tmp_path, KEY)


def only(tmp_path, files):
    (verdict,) = verdicts(tmp_path, files)
    return verdict


def voxels(verdict):
    return read_planes(verdict.source, 0, verdict.source.grid.shape[0])


def test_a_plain_series_is_accepted_with_every_voxel_and_place(tmp_path):
    """V1."""
    hu = hu_block()
    verdict = only(tmp_path, ct_series(hu))
    assert (verdict.kind, verdict.reason, verdict.n_files) == ("accept", "", 8)
    assert verdict.source.dtype == "int16"
    assert np.array_equal(voxels(verdict), hu)
    assert np.allclose(verdict.source.grid.spacing_mm, (2.5, 0.8, 0.7))
    assert verdict.source.voi == (40.0, 400.0)
    assert verdict.as_json()["shape"] == [8, 12, 16]


@settings(max_examples=12, deadline=None)
@given(order=st.permutations(range(8)), numbers=st.permutations(range(8)))
def test_names_and_instance_numbers_change_nothing(tmp_path_factory, order, numbers):
    """V2."""
    hu = hu_block()
    folder = tmp_path_factory.mktemp("shuffled")
    files = ct_series(hu, edit=lambda z, ds: setattr(ds, "InstanceNumber", numbers[z]))
    (verdict,) = check(write_files(folder, [files[i] for i in order]), KEY)
    (plain,) = check(write_files(tmp_path_factory.mktemp("plain"), ct_series(hu)), KEY)
    assert np.array_equal(voxels(verdict), hu)
    assert verdict.source.grid == plain.source.grid
    assert verdict.source.series_id == plain.source.series_id


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("gap", {"drop": [3]}),
        ("gap", {"drop": [2, 3, 4]}),
        ("gantry-tilt", {"tilt_deg": 12.0}),
        ("gantry-tilt", {"tilt_deg": 0.5}),
        ("too-few-slices", {"drop": range(2, 8)}),
        ("missing-rescale", {"edit": setter(3, RescaleSlope=None)}),
        ("bad-rescale", {"edit": setter(RescaleSlope="0")}),
        ("rescale-units", {"edit": setter(RescaleType="US")}),
        ("missing-position", {"edit": setter(7, ImagePositionPatient=None)}),
        ("missing-orientation", {"edit": setter(ImageOrientationPatient=None)}),
        ("bad-orientation", {"edit": setter(ImageOrientationPatient=["1.01", "0", "0", "0", "1", "0"])}),
        ("missing-pixel-spacing", {"edit": setter(PixelSpacing=None)}),
        ("bad-pixel-spacing", {"edit": setter(PixelSpacing=["0", "1"])}),
        ("uneven-spacing", {"edit": setter(4, ImagePositionPatient=["-31.25", "12.5", "214.95"])}),
        ("in-plane-shift", {"edit": setter(4, ImagePositionPatient=["-30.75", "12.5", "214.75"])}),
        ("burned-in", {"edit": setter(BurnedInAnnotation="YES")}),
        ("patient-conflict", {"edit": setter(5, PatientID="P2")}),
        ("study-conflict", {"edit": setter(5, StudyInstanceUID="1.2.3")}),
        ("bits", {"edit": setter(BitsStored=17)}),
        ("frames", {"edit": setter(NumberOfFrames=2)}),
        ("truncated", {"edit": setter(2, Rows=600)}),
        ("no-pixels", {"edit": setter(2, PixelData=None)}),
        ("unsupported-pixels", {"edit": setter(2, Rows=11)}),
    ],
)
def test_what_is_not_plainly_right_is_refused_with_its_reason(tmp_path, reason, changes):
    """V1, V3, V4."""
    verdict = only(tmp_path, ct_series(hu_block(), **changes))
    assert (verdict.kind, verdict.reason) == ("reject", reason)
    assert verdict.source is None
    assert verdict.detail
    assert verdict.cure


def test_all_faults_of_a_volume_stand_in_its_detail(tmp_path):
    verdict = only(tmp_path, ct_series(hu_block(), drop=[3], tilt_deg=10, edit=setter(RescaleType="US")))
    assert verdict.reason == "rescale-units"
    for word in ("RescaleType", "missing", "tilt"):
        assert word in verdict.detail


def test_an_identical_copy_is_dropped_and_said(tmp_path):
    verdict = only(tmp_path, ct_series(hu_block(), duplicate=[2, 5]))
    assert (verdict.kind, verdict.reason, verdict.n_files) == ("repair", "duplicate-file", 10)
    assert np.array_equal(voxels(verdict), hu_block())


def test_one_uid_with_two_contents_is_refused(tmp_path):
    other = hu_block()
    other[2, 5, 5] += 1
    files = ct_series(hu_block()) + ct_series(other)[2:3]
    assert only(tmp_path, files).reason == "uid-conflict"


def test_one_instance_uid_in_two_series_refuses_both(tmp_path):
    """V7."""
    again = ct_series(hu_block(), edit=setter(SeriesInstanceUID="1.2.3.4"))
    assert [v.reason for v in verdicts(tmp_path, ct_series(hu_block()), again)] == ["uid-conflict"] * 2


def test_a_truncated_file_refuses_its_series_and_no_other(tmp_path):
    """V1, rule 12."""
    broken = ct_series(hu_block(), series="broken")
    broken[7] = broken[7][:-20]
    kinds = [(v.kind, v.reason) for v in verdicts(tmp_path, ct_series(hu_block()), broken)]
    assert kinds == [("accept", ""), ("reject", "truncated")]


def test_a_file_cut_in_its_header_still_refuses_the_series_that_it_names(tmp_path):
    files = ct_series(hu_block())
    files[7] = files[7][: files[7].index(b"\x20\x00\x32\x00")]
    verdict = only(tmp_path, files)
    assert verdict.kind == "reject"
    assert verdict.n_files == 8


def test_rubbish_beside_a_series_is_set_aside_and_hinders_nothing(tmp_path):
    write_files(tmp_path, [b"", b"text, no DICOM", b"\x89PNG" + bytes(200)], ["empty", "text.dcm", "png"])
    found = [(v.kind, v.reason, v.n_files) for v in verdicts(tmp_path, ct_series(hu_block()))]
    assert found[0] == ("accept", "", 8)
    assert sorted(found[1:]) == [("set-aside", "empty-file", 1), ("set-aside", "not-dicom", 2)]


def test_phases_are_told_apart_by_their_own_key(tmp_path):
    """V7."""
    first = ct_series(hu_block(), edit=setter(AcquisitionNumber=1))
    second = ct_series(hu_block(seed=9), edit=lambda z, ds: (
        setattr(ds, "AcquisitionNumber", 2), setattr(ds, "SOPInstanceUID", f"1.2.{z + 1}")))  # fmt: skip
    found = verdicts(tmp_path, first, second)
    assert [v.kind for v in found] == ["accept", "accept"]
    assert {voxels(v).tobytes() for v in found} == {hu_block().tobytes(), hu_block(seed=9).tobytes()}


def test_repeated_positions_that_nothing_tells_apart_are_refused(tmp_path):
    again = ct_series(hu_block(seed=9), edit=lambda z, ds: setattr(ds, "SOPInstanceUID", f"1.2.{z + 1}"))
    assert only(tmp_path, ct_series(hu_block()) + again).reason == "duplicate-position"


def test_an_mr_and_a_mask_series_are_set_aside(tmp_path):
    mask = np.where(hu_block() > 0, 255, 0)

    def as_mask(z, ds):
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.RescaleIntercept = 8, 8, 7, "0"
        ds.PixelData = mask[z].astype(np.uint8).tobytes()

    mr = ct_series(hu_block(), series="mr", edit=setter(SOPClassUID="1.2.840.10008.5.1.4.1.1.4", Modality="MR"))
    found = verdicts(tmp_path, mr, ct_series(hu_block(), series="mask", edit=as_mask))
    assert [(v.kind, v.reason) for v in found] == [("set-aside", "not-ct")] * 2


def test_a_series_whose_modality_or_class_cannot_be_known_is_refused(tmp_path):
    assert only(tmp_path, ct_series(hu_block(), edit=setter(SOPClassUID="1.2.111.1"))).kind == "reject"


def test_the_id_follows_voxels_place_and_rescale_and_nothing_else(tmp_path):
    """V8."""
    base = dict(hu=hu_block())
    kept = [{}, {"edit": setter(InstanceNumber=4)}, {"edit": setter(SeriesDescription="x")}]
    changed = [{"spacing_mm": (2.5, 0.8, 0.71)}, {"hu": hu_block(seed=4)}, {"signed": True},
               {"edit": setter(RescaleIntercept="-1023")}]  # fmt: skip
    ids = [only(tmp_path / str(i), ct_series(**{**base, **change})).source.series_id
           for i, change in enumerate([*kept, *changed])]  # fmt: skip
    assert len(set(ids[:3])) == 1
    assert len(set(ids)) == 1 + len(changed)


def test_a_file_changed_after_its_verdict_is_an_input_error(tmp_path):
    verdict = only(tmp_path, ct_series(hu_block()))
    path = verdict.source.planes[3].locator.path
    with open(path, "r+b") as file:
        file.seek(-9, 2)
        file.write(b"\x7f")
    read_planes(verdict.source, 0, 3)  # the other planes are not touched
    with pytest.raises(InputError, match="plane 3 changed"):
        read_planes(verdict.source, 2, 5)


def test_reading_planes_opens_only_their_files(tmp_path):
    verdict = only(tmp_path, ct_series(hu_block()))
    for plane in verdict.source.planes[:2] + verdict.source.planes[5:]:
        (tmp_path / plane.locator.path).unlink()
    assert np.array_equal(read_planes(verdict.source, 2, 5), hu_block()[2:5])
    with pytest.raises(InputError):
        read_planes(verdict.source, 1, 3)
    with pytest.raises(UsageError):
        read_planes(verdict.source, 5, 9)


def test_excluded_folders_are_not_looked_at(tmp_path):
    write_files(tmp_path / "labels", ct_series(hu_block(), series="other"))
    write_files(tmp_path / "ct", ct_series(hu_block()))
    assert len(check(tmp_path, KEY, exclude=[tmp_path / "labels"])) == 1


def test_a_window_without_width_is_none(tmp_path):
    verdict = only(tmp_path, ct_series(hu_block(), edit=setter(WindowCenter="0", WindowWidth="0")))
    assert verdict.source.voi is None


def test_the_progress_ends_at_its_total(tmp_path):
    seen = []
    write_files(tmp_path, ct_series(hu_block()))
    check(tmp_path, KEY, progress=lambda *step: seen.append(step))
    assert ("index", 8, 8) in seen  # files
    assert seen[-1] == ("check", 1, 1)  # series


def test_a_broken_value_is_never_quoted(tmp_path):
    """P4."""
    files = [data.replace(b"-31.25\\12.5", b"Zqvalue\\12.") for data in ct_series(hu_block())]
    assert b"Zqvalue" in files[0]
    verdict = only(tmp_path, files)
    assert verdict.reason == "bad-number"
    assert "Zq" not in str(verdict)
