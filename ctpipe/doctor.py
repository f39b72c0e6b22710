"""`ctpipe doctor`: what this machine has and what it lacks, each with its cure. Nothing is changed or started."""

from __future__ import annotations

import importlib
import os
import shutil
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ctpipe.errors import CtpipeError, NotThereError

OLDEST_PYTHON = (3, 11)
# A worker holds a few slabs of CT and of scores; the demo was seen to need about this much.
WANTED_MEMORY_GIB = 2.0
# 1,000 planes of 512 x 512 int16 are 0.5 GiB before compression; below this not even one series may fit.
WANTED_DISK_GIB = 1.0
_TIMEOUT_S = 3.0
_GIB = 2**30

# Which package reads which transfer syntaxes (PS3.5 A.4).
_DECODERS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("JPEG-LS, JPEG 2000, HTJ2K, JPEG (lossy), RLE", ("imagecodecs",), "imagecodecs"),
    ("JPEG lossless", ("gdcm",), "python-gdcm"),
)


@dataclass(frozen=True)
class Line:
    """One thing looked at. found: what is there; cure: what to do if not ok; needed: ctpipe fails without it."""

    what: str
    ok: bool
    found: str
    cure: str = ""
    needed: bool = True

    def as_json(self) -> dict[str, Any]:
        """The line as plain data."""
        return asdict(self)


def examine(store: str | Path | None = None) -> list[Line]:
    """A line for each thing looked at. store: where volumes are to lie; default CTPIPE_STORE, else this folder."""
    parts: Sequence[Callable[[], Iterator[Line]]] = (
        _python, _packages, _decoders, _viewer, _dask, _prefect, _cores, _memory,
        lambda: _disk(Path(store or os.environ.get("CTPIPE_STORE") or ".")),
        _key,
    )  # fmt: skip
    return [replace(line, cure="") if line.ok else line for part in parts for line in part()]


def _python() -> Iterator[Line]:
    yield Line("python", sys.version_info >= OLDEST_PYTHON, ".".join(map(str, sys.version_info[:3])),
               f"install Python {'.'.join(map(str, OLDEST_PYTHON))} or newer")  # fmt: skip


def _packages() -> Iterator[Line]:
    """The versions that ctpipe's own metadata asks for; extras are not needed."""
    from packaging.requirements import Requirement  # comes with Dask and xarray

    try:
        wanted = [Requirement(text) for text in metadata.requires("ctpipe") or []]
    except metadata.PackageNotFoundError:
        yield Line("ctpipe", False, "runs from a folder, is not installed", "make install, or pip install .")
        return
    yield Line("ctpipe", True, metadata.version("ctpipe"))
    extras = metadata.metadata("ctpipe").get_all("Provides-Extra") or []
    for requirement in wanted:
        marker = requirement.marker
        named = [extra for extra in ("", *extras) if marker is None or marker.evaluate({"extra": extra})]
        if not named:
            continue
        extra = named[0]
        found = _version(requirement.name)
        fits = found is not None and requirement.specifier.contains(found, prereleases=True)
        package = f"ctpipe[{extra}]" if extra else f"{requirement.name}{requirement.specifier}"
        text = found or "not installed"
        yield Line(requirement.name, fits, text if fits else f"{text}, wanted {requirement.specifier}",
                   f"pip install '{package}'", not extra)  # fmt: skip


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _decoders() -> Iterator[Line]:
    for syntaxes, modules, package in _DECODERS:
        working = [module for module in modules if _loads(module)]
        yield Line(f"decoder for {syntaxes}", bool(working), ", ".join(working) or "none", f"pip install {package}")


def _loads(module: str) -> bool:
    """Whether it imports: an installed decoder whose shared library is missing decodes nothing."""
    try:
        importlib.import_module(module)
    except (ImportError, OSError):
        return False
    return True


def _viewer() -> Iterator[Line]:
    if sys.platform.startswith("linux"):
        display = os.environ.get("WAYLAND_DISPLAY") or os.environ.get("DISPLAY") or ""
        yield Line("display", bool(display), display or "none (only `ctpipe review` needs one)",
                   "work on a desktop, or without one: xvfb-run -a ctpipe review …", needed=False)  # fmt: skip
    else:
        yield Line("display", True, sys.platform, needed=False)


def _dask() -> Iterator[Line]:
    dask, distributed = _version("dask"), _version("distributed")
    yield Line("Dask versions", dask is not None and dask == distributed, f"dask {dask}, distributed {distributed}",
               "pip install --upgrade dask distributed (they must be of one release)")  # fmt: skip
    address = os.environ.get("CTPIPE_CLUSTER")
    if not address:
        yield Line("Dask cluster", True, "CTPIPE_CLUSTER is not set: each command starts its own on this machine")
        return
    try:
        parts = urlsplit(address if "://" in address else f"tcp://{address}")
        with socket.create_connection((parts.hostname or "", parts.port or 8786), timeout=_TIMEOUT_S):
            reached = True
    except (OSError, ValueError):
        reached = False
    yield Line("Dask cluster", reached, f"scheduler {'answers' if reached else 'does not answer'} at {address}",
               "start `dask scheduler --host 127.0.0.1 --no-dashboard`, or unset CTPIPE_CLUSTER")  # fmt: skip


def _prefect() -> Iterator[Line]:
    """Only flows need a server. It is asked by plain HTTP: Prefect's client takes seconds to import."""
    url = os.environ.get("PREFECT_API_URL")
    cure = "prefect server start, then export PREFECT_API_URL=http://127.0.0.1:4200/api"
    if not url:
        yield Line("Prefect server", False, "PREFECT_API_URL is not set (only flows need it)", cure, needed=False)
        return
    parts = urlsplit(url)
    where = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    if parts.scheme not in ("http", "https"):
        yield Line("Prefect server", False, "PREFECT_API_URL is no http address", cure, needed=False)
        return
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=_TIMEOUT_S):
            healthy, answer = True, "answers"
    except urllib.error.HTTPError as error:
        healthy = error.code in (401, 403)  # it is there, and wants a password
        answer = f"answers with HTTP {error.code}"
    except (OSError, ValueError):
        healthy, answer = False, "does not answer"
    yield Line("Prefect server", healthy, f"{answer} at {where}", cure, needed=False)


def _cores() -> Iterator[Line]:
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = _cgroup_cores()
    text = f"{here}" if limit is None else f"{here}, of which the container may use {limit:g}"
    yield Line("cores", True, text)


def _cgroup_cores() -> float | None:
    """Cores that cgroup v2 grants this container, None where it does not limit them."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _memory() -> Iterator[Line]:
    import psutil

    free = psutil.virtual_memory().available / _GIB
    limit = _cgroup_memory_free()
    free = free if limit is None else min(free, limit)
    yield Line("memory", free >= WANTED_MEMORY_GIB, f"{free:.1f} GiB free, {WANTED_MEMORY_GIB:g} GiB wanted",
               "close programs, or give the container more memory")  # fmt: skip


def _cgroup_memory_free() -> float | None:
    """GiB that cgroup v2 still grants this container, None where it does not limit memory."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        return None if limit == "max" else (int(limit) - int((folder / "memory.current").read_text())) / _GIB
    except (OSError, ValueError):
        return None


def _disk(store: Path) -> Iterator[Line]:
    """Free space and write permission where the store is, or would be made."""
    folder = store.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free / _GIB
    yield Line("disk of the store", free >= WANTED_DISK_GIB, f"{free:.1f} GiB free at {store}",
               "free some, or name another store (--store, CTPIPE_STORE)")  # fmt: skip
    writable = os.access(folder, os.W_OK | os.X_OK)
    yield Line("store can be written", writable, "yes" if writable else f"no right to write in {folder}",
               f"chown or chmod {folder}, or name another store")  # fmt: skip


def _key() -> Iterator[Line]:
    """The pseudonym key: its place, mode and form. It is not made here."""
    from ctpipe.dicom import load_pseudonyms

    what = "pseudonym key"
    try:
        fingerprint = load_pseudonyms(create=False).fingerprint
    except NotThereError as error:
        yield Line(what, True, f"{error.problem}; one is made with mode 0600 at the first ingest")
    except CtpipeError as error:
        yield Line(what, False, error.problem, error.cure)
    else:
        yield Line(what, True, f"only you can read it, fingerprint {fingerprint}")

