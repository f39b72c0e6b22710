"""Whom an exported object names: the true patient only where the originals are given, and never by way of the store."""

from __future__ import annotations

import shutil
import zipfile

import numpy as np
import pydicom
import pytest
from builders import ct_series, hu_block, setter, uid, write_files
from exports_made import RUN, SHAPE, add_labels, blobs, faults, made, stored

import ctpipe
from ctpipe.dicom.identity import Pseudonyms, pseudonym_of_uid, uid_of_pseudonym
from ctpipe.errors import InputError, UsageError
from ctpipe.pipeline import export
from ctpipe.store import open_store

KINDS = ("seg", "rtstruct", "sr")


def exported(case, path, kind="seg", **settings):
    (one,) = export(case.store, case.series.id, RUN, kind, path, **settings).exports
    return one.written, pydicom.dcmread(path)


@pytest.mark.parametrize("kind", KINDS)
def test_with_the_originals_it_names_the_true_patient_and_study(case_of, tmp_path, kind):
    case = case_of("oblique")
    written, ds = exported(case, tmp_path / "out.dcm", kind, source=[case.files])
    first = pydicom.dcmread(next(case.files.iterdir()))
    assert str(written.naming) == "originals"
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "StudyInstanceUID", "StudyDate", "StudyTime",
                    "StudyID", "AccessionNumber"):  # fmt: skip
        assert ds[keyword].value == first[keyword].value, keyword
    assert str(ds.PatientName) == "Bäcker^Zoë"  # Latin-1 there, UTF-8 here
    assert ds.SpecificCharacterSet == "ISO_IR 192"
    assert "PatientIdentityRemoved" not in ds
    named = {str(e.value) for e in _uids(ds) if e.keyword in ("ReferencedSOPInstanceUID", "SeriesInstanceUID")}
    assert first.SeriesInstanceUID in named
    assert {str(pydicom.dcmread(path).SOPInstanceUID) for path in case.files.iterdir()} <= named


def _uids(ds):
    return [element for element in ds.iterall() if element.VR == "UI"]


@pytest.mark.parametrize("kind", KINDS)
def test_without_them_it_names_pseudonyms_and_says_so(case_of, tmp_path, kind):
    """P1, P2: nothing of the patient can come from a store."""
    case = case_of("oblique")
    written, ds = exported(case, tmp_path / "out.dcm", kind)
    assert str(written.naming) == "pseudonyms"
    assert (ds.PatientID, ds.PatientIdentityRemoved) == (case.series.patient, "YES")
    assert ds.DeidentificationMethod == "ctpipe: keyed pseudonyms"
    assert pseudonym_of_uid(ds.StudyInstanceUID) == case.series.study
    assert faults(tmp_path / "out.dcm") == []
    true = {str(e.value) for path in case.files.iterdir() for e in _uids(pydicom.dcmread(path))}
    assert not {str(e.value) for e in _uids(ds)} & {u for u in true if u.startswith("2.25")}
    data = (tmp_path / "out.dcm").read_bytes()
    for text in ("Bäcker", "Zoë", "19700102", "20260102", "A7"):
        assert text.encode() not in data


@pytest.mark.parametrize("kind", ["seg", "rtstruct"])
def test_what_names_pseudonyms_comes_back_to_its_own_volume(case_of, tmp_path, kind):
    case = case_of("oblique")
    exported(case, tmp_path / "out.dcm", kind)
    ctpipe.ingest([case.files], tmp_path / "back", labels=[tmp_path / "out.dcm"],
                  classes="liver=1,livertumor=2,ours=3:something of ours")  # fmt: skip
    (series,) = open_store(tmp_path / "back").values()
    assert np.array_equal(series.labels["truth"].read_planes(0, len(case.labels)), case.labels)


def test_a_uid_stands_for_its_pseudonym_and_no_other_uid_does():
    names = Pseudonyms(b"k" * 32)
    for n in (0, 1, (1 << 62) - 1, 1 << 62, (1 << 64) - 1, 0x7F3A9C1234567890):
        pseudonym = f"u-{n:016x}"
        assert pseudonym_of_uid(uid_of_pseudonym(pseudonym)) == pseudonym
        assert len(uid_of_pseudonym(pseudonym)) <= 64
        assert names.uid(uid_of_pseudonym(pseudonym)) == pseudonym
    for other in ("1.2.3", "2.25.1", uid("x"), uid_of_pseudonym("u-" + "0" * 16) + "1", "2.25." + "9" * 39):
        assert pseudonym_of_uid(other) is None
        assert names.uid(other).startswith("u-")


def test_a_store_that_kept_its_uids_names_the_instances_and_a_pseudonym(tmp_path):
    case = made(tmp_path, ingest={"keep_uids": True})
    written, ds = exported(case, tmp_path / "seg.dcm")
    assert str(written.naming) == "kept UIDs"
    files = [pydicom.dcmread(path) for path in case.files.iterdir()]
    assert {str(file.SOPInstanceUID) for file in files} <= {str(e.value) for e in _uids(ds)}
    assert ds.StudyInstanceUID == files[0].StudyInstanceUID
    assert ds.PatientID == case.series.patient
    written, ds = exported(case, tmp_path / "seg.dcm", source=[case.files])
    assert (str(written.naming), ds.PatientID) == ("originals", "P1")


def test_originals_are_found_in_an_archive_among_other_series_and_without_the_key(case_of, tmp_path, monkeypatch):
    case = case_of("oblique")
    archive = tmp_path / "source.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for path in case.files.iterdir():
            out.write(path, f"deep/{path.name}")
        for number, data in enumerate(ct_series(hu_block(SHAPE, seed=8), series="other")):
            out.writestr(f"other{number}", data)
    for key in (None, tmp_path / "no key"):
        if key:
            monkeypatch.setenv("CTPIPE_KEY", str(key))
        written, ds = exported(case, tmp_path / "seg.dcm", source=[archive])
        assert (str(written.naming), ds.PatientID) == ("originals", "P1")


def test_originals_that_are_not_the_ingested_ones_are_refused(case_of, tmp_path):
    case = case_of("axial")
    missing = shutil.copytree(case.files, tmp_path / "missing")
    next(missing.iterdir()).unlink()
    edit = setter(5, PixelData=b"\1\0" * (SHAPE[1] * SHAPE[2]))
    changed = write_files(tmp_path / "changed", ct_series(hu_block(SHAPE), edit=edit))
    most = len(case.labels) - 1
    for source, count in ((missing, most), (changed, most), (changed / "000", 1)):
        with pytest.raises(InputError, match=f"holds {count} of the volume's {len(case.labels)} planes"):
            exported(case, tmp_path / "seg.dcm", source=[source])
    assert not (tmp_path / "seg.dcm").exists()


def test_two_series_of_the_same_pixels_are_told_apart_by_the_key_only(tmp_path, monkeypatch):
    case = made(tmp_path)
    write_files(case.files, ct_series(hu_block(SHAPE), series="copy"), [f"copy{n:03d}" for n in range(SHAPE[0])])
    written, ds = exported(case, tmp_path / "seg.dcm", source=[case.files])
    assert str(written.naming) == "originals"
    assert uid("P1", "s1") in {str(e.value) for e in _uids(ds)}
    assert uid("P1", "copy") not in {str(e.value) for e in _uids(ds)}
    monkeypatch.setenv("CTPIPE_KEY", str(tmp_path / "no key"))
    with pytest.raises(InputError, match="2 series of the source have the pixels"):
        exported(case, tmp_path / "seg.dcm", source=[case.files])


def test_a_multi_frame_source_is_referred_to_by_frame(tmp_path):
    import highdicom

    files = [pydicom.dcmread(path) for path in
             write_files(tmp_path / "single", ct_series(hu_block(SHAPE), edit=_complete)).iterdir()]  # fmt: skip
    files.sort(key=lambda ds: int(ds.InstanceNumber))
    enhanced = highdicom.legacy.LegacyConvertedEnhancedCTImage(
        files, uid("enhanced"), 5, uid("enhanced", 1), 1, transfer_syntax_uid=pydicom.uid.ExplicitVRLittleEndian)
    (tmp_path / "ct").mkdir()
    enhanced.save_as(tmp_path / "ct" / "1")
    case = stored(tmp_path, tmp_path / "ct")
    for kind in ("seg", "rtstruct"):
        written, _ = exported(case, tmp_path / f"{kind}.dcm", kind, source=[case.files])
        assert str(written.naming) == "originals"
        assert faults(tmp_path / f"{kind}.dcm") == []
    seg, rs = pydicom.dcmread(tmp_path / "seg.dcm"), pydicom.dcmread(tmp_path / "rtstruct.dcm")
    places = {n: [float(v) for v in group.PlanePositionSequence[0].ImagePositionPatient]
              for n, group in enumerate(enhanced.PerFrameFunctionalGroupsSequence, start=1)}  # fmt: skip
    for group in seg.PerFrameFunctionalGroupsSequence:
        (image,) = group.DerivationImageSequence[0].SourceImageSequence
        assert image.ReferencedSOPClassUID == enhanced.SOPClassUID
        assert image.ReferencedSOPInstanceUID == enhanced.SOPInstanceUID
        here = [float(v) for v in group.PlanePositionSequence[0].ImagePositionPatient]
        assert np.allclose(places[int(image.ReferencedFrameNumber)], here)
    for contour in rs.ROIContourSequence[0].ContourSequence:
        frame = int(contour.ContourImageSequence[0].ReferencedFrameNumber)
        assert float(contour.ContourData[2]) == pytest.approx(places[frame][2], abs=1e-3)
    assert len(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 1


def _complete(z, ds):
    """What highdicom asks of a single-frame image before it makes a multi-frame one of it."""
    for keyword in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber",
                    "ReferringPhysicianName", "Manufacturer", "PositionReferenceIndicator", "Laterality"):  # fmt: skip
        setattr(ds, keyword, "")
    ds.SeriesNumber, ds.AcquisitionNumber = 3, 1


def test_a_volume_that_never_was_dicom_has_nothing_to_refer_to(case_of, tmp_path):
    import nibabel

    image = nibabel.Nifti1Image(hu_block(SHAPE).transpose(2, 1, 0), np.diag([0.7, 0.8, 2.5, 1.0]))
    nibabel.save(image, tmp_path / "ct.nii")
    ctpipe.ingest([tmp_path / "ct.nii"], tmp_path / "S")
    add_labels(tmp_path / "S", blobs())
    (series,) = open_store(tmp_path / "S").values()
    for source in (None, [case_of("axial").files]):
        with pytest.raises(InputError, match="came from no DICOM series"):
            export(tmp_path / "S", series.id, RUN, "seg", tmp_path / "seg.dcm", source=source)
    export(tmp_path / "S", series.id, RUN, "nifti", tmp_path / "l.nii")


@pytest.mark.parametrize(
    ("kind", "options"),
    [("nifti", {"source": ["x"]}), ("csv", {"codes": "x"}), ("seg", {"smooth_mm": 1.0}), ("stl", {"form": "labelmap"}),
     ("seg", {"form": "fractional"}), ("stl", {"smooth_mm": -1.0}), ("obj", {})],
)  # fmt: skip
def test_an_option_that_means_nothing_is_refused(case_of, tmp_path, kind, options):
    case = case_of("axial")
    with pytest.raises(UsageError):
        export(case.store, case.series.id, RUN, kind, tmp_path / "x.nii", **options)
