"""C-FIND, C-GET and C-MOVE against a PACS that behaves and one that does not."""

from __future__ import annotations

import io
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
import pytest
from builders import ct_series, hu_block, setter
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from ctpipe.dicom.association import FIND, GET, MOVE, STORAGE
from ctpipe.dicom.fetched import fetch
from ctpipe.dicom.inbox import Limits
from ctpipe.errors import BudgetError, CtpipeError, InputError, UsageError

pynetdicom = pytest.importorskip("pynetdicom")
evt = pynetdicom.evt

# pynetdicom leaves the socket of a connection that was refused to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

STUDY, SERIES = "1.2.3", "1.2.3.4"
Responses = Iterator[Any]


@dataclass
class Pacs:
    """One series in a PACS of pynetdicom. What it does wrong is set by a test before it is asked."""

    files: list[bytes]
    port: int = 0
    ours: int = 0
    queries: list[Dataset] = field(default_factory=list)
    count: int | None = None
    find: Callable[[Any], Responses] | None = None
    get: Callable[[Any], Responses] | None = None

    @property
    def url(self) -> str:
        return f"pacs://ARCHIVE@127.0.0.1:{self.port}?StudyInstanceUID={STUDY}"

    def sets(self) -> list[Dataset]:
        return [pydicom.dcmread(io.BytesIO(data)) for data in self.files]

    def on_find(self, event: Any) -> Responses:
        self.queries.append(event.identifier)
        if self.find:
            yield from self.find(event)
            return
        ds = Dataset()
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.Modality = STUDY, SERIES, "CT"
        ds.NumberOfSeriesRelatedInstances = self.count
        yield 0xFF00, ds

    def on_get(self, event: Any) -> Responses:
        self.queries.append(event.identifier)
        if self.get:
            yield from self.get(event)
            return
        yield len(self.files)
        for ds in self.sets():
            yield 0xFF00, ds

    def on_move(self, event: Any) -> Responses:
        self.queries.append(event.identifier)
        if event.move_destination != "CTPIPE":
            yield None, None
            return
        yield "127.0.0.1", self.ours
        yield len(self.files)
        for ds in self.sets():
            yield 0xFF00, ds


@pytest.fixture
def pacs() -> Iterator[Pacs]:
    files = ct_series(hu_block((4, 6, 8)), edit=setter(StudyInstanceUID=STUDY, SeriesInstanceUID=SERIES))
    fake = Pacs(files)
    entity = pynetdicom.AE("ARCHIVE")
    entity.require_called_aet = True
    for service in (FIND, GET, MOVE):
        entity.add_supported_context(service)
    entity.add_supported_context(CTImageStorage, list(STORAGE[CTImageStorage]), scu_role=True, scp_role=True)
    entity.add_requested_context(CTImageStorage)
    handlers = [(evt.EVT_C_FIND, fake.on_find), (evt.EVT_C_GET, fake.on_get), (evt.EVT_C_MOVE, fake.on_move)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    fake.port = server.server_address[1]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        fake.ours = probe.getsockname()[1]
    yield fake
    server.shutdown()


def fetched(url: str) -> list[Dataset]:
    with fetch([url]) as paths:
        return [pydicom.dcmread(path) for path in sorted(Path(paths[0]).rglob("*")) if path.is_file()]


def refused(url: str, kind: type[CtpipeError], match: str) -> str:
    with pytest.raises(kind, match=match) as caught:
        fetched(url)
    assert "\n" not in str(caught.value)
    assert STUDY not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("retrieve", ["get", "move"])
def test_a_series_comes_whole(pacs, retrieve):
    url = pacs.url + (f"&retrieve=move&port={pacs.ours}" if retrieve == "move" else "")
    assert [ds.PixelData for ds in fetched(url)] == [ds.PixelData for ds in pacs.sets()]
    assert [query.QueryRetrieveLevel for query in pacs.queries] == ["SERIES", "SERIES"]
    assert pacs.queries[0].Modality == "CT"
    assert pacs.queries[1].SeriesInstanceUID == SERIES


def test_without_a_study_its_uid_is_asked_for_first(pacs):
    """PS3.4 C.4.1.3.1.1: the level above must be named by its unique key."""
    fetched(pacs.url.replace(f"StudyInstanceUID={STUDY}", "PatientID=P1&StudyDate=20260101-20260131&Modality=CT"))
    assert [query.QueryRetrieveLevel for query in pacs.queries] == ["STUDY", "SERIES", "SERIES"]
    assert (pacs.queries[0].PatientID, pacs.queries[0].StudyDate) == ("P1", "20260101-20260131")
    assert "PatientID" not in pacs.queries[1]


def test_a_count_that_does_not_fit_is_refused(pacs):
    pacs.count = 5
    refused(pacs.url, InputError, "4 of 5")


def one_fails(event: Any) -> Responses:
    yield 2
    yield 0xFF00, pydicom.dcmread(io.BytesIO(ct_series(hu_block((4, 6, 8)), edit=setter(
        StudyInstanceUID=STUDY, SeriesInstanceUID=SERIES))[0]))  # fmt: skip
    yield 0xFF00, Dataset()  # nothing that could be sent


def other_series(event: Any) -> Responses:
    yield 1
    yield 0xFF00, pydicom.dcmread(io.BytesIO(ct_series(hu_block((4, 6, 8)))[0]))


def status(code: int) -> Callable[[Any], Responses]:
    def answer(event: Any) -> Responses:
        yield 1
        yield code, None

    return answer


def aborts(event: Any) -> Responses:
    event.assoc.abort()
    yield 1


@pytest.mark.parametrize(
    ("get", "match"),
    [(one_fails, "1 of|sent"), (other_series, "not asked for"), (status(0xA702), "status A702"),
     (status(0xC000), "status C000"), (aborts, "broke off")],
)  # fmt: skip
def test_a_series_that_does_not_come_whole_is_refused(pacs, get, match):
    pacs.get = get
    refused(pacs.url, InputError, match)


def bad_uid(event: Any) -> Responses:
    ds = Dataset()
    ds.StudyInstanceUID, ds.Modality = STUDY, "CT"
    ds.add_new("SeriesInstanceUID", "LO", "../../x")
    yield 0xFF00, ds


@pytest.mark.parametrize(
    ("find", "match"),
    [(bad_uid, "no UID"), (lambda event: iter([(0xA700, None)]), "status A700"), (lambda event: iter(()), "no series")],
)
def test_a_query_that_has_no_good_answer_is_a_line(pacs, find, match):
    pacs.find = find
    refused(pacs.url, InputError, match)


def test_matches_have_a_limit(pacs, monkeypatch):
    from ctpipe.dicom import pacs as module

    monkeypatch.setattr(module, "MAX_MATCHES", 3)

    def many(event: Any) -> Responses:
        for number in range(9):
            ds = Dataset()
            ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.Modality = STUDY, f"1.{number}", "CT"
            yield 0xFF00, ds

    pacs.find = many
    refused(pacs.url, InputError, "too many matches")


def test_the_budget_ends_a_fetch(pacs, monkeypatch):
    monkeypatch.setenv("CTPIPE_FETCH_GIB", "1e-6")
    refused(pacs.url, BudgetError, r"more than .* GiB")


def test_who_is_not_known_there_is_told(pacs):
    refused(pacs.url.replace("ARCHIVE", "OTHER"), InputError, "rejects us as AE title CTPIPE")
    refused(pacs.url + f"&retrieve=move&port={pacs.ours}&aet=NOBODY", InputError, "does not know where AE title NOBODY")


def test_a_port_that_is_taken_is_told(pacs):
    refused(pacs.url + f"&retrieve=move&port={pacs.port}", UsageError, "cannot be listened on")


def test_an_unreachable_pacs_is_a_line(pacs):
    refused(pacs.url.replace(str(pacs.port), str(pacs.ours)), InputError, "cannot be reached")


def test_without_pynetdicom_the_extra_is_named(pacs, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pynetdicom", None)
    refused(pacs.url, UsageError, r"ctpipe\[pacs\]")


# ---------------------------------------------------------------------------------------------- hostile peers
@dataclass
class RawPeer:
    """Accepts one connection after another and does with it what a test says."""

    act: Callable[[socket.socket], None]
    port: int = 0

    def __enter__(self) -> RawPeer:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def _run(self) -> None:
        self._listening.settimeout(0.1)
        while not self._stop.is_set():
            try:
                connection, _ = self._listening.accept()
            except TimeoutError:
                continue
            with connection:
                connection.settimeout(10)
                with suppress(OSError):
                    self.act(connection)

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        self._thread.join()
        self._listening.close()


def silent(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


def huge_pdu(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"\x02\x00\xff\xff\xff\xff")  # an A-ASSOCIATE-AC of 4 GiB
    for _ in range(10_000):
        connection.sendall(b"\0" * 65536)


def dripping_pdu(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"\x02\x00\x00\x00\x10\x00")
    for _ in range(4096):
        connection.sendall(b"\0")
        time.sleep(0.05)


def a_web_server(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 400")


@pytest.mark.parametrize("act", [silent, huge_pdu, dripping_pdu, a_web_server])
def test_a_peer_that_is_no_pacs_is_left(monkeypatch, act):
    """X8: limits on size and time hold for DICOM as well."""
    monkeypatch.setenv("CTPIPE_NETWORK_WAIT", "0.4")
    with RawPeer(act) as peer:
        refused(f"pacs://A@127.0.0.1:{peer.port}?StudyInstanceUID={STUDY}", InputError, "cannot be reached")


def test_what_is_held_in_memory_has_a_limit(pacs, monkeypatch):
    """An instance longer than the limit ends the association; what came of it is dropped."""
    monkeypatch.setattr(Limits, "from_environment", classmethod(lambda cls: cls(instance_bytes=4000)))
    pacs.files[:] = ct_series(hu_block((4, 60, 80)), edit=setter(StudyInstanceUID=STUDY, SeriesInstanceUID=SERIES))
    refused(pacs.url, InputError, "broke off|cannot be reached|ended without")


def test_nothing_of_a_query_or_a_file_is_logged(pacs, caplog):
    """P3: pynetdicom's own log lines hold identifiers."""
    caplog.set_level(logging.DEBUG)
    pacs.files[:] = ct_series(hu_block((4, 6, 8)), edit=setter(
        StudyInstanceUID=STUDY, SeriesInstanceUID=SERIES, PatientName="DOE-4711"))  # fmt: skip
    fetched(pacs.url.replace(f"StudyInstanceUID={STUDY}", "PatientName=DOE-4711"))
    pacs.get = aborts
    refused(pacs.url, InputError, "broke off")
    logged = "\n".join(record.getMessage() for record in caplog.records)
    assert "DOE-4711" not in logged
    assert SERIES not in logged
    assert not [record for record in caplog.records if record.name.startswith("pynetdicom")]
