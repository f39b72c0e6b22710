"""The C-STORE listener: what was answered with success is handed on once, whole, whatever happens in between."""

from __future__ import annotations

import io
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pydicom
import pytest
from builders import ct_series, hu_block, setter
from pydicom import uid as uids

from ctpipe.dicom.association import STORAGE, VERIFICATION
from ctpipe.dicom.inbox import Limits
from ctpipe.dicom.listener import listen
from ctpipe.errors import BudgetError, InputError, StoreBusyError, UsageError

pynetdicom = pytest.importorskip("pynetdicom")
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # pynetdicom leaves sockets to the collector

FILES = ct_series(hu_block((4, 6, 8)))
OTHER = ct_series(hu_block((4, 6, 8)), series="other")


class Stop(BaseException):
    """Ends a listener from within its own thread, as ctrl-C does."""


class Listening:
    """`listen` in a thread; `took` collects the bytes of each folder that was handed on."""

    def __init__(self, spool: Path, on_series: Callable[[list[Path]], None] | None = None, **settings: Any) -> None:
        self.spool, self.took, self.notes = spool, [], []
        self.on_series = on_series
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.settings = {"port": self.port, "quiet_seconds": 0.2, "once": True, "note": self.note} | settings
        self.error: BaseException | None = None
        self.started = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def note(self, line: str) -> None:
        self.notes.append(line)
        self.started.set()

    def take(self, folders: list[Path]) -> None:
        (folder,) = folders
        self.took.append(sorted(path.read_bytes() for path in folder.iterdir()))
        if self.on_series:
            self.on_series(folders)

    def run(self) -> None:
        try:
            listen(self.spool, self.take, **self.settings)
        except BaseException as error:
            self.error = error
        self.started.set()

    def __enter__(self) -> Listening:
        self.thread.start()
        assert self.started.wait(20)
        return self

    def __exit__(self, *_exc: object) -> None:
        self.thread.join(30)
        assert not self.thread.is_alive()


def send(
    port: int, files: Sequence[bytes], title: str = "SCANNER", called: str = "CTPIPE", hold: float = 0
) -> list[int]:
    """Status of each C-STORE, by an SCU that is not ours; [] where we reject it."""
    entity = pynetdicom.AE(title)
    sets = [pydicom.dcmread(io.BytesIO(data)) for data in files]
    for kind, syntax in {(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID) for ds in sets}:
        entity.add_requested_context(kind, syntax)
    assoc = entity.associate("127.0.0.1", port, ae_title=called)
    if not assoc.is_established:
        return []
    codes = [int(assoc.send_c_store(ds).get("Status", -1)) for ds in sets]
    time.sleep(hold)
    assoc.release()
    return codes


def echo(port: int) -> int:
    """How an administrator asks whether we are there."""
    entity = pynetdicom.AE("SCANNER")
    entity.add_requested_context(VERIFICATION)
    assoc = entity.associate("127.0.0.1", port, ae_title="CTPIPE")
    code = int(assoc.send_c_echo().Status)
    assoc.release()
    return code


def pixels(files: Sequence[bytes]) -> list[bytes]:
    return sorted(pydicom.dcmread(io.BytesIO(data)).PixelData for data in files)


def left(spool: Path) -> list[Path]:
    return [path.relative_to(spool) for path in spool.rglob("*") if path.is_file() and path.name != "in-use"]


def test_a_series_is_handed_on_whole_and_nothing_of_it_stays(tmp_path):
    with Listening(tmp_path / "spool") as listening:
        assert send(listening.port, FILES) == [0] * 4
    assert listening.error is None
    assert [pixels(files) for files in listening.took] == [pixels(FILES)]
    assert left(listening.spool) == []


def test_the_same_instance_again_is_there_once_and_another_of_its_uid_is_there_to_be_judged(tmp_path):
    """Bytes are kept as they came, so that they can be told apart."""
    files = ct_series(hu_block((4, 6, 8)), syntax=uids.JPEGLSLossless)
    twin = ct_series(hu_block((4, 6, 8), seed=9))
    with Listening(tmp_path / "spool") as listening:
        assert send(listening.port, [*files, *files, twin[0]]) == [0] * 9
    (took,) = listening.took
    assert pixels(took) == pixels([*files, twin[0]])


def test_series_are_told_apart_and_names_are_digests(tmp_path):
    """X11: no identifier becomes a part of a path."""
    names: list[str] = []
    with Listening(tmp_path / "spool", lambda folders: names.extend(map(str, folders[0].rglob("*")))) as listening:
        send(listening.port, [*FILES, *OTHER])
    assert sorted(map(pixels, listening.took)) == sorted([pixels(FILES), pixels(OTHER)])
    uid = str(pydicom.dcmread(io.BytesIO(FILES[0])).SeriesInstanceUID)
    assert not any(uid in name or "Builder" in name for name in names)
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "spool").rglob("*"))
    assert (tmp_path / "spool").stat().st_mode & 0o077 == 0


def test_a_series_waits_for_a_sender_that_pauses(tmp_path):
    """A scanner that reconstructs for longer than the quiet time, but keeps its association open."""
    with Listening(tmp_path / "spool", quiet_seconds=0.6) as listening:
        send(listening.port, FILES[:2], hold=1.0)
        assert listening.took == []
        send(listening.port, FILES[2:])
    assert [pixels(files) for files in listening.took] == [pixels(FILES)]


def test_what_comes_later_is_told(tmp_path):
    """It is judged by itself: the user must know that the quiet time is too short."""
    done = threading.Event()

    def late(_folders: list[Path]) -> None:
        if not done.is_set():
            done.set()
            send(listening.port, FILES[2:])

    with Listening(tmp_path / "spool", late) as listening:
        send(listening.port, FILES[:2])
    assert [len(files) for files in listening.took] == [2, 2]
    assert any("raise --quiet-for" in line for line in listening.notes)


def test_only_named_senders_may_send(tmp_path):
    with Listening(tmp_path / "spool", calling=["SCANNER"]) as listening:
        assert echo(listening.port) == 0
        assert send(listening.port, FILES, title="OTHER") == []
        assert send(listening.port, FILES, called="ELSE") == []
        assert send(listening.port, FILES) == [0] * 4
    assert len(listening.took) == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_another_host_than_loopback_demands_names(tmp_path, host):
    """X1: open to this machine only unless told otherwise."""
    with pytest.raises(UsageError, match="--from"):
        listen(tmp_path / "spool", lambda folders: None, host=host)


def test_a_spool_is_private_and_has_one_listener(tmp_path):
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(UsageError, match="read by others"):
        listen(tmp_path / "open", lambda folders: None)
    with Listening(tmp_path / "spool") as listening:
        with pytest.raises(StoreBusyError, match="another listener"):
            listen(tmp_path / "spool", lambda folders: None)
        with pytest.raises(UsageError, match="cannot be listened on"):
            listen(tmp_path / "second", lambda folders: None, port=listening.port)
        send(listening.port, FILES)


def test_an_instance_that_cannot_be_told_to_a_series_is_refused(tmp_path):
    """The sender is told; nothing of it is kept."""
    bad = ct_series(hu_block((4, 6, 8)), edit=setter(SeriesInstanceUID=None))
    with Listening(tmp_path / "spool") as listening:
        assert send(listening.port, [bad[0], *FILES]) == [0xC000, 0, 0, 0, 0]
    assert [len(files) for files in listening.took] == [4]


def test_a_full_disk_is_told_to_the_sender(tmp_path, monkeypatch):
    """What is refused stays with the sender; the listener goes on."""
    full: list[bool] = []
    usage = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(path)._replace(free=0) if full else usage(path))
    with Listening(tmp_path / "spool") as listening:
        full.append(True)
        assert send(listening.port, FILES[:2]) == [0xA700] * 2
        full.clear()
        assert send(listening.port, FILES) == [0] * 4
    assert [pixels(files) for files in listening.took] == [pixels(FILES)]


# ---------------------------------------------------------------------------------------------- when taking fails
def test_a_series_that_cannot_be_taken_is_kept_apart_and_the_others_go_on(tmp_path):
    """One bad series never stops the others; its error's text is shown only where it is ours (P3)."""
    errors = iter([ValueError("DOE^JANE"), InputError("1 volume(s) rejected", "see above"), Stop()])

    def fail(_folders: list[Path]) -> None:
        raise next(errors)

    with Listening(tmp_path / "spool", fail, once=False) as listening:
        for files in (FILES, OTHER, ct_series(hu_block((4, 6, 8)), series="third")):
            send(listening.port, files)
            time.sleep(0.6)
    assert isinstance(listening.error, Stop)
    assert [path.parts[0] for path in left(listening.spool)].count("failed") == 8
    told = "\n".join(listening.notes)
    assert "ValueError" in told
    assert "DOE" not in told
    assert "1 volume(s) rejected" in told


@pytest.mark.parametrize("error", [StoreBusyError("busy", "wait"), BudgetError("full", "free some")])
def test_what_passes_by_itself_is_tried_again(tmp_path, error):
    tries: list[int] = []

    def once_in_vain(_folders: list[Path]) -> None:
        tries.append(1)
        if len(tries) < 2:
            raise error
        raise Stop

    with Listening(tmp_path / "spool", once_in_vain, once=False) as listening:
        send(listening.port, FILES)
    assert [pixels(files) for files in listening.took] == [pixels(FILES)] * 2


def test_with_once_an_error_is_the_end(tmp_path):
    def fail(_folders: list[Path]) -> None:
        raise InputError("p", "c")

    with Listening(tmp_path / "spool", fail) as listening:
        send(listening.port, FILES)
    assert isinstance(listening.error, InputError)


# ---------------------------------------------------------------------------------------------- when killed
SCRIPT = """
import sys
from pathlib import Path
from ctpipe.dicom.listener import listen
def take(folders):
    print("taking", flush=True)
    sys.stdin.readline()
listen(Path(sys.argv[1]), take, port=int(sys.argv[2]), quiet_seconds=float(sys.argv[3]),
       note=lambda line: print(line, flush=True))
"""


@pytest.fixture
def killable() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(*args: object) -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, *map(str, args)], stdout=subprocess.PIPE,
                                   stdin=subprocess.PIPE, text=True)  # fmt: skip
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("listening")
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("quiet", [60, 0.1], ids=["while it comes in", "while it is taken"])
def test_a_killed_listener_goes_on_where_it_stopped(tmp_path, killable, quiet):
    """What was answered with success is handed on after a SIGKILL; what was half received is dropped."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = killable(tmp_path / "spool", port, quiet)
    assert send(port, FILES) == [0] * 4
    if quiet < 1:
        assert process.stdout.readline() == "taking\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    (tmp_path / "spool" / "incoming" / "half").write_bytes(b"x")
    (tmp_path / "spool" / "series" / ("0" * 32)).mkdir(mode=0o700)
    with Listening(tmp_path / "spool") as listening:
        pass
    assert [pixels(files) for files in listening.took] == [pixels(FILES)]
    assert left(listening.spool) == []


# ---------------------------------------------------------------------------------------------- hostile senders
def pdu(kind: int, body: bytes) -> bytes:
    return bytes([kind, 0]) + len(body).to_bytes(4, "big") + body


def associated(port: int) -> socket.socket:
    """A raw connection with an association for CT, by hand, so that what follows can be anything."""

    def item(kind: int, body: bytes) -> bytes:
        return bytes([kind, 0]) + len(body).to_bytes(2, "big") + body

    context = item(0x20, b"\1\0\0\0" + item(0x30, uids.CTImageStorage.encode())
                   + item(0x40, uids.ImplicitVRLittleEndian.encode()))  # fmt: skip
    user = item(0x50, item(0x51, (16384).to_bytes(4, "big")) + item(0x52, b"1.2.3"))
    body = b"\0\1\0\0" + b"CTPIPE".ljust(16) + b"SCANNER".ljust(16) + b"\0" * 32
    connection = socket.create_connection(("127.0.0.1", port), 10)
    connection.sendall(pdu(1, body + item(0x10, b"1.2.840.10008.3.1.1.1") + context + user))
    assert connection.recv(65536)[0] == 2
    return connection


def closed(connection: socket.socket) -> bool:
    connection.settimeout(15)
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


def test_a_sender_without_end_is_cut_off(tmp_path, monkeypatch):
    """X5, X8: an instance that never ends, a PDU of 4 GiB, many instances at once, silence in the midst of a PDU."""
    small = Limits(instance_bytes=4 << 20, silence_seconds=1.0)
    monkeypatch.setattr(Limits, "from_environment", classmethod(lambda cls: small))
    fragment = pdu(4, (65538).to_bytes(4, "big") + b"\1\0" + b"\0" * 65536)  # data set, not the last fragment
    with Listening(tmp_path / "spool") as listening:
        with associated(listening.port) as connection, pytest.raises(OSError):
            connection.sendall(fragment * 1000)
        with associated(listening.port) as connection:
            connection.sendall(b"\4\0\xff\xff\xff\xff")
            assert closed(connection)
        with associated(listening.port) as connection:
            connection.sendall(b"\4\0\0\0\1\0" + b"x")
            assert closed(connection)
        with socket.create_connection(("127.0.0.1", listening.port), 10) as connection:
            connection.sendall(b"\1\0\0")
            assert closed(connection)
        assert send(listening.port, FILES) == [0] * 4
    assert [pixels(files) for files in listening.took] == [pixels(FILES)]


def test_every_kind_that_is_received_fits_one_association():
    """PS3.8 9.3.2.2: at most 128 contexts; C-GET asks for one a syntax."""
    assert 1 + sum(map(len, STORAGE.values())) <= 128
