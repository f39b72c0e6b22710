"""Labels go into a real PACS and come out as the same voxels: pull, ingest, export, send, by lines and by a flow."""

from __future__ import annotations

import io
import json
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from builders import ct_series, hu_block, setter
from prefect.logging import disable_run_logger
from segmenters_made import segmenter

import flows.export
import flows.infer
import flows.ingest
from ctpipe.cli import main
from ctpipe.dicom import send
from ctpipe.errors import InputError, UsageError
from ctpipe.store import LabelsMeta, open_store
from ctpipe.words import LabelKind

pytestmark = pytest.mark.server
SHAPE = (8, 12, 16)
RUN = "4be1" * 8


@pytest.fixture
def study(orthanc: Any) -> str:
    """UID of a study that lies in the PACS."""
    files = ct_series(hu_block(SHAPE), edit=setter(StudyDate="20260102", PatientBirthDate="19700102"))
    orthanc.put(files)
    return str(pydicom.dcmread(io.BytesIO(files[0])).StudyInstanceUID)


def labelled(store: Path) -> tuple[str, np.ndarray]:
    """(id of the store's volume, labels RUN that it now has)."""
    opened = open_store(store, mode="a")
    (series,) = opened.values()
    z, y, x = np.indices(SHAPE)
    labels = (((z - 4) / 3) ** 2 + ((y - 6) / 4) ** 2 + ((x - 8) / 6) ** 2 <= 1).astype(np.uint8)
    labels[4, 6, 7:10] = 2
    meta = LabelsMeta(RUN, LabelKind.PREDICTION, series.grid, {1: "liver", 2: "livertumor"})
    writer = opened.labels_writer(series.id, meta)
    with opened.lease(writer.target) as lease:
        writer.prepare()
        writer.commit([writer.write_slab(slab, labels[slab.start : slab.stop]) for slab in writer.slabs], lease)
    return series.id, labels


def out_of(orthanc: Any, study: str, modality: str) -> list[pydicom.Dataset]:
    """Instances of a modality that the PACS now has in the study, as it stores them."""
    found = []
    for instance in orthanc.call("/instances"):
        tags = orthanc.call(f"/instances/{instance}/simplified-tags")
        if tags["Modality"] == modality and tags["StudyInstanceUID"] == study:
            with urllib.request.urlopen(f"http://127.0.0.1:{orthanc.http}/instances/{instance}/file") as answer:
                found.append(pydicom.dcmread(io.BytesIO(answer.read())))
    return found


def test_the_documented_lines_bring_a_segmentation_into_its_study(orthanc, study, tmp_path, capsys):
    """Pull, ingest, label, export, push: one line each; the SEG is in the patient's own study, voxels as they were."""
    store, source = tmp_path / "S", f"dicomweb+{orthanc.web}/studies/{study}"
    assert main(["ingest", source, "--store", str(store)]) == 0
    series, labels = labelled(store)
    for kind, to in (("seg", orthanc.pacs), ("rtstruct", f"dicomweb+{orthanc.web}"), ("sr", orthanc.pacs)):
        out = tmp_path / kind / f"{kind}.dcm"
        line = ["export", str(store), series[:8], "--labels", "4be1", "--to", kind, "--out", str(out)]
        assert main([*line, "--source", source]) == 0
        assert main(["send", str(out.parent), "--to", to]) == 0
        assert "nothing was sent" in capsys.readouterr().out
        assert out_of(orthanc, study, {"seg": "SEG", "rtstruct": "RTSTRUCT", "sr": "SR"}[kind]) == []
        assert main(["send", str(out.parent), "--to", to, "--yes", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert {file["state"] for file in told["files"]} == {"stored"}
        assert not any(file["pseudonyms"] for file in told["files"])
        for path in out.parent.iterdir():
            sent = pydicom.dcmread(path)
            (back,) = [ds for ds in out_of(orthanc, study, sent.Modality) if ds.SOPInstanceUID == sent.SOPInstanceUID]
            assert back == sent
            assert (back.PatientID, back.PatientBirthDate) == ("P1", "19700102")
        if kind == "seg":
            back = tmp_path / "back"
            assert main(["ingest", source, "--store", str(back), "--labels", f"{source}?Modality=SEG",
                         "--classes", "liver=1,livertumor=2"]) == 0  # fmt: skip
            (volume,) = open_store(back).values()
            assert np.array_equal(volume.labels["truth"].read_planes(0, SHAPE[0]), labels)
            capsys.readouterr()
    assert len(orthanc.call("/studies")) == len(orthanc.call("/patients")) == 1


def corrected(store: Path, run: str) -> tuple[str, np.ndarray]:
    """(name, labels) of a review of a run: a person paints in the review room and accepts the case."""
    from napari.components import ViewerModel

    from ctpipe.review.room import Room

    room = Room(ViewerModel(), store, "reader-1")
    room.worklist.open()
    room.session.edit(run)
    room.session.layer.brush_size = 3
    room.session.layer.paint((4, 6, 8), 1)
    room.session.layer.paint((4, 2, 3), 2)
    labels = np.array(room.session.layer.data)
    told = room.worklist.accept()
    room.close()
    (series,) = open_store(store).values()
    assert told.startswith(f"{series.id[:8]} corrected")
    return series.labels["review"].name, labels


@pytest.mark.parametrize("by", ["lines", "flows"])
def test_a_study_is_pulled_predicted_reviewed_and_its_review_pushed(orthanc, study, tmp_path, plain_flows, by):
    """The whole way: the SEG that comes back out of the PACS has the voxels that the reviewer left."""
    model, store, out = tmp_path / "M", tmp_path / "S", tmp_path / "out"
    segmenter((4, 8, 8), step=1.0, windows="nnunet").save(model)
    source = f"dicomweb+{orthanc.web}/studies/{study}"
    if by == "lines":
        assert main(["ingest", source, "--store", str(store)]) == 0
        assert main(["infer", str(store), "--model", str(model)]) == 0
    else:
        assert flows.ingest.ingest.fn(source, str(store)).name == "Completed"
        assert flows.infer.infer.fn(str(store), str(model)).name == "Completed"
    (series,) = open_store(store).values()
    ((run, group),) = series.labels.items()
    review, labels = corrected(store, run)
    assert np.array_equal(series.labels[run].read_planes(0, SHAPE[0]), group.read_planes(0, SHAPE[0]))
    assert not np.array_equal(labels, group.read_planes(0, SHAPE[0]))
    if by == "lines":
        line = ["export", str(store), series.id, "--labels", review, "--to", "seg", "--out", str(out / "seg.dcm")]
        assert main([*line, "--source", source]) == 0
        assert main(["send", str(out), "--to", orthanc.pacs, "--yes"]) == 0
    else:
        state = flows.export.export.fn(str(store), review, str(out), source=source, send_to=orthanc.pacs,
                                       really_send=True)  # fmt: skip
        assert (state.name, state.message) == ("Completed", "1 exported, 1 file sent")
    assert len(out_of(orthanc, study, "SEG")) == 1
    back = tmp_path / "back"
    assert main(["ingest", source, "--store", str(back), "--labels", f"{source}?Modality=SEG",
                 "--classes", "liver=1,lesion=2"]) == 0  # fmt: skip
    (volume,) = open_store(back).values()
    assert np.array_equal(volume.labels["truth"].read_planes(0, SHAPE[0]), labels)


@pytest.fixture
def plain_flows(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Flows run as functions: without a server there are no artifacts and no tasks."""
    import flows.stage

    for module in (flows.ingest, flows.infer, flows.export, flows.stage):
        for face in [name for name in vars(module) if name.endswith("_artifact")]:
            monkeypatch.setattr(module, face, lambda *_, **__: "id")
        for stage in [name for name in vars(module) if name.endswith("_stage") and hasattr(vars(module)[name], "fn")]:
            monkeypatch.setattr(module, stage, getattr(module, stage).fn)
    with disable_run_logger():
        yield


@pytest.mark.parametrize("way", ["C-STORE", "STOW"])
def test_a_label_map_is_stored_or_its_refusal_is_told(orthanc, study, tmp_path, way):
    """Orthanc 1.10 is older than the class (2024): it takes what it does not know by STOW, not by C-STORE."""
    store, source = tmp_path / "S", f"dicomweb+{orthanc.web}/studies/{study}"
    assert main(["ingest", source, "--store", str(store)]) == 0
    series, _ = labelled(store)
    line = ["export", str(store), series, "--labels", "4be1", "--to", "seg", "--form", "labelmap"]
    assert main([*line, "--out", str(tmp_path / "seg.dcm"), "--source", source]) == 0
    report = send([tmp_path / "seg.dcm"], orthanc.pacs if way == "C-STORE" else f"dicomweb+{orthanc.web}", yes=True)
    assert len(out_of(orthanc, study, "SEG")) == 1 - len(report.refused)
    if report.refused:
        assert "does not take it: Label Map Segmentation Storage" in report.refused[1]
        assert way == "C-STORE"


@pytest.mark.parametrize("way", ["C-STORE", "STOW"])
def test_what_a_server_refuses_is_told_and_the_rest_is_stored(orthanc, study, tmp_path, way):
    """An instance that lacks what Orthanc indexes by is refused by it."""
    good = ct_series(hu_block((1, 12, 16)), series="good")[0]
    (tmp_path / "1").write_bytes(good)
    ds = pydicom.dcmread(io.BytesIO(good))
    ds.SOPInstanceUID = "1.2.3"
    del ds.PatientID, ds.StudyInstanceUID, ds.SeriesInstanceUID
    ds.save_as(tmp_path / "0")
    report = send([tmp_path], orthanc.pacs if way == "C-STORE" else f"dicomweb+{orthanc.web}", yes=True)
    assert list(report.refused) == [1]
    assert report.exit_code == 3
    assert "refuses it (status" in report.refused[1]
    assert len(orthanc.call("/instances")) == SHAPE[0] + 1


def test_files_that_are_no_dicom_stop_the_call_before_anything_is_sent(orthanc, tmp_path):
    (tmp_path / "0").write_bytes(ct_series(hu_block((1, 12, 16)))[0])
    (tmp_path / "1").write_text("no DICOM")
    with pytest.raises(UsageError, match="file 2 in name order is no whole DICOM object: nothing was sent"):
        send([tmp_path], orthanc.pacs, yes=True)
    assert orthanc.call("/instances") == []


def test_the_flow_exports_and_sends(orthanc, study, tmp_path, monkeypatch):
    import flows.stage

    store, source = tmp_path / "S", f"dicomweb+{orthanc.web}/studies/{study}"
    assert main(["ingest", source, "--store", str(store)]) == 0
    series, labels = labelled(store)
    shown: list[Any] = []
    for module in (flows.export, flows.stage):
        for face in [name for name in vars(module) if name.endswith("_artifact")]:
            monkeypatch.setattr(module, face, lambda *args, **given: shown.append((args, given)) or "id")
    monkeypatch.setattr(flows.export, "export_stage", flows.export.export_stage.fn)
    monkeypatch.setattr(flows.export, "send_stage", flows.export.send_stage.fn)
    given = {"store": str(store), "labels": RUN[:8], "out": str(tmp_path / "out"), "source": source}
    with disable_run_logger():
        dry = flows.export.export.fn(**given, send_to=orthanc.pacs)
        assert out_of(orthanc, study, "SEG") == []
        state = flows.export.export.fn(**given, send_to=orthanc.pacs, really_send=True)
    assert (dry.name, dry.message) == ("Completed", "1 exported, 1 file to send: a dry run")
    assert (state.name, state.message) == ("Completed", "1 exported, 1 file sent")
    (seg,) = out_of(orthanc, study, "SEG")
    assert seg.PatientID == "P1"
    assert series in str(shown)
    assert study not in str(shown)  # P3
    assert np.count_nonzero(seg.pixel_array) == np.count_nonzero(labels)


def test_a_server_that_is_not_there_is_told(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "0").write_bytes(ct_series(hu_block((1, 12, 16)))[0])
    with pytest.raises(InputError, match="cannot be reached"):
        send([tmp_path], f"dicomweb+http://127.0.0.1:{port}/dicom-web", yes=True)
