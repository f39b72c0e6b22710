"""A series goes into a real PACS and comes out as the same volume: DICOMweb, C-GET, C-MOVE, C-STORE, a line, a flow."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from builders import ct_series, hu_block, setter, write_files
from pydicom import uid as uids

import ctpipe
from ctpipe.dicom.fetched import fetch
from ctpipe.dicom.listener import listen

pytestmark = pytest.mark.server


def series(*, shape: tuple[int, int, int] = (8, 12, 16), **settings: Any) -> list[bytes]:
    return ct_series(hu_block(shape), edit=setter(StudyDate="20260102"), **settings)


def uids_of(files: list[bytes]) -> tuple[str, str]:
    ds = pydicom.dcmread(io.BytesIO(files[0]), stop_before_pixels=True)
    return ds.StudyInstanceUID, ds.SeriesInstanceUID


def stow(url: str, files: list[bytes], *, preamble: bool = True) -> None:
    """STOW-RS by a client that is not ours."""
    dicomweb_client = pytest.importorskip("dicomweb_client")
    sets = [pydicom.dcmread(io.BytesIO(data)) for data in files]
    for ds in sets:
        ds.preamble = ds.preamble if preamble else None
    dicomweb_client.DICOMwebClient(url=url).store_instances(sets)


def ingested(paths: Any, store: Path) -> tuple[str, np.ndarray]:
    """(series id, HU) of the one volume that comes of `paths`."""
    report = ctpipe.ingest(paths, store)
    assert [volume.verdict.kind.value for volume in report.volumes] == ["accept"], report.as_json()
    (volume,) = ctpipe.open_store(store).values()
    return volume.id, volume.hu.values


def urls_of(orthanc: Any, files: list[bytes]) -> dict[str, str]:
    study, one = uids_of(files)
    return {
        "series": f"dicomweb+{orthanc.web}/studies/{study}/series/{one}",
        "study": f"dicomweb+{orthanc.web}/studies/{study}/",
        "date": f"dicomweb+{orthanc.web}?StudyDate=20260101-20260131&Modality=CT",
        "get": f"{orthanc.pacs}?StudyInstanceUID={study}&SeriesInstanceUID={one}",
        "get by date": f"{orthanc.pacs}?StudyDate=20260102",
        "move": f"{orthanc.pacs}?StudyInstanceUID={study}&retrieve=move&port={orthanc.ours}",
    }


@pytest.mark.parametrize("preamble", [True, False], ids=["with preamble", "without preamble"])
def test_what_comes_out_of_a_pacs_is_the_volume_that_went_in(orthanc, tmp_path, preamble):
    files = series()
    straight = ingested([write_files(tmp_path / "files", files)], tmp_path / "straight")
    stow(orthanc.web, files, preamble=preamble)
    kinds = ("series", "study", "date", "get", "get by date", "move") if preamble else ("series", "get")
    for number, kind in enumerate(kinds):
        url = urls_of(orthanc, files)[kind]
        with fetch([url]) as paths:
            folder = Path(paths[0])
            assert folder.stat().st_mode & 0o077 == 0
            name, hu = ingested(paths, tmp_path / str(number))
        assert name == straight[0], kind
        assert np.array_equal(hu, straight[1]), kind
        assert not folder.exists(), kind


@pytest.mark.parametrize("syntax", [uids.JPEGLSLossless, uids.ImplicitVRLittleEndian, uids.JPEG2000Lossless])
def test_pixels_come_as_they_are_stored(orthanc, syntax):
    """Nothing is decoded or encoded on the way: the bytes of the pixel data are those that went in."""
    files = series(syntax=syntax, shape=(3, 64, 64))
    orthanc.put(files)

    def pixels(data: bytes) -> tuple[str, bytes]:
        ds = pydicom.dcmread(io.BytesIO(data), force=True)
        return ds.file_meta.TransferSyntaxUID, ds.PixelData

    urls = urls_of(orthanc, files)
    for kind in ("series", "get", "move"):
        with fetch([urls[kind]]) as paths:
            came = [pixels(path.read_bytes()) for path in sorted(Path(paths[0]).rglob("*.dcm"))]
        assert sorted(came) == sorted(map(pixels, files)), kind


def test_only_the_ct_of_a_study_is_fetched_unless_the_query_says_otherwise(orthanc):
    ct = series()
    orthanc.put(ct + series(series="s2") + ct_series(hu_block(), series="mr", edit=setter(Modality="MR")))
    study, _ = uids_of(ct)
    for url, count in ((f"dicomweb+{orthanc.web}/studies/{study}", 2), (f"{orthanc.pacs}?StudyInstanceUID={study}", 2),
                       (f"dicomweb+{orthanc.web}/studies/{study}?Modality=MR", 1)):  # fmt: skip
        with fetch([url]) as paths:
            assert len(list(Path(paths[0]).iterdir())) == count


def test_a_url_stands_among_paths_and_others_pass_unchanged(orthanc, tmp_path):
    files = series()
    orthanc.put(files)
    ticks: list[tuple[str, int, int]] = []
    given = [tmp_path, urls_of(orthanc, files)["series"], "s3://bucket/prefix"]
    with fetch(given, lambda *tick: ticks.append(tick)) as paths:
        assert (paths[0], paths[2]) == (tmp_path, "s3://bucket/prefix")
        assert len(list(Path(paths[1]).rglob("*.dcm"))) == 8
    assert ticks == [("fetch", n, 8) for n in range(1, 9)]


def test_the_documented_line_takes_a_series_from_the_pacs(orthanc, tmp_path, capsys):
    from ctpipe.cli import main

    files = series()
    name, hu = ingested([write_files(tmp_path / "files", files)], tmp_path / "straight")
    stow(orthanc.web, files)
    for kind in ("series", "get"):
        store = tmp_path / kind
        assert main(["ingest", urls_of(orthanc, files)[kind], "--store", str(store), "--json"]) == 0
        assert [volume["id"] for volume in json.loads(capsys.readouterr().out)["volumes"]] == [name]
        assert np.array_equal(ctpipe.open_store(store)[name].hu.values, hu)
    assert main(["check", urls_of(orthanc, files)["study"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["summary"]["accept"] == 1


def test_the_flow_takes_a_series_from_the_pacs(orthanc, tmp_path, monkeypatch):
    from prefect.logging import disable_run_logger

    import flows.ingest
    import flows.stage

    files = series()
    name, hu = ingested([write_files(tmp_path / "files", files)], tmp_path / "straight")
    stow(orthanc.web, files)
    shown: list[Any] = []
    for module in (flows.ingest, flows.stage):
        for face in [name for name in vars(module) if name.endswith("_artifact")]:
            monkeypatch.setattr(module, face, lambda *args, **given: shown.append((args, given)) or "id")
    monkeypatch.setattr(flows.ingest, "ingest_stage", flows.ingest.ingest_stage.fn)
    with disable_run_logger():
        state = flows.ingest.ingest.fn(urls_of(orthanc, files)["study"], str(tmp_path / "store"))
    assert (state.name, state.message) == ("Completed", "1 accept")
    assert np.array_equal(ctpipe.open_store(tmp_path / "store")[name].hu.values, hu)
    assert uids_of(files)[0] not in str(shown)


def test_what_the_pacs_sends_to_our_listener_is_the_volume_that_went_in(orthanc, tmp_path):
    files = series(syntax=uids.JPEGLSLossless)
    name, hu = ingested([write_files(tmp_path / "files", files)], tmp_path / "straight")
    orthanc.put(files)
    errors: list[BaseException] = []
    started = threading.Event()

    def run() -> None:
        try:
            listen(tmp_path / "spool", lambda folders: ctpipe.ingest(folders, tmp_path / "store") and None,
                   port=orthanc.ours, calling=["ORTHANC"], quiet_seconds=0.3, once=True,
                   note=lambda _line: started.set())  # fmt: skip
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(20)
    orthanc.call("/modalities/ctpipe/store", json.dumps(orthanc.call("/series")).encode())
    thread.join(60)
    assert not thread.is_alive()
    assert not errors
    assert np.array_equal(ctpipe.open_store(tmp_path / "store")[name].hu.values, hu)
    assert not [path for path in (tmp_path / "spool").rglob("*") if path.is_file() and path.name != "in-use"]


def test_the_line_that_listens_takes_what_the_pacs_sends(orthanc, tmp_path, capsys):
    from ctpipe.cli import main

    files = series()
    name, _ = ingested([write_files(tmp_path / "files", files)], tmp_path / "straight")
    orthanc.put(files)

    def ask() -> None:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", orthanc.ours)) == 0:
                    break
            time.sleep(0.1)
        orthanc.call("/modalities/ctpipe/store", json.dumps(orthanc.call("/series")).encode())

    sender = threading.Thread(target=ask)
    sender.start()
    spool, store = tmp_path / "spool", tmp_path / "store"
    line = ["listen", "--store", str(store), "--port", str(orthanc.ours), "--spool", str(spool), "--quiet-for", "0.3"]
    assert main([*line, "--from", "ORTHANC", "--once"]) == 0
    sender.join()
    assert "1 accept" in capsys.readouterr().out
    assert list(ctpipe.open_store(store)) == [name]
