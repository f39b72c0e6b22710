"""Store: a folder of committed CT volumes by id, and the way to add to it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ctpipe.errors import NotThereError, StoreFaultError, UsageError
from ctpipe.store import commit, files, leases, runs, uncertainty, verdicts
from ctpipe.store.labels import index_bytes, labels_lock, write_index
from ctpipe.store.layout import COMMIT, FORMAT, INDEX, LABELS, MARKER, PARTIAL, SUFFIX, volume_target
from ctpipe.store.metadata import LabelsMeta, LayerMeta, VolumeMeta
from ctpipe.store.series import Series, one_of, read_series
from ctpipe.store.writer import GroupWriter
from ctpipe.volume import Grid

_CONTENT_LEASE = "content.json"  # no lease of a target is named so: those have a "-" in them
_CONTENT_WAIT_S = 120.0  # committing a volume takes milliseconds; a queue of writers waits its turn


class Store(Mapping[str, Series]):
    """Committed volumes by id, sorted; an unambiguous prefix of an id will do. Opened by `open_store`."""

    def __init__(self, root: Path, mode: str) -> None:
        self.root = root
        self.mode = mode
        self._read: dict[str, tuple[tuple[int, int, int], Series]] = {}

    def __getitem__(self, name: str) -> Series:
        exact = one_of(name, list(self), f"volumes in {self.root}")
        series = None if exact is None else self._series(exact)
        if series is None:
            raise NotThereError(f"there is no volume {name!r} in {self.root}", "ctpipe ls names what is there")
        return series

    def __iter__(self) -> Iterator[str]:
        for name in files.names(self.root):
            if name.endswith(SUFFIX) and (self.root / name / COMMIT).exists():
                yield name.removesuffix(SUFFIX)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and one_of(name, list(self), "volumes") is not None

    def get(self, name: str, default: Any = None) -> Any:
        if name not in self:
            return default
        return self[name]

    def lease(self, target: str, *, expiry_s: float | None = None, wait_s: float = leases.DYING_S) -> leases.Lease:
        """Lease on a writer's target, to be entered with `with`; StoreBusyError where another process writes it."""
        self._needs_append()
        return leases.Lease(self.root, target, expiry_s=expiry_s or leases.EXPIRY_S, wait_s=wait_s)

    def volume_writer(self, meta: VolumeMeta) -> GroupWriter:
        """Writer of the image of one volume."""
        self._needs_append()
        return GroupWriter(self.root, meta.id, meta)

    def labels_writer(self, series_id: str, meta: LabelsMeta) -> GroupWriter:
        """Writer of one label group of a committed volume; UsageError unless both lie on the same grid."""
        return self._writer_beside(series_id, meta)

    def layer_writer(self, series_id: str, meta: LayerMeta) -> GroupWriter:
        """Writer of one layer of a run over a committed volume; UsageError unless both lie on the same grid."""
        return self._writer_beside(series_id, meta)

    def _writer_beside(self, series_id: str, meta: LabelsMeta | LayerMeta) -> GroupWriter:
        self._needs_append()
        series = self[series_id]
        if meta.grid.grid_id != series.grid.grid_id:
            raise UsageError(
                f"voxels on grid {meta.grid.grid_id} do not fit volume {series.id} on grid {series.grid.grid_id}",
                "bring them onto the grid of the volume by patient coordinates",
            )
        return GroupWriter(self.root, series.id, meta)

    @contextmanager
    def content_lock(self, lease: leases.Lease) -> Iterator[None]:
        """From `find_content` to the commit: of two writers of equal voxels, the second finds what the first commits.

        lease: the one that the commit is made under; within this block it counts only together with the lock, so a
        writer that slept while another took the lock over is told instead of committing a twin.
        """
        self._needs_append()
        list(self._readable())  # kept from here on, so that the lock is held for milliseconds
        lock = leases.Lease(self.root, "the content of the store", wait_s=_CONTENT_WAIT_S, name=_CONTENT_LEASE)
        with lock, lease.together(lock):
            yield

    def find_content(self, content: str, grid: Grid) -> str | None:
        """Id of a committed volume with the same voxels at the same place in the patient, under whatever names."""
        for series in self._readable():
            # of uneven planes the grid does not say where they stand
            if (
                series.content == content
                and series.grid.same_lattice(grid)
                and not series.attributes.get("uneven_planes")
            ):
                return series.id
        return None

    @property
    def index_file(self) -> Path:
        """Where ingest keeps what it knows of source files, so that it need not open them again; a cache."""
        return self.root / INDEX

    def write_verdicts(self, rows: Sequence[dict[str, Any]]) -> None:
        """Keep what became of everything that one ingest was given, in verdicts.parquet."""
        self._needs_append()
        verdicts.write_verdicts(self.root, rows)

    def write_run(self, run_key: str, record: dict[str, Any]) -> None:
        """Write the record of a run (JSON-plain; may hold times and hosts)."""
        self._needs_append()
        runs.write_run(self.root, run_key, record)

    def run(self, run_key: str) -> dict[str, Any]:
        """Record of a run; an unambiguous prefix of its key will do."""
        return runs.read_run(self.root, one_of(run_key, runs.run_keys(self.root), "runs") or run_key)

    def runs(self) -> dict[str, dict[str, Any]]:
        """Records of all runs by key."""
        return {key: runs.read_run(self.root, key) for key in runs.run_keys(self.root)}

    def note_uncertainty(self, model: str, values: Mapping[str, float]) -> None:
        """Keep {volume: how unsure the model of this digest is of it}, beside what is known of other volumes."""
        self._needs_append()
        uncertainty.note_uncertainty(self.root, model, values)

    def uncertainty(self, model: str | None = None) -> dict[str, float]:
        """{volume: 0 (sure) to 1} of the model of a digest, or of the model noted last; empty where none was noted."""
        return uncertainty.read_uncertainty(self.root, model)

    def _readable(self) -> Iterator[Series]:
        for series_id in self:
            try:
                series = self._series(series_id)
            except StoreFaultError:  # rotten: equal to nothing; verify names it
                continue
            if series is not None:
                yield series

    def _series(self, series_id: str) -> Series | None:
        """A committed volume; its metadata are read again only when the file changed."""
        try:
            found = (self.root / volume_target(series_id) / COMMIT).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        kept = self._read.get(series_id)
        if kept is not None and kept[0] == stamp:
            return kept[1]
        series = read_series(self.root, series_id)
        if series is not None:
            self._read[series_id] = (stamp, series)
        return series

    def _needs_append(self) -> None:
        if self.mode != "a":
            raise UsageError(f"{self.root} is open for reading", 'open it with open_store(path, mode="a")')

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_read": {}}

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r}, mode={self.mode!r})"


def open_store(path: str | Path, mode: str = "r") -> Store:
    """Open a store: "r" to read, "a" to add to it (made where there is nothing or an empty folder).

    Raises NotThereError (no store there), UsageError (URL, another pseudonym key), StoreFaultError (rotten, or newer).
    """
    if mode not in ("r", "a"):
        raise UsageError(f"mode {mode!r} is not known", 'give "r" or "a"')
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", str(path)):
        raise UsageError("stores at a URL are not supported yet", "give a local folder")
    root = Path(path).expanduser().absolute()
    if not (root / MARKER).exists():
        if mode == "r":
            raise NotThereError(f"{root} is not a store", f"give the folder that holds {MARKER}")
        _create(root)
    marker = commit.read_sealed(root / MARKER, f"the store {root}")
    if marker is None:
        raise NotThereError(f"{root} is not a store", f"give the folder that holds {MARKER}")
    if mode == "a":
        _check_key(root, marker)
        _mend_indexes(root)
    return Store(root, mode)


def _create(root: Path) -> None:
    from ctpipe.dicom import load_pseudonyms

    if root.exists() and not root.is_dir():
        raise NotThereError(f"{root} is not a store but a file", "give a folder")
    # a killed creation leaves at most its side file
    if any(not name.endswith(PARTIAL) and name != MARKER for name in files.names(root)):
        raise NotThereError(f"{root} is not a store and not empty", "give a store, or a folder that is empty or new")
    marker = {
        "format": FORMAT,
        "key": load_pseudonyms(create=True).fingerprint,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    files.write_atomic(root / MARKER, commit.sealed(marker), exclusive=True)  # of two creators the first one stands


def _check_key(root: Path, marker: dict[str, Any]) -> None:
    from ctpipe.dicom import load_pseudonyms

    fingerprint = load_pseudonyms(create=False).fingerprint
    if fingerprint != marker.get("key"):
        problem = f"{root} was made with pseudonym key {marker.get('key')}, yours is {fingerprint}"
        raise UsageError(problem, "set CTPIPE_KEY to the file of the store's key")


def _mend_indexes(root: Path) -> None:
    """Rebuild labels/zarr.json where a writer was killed between a commit and the index."""
    for name in files.names(root):
        series_id = name.removesuffix(SUFFIX)
        if not name.endswith(SUFFIX) or not (root / name / LABELS).is_dir():
            continue
        if files.read(root / name / LABELS / COMMIT) != index_bytes(root, series_id):
            with labels_lock(root, series_id):
                write_index(root, series_id)
