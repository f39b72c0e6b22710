"""`ctpipe export` and `ctpipe send`: what they print, how they refuse, and the lines of their guide."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "export"))

from builders import setter
from exports_made import CLASSES, RUN, Made, made

from ctpipe.cli import main
from ctpipe.cli.export import KINDS

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "export.md"


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Made:
    edit = setter(PatientName="Secret^Name", PatientBirthDate="19700102", StudyID="S-11")
    return made(tmp_path_factory.mktemp("line"), edit=edit)


def test_the_kinds_are_those_of_the_library():
    from ctpipe import export

    assert export.KINDS == KINDS


def test_export_tells_what_was_written_and_whom_it_names(case, tmp_path, capsys):
    line = ["export", str(case.store), case.series.id[:6], "--labels", "4be1", "--to", "seg"]
    assert main([*line, "--out", str(tmp_path / "a.dcm")]) == 0
    out = capsys.readouterr().out
    assert "references: it names pseudonyms: no PACS will find the patient or the CT" in out
    assert "note: empty: spleen" in out
    assert main([*line, "--out", str(tmp_path / "b.dcm"), "--source", str(case.files), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["references"] == "originals"
    assert told["files"] == [str(tmp_path / "b.dcm")]
    assert set(told["voxels"]) == set(CLASSES.values())
    assert told["empty"] == ["spleen"]
    assert (told["series"], told["labels"], told["kind"]) == (case.series.id, RUN, "prediction")


def test_nothing_of_the_patient_is_printed_or_stored(case, tmp_path, capsys):
    """P1, P3: the true patient stands in the object and nowhere else."""
    before = {path: path.stat().st_mtime_ns for path in case.store.rglob("*")}
    for kind in ("seg", "rtstruct", "sr"):
        out = tmp_path / f"{kind}.dcm"
        line = ["export", str(case.store), case.series.id, "--labels", RUN, "--to", kind, "--out", str(out)]
        assert main([*line, "--source", str(case.files), "--json"]) == 0
        assert str(pydicom.dcmread(out).PatientName) == "Secret^Name"
    assert main(["send", str(tmp_path), "--to", "pacs://A@127.0.0.1:1"]) == 0
    told = "".join(capsys.readouterr())
    uids = {str(e.value) for e in pydicom.dcmread(tmp_path / "seg.dcm").iterall() if e.VR == "UI"}
    assert not [word for word in ("Secret", "19700102", "S-11", *uids) if word in told]
    assert {path: path.stat().st_mtime_ns for path in case.store.rglob("*")} == before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"series": "ffff"}, "there is no volume"),
        ({"--labels": "ffff"}, "has no labels"),
        ({"--to": "nifti", "--out": "x.dcm"}, "no name of a NIfTI file"),
        ({"--to": "nifti", "--out": "x.nii", "--source": "."}, "refers to no patient"),
        ({"--smooth": "2"}, "no surface"),
        ({"--source": "/nowhere"}, "does not exist"),
    ],
)
def test_a_wrong_line_is_one_line_and_code_2(case, tmp_path, capsys, change, told):
    given = {"series": case.series.id, "--labels": RUN, "--to": "seg", "--out": "x.dcm"} | change
    given["--out"] = str(tmp_path / given["--out"])
    series = given.pop("series")
    assert main(["export", str(case.store), series, *(word for pair in given.items() for word in pair)]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert "cure:" in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://pacs.example.org", "no URL of a PACS or a DICOMweb server"),
        ("pacs://A@h:1?StudyInstanceUID=1.2", "names a study, a series or a query"),
        ("dicomweb+https://h/dicom-web/studies/1.2", "names a study, a series or a query"),
        ("dicomweb+https://me:word@h/dicom-web", "user name or password"),
        ("dicomweb+http://192.0.2.1/dicom-web", "without encryption"),
    ],
)
def test_a_wrong_place_is_refused_before_anything_is_read(tmp_path, capsys, url, told):
    """X8, X13."""
    assert main(["send", str(tmp_path), "--to", url, "--yes"]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert "word" not in error.replace("password", "")


def test_the_lines_of_the_guide_run(case, tmp_path, monkeypatch):
    """Every ```bash block of docs/guides/export.md, in order, in one folder: ours in this process, the rest in bash."""
    blocks = re.findall(r"```bash\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert len(blocks) > 4
    monkeypatch.chdir(tmp_path)
    for name, value in {"S": case.store, "SERIES": case.series.id, "RUN": RUN, "CT": case.files}.items():
        monkeypatch.setenv(name, str(value))
    for block in blocks:
        ours = [line for line in block.splitlines() if line.startswith("ctpipe ")]
        others = "\n".join(line for line in block.splitlines() if line not in ours)
        subprocess.run(["bash", "-euc", others], check=True, timeout=60)
        for line in ours:
            assert main(shlex.split(os.path.expandvars(line), comments=True)[1:]) == 0, line
    made_files = {path.name for path in tmp_path.iterdir()}
    assert {"seg.dcm", "rs.dcm", "labels.nii.gz", "bodies.glb", "lesions.csv", "case.html"} <= made_files
    assert {"report.dcm", "report-seg.dcm"} <= made_files
