"""A real PACS on loopback: Orthanc with its DICOMweb plugin, on free ports, with nothing in it at the start."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ORTHANC = shutil.which("Orthanc") or ("/usr/sbin/Orthanc" if Path("/usr/sbin/Orthanc").exists() else None)
PLUGINS = Path("/usr/share/orthanc/plugins")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Orthanc:
    """Where it listens, and the port on which it expects AE title CTPIPE."""

    http: int
    dicom: int
    ours: int

    @property
    def web(self) -> str:
        return f"http://127.0.0.1:{self.http}/dicom-web"

    @property
    def pacs(self) -> str:
        return f"pacs://ORTHANC@127.0.0.1:{self.dicom}"

    def call(self, path: str, data: bytes | None = None, method: str | None = None) -> object:
        """One request of Orthanc's own REST interface."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", data, method=method)
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.loads(response.read() or b"null")

    def put(self, files: Sequence[bytes]) -> None:
        for data in files:
            self.call("/instances", data)

    def empty(self) -> None:
        for patient in self.call("/patients"):  # type: ignore[attr-defined]
            self.call(f"/patients/{patient}", method="DELETE")


@pytest.fixture(scope="session")
def _running_orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    if ORTHANC is None or not any(PLUGINS.glob("libOrthancDicomWeb*")):
        pytest.skip("no Orthanc with DICOMweb: sh deploy/install-servers.sh")
    folder = tmp_path_factory.mktemp("orthanc")
    ports = Orthanc(free_port(), free_port(), free_port())
    settings = {
        "Plugins": [str(PLUGINS)], "HttpPort": ports.http, "DicomPort": ports.dicom, "DicomAet": "ORTHANC",
        "RemoteAccessAllowed": False, "AuthenticationEnabled": False,
        "DicomModalities": {"ctpipe": ["CTPIPE", "127.0.0.1", ports.ours]},
        "DicomAlwaysAllowFind": True, "DicomAlwaysAllowMove": True, "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowStore": True, "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"),
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([ORTHANC, str(folder / "orthanc.json")], stdout=log, stderr=log)
    try:
        _wait(ports, process, folder / "log")
        yield ports
    finally:
        process.terminate()
        process.wait(20)


def _wait(ports: Orthanc, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        try:
            ports.call("/system")
            return
        except (urllib.error.URLError, OSError):
            if process.poll() is not None:
                break
            time.sleep(0.1)
    pytest.fail(f"Orthanc does not start: {log.read_text()[-2000:]}")


@pytest.fixture
def orthanc(_running_orthanc: Orthanc) -> Orthanc:
    """The PACS, empty."""
    _running_orthanc.empty()
    return _running_orthanc
