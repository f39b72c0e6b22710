"""Sources on the network as URLs, and which servers may be spoken to (RELIABILITY X8, X13).

::

    dicomweb+https://HOST[:PORT]/ROOT[/studies/UID[/series/UID]][?KEY=VALUE&...]
    pacs://CALLED_AET@HOST:PORT?KEY=VALUE&...[&retrieve=move&port=11112][&aet=CTPIPE]

A server is allowed by being named in the URL, but never one that resolves to a link-local or metadata address; where
CTPIPE_NETWORK_HOSTS lists hosts (HOST[:PORT],...), no other is spoken to. Values of a query may name a patient: no
message, log or `repr` holds them.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from ctpipe.errors import InputError, UsageError

HOSTS_VARIABLE = "CTPIPE_NETWORK_HOSTS"
# What a query may ask for, by the level at which archives match it (PS3.4 C.6.2.1).
STUDY_KEYS = ("StudyInstanceUID", "StudyDate", "StudyTime", "AccessionNumber", "StudyID", "PatientID", "PatientName",
              "ModalitiesInStudy", "StudyDescription", "ReferringPhysicianName")  # fmt: skip
SERIES_KEYS = ("SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription", "BodyPartExamined",
               "PerformedProcedureStepStartDate")  # fmt: skip
# These alone would ask for a whole archive.
_TOO_WIDE = frozenset({"Modality", "ModalitiesInStudy"})
_OPTIONS = ("retrieve", "aet", "port")  # of a PACS: how to retrieve, our AE title, the port that C-MOVE sends to
_OURS = re.compile(r"(dicomweb|pacs)[a-z+]*:/", re.IGNORECASE)
_SCHEMES = {"dicomweb+https": True, "dicomweb+http": False, "pacs+tls": True, "pacs": False}
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_AE_TITLE = re.compile(r"[A-Za-z0-9_.\-]{1,16}")  # PS3.5 6.2 allows more; nobody needs it
# Cloud metadata services that are not on link-local addresses.
_METADATA = frozenset({"fd00:ec2::254", "168.63.129.16", "100.100.100.200"})

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class RemoteUrl:
    """One source on the network.

    kind: "dicomweb" or "pacs". root: path of the DICOMweb service, without a slash at its end. called: AE title of the
    PACS. study_keys, series_keys: what is asked for at each level. move_port: where C-MOVE sends to; None for C-GET.
    """

    kind: str
    secure: bool
    host: str
    port: int
    root: str = ""
    called: str = ""
    calling: str = "CTPIPE"
    move_port: int | None = None
    study_keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    series_keys: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def place(self) -> str:
        """The server in words for messages: kind, host and port, nothing of the query."""
        name = "the DICOMweb server" if self.kind == "dicomweb" else "the PACS"
        return f"{name} {self.host}:{self.port}"


@dataclass(frozen=True)
class SeriesRef:
    """One series on a server. count: how many instances the server says it has, None where it does not say."""

    study: str = field(repr=False)
    series: str = field(repr=False)
    count: int | None = None


def is_network(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a URL of a DICOMweb server or a PACS. Other schemes (such as s3://) are not ours."""
    return _OURS.match(os.fspath(path)) is not None


def is_uid(text: object) -> bool:
    """Whether `text` is a UID (PS3.5 9.1) and so safe within a path."""
    return isinstance(text, str) and len(text) <= 64 and _UID.fullmatch(text) is not None


def parse_url(path: str | os.PathLike[str]) -> RemoteUrl:
    """The source that a URL names. Raises UsageError, which quotes nothing of the URL but its kind."""
    url = _parsed(path)
    _refuse_everything(url)
    return url


def parse_target(path: str) -> RemoteUrl:
    """The server that a URL names, to send to: no study, series or query, but for aet= of a PACS. Raises UsageError."""
    if not is_network(path):
        raise UsageError("what is sent goes to no URL of a PACS or a DICOMweb server",
                         "such as pacs://ORTHANC@pacs.example.org:4242 or dicomweb+https://pacs.example.org/dicom-web")
    url = _parsed(path)
    if url.study_keys or set(url.series_keys) - {"Modality"} or url.move_port is not None:
        raise UsageError("a URL to send to names a study, a series or a query",
                         "name the server only, and aet= of a PACS")  # fmt: skip
    return url


def _parsed(path: str | os.PathLike[str]) -> RemoteUrl:
    text = os.fspath(path)
    if isinstance(path, Path):
        text = re.sub(r":/+", "://", text, count=1)  # Path makes one slash of two
    try:
        parts = urlsplit(text)
        host, port = (parts.hostname or "").encode("idna").decode("ascii"), parts.port
    except ValueError:
        raise UsageError("a network source has no proper host and port", "write HOST:PORT") from None
    if parts.scheme not in _SCHEMES:
        raise UsageError("the kind of a network source is unknown", f"begin it with one of {', '.join(_SCHEMES)}, ://")
    if not host:
        raise UsageError("a network source names no host", _example(parts.scheme))
    if parts.fragment:
        raise UsageError("a network source has a part after '#', which means nothing here", "write %23 for a '#'")
    return _web_url(parts, host, port) if parts.scheme.startswith("dicomweb") else _pacs_url(parts, host, port)


def _example(scheme: str) -> str:
    if scheme.startswith("pacs"):
        return f"such as {scheme}://ORTHANC@pacs.example.org:4242?StudyInstanceUID=1.2.3"
    return f"such as {scheme}://pacs.example.org/dicom-web/studies/1.2.3"


def _web_url(parts: SplitResult, host: str, port: int | None) -> RemoteUrl:
    secure = _SCHEMES[parts.scheme]
    if "@" in parts.netloc:
        raise UsageError("a DICOMweb URL holds a user name or password",
                         "take it out and put it into the file that CTPIPE_DICOMWEB_TOKEN_FILE names")  # fmt: skip
    root, study, series = _levels(parts.path)
    study_keys, series_keys, _ = _keys(parts.query, options=())
    if study:
        study_keys = {"StudyInstanceUID": study} | study_keys
    if series:
        series_keys = {"SeriesInstanceUID": series} | series_keys
    url = RemoteUrl("dicomweb", secure, host, port or (443 if secure else 80), root=root,
                    study_keys=study_keys, series_keys=_with_modality(series_keys))  # fmt: skip
    if not secure and not _is_loopback_name(host) and not _listed(url):
        raise UsageError(f"{url.place} would be spoken to without encryption",
                         f"use dicomweb+https://, or list the host in {HOSTS_VARIABLE}")  # fmt: skip
    return url


def _levels(path: str) -> tuple[str, str, str]:
    """(root, study UID, series UID) of a DICOMweb path; "" where absent (PS3.18 10.1)."""
    match = re.fullmatch(r"(.*?)(?:/studies/([^/]*)(?:/series/([^/]*))?)?/*", path)
    root, study, series = (match.group(1), match.group(2) or "", match.group(3) or "") if match else (path, "", "")
    odd = any(part in (".", "..", "studies", "series", "instances") for part in unquote(root).split("/"))
    if odd or not root.isprintable():
        raise UsageError("the path of a DICOMweb URL is not ROOT/studies/UID/series/UID", _example("dicomweb+https"))
    if any(uid and not is_uid(uid) for uid in (study, series)):
        raise UsageError("the path of a DICOMweb URL holds something that is no UID", _example("dicomweb+https"))
    return root.rstrip("/"), study, series


def _pacs_url(parts: SplitResult, host: str, port: int | None) -> RemoteUrl:
    called = unquote(parts.username or "")
    if parts.password is not None:
        raise UsageError("a PACS URL holds a password", "DICOM has none: write pacs://CALLED_AET@HOST:PORT")
    if not _AE_TITLE.fullmatch(called) or parts.path.strip("/"):
        raise UsageError("a PACS URL is not CALLED_AET@HOST:PORT?QUERY", _example(parts.scheme))
    study_keys, series_keys, options = _keys(parts.query, options=_OPTIONS)
    retrieve, calling, move_port = options.get("retrieve", "get"), options.get("aet", "CTPIPE"), options.get("port", "")
    if retrieve not in ("get", "move") or not _AE_TITLE.fullmatch(calling):
        raise UsageError("retrieve= or aet= of a PACS URL has no proper value", "retrieve=get or move, aet=CTPIPE")
    if move_port and not (retrieve == "move" and re.fullmatch("[0-9]{1,5}", move_port) and 0 < int(move_port) < 65536):
        raise UsageError("port= of a PACS URL is no port, or stands without retrieve=move", "retrieve=move&port=11112")
    url = RemoteUrl("pacs", _SCHEMES[parts.scheme], host, port or (2762 if _SCHEMES[parts.scheme] else 104),
                    called=called, calling=calling, move_port=int(move_port or 11112) if retrieve == "move" else None,
                    study_keys=study_keys, series_keys=_with_modality(series_keys))  # fmt: skip
    return url


def _keys(query: str, options: tuple[str, ...]) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """(study keys, series keys, options) of a query."""
    pairs = parse_qsl(query, keep_blank_values=True)
    known = (*STUDY_KEYS, *SERIES_KEYS, *options)
    if any(key not in known for key, _ in pairs):
        raise UsageError("a query asks for a key that is unknown here", f"use {', '.join(known)}")
    if len({key for key, _ in pairs}) != len(pairs) or any(not value.strip() for _, value in pairs):
        raise UsageError("a query holds a key twice, or without a value", "give each key once, with a value")
    if any(key.endswith("UID") and not is_uid(value) for key, value in pairs):
        raise UsageError("a query holds something that is no UID", "write UIDs as digits and dots")
    if any(not value.isprintable() or "\\" in value for _, value in pairs):
        raise UsageError("a query holds a control character or a backslash", "give one plain value for each key")
    return (
        {key: value for key, value in pairs if key in STUDY_KEYS},
        {key: value for key, value in pairs if key in SERIES_KEYS},
        {key: value for key, value in pairs if key in options},
    )


def _with_modality(keys: dict[str, str]) -> dict[str, str]:
    """CT only, unless the query names a modality or one series."""
    return keys if "SeriesInstanceUID" in keys or "Modality" in keys else keys | {"Modality": "CT"}


def _refuse_everything(url: RemoteUrl) -> None:
    keys = {**url.study_keys, **url.series_keys}
    if not any(key not in _TOO_WIDE and value.strip("*? ") for key, value in keys.items()):
        raise UsageError(f"the query would fetch all of {url.place}",
                         "name studies by StudyInstanceUID, StudyDate, AccessionNumber or PatientID")  # fmt: skip


# ---------------------------------------------------------------------------------------------- which hosts
def addresses_of(url: RemoteUrl) -> tuple[str, ...]:
    """The addresses of the server, resolved once: what is connected to is these and no others (X8).

    Raises UsageError for a host that is not allowed, InputError for one that has no address.
    """
    if os.environ.get(HOSTS_VARIABLE, "").strip() and not _listed(url):
        raise UsageError(f"{url.place} is not among the hosts that may be spoken to", f"list it in {HOSTS_VARIABLE}")
    try:
        found = socket.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise InputError(f"{url.place} has no address", "see that the host is spelled right and known here") from None
    addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
    if any(_is_forbidden(address) for address in addresses):
        raise UsageError(f"{url.place} is at a link-local, metadata, multicast or empty address",
                         "name a server on the network; such addresses are never spoken to")  # fmt: skip
    if url.kind == "dicomweb" and not url.secure and not _listed(url) and not all(map(_is_loopback, addresses)):
        raise UsageError(f"{url.place} would be spoken to without encryption", "use dicomweb+https://")
    return addresses


def is_loopback(host: str) -> bool:
    """Whether a host is this machine and nothing else, by what it resolves to."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return all(_is_loopback(str(entry[4][0])) for entry in found)


def _is_loopback_name(host: str) -> bool:
    return host == "localhost" or _is_loopback(host)


def _listed(url: RemoteUrl) -> bool:
    entries = [entry.strip().lower() for entry in os.environ.get(HOSTS_VARIABLE, "").split(",")]
    name = f"[{url.host}]" if ":" in url.host else url.host
    return url.host in entries or name in entries or f"{name}:{url.port}" in entries


def _is_loopback(address: str) -> bool:
    try:
        return _plain(address).is_loopback
    except ValueError:
        return False


def _is_forbidden(address: str) -> bool:
    ip = _plain(address)
    return ip.is_link_local or ip.is_multicast or ip.is_unspecified or str(ip) in (*_METADATA, "255.255.255.255")


def _plain(address: str) -> IPAddress:
    """The address without its zone; an IPv4 address that is written as IPv6 becomes IPv4 (mapped, 6to4, NAT64)."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip in ipaddress.ip_network("64:ff9b::/96"):
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip
