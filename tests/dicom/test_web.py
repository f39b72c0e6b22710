"""DICOMweb against servers that behave and servers that do not (RELIABILITY X8, X13)."""

from __future__ import annotations

import logging
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from builders import ct_series, hu_block, setter
from web_server import SERIES, STUDY, WebServer, send, send_json, send_multipart, serving

from ctpipe.dicom import inbox
from ctpipe.dicom.fetched import fetch
from ctpipe.dicom.inbox import Limits
from ctpipe.errors import BudgetError, CtpipeError, InputError, UsageError

WADO = f"/studies/{STUDY}/series/{SERIES}"
QIDO = f"/studies/{STUDY}/series"


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    return ct_series(hu_block((4, 6, 8)), edit=setter(StudyInstanceUID=STUDY, SeriesInstanceUID=SERIES))


@pytest.fixture
def server(files):
    with serving(WebServer(files)) as running:
        yield running


@pytest.fixture
def forbidden():
    """Another server, which must never be asked for anything."""
    with serving(WebServer()) as running:
        yield running


@pytest.fixture
def connected(monkeypatch) -> list[Any]:
    """Every address that a socket of this process was connected to."""
    places: list[Any] = []
    connect = socket.socket.connect

    def record(self: socket.socket, address: Any) -> None:
        places.append(address)
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", record)
    return places


def fetched(url: str) -> list[bytes]:
    with fetch([url]) as paths:
        return [path.read_bytes() for path in sorted(Path(paths[0]).rglob("*")) if path.is_file()]


def refused(url: str, kind: type[CtpipeError], match: str) -> str:
    with pytest.raises(kind, match=match) as caught:
        fetched(url)
    line = str(caught.value)
    assert "\n" not in line
    assert STUDY not in line
    return line


def test_a_series_comes_as_it_is_stored(server, files):
    assert fetched(server.url) == files
    (_, _), (path, headers) = server.requests[0], server.requests[-1]
    assert path == "/dw" + WADO
    assert headers["Accept"] == 'multipart/related; type="application/dicom"; transfer-syntax=*'
    assert "Authorization" not in headers


# ---------------------------------------------------------------------------------------------- X8: where requests go
def test_no_redirect_is_followed(server, forbidden, connected):
    """X8: to another port, to a metadata address, to a file, or to the same server."""
    for target in (f"http://127.0.0.1:{forbidden.port}/dw{WADO}", "http://169.254.169.254/latest/meta-data/",
                   "file:///etc/passwd", f"http://127.0.0.1:{server.port}/dw{WADO}", "//10.0.0.1/x"):  # fmt: skip
        for path in (QIDO, WADO):
            for status in (301, 302, 303, 307, 308):
                server.answers = {path: lambda r, s=status, t=target: send(r, b"", "text/plain", s, Location=t)}
                line = refused(server.url, InputError, "sends us elsewhere")
                assert target not in line
    assert forbidden.requests == []
    assert set(connected) == {("127.0.0.1", server.port)}


def test_no_url_of_an_answer_is_opened(server, forbidden, connected, files):
    """X8: RetrieveURL, BulkDataURI, Content-Location, Link."""
    away = f"http://127.0.0.1:{forbidden.port}/bulk"
    found = server.match() | {
        "00081190": {"vr": "UR", "Value": [away]}, "7FE00010": {"vr": "OW", "BulkDataURI": away},
        "00081199": {"vr": "SQ", "Value": [{"00081190": {"vr": "UR", "Value": [away]}}]},
    }  # fmt: skip
    server.answers = {QIDO: lambda r: send_json(r, [found] if "offset=0" in r.path else [])}
    assert fetched(server.url) == files
    assert forbidden.requests == []
    assert set(connected) == {("127.0.0.1", server.port)}


def test_the_address_is_resolved_once_and_pinned(server, files, monkeypatch):
    """X8: a name that resolves to somewhere else a moment later (DNS rebinding) changes nothing."""
    resolve, asked = socket.getaddrinfo, []

    def rebinding(host: str, *args: Any, **kwargs: Any) -> Any:
        asked.append(host)
        return resolve("127.0.0.1" if asked.count("localhost") <= 1 else "127.0.0.9", *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    assert fetched(server.url.replace("127.0.0.1", "localhost")) == files
    assert asked.count("localhost") == 1


def test_proxies_of_the_environment_are_not_used(server, forbidden, files, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{forbidden.port}")
    assert fetched(server.url) == files
    assert forbidden.requests == []


def test_uids_of_an_answer_never_become_a_path(server, connected):
    """X8, X11."""
    for uid in ("../../../admin", "1.2/../../x", "1.2?x=y", "http://10.0.0.1/", "", "1" * 65):
        found = server.match() | {"0020000E": {"vr": "UI", "Value": [uid]}}
        server.answers = {QIDO: lambda r, f=found: send_json(r, [f] if "offset=0" in r.path else [])}
        refused(server.url, InputError, "no UID")
    assert all(path.startswith(f"/dw{QIDO}?") for path, _ in server.requests)
    assert set(connected) == {("127.0.0.1", server.port)}


# ---------------------------------------------------------------------------------------------- X8: size and time
def begin(request: Any, kind: str) -> None:
    request.send_response(200)
    request.send_header("Content-Type", kind)
    request.send_header("Connection", "close")
    request.end_headers()
    request.close_connection = True


def endless(piece: bytes, kind: str, pause: float = 0.0):
    def answer(request: Any) -> None:
        begin(request, kind)
        while True:
            request.wfile.write(piece)
            time.sleep(pause)

    return answer


MULTIPART = 'multipart/related; type="application/dicom"; boundary=x'


def test_an_endless_answer_to_a_query_ends(server):
    """X8."""
    server.answers = {QIDO: endless(b" " * 65536, "application/dicom+json")}
    refused(server.url, InputError, "without end")


def test_an_endless_instance_ends(server, monkeypatch):
    """X8: by the budget of the whole call, and by that of one instance; nothing of it stays."""
    head = b"--x\r\nContent-Type: application/dicom\r\n\r\n"

    def answer(request: Any) -> None:
        begin(request, MULTIPART)
        request.wfile.write(head)
        while True:
            request.wfile.write(b"\0" * 65536)

    server.answers = {WADO: answer}
    monkeypatch.setenv("CTPIPE_FETCH_GIB", "0.002")
    refused(server.url, BudgetError, "more than 0.002 GiB")
    monkeypatch.delenv("CTPIPE_FETCH_GIB")
    monkeypatch.setattr(Limits, "from_environment", classmethod(lambda cls: cls(instance_bytes=1 << 20)))
    refused(server.url, InputError, "too large")


def test_endless_parts_end(server, files, monkeypatch):
    """X8: more instances than the budget has bytes for."""
    part = b"--x\r\nContent-Type: application/dicom\r\n\r\n" + files[0] + b"\r\n"
    server.answers = {WADO: endless(part, MULTIPART)}
    monkeypatch.setenv("CTPIPE_FETCH_GIB", "0.0002")
    refused(server.url, BudgetError, "more than 0.0002 GiB")


def test_endless_headers_end(server):
    """X8."""

    def answer(request: Any) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            request.wfile.write(b"X-A: " + b"y" * 4096 + b"\r\n")

    server.answers = {QIDO: answer}
    refused(server.url, InputError, "broke")


def test_endless_interim_answers_end(server):
    """X8: 1xx answers before the real one are not counted by the HTTP library."""

    def answer(request: Any) -> None:
        while True:
            request.wfile.write(b"HTTP/1.1 102 Processing\r\n\r\n" * 1000)

    server.answers = {QIDO: answer}
    refused(server.url, InputError, "without end")


@pytest.mark.parametrize("path", [QIDO, WADO])
def test_a_server_that_falls_silent_is_left(server, monkeypatch, path):
    """X8."""
    done = threading.Event()
    server.answers = {path: lambda r: (begin(r, MULTIPART), done.wait(10))}
    monkeypatch.setenv("CTPIPE_NETWORK_WAIT", "0.3")
    refused(server.url, InputError, "stopped answering")
    done.set()


@pytest.mark.parametrize("where", ["headers", "body"])
def test_a_slow_drip_is_left(server, monkeypatch, where):
    """X8: a byte now and then would never be silent for long, and never come to an end."""

    def headers(request: Any) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nX-A: " + b"y" * 10_000:
            request.wfile.write(bytes([byte]))
            time.sleep(0.05)

    server.answers = {WADO: headers if where == "headers" else endless(b"-", MULTIPART, 0.05)}
    monkeypatch.setenv("CTPIPE_NETWORK_WAIT", "0.4")
    refused(server.url, InputError, "too slowly")


def test_pages_that_never_change_are_no_loop(server, files):
    """A server that ignores `offset` gives its one page again and again."""
    server.answers = {QIDO: lambda r: send_json(r, [server.match()])}
    assert fetched(server.url) == files
    assert len(server.requests) == 3


def test_a_full_disk_is_told_before_it_is_full(server, monkeypatch):
    """The free space that stays is the machine's own."""
    monkeypatch.setattr(Limits, "from_environment", classmethod(lambda cls: cls(free_bytes=1 << 60)))
    refused(server.url, BudgetError, "lacks")


# ---------------------------------------------------------------------------------------------- whole or not at all
@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (lambda r, f: send_multipart(r, f[:-1]), "3 of 4"),
        (lambda r, f: send_multipart(r, f, whole=False), "broke off"),
        (lambda r, f: send_multipart(r, f, 206), "part of a series"),
        (lambda r, f: send(r, b"<html>", "text/html"), "no DICOM"),
        (lambda r, f: send(r, b"", "text/plain", 500), "status 500"),
        (lambda r, f: send(r, b"", "text/plain", 401), "wants a login"),
        (lambda r, f: send(r, b"", MULTIPART, Content_Encoding="gzip"), "compressed"),
        (lambda r, f: (begin(r, MULTIPART), r.wfile.write(b"--x\r\n\r\n" + f[0][:50])), "broke off"),
        (lambda r, f: r.wfile.write(b"nonsense\r\n\r\n"), "broke"),
        (lambda r, f: send(r, b"x" * 9, MULTIPART, Content_Length="99", Connection="close"), "broke"),
    ],
)  # fmt: skip
def test_a_series_that_does_not_come_whole_is_refused(server, files, answer, match):
    server.answers = {WADO: lambda r: answer(r, files)}
    refused(server.url, InputError, match)


@pytest.mark.parametrize("body", [b"{}", b"[1]", b"nonsense", b"[" * 100_000, b'[{"0020000E": {"Value": 3}}]'], ids=str)
def test_an_answer_that_is_no_dicom_json_is_refused(server, body):
    server.answers = {QIDO: lambda r: send(r, body, "application/dicom+json")}
    refused(server.url, InputError, "no DICOM JSON|no UID")


def test_without_a_number_of_instances_the_instances_are_counted(server, files):
    server.count = None
    server.answers = {WADO + "/instances": lambda r: send_json(
        r, [{"00080018": {"Value": [f"1.{n}"]}} for n in range(5)] if "offset=0" in r.path else [])}  # fmt: skip
    refused(server.url, InputError, "4 of 5")


def test_an_instance_of_another_series_is_refused(server, files):
    """A mixed-up answer could be another patient's."""
    other = ct_series(hu_block((4, 6, 8)), series="other")
    server.answers = {WADO: lambda r: send_multipart(r, [*files[:3], other[3]])}
    refused(server.url, InputError, "not asked for")


def test_an_unreachable_server_is_a_line():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    refused(f"dicomweb+http://127.0.0.1:{port}/dw{WADO}", InputError, "cannot be reached")


def test_nothing_found_is_a_line(server):
    server.answers = {QIDO: lambda r: send_json(r, [])}
    refused(server.url, InputError, "no series")


def test_with_a_list_for_faults_the_other_series_go_on(server, files):
    """What came of a series that is not whole is gone: it must not look like a shorter one."""
    other = server.match() | {"0020000E": {"vr": "UI", "Value": ["1.2.3.9"]}}
    server.answers = {QIDO: lambda r: send_json(r, [other, server.match()] if "offset=0" in r.path else [])}
    half = ct_series(hu_block((4, 6, 8)), edit=setter(StudyInstanceUID=STUDY, SeriesInstanceUID="1.2.3.9"))[:2]
    server.answers[f"{QIDO}/1.2.3.9"] = lambda r: send_multipart(r, half)
    faults: list[Any] = []
    with fetch([f"dicomweb+http://127.0.0.1:{server.port}/dw/studies/{STUDY}"], faults=faults) as paths:
        assert [path.read_bytes() for path in sorted(Path(paths[0]).rglob("*.dcm"))] == files
    assert [(fault.kind.value, fault.reason) for fault in faults] == [("reject", "not-fetched")]


# ---------------------------------------------------------------------------------------------- X13: secrets
TOKEN = "t0ken-PLANTED-4711"


@pytest.fixture
def token_file(tmp_path, monkeypatch) -> Path:
    path = tmp_path / "netrc"
    path.write_text(f"machine 127.0.0.1 password {TOKEN}\nmachine other login me password {TOKEN}\n")
    path.chmod(0o600)
    monkeypatch.setenv("CTPIPE_DICOMWEB_TOKEN_FILE", str(path))
    return path


def test_a_token_goes_to_its_host_only(server, files, token_file):
    """X13."""
    assert fetched(server.url) == files
    assert {headers["Authorization"] for _, headers in server.requests} == {f"Bearer {TOKEN}"}
    token_file.write_text(f"machine 127.0.0.1 login me password {TOKEN}\n")
    assert fetched(server.url) == files
    assert server.requests[-1][1]["Authorization"].startswith("Basic ")
    token_file.write_text(f"machine other password {TOKEN}\ndefault login x password {TOKEN}\n")
    fetched(server.url)
    assert "Authorization" not in server.requests[-1][1]


def test_a_token_that_others_can_read_is_refused(server, token_file):
    """X13."""
    token_file.chmod(0o640)
    refused(server.url, UsageError, "read by others")
    token_file.unlink()
    refused(server.url, UsageError, "cannot be read")
    assert server.requests == []


def test_a_token_never_shows(server, token_file, caplog):
    """X13: planted; each kind of failure caused; every line, log and traceback searched. Nor does a query (P3)."""
    caplog.set_level(logging.DEBUG)
    shown = []
    answers: list[Any] = [
        lambda r: send(r, b"", "text/plain", 302, Location="http://127.0.0.1:9/x"),
        lambda r: send(r, b"", "text/plain", 401),
        lambda r: r.wfile.write(b"nonsense\r\n\r\n"),
        lambda r: send(r, TOKEN.encode(), "application/dicom+json"),
        lambda r: setattr(r, "close_connection", True),
    ]
    url = f"dicomweb+http://127.0.0.1:{server.port}/dw?PatientID=DOE-4711"
    for answer in answers:
        server.answers = {"/studies": answer}
        with pytest.raises(CtpipeError) as caught:
            fetched(url)
        shown.append(str(caught.getrepr(style="native")) + repr(caught.value.__dict__))
    for text in (f"password {TOKEN}", f"machine 127.0.0.1 {TOKEN}", f"machine 127.0.0.1 password {TOKEN}\x07\n"):
        token_file.write_text(text)
        with pytest.raises(UsageError) as caught_usage:
            fetched(url)
        shown.append(str(caught_usage.getrepr(style="native")))
    shown += [record.getMessage() for record in caplog.records]
    everything = "\n".join(shown)
    assert TOKEN not in everything
    assert "DOE-4711" not in everything.replace(url, "")  # the test's own line of code is no leak
    assert all("DOE-4711" not in record.getMessage() for record in caplog.records)


def test_a_token_is_not_sent_without_encryption_but_to_this_machine(token_file, monkeypatch):
    """X13."""
    from ctpipe.dicom.logins import authorization
    from ctpipe.dicom.remote import parse_url

    token_file.write_text(f"machine 192.0.2.1 password {TOKEN}\n")
    monkeypatch.setenv("CTPIPE_NETWORK_HOSTS", "192.0.2.1")
    with pytest.raises(UsageError, match="without encryption"):
        authorization(parse_url("dicomweb+http://192.0.2.1/dw/studies/1.2"))
    assert authorization(parse_url("dicomweb+https://192.0.2.1/dw/studies/1.2")) == f"Bearer {TOKEN}"


# ---------------------------------------------------------------------------------------------- TLS
@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> tuple[Path, Path]:
    """(certificate, key) of localhost."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert],
                   check=True, capture_output=True, timeout=60)  # fmt: skip
    return cert, key


def test_the_certificate_of_a_server_is_checked(files, certificate, monkeypatch):
    with serving(WebServer(files), tls=certificate) as server:
        url = server.url.replace("http://127.0.0.1", "https://localhost")
        refused(url, InputError, "not trusted")
        monkeypatch.setenv("CTPIPE_TLS_CA", str(certificate[0]))
        assert fetched(url) == files
        refused(url.replace("localhost", "127.0.0.1"), InputError, "not trusted")  # another name than the certificate's


def test_our_own_certificate_is_a_private_file(certificate, monkeypatch):
    """X13."""
    from ctpipe.dicom.logins import tls_context

    cert, key = certificate
    monkeypatch.setenv("CTPIPE_TLS_CERT", str(cert))
    monkeypatch.setenv("CTPIPE_TLS_KEY", str(key))
    key.chmod(0o644)
    with pytest.raises(UsageError, match="read by others"):
        tls_context()
    key.chmod(0o600)
    assert tls_context().verify_mode is ssl.CERT_REQUIRED
    monkeypatch.setenv("CTPIPE_TLS_CERT", str(key))
    with pytest.raises(UsageError, match="no certificate"):
        tls_context()


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "ten", "1e99"])
def test_limits_of_the_environment_are_numbers(monkeypatch, text):
    for name in (inbox.BUDGET_VARIABLE, inbox.WAIT_VARIABLE):
        monkeypatch.setenv(name, text)
        with pytest.raises(UsageError, match=name):
            Limits.from_environment()
        monkeypatch.delenv(name)
