"""Measurements as CSV that no spreadsheet runs (X10), and as DICOM SR TID 1500 that dcmqi and highdicom read."""

from __future__ import annotations

import csv
import json

import highdicom
import numpy as np
import pydicom
import pytest
from exports_made import RUN, add_labels, dcmqi_on_grid, faults, made, run

from ctpipe.errors import InputError
from ctpipe.pipeline import export
from ctpipe.scoring import measured_with_planes


def measured_of(case):
    labels = case.series.labels[RUN]
    return measured_with_planes(labels.read_planes, case.series.read_planes, case.grid, labels.classes)[0]


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_component_has_a_row_with_its_figures(case_of, tmp_path):
    case = case_of("oblique")
    export(case.store, case.series.id, RUN, "csv", tmp_path / "m.csv")
    rows = rows_of(tmp_path / "m.csv")
    found = [one for one, _ in measured_of(case)]
    assert [(row["class"], int(row["component"])) for row in rows] == [(one.name, one.number) for one in found]
    assert sum(int(row["voxels"]) for row in rows) == (case.labels > 0).sum()
    voxels = case.series.hu.values
    for row, one in zip(rows, found, strict=True):
        assert float(row["volume_ml"]) == pytest.approx(one.volume_ml, abs=1e-6)
        assert float(row["long_axis_mm"]) == pytest.approx(one.axes.long_mm, abs=1e-4)
        assert float(row["short_axis_mm"]) == pytest.approx(one.axes.short_mm, abs=1e-4)
        assert (row["volume"], row["labels"]) == (case.series.id, RUN)
    tumour = [row for row in rows if row["class"] == "livertumor"]
    mean = sum(float(row["mean_hu"]) * int(row["voxels"]) for row in tumour) / sum(int(r["voxels"]) for r in tumour)
    assert mean == pytest.approx(voxels[case.labels == 2].mean(), abs=1e-2)


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("x","y")', "＝1+1"])
def test_no_cell_is_a_formula(tmp_path, name):
    """X10. A class may be named by anything that a user types."""
    case = made(tmp_path)
    add_labels(case.store, case.labels, {1: name, 2: "plain, with comma", 3: "c", 9: "d"}, name="f0f0" * 8)
    export(case.store, case.series.id, "f0f0", "csv", tmp_path / "m.csv")
    rows = rows_of(tmp_path / "m.csv")
    assert {row["class"] for row in rows} >= {f"'{name}", "plain, with comma"}
    for row in rows:
        for key, cell in row.items():
            if key in ("class", "volume", "labels"):
                assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "＝"))
            else:
                float(cell)  # numbers stay numbers, negative ones too
    assert any(float(row["mean_hu"]) < 0 for row in rows)


def test_no_component_is_a_table_without_rows(tmp_path):
    case = made(tmp_path)
    add_labels(case.store, case.labels * 0, name="e0e0" * 8)
    report = export(case.store, case.series.id, "e0e0", "csv", tmp_path / "m.csv")
    assert rows_of(tmp_path / "m.csv") == []
    assert len(report.exports[0].written.empty) == 4


@pytest.mark.parametrize("grid", ["oblique", "feet first", "tilt resampled"])
def test_a_report_refers_to_segments_that_are_the_components_it_measures(case_of, tmp_path, grid):
    case = case_of(grid)
    report = export(case.store, case.series.id, RUN, "sr", tmp_path / "m.dcm", source=[case.files])
    assert [path.name for path in report.files] == ["m-seg.dcm", "m.dcm"]
    for path in report.files:
        assert faults(path) == []
    sr, seg = pydicom.dcmread(tmp_path / "m.dcm"), pydicom.dcmread(tmp_path / "m-seg.dcm")
    run("tid1500reader", "--inputDICOM", tmp_path / "m.dcm", "--outputMetadata", tmp_path / "m.json")
    groups = json.loads((tmp_path / "m.json").read_text())["Measurements"]
    masks, _ = dcmqi_on_grid(tmp_path / "m-seg.dcm", tmp_path / "dcmqi", case.grid)
    assert len(groups) == len(measured_of(case)) == len(masks)
    for group, (one, number) in zip(groups, measured_of(case), strict=True):
        assert (group["ReferencedSegment"], group["segmentationSOPInstanceUID"]) == (number, seg.SOPInstanceUID)
        assert group["TrackingIdentifier"] == f"{one.name} {one.number}"
        mask = masks[group["TrackingIdentifier"]]
        assert mask.sum() == one.voxels
        assert set(case.labels[mask]) == {one.label}
        values = {(item["quantity"]["CodeValue"], item.get("derivationModifier", {}).get("CodeValue")):
                  (float(item["value"]), item["units"]["CodeValue"]) for item in group["measurementItems"]}  # fmt: skip
        assert values[("118565006", None)] == (pytest.approx(one.volume_ml, abs=1e-6), "ml")
        assert values[("103339001", None)] == (pytest.approx(one.axes.long_mm, abs=1e-6), "mm")
        assert values[("103340004", None)] == (pytest.approx(one.axes.short_mm, abs=1e-6), "mm")
        assert values[("112031", "373098007")] == (pytest.approx(one.hu[0], abs=1e-6), "[hnsf'U]")
    assert [s.TrackingUID for s in seg.SegmentSequence] == [group["TrackingUniqueIdentifier"] for group in groups]
    assert (sr.CompletionFlag, sr.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    parsed = highdicom.sr.srread(tmp_path / "m.dcm")
    assert len(parsed.content.get_volumetric_roi_measurement_groups()) == len(groups)


def test_a_report_of_specks_is_refused_with_its_cure(tmp_path):
    case = made(tmp_path)
    labels = np.zeros_like(case.labels)
    labels[::2, ::2, ::2] = 1
    add_labels(case.store, labels, name="5bec" * 8)
    with pytest.raises(InputError, match=r"\d+ components, a report holds 500; cure: .*min-mm3"):
        export(case.store, case.series.id, "5bec", "sr", tmp_path / "m.dcm")
