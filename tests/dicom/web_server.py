"""A small DICOMweb server in a thread, well-behaved unless a test says otherwise, that keeps every request."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

STUDY, SERIES = "1.2.3", "1.2.3.4"
Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class WebServer:
    """files: instances of the one series. answers: by the path below the root, what is sent in place of the usual."""

    files: Sequence[bytes] = ()
    study: str = STUDY
    series: str = SERIES
    count: int | None = -1  # what NumberOfSeriesRelatedInstances says; -1: the truth, None: nothing
    answers: dict[str, Answer] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"dicomweb+http://127.0.0.1:{self.port}/dw/studies/{self.study}/series/{self.series}"

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        self.requests.append((request.path, dict(request.headers)))
        path, _, query = request.path.removeprefix("/dw").partition("?")
        if path in self.answers:
            self.answers[path](request)
        elif path in ("/studies", f"/studies/{self.study}/series"):
            send_json(request, [self.match()] if "offset=0" in query else [])
        elif path == f"/studies/{self.study}/series/{self.series}":
            send_multipart(request, self.files)
        else:
            request.send_error(404)

    def match(self) -> dict[str, Any]:
        """The series in DICOM JSON, with URLs in it that are nobody's to open."""
        count = len(self.files) if self.count == -1 else self.count
        found: dict[str, Any] = {
            "0020000D": {"vr": "UI", "Value": [self.study]},
            "0020000E": {"vr": "UI", "Value": [self.series]},
            "00080060": {"vr": "CS", "Value": ["CT"]},
        }
        return found | ({"00201209": {"vr": "IS", "Value": [count]}} if count is not None else {})


def send_json(request: BaseHTTPRequestHandler, document: Any) -> None:
    send(request, json.dumps(document).encode(), "application/dicom+json")


def send(request: BaseHTTPRequestHandler, body: bytes, kind: str, status: int = 200, **headers: str) -> None:
    request.send_response(status)
    request.send_header("Content-Type", kind)
    request.send_header("Content-Length", str(len(body)))
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(body)


def send_multipart(
    request: BaseHTTPRequestHandler, files: Sequence[bytes], status: int = 200, *, whole: bool = True
) -> None:
    head = b"--x\r\nContent-Type: application/dicom\r\nContent-Location: http://127.0.0.1:9/a\r\n\r\n"
    parts = [head + data + b"\r\n" for data in files]
    body = b"".join(parts) + (b"--x--\r\n" if whole else b"")
    send(request, body, 'multipart/related; type="application/dicom"; boundary=x', status)


@contextmanager
def serving(server: WebServer, tls: tuple[Path, Path] | None = None) -> Iterator[WebServer]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            try:
                server.handle(self)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, *_args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        http.socket = context.wrap_socket(http.socket, server_side=True)
    server.port = http.server_address[1]
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
