"""`ctpipe doctor`: each thing that is missing is a line with its cure, and looking changes nothing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from ctpipe import doctor


@pytest.fixture(autouse=True)
def plain_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No cluster, server or display; a key file that does not exist."""
    for name in ("CTPIPE_CLUSTER", "CTPIPE_STORE", "PREFECT_API_URL", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CTPIPE_KEY", str(tmp_path / "no-key"))


def line(what: str, **given: object) -> doctor.Line:
    (found,) = [entry for entry in doctor.examine(**given) if entry.what == what]  # type: ignore[arg-type]
    return found


def test_here_everything_that_is_needed_is_there(tmp_path):
    lines = doctor.examine(tmp_path)
    assert [entry for entry in lines if entry.needed and not entry.ok] == []
    looked_at = {entry.what for entry in lines}
    assert {"python", "torch", "prefect", "cores", "memory", "disk of the store", "pseudonym key"} <= looked_at


def test_each_missing_line_has_a_cure_and_the_others_none(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda _package: None)
    monkeypatch.setattr(doctor, "_loads", lambda _module: False)
    lines = doctor.examine()
    missing = [entry for entry in lines if not entry.ok]
    assert len(missing) > 30
    assert all(entry.cure for entry in missing)
    assert not [entry for entry in lines if entry.ok and entry.cure]
    assert line("torch").cure == "pip install 'torch>=2.6'"
    assert line("napari").cure == "pip install 'ctpipe[review]'"
    assert not line("napari").needed
    assert line("decoder for JPEG lossless").cure == "pip install python-gdcm"


def test_a_version_that_does_not_fit_is_missing(monkeypatch):
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: "0.165.0" if name == "fastapi" else real(name))
    assert line("fastapi").found == "0.165.0, wanted <0.151"


def test_dask_and_distributed_must_be_of_one_release(monkeypatch):
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: "2020.1.0" if name == "distributed" else real(name))
    assert not line("Dask versions").ok


def test_a_key_that_others_can_read_is_missing_and_no_key_is_made(monkeypatch, tmp_path):
    """X13: key files are private; looking makes none."""
    assert line("pseudonym key").ok
    assert not (tmp_path / "no-key").exists()
    key = tmp_path / "key"
    key.write_text("00" * 32)
    key.chmod(0o644)
    monkeypatch.setenv("CTPIPE_KEY", str(key))
    assert (line("pseudonym key").ok, line("pseudonym key").cure) == (False, f"chmod 600 {key}")
    key.chmod(0o600)
    assert line("pseudonym key").ok
    assert "00" * 32 not in json.dumps([entry.as_json() for entry in doctor.examine()])


def test_a_scheduler_that_does_not_answer_is_missing(monkeypatch):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        monkeypatch.setenv("CTPIPE_CLUSTER", f"tcp://127.0.0.1:{listening.getsockname()[1]}")
        assert not line("Dask cluster").ok
        listening.listen()
        assert line("Dask cluster").ok


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:99999", "nonsense:port", "tcp://"])
def test_an_address_that_is_none_is_missing_too(monkeypatch, address):
    monkeypatch.setenv("CTPIPE_CLUSTER", address)
    monkeypatch.setattr(doctor, "_TIMEOUT_S", 0.2)
    assert not line("Dask cluster").ok


@pytest.mark.parametrize(("code", "ok"), [(200, True), (401, True), (500, False)])
def test_a_prefect_server_is_asked_for_its_health(monkeypatch, code, ok):
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code if self.path == "/api/health" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{server.server_port}/api")
        assert line("Prefect server").ok is ok
        server.shutdown()


def test_passwords_in_an_address_are_not_shown(monkeypatch):
    """X13: the line goes to a terminal, a ticket, a log."""
    monkeypatch.setenv("PREFECT_API_URL", "http://user:secret@127.0.0.1:9/api")
    assert not line("Prefect server").ok
    assert "secret" not in line("Prefect server").found
    monkeypatch.setenv("PREFECT_API_URL", "file:///etc/passwd")
    assert not line("Prefect server").ok


def test_the_disk_is_that_of_the_store_or_of_the_folder_it_would_be_made_in(monkeypatch, tmp_path):
    store = tmp_path / "not" / "yet"
    assert str(store) in line("disk of the store", store=store).found
    monkeypatch.setattr(doctor, "WANTED_DISK_GIB", 10**9)
    assert not line("disk of the store", store=store).ok


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_missing(tmp_path):
    tmp_path.chmod(0o500)
    try:
        assert not line("store can be written", store=tmp_path / "store").ok
    finally:
        tmp_path.chmod(0o700)


def test_too_little_memory_is_missing(monkeypatch):
    monkeypatch.setattr(doctor, "WANTED_MEMORY_GIB", 10**9)
    assert not line("memory").ok


def test_looking_loads_neither_torch_nor_prefect_nor_napari():
    code = (
        "import sys; from ctpipe import doctor; doctor.examine(); "
        "sys.exit(', '.join({'torch', 'prefect', 'napari', 'distributed'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
