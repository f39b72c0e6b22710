"""Secrets of network sources: from files of mode 0600 only, never from a URL, never in a message (RELIABILITY X13)."""

from __future__ import annotations

import netrc
import os
import ssl
import stat
from base64 import b64encode
from pathlib import Path

from ctpipe.dicom.remote import RemoteUrl, is_loopback
from ctpipe.errors import CtpipeError, UsageError

TOKEN_FILE = "CTPIPE_DICOMWEB_TOKEN_FILE"
TLS_CA, TLS_CERT, TLS_KEY = "CTPIPE_TLS_CA", "CTPIPE_TLS_CERT", "CTPIPE_TLS_KEY"


def authorization(url: RemoteUrl) -> str | None:
    """The Authorization header for a server, or None where the token file has no line for its host.

    CTPIPE_DICOMWEB_TOKEN_FILE is a netrc file: `machine HOST password TOKEN` is sent as a bearer token, `machine HOST
    login NAME password WORD` as basic authentication; to that host only (a line `default` is not used), and only
    through TLS or to this machine. Raises UsageError for a file that others can read or that is no netrc file.
    """
    named = os.environ.get(TOKEN_FILE)
    if not named:
        return None
    path = _secret_file(named, TOKEN_FILE)
    try:
        entry = netrc.netrc(str(path)).hosts.get(url.host)
    except (netrc.NetrcParseError, OSError, UnicodeDecodeError):  # its text may quote the secret
        problem: CtpipeError | None = UsageError(f"the file that {TOKEN_FILE} names is no netrc file",
                                                 "write lines such as: machine HOST password TOKEN")  # fmt: skip
    else:
        problem = None
    if problem:
        raise problem
    if entry is None:
        return None
    login, _, secret = entry
    if not secret or not secret.isascii() or not secret.isprintable():
        raise UsageError(f"the file that {TOKEN_FILE} names has no proper password for the host", "correct its line")
    if not url.secure and not is_loopback(url.host):
        raise UsageError(f"a login would be sent to {url.place} without encryption", "use dicomweb+https://")
    if login:
        return "Basic " + b64encode(f"{login}:{secret}".encode()).decode("ascii")
    return f"Bearer {secret}"


def tls_context() -> ssl.SSLContext:
    """TLS with the server's certificate checked: by the system's authorities, or those of CTPIPE_TLS_CA.

    CTPIPE_TLS_CERT and CTPIPE_TLS_KEY (mode 0600) name our own certificate, where the server asks for one. Raises
    UsageError for files that cannot be used.
    """
    authorities, certificate = os.environ.get(TLS_CA), os.environ.get(TLS_CERT)
    key = os.environ.get(TLS_KEY) or certificate
    try:
        context = ssl.create_default_context(cafile=authorities or None)
    except (OSError, ssl.SSLError):
        raise UsageError(f"the file that {TLS_CA} names holds no certificates", "name a PEM file") from None
    if certificate and key:
        _secret_file(key, TLS_KEY)
        try:
            context.load_cert_chain(certificate, key, password=lambda: "")  # never ask on the terminal
        except (OSError, ssl.SSLError, ValueError):
            problem = f"the files that {TLS_CERT} and {TLS_KEY} name hold no certificate with an unencrypted key"
            raise UsageError(problem, "name two PEM files") from None
    return context


def _secret_file(named: str, variable: str) -> Path:
    path = Path(named)
    try:
        status = path.stat()
    except OSError as error:
        raise UsageError(f"the file that {variable} names cannot be read ({error.strerror})", "correct it") from None
    if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077:
        raise UsageError(f"the file that {variable} names can be read by others", "chmod 600 that file")
    return path
