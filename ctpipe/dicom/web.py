"""DICOMweb: QIDO-RS finds series, WADO-RS fetches them as they are stored, STOW-RS stores (PS3.18 10.6, 10.4, 10.5).

RELIABILITY X8: the server's address is resolved once and pinned, no redirect is followed, no URL out of an answer is
ever opened (RetrieveURL, BulkDataURI), proxies of the environment are not used, every answer has a limit on size and
time. Retrieved files pass to disk as they arrive.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlencode

import httpcore

from ctpipe.dicom.inbox import Inbox, Limits, Pace
from ctpipe.dicom.logins import TLS_CA, authorization, tls_context
from ctpipe.dicom.multipart import MultipartFaultError, boundary_of, parts
from ctpipe.dicom.remote import RemoteUrl, SeriesRef, addresses_of, is_uid
from ctpipe.errors import CtpipeError, InputError

MAX_JSON_BYTES = 64 << 20
MAX_HEAD_BYTES = 1 << 20
PAGE = 1000  # series or studies a question; an archive may give fewer
MAX_PAGES = 100
_STUDY_UID, _SERIES_UID, _MODALITY, _N_INSTANCES = "0020000D", "0020000E", "00080060", "00201209"
# Answers that are about the instance, not about the server (PS3.18 10.5.3).
_NOT_STORED = (202, 400, 409, 415)
# The stored transfer syntax, whatever it is (PS3.18 8.7.3.5.2): nothing is decoded or encoded for us.
_AS_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'


class WebSession:
    """Speaks to one DICOMweb server and to nothing else; a context manager."""

    def __init__(self, url: RemoteUrl, limits: Limits) -> None:
        """Resolve and check the server. Raises UsageError, InputError."""
        self.url, self.limits = url, limits
        self._network = _Pinned(url, addresses_of(url), limits)
        headers = [("Accept-Encoding", "identity"), ("User-Agent", "ctpipe")]
        secret = authorization(url)
        if secret is not None:
            headers.append(("Authorization", secret))
        self._headers = headers
        self._pool = httpcore.ConnectionPool(
            tls_context() if url.secure else None, max_connections=1, network_backend=self._network
        )

    def __enter__(self) -> WebSession:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.close()

    def find(self) -> list[SeriesRef]:
        """Every series that the URL asks for. Raises InputError where there is none."""
        url = self.url
        if "StudyInstanceUID" in url.study_keys:
            studies = [url.study_keys["StudyInstanceUID"]]
        else:
            studies = [_uid(found, _STUDY_UID) for found in self._search("/studies", url.study_keys)]
        wanted = url.series_keys.get("Modality")
        series = [
            SeriesRef(study, _uid(found, _SERIES_UID), _count(found))
            for study in studies
            for found in self._search(f"/studies/{study}/series", {**url.series_keys, "includefield": _N_INSTANCES})
            if wanted is None or _text(found, _MODALITY) in (None, wanted)  # a server may not know how to match it
        ]
        if not series:
            raise InputError(f"{url.place} has no series that the query asks for", "see the query, or ask for less")
        return series

    def retrieve(self, wanted: SeriesRef, inbox: Inbox) -> None:
        """Fetch the series into the inbox. Raises InputError where it does not come whole, BudgetError."""
        path = f"/studies/{wanted.study}/series/{wanted.series}"
        count = wanted.count
        if count is None:
            count = len(self._search(f"{path}/instances", {})) or None
        with self._ask("GET", path, _AS_STORED, self.limits.total_bytes) as (status, headers, body):
            self._refuse_status(status, headers, partial=False)
            boundary = boundary_of(headers.get("content-type", ""))
            if boundary is None:
                raise InputError(f"{self.url.place} answers with something that is no DICOM", "see its log")
            try:
                for content in parts(body, boundary):
                    inbox.add(content)
            except MultipartFaultError:
                raise InputError(f"a series of {self.url.place} broke off", "try again") from None
        if count is not None and inbox.count != count:
            raise InputError(f"{self.url.place} sent {inbox.count} of {count} instances of a series", "try again")

    def stow(self, data: bytes) -> str | None:
        """Store one part 10 file (STOW-RS, PS3.18 10.5). None once the server has it, else one line that says why not.

        Raises InputError where the server cannot be spoken to.
        """
        boundary = f"ctpipe-{secrets.token_hex(16)}"
        kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode("ascii")
        body = b"".join((head, data, f"\r\n--{boundary}--\r\n".encode("ascii")))
        with self._ask("POST", "/studies", "application/dicom+json", MAX_JSON_BYTES, kind, body) as (status, headers,
                                                                                                   answer):  # fmt: skip
            text = b"".join(answer)
            if status not in (200, *_NOT_STORED):
                self._refuse_status(status, headers, partial=False)
        reasons = _failures(text)
        if status == 200 and not reasons:
            return None
        told = f" (reason {', '.join(reasons)})" if reasons else ""
        return f"{self.url.place} refuses it (status {status}){told}"

    # ------------------------------------------------------------------------------------ requests
    def _search(self, path: str, keys: Mapping[str, str]) -> list[dict[str, Any]]:
        """All matches, page by page until a page brings nothing new; a server that ignores `offset` is no trap."""
        found: dict[tuple[Any, ...], dict[str, Any]] = {}
        for page in range(MAX_PAGES):
            matches = self._page(path, {**keys, "limit": str(PAGE), "offset": str(page and len(found))})
            new = {_identity(match): match for match in matches}
            if new.keys() <= found.keys():
                return list(found.values())
            found |= new
        raise InputError(f"{self.url.place} has too many matches for one query", "ask for fewer studies")

    def _page(self, path: str, keys: Mapping[str, str]) -> list[dict[str, Any]]:
        query = urlencode(keys, quote_via=quote)
        with self._ask("GET", f"{path}?{query}", "application/dicom+json", MAX_JSON_BYTES) as (status, headers, body):
            if status == 204:
                return []
            self._refuse_status(status, headers, partial=True)
            text = b"".join(body)
        try:
            document = json.loads(text) if text.strip() else []
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, list) or not all(isinstance(entry, dict) for entry in document):
            raise InputError(f"{self.url.place} answers a query with something that is no DICOM JSON", "see its log")
        return document

    @contextmanager
    def _ask(
        self, method: str, path: str, accept: str, max_bytes: int, kind: str = "", content: bytes | None = None
    ) -> Iterator[tuple[int, dict[str, str], Iterable[bytes]]]:
        """(status, headers by lower-case name, body as it arrives) of one request. Raises InputError."""
        scheme = b"https" if self.url.secure else b"http"
        target = quote(self.url.root + path, safe="/?&=%:+,;@!$'()*~").encode("ascii")
        address = httpcore.URL(scheme=scheme, host=self.url.host.encode("ascii"), port=self.url.port, target=target)
        timeout = {"connect": self.limits.connect_seconds, "read": self.limits.silence_seconds,
                   "write": self.limits.silence_seconds, "pool": self.limits.silence_seconds}  # fmt: skip
        sent = [("Accept", accept)]
        if content is not None:
            sent += [("Content-Type", kind), ("Content-Length", str(len(content)))]
        self._network.begin()
        try:
            with self._pool.stream(method, address, headers=[*self._headers, *sent], content=content,
                                   extensions={"timeout": timeout}) as response:  # fmt: skip
                self._network.allow(max_bytes)
                headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
                yield response.status, headers, response.iter_stream()
            problem = None
        except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, httpcore.ProxyError) as error:
            problem = _network_problem(self.url, error)
        if problem:  # out here it has no cause: an exception of the network may quote the request
            raise problem

    def _refuse_status(self, status: int, headers: Mapping[str, str], *, partial: bool) -> None:
        place = self.url.place
        if 300 <= status < 400:
            raise InputError(f"{place} sends us elsewhere, which is never followed", "name the right server in the URL")
        if status in (401, 403):
            raise InputError(f"{place} wants a login (status {status})",
                             "put a line for its host into the file that CTPIPE_DICOMWEB_TOKEN_FILE names")  # fmt: skip
        if status == 404:
            raise InputError(f"{place} has no such service, study or series", "see the path of the URL")
        if status == 206 and not partial:
            raise InputError(f"{place} gives only a part of a series", "see its log, then try again")
        if status not in (200, 206):
            raise InputError(f"{place} refuses (status {status})", "see its log, then try again")
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise InputError(f"{place} sends compressed what was asked for plain", "switch its compression off")


def _network_problem(url: RemoteUrl, error: Exception) -> CtpipeError:
    if isinstance(error, httpcore.ConnectError) and "CERTIFICATE" in str(error).upper():
        return InputError(f"the certificate of {url.place} is not trusted", f"set {TLS_CA} to its authority's PEM file")
    if isinstance(error, httpcore.ConnectError | httpcore.ConnectTimeout):
        return InputError(f"{url.place} cannot be reached", "see that it runs and that the port is right")
    if isinstance(error, httpcore.TimeoutException):
        return InputError(f"{url.place} stopped answering", "try again, or set CTPIPE_NETWORK_WAIT to more seconds")
    return InputError(f"the connection to {url.place} broke ({type(error).__name__})", "try again")


# ---------------------------------------------------------------------------------------------- the network
class _Pinned(httpcore.NetworkBackend):
    """Connects to the resolved addresses only, and counts what comes against the limits of one request."""

    def __init__(self, url: RemoteUrl, addresses: tuple[str, ...], limits: Limits) -> None:
        self._url, self._addresses, self._limits = url, addresses, limits
        self._tcp = httpcore.SyncBackend()
        self.begin()

    def begin(self) -> None:
        """A request begins: handshake, interim answers and headers may have so many bytes."""
        self._left = MAX_HEAD_BYTES
        self._pace = Pace(self._limits, self._url.place)

    def allow(self, max_bytes: int) -> None:
        """The body begins: it may have `max_bytes`, framing included."""
        self._left = max_bytes + MAX_HEAD_BYTES

    def count(self, n_bytes: int, seconds: float) -> None:
        self._left -= n_bytes
        if self._left < 0:
            raise InputError(f"{self._url.place} answers without end", "see its log")
        self._pace.count(n_bytes, seconds)

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:  # fmt: skip
        for last, address in enumerate(self._addresses, start=1 - len(self._addresses)):
            try:
                return _Counted(self._tcp.connect_tcp(address, self._url.port, timeout), self)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if not last:
                    raise
        raise httpcore.ConnectError


@dataclass
class _Counted(httpcore.NetworkStream):
    """A stream whose reads are counted."""

    stream: httpcore.NetworkStream
    counter: _Pinned = field(repr=False)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        begin = time.monotonic()
        data = self.stream.read(max_bytes, timeout)
        self.counter.count(len(data), time.monotonic() - begin)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.stream.write(buffer, timeout)

    def close(self) -> None:
        self.stream.close()

    def start_tls(self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None) -> _Counted:
        return _Counted(self.stream.start_tls(ssl_context, server_hostname, timeout), self.counter)

    def get_extra_info(self, info: str) -> Any:
        return self.stream.get_extra_info(info)


# ---------------------------------------------------------------------------------------------- DICOM JSON
def _text(entry: Mapping[str, Any], tag: str) -> str | None:
    """First value of an element of DICOM JSON (PS3.18 F.2) as text; None where it is absent or no plain value."""
    element = entry.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    value = values[0] if isinstance(values, list) and values else None
    return str(value) if isinstance(value, str | int | float) else None


def _failures(text: bytes) -> list[str]:
    """Failure reasons (PS3.3 C.14: numbers) that the answer to a STOW-RS request gives for its instances."""
    try:
        document = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError):
        return []
    failed = document.get("00081198") if isinstance(document, dict) else None
    items = failed.get("Value") if isinstance(failed, dict) else None
    reasons = [_text(item, "00081197") or "" for item in items or () if isinstance(item, dict)]
    return [reason if reason.isascii() and reason.isdecimal() and len(reason) < 6 else "unknown" for reason in reasons]


def _uid(entry: Mapping[str, Any], tag: str) -> str:
    text = _text(entry, tag)
    if text is None or not is_uid(text):
        raise InputError("a DICOMweb server answers with something that is no UID", "see its log")
    return text


def _count(entry: Mapping[str, Any]) -> int | None:
    text = _text(entry, _N_INSTANCES) or ""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 9 else None


def _identity(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(_text(entry, tag) for tag in (_STUDY_UID, _SERIES_UID, "00080018"))
