"""Tables on disk: rows as Parquet, and beside them what they are rows of.

::

    tables/<name>/<key>-<series>-<plane>.parquet …   one a partition, written where the rows are, each whole and synced
    tables/<name>/table.json                         written last: windows, classes, digests of sources and files

A table that was saved again has another key; the files of the one before are removed after the new table.json stands.
Pixels are not saved: they stay in the store, and the digests say whether it still holds the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctpipe.config import WindowSpec
from ctpipe.errors import NotThereError, StoreFaultError, UsageError
from ctpipe.patches.rows import RowSpec
from ctpipe.patches.sources import Part, SeriesSource
from ctpipe.patches.table import PatchTable
from ctpipe.store.layout import TABLE_DOCUMENT, TABLES
from ctpipe.words import ZYX, Pad

if TYPE_CHECKING:
    import pandas as pd
    from distributed import Client

FORMAT = 1
_CURE = "build the table again and save it"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def saved(table: PatchTable, name: str | Path) -> Path:
    """See `PatchTable.save`; the folder."""
    import json

    from ctpipe.store import commit, files
    folder = _folder(table.store, name)
    root = table.store
    if not isinstance(root, Path):
        raise UsageError("the table's volumes lie in no store", "build it with ctpipe.patch_table(STORE, ...)")
    if folder.exists() and not (folder / TABLE_DOCUMENT).exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} holds something that is no table", "give another name")
    text = json.dumps([asdict(source) | {"store": ""} for source in table.sources], default=str, sort_keys=True)
    key = sha256(f"{text}{table.windows}{table.spec.steps!r}".encode()).hexdigest()[:12]
    written = table._map(_write_part, folder, key)
    spec = table.spec
    document: dict[str, Any] = {
        "format": FORMAT, "key": key, "store": str(root.absolute()), "level": table.level,
        "windows": {"window": list(spec.windows.window), "stride": list(spec.windows.stride),
                    "pad": str(spec.windows.pad)},
        "spec": {name: getattr(spec, name) for name in ("classes", "series", "patients", "index_dtype", "statistics",
                                                        "lesions", "organ", "splits", "reviewed")},
        "sources": [{f.name: getattr(source, f.name) for f in fields(source) if f.name != "store"}
                    for source in table.sources],
        "types": [[name, _type_text(kind)] for name, kind in table.empty.dtypes.items()],
        "steps": [type(step).__name__ for step in spec.steps],
        "parts": [{"series": part.source.id, "start": part.start, "stop": part.stop} | facts
                  for part, facts in zip(table.parts, written, strict=True)],
    }  # fmt: skip
    document = json.loads(json.dumps(document))
    files.write_atomic(folder / TABLE_DOCUMENT, commit.sealed(document))
    kept = {one["file"] for one in document["parts"]} | {TABLE_DOCUMENT}
    for old in files.names(folder):
        if old not in kept and re.fullmatch(r"[0-9a-f]{12}-.*-\d{5,}\.parquet", old):
            files.remove(folder / old)
    return folder


def _write_part(rows: pd.DataFrame, part: Part, spec: RowSpec, folder: Path, key: str) -> dict[str, Any]:
    from ctpipe.store import files
    data = _parquet(rows)
    digest = sha256(data).hexdigest()
    name = f"{key}-{part.source.id}-{part.start:05d}.parquet"
    files.write_atomic(folder / name, data)
    return {"file": name, "sha256": digest, "rows": len(rows)}


def _parquet(rows: pd.DataFrame) -> bytes:
    """Parquet bytes; equal rows give equal bytes with one pyarrow version."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    table = pa.Table.from_pandas(rows, preserve_index=False).replace_schema_metadata(None)
    buffer = BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def read_part(part: Part, spec: RowSpec) -> pd.DataFrame:
    """The rows of one file of a saved table; StoreFaultError where it is gone or another."""
    import pyarrow.parquet as pq

    from ctpipe.store import files
    path, _, digest = str(part.file).rpartition("#")
    data = files.read(Path(path))
    if data is None or sha256(data).hexdigest() != digest:
        how = "is missing" if data is None else "changed after it was saved"
        raise StoreFaultError(f"{Path(path).name} of table {Path(path).parent.name} {how}", _CURE)
    return _typed(pq.read_table(BytesIO(data)).to_pandas(), spec.saved_types)


def _typed(rows: pd.DataFrame, types: tuple[tuple[str, Any], ...]) -> pd.DataFrame:
    import pandas as pd
    made = {}
    for name, kind in types:
        values = rows[name]
        made[name] = pd.Categorical(values, categories=list(kind)) if isinstance(kind, tuple) else values.to_numpy(kind)
    return pd.DataFrame(made, copy=False)


def _type_text(kind: Any) -> Any:
    return [str(value) for value in kind.categories] if hasattr(kind, "categories") else str(kind)


@dataclass(frozen=True)
class Loaded:
    """A saved table and what its store says to it. changed: rows no longer true. newer: what the rows do not know."""

    table: PatchTable
    changed: tuple[str, ...]
    newer: tuple[str, ...]


def look(path: str | Path, client: Client | None = None, store: str | Path | None = None) -> Loaded:
    """A saved table beside its store, whatever that holds by now; see `load_table`."""
    from ctpipe.store import commit, open_store
    folder = Path(path)
    document = folder / TABLE_DOCUMENT
    stated = commit.read_sealed(document, f"table {folder.name}") if document.exists() else None
    if stated is None:
        raise NotThereError(f"{folder} is no saved table", "ctpipe patches ls STORE names those of a store")
    if stated.get("format") != FORMAT:
        raise StoreFaultError(f"table {folder.name} has format {stated.get('format')}, not {FORMAT}", _CURE)
    root = Path(store or (folder.parents[1] if folder.parent.name == TABLES else stated["store"])).absolute()
    opened = open_store(root)
    sources = tuple(_source(root, one) for one in stated["sources"])
    by_id = {source.id: source for source in sources}
    spec = RowSpec(
        WindowSpec(window=ZYX(*stated["windows"]["window"]), stride=ZYX(*stated["windows"]["stride"]),
                   pad=Pad(stated["windows"]["pad"])),
        **{name: _tuples(value) for name, value in stated["spec"].items()},
        saved_types=tuple((name, tuple(kind) if isinstance(kind, list) else kind) for name, kind in stated["types"]),
    )  # fmt: skip
    parts = tuple(Part(by_id[one["series"]], one["start"], one["stop"], f"{folder / one['file']}#{one['sha256']}")
                  for one in stated["parts"])
    import pandas as pd
    found = _typed(pd.DataFrame({name: [] for name, _ in spec.saved_types}), spec.saved_types)
    table = PatchTable(spec, sources, stated["level"], client, given_parts=parts, found=found, name=folder.name)
    changed, newer = _differences(opened, sources)
    return Loaded(table, tuple(changed), tuple(newer))


def load_table(path: str | Path, client: Client | None = None, *, store: str | Path | None = None,
               keep_changed: bool = False) -> PatchTable:
    """A table that was saved to the folder `path` (STORE/tables/<name>), its rows read from there when wanted.

    store: where its volumes lie by now. StoreFaultError names what of them changed or is gone since it was saved,
    unless `keep_changed`; that there are more series or newer labels is no fault (`look` tells it).
    """
    loaded = look(path, client, store)
    if loaded.changed and not keep_changed:
        raise StoreFaultError(f"the store changed since table {loaded.table.name} was saved: "
                              f"{'; '.join(loaded.changed[:3])}", _CURE)
    return loaded.table


def saved_tables(store: str | Path) -> list[dict[str, Any]]:
    """Name, rows, bytes on disk and what changed, of every table saved in a store."""
    from ctpipe.store import commit, files
    folder = Path(store) / TABLES
    out = []
    for name in files.names(folder):
        stated = commit.read_sealed(folder / name / TABLE_DOCUMENT, f"table {name}")
        if stated is None:
            continue
        loaded = look(folder / name, store=store)
        size = sum(files.size(folder / name / one["file"]) or 0 for one in stated["parts"])
        out.append({"name": name, "rows": sum(one["rows"] for one in stated["parts"]), "bytes": size,
                    "window": stated["windows"]["window"], "stride": stated["windows"]["stride"],
                    "changed": list(loaded.changed), "newer": list(loaded.newer)})
    return out


def _differences(store: Mapping[str, Any], sources: tuple[SeriesSource, ...]) -> tuple[list[str], list[str]]:
    changed, newer = [], []
    for source in sources:
        series = store.get(source.id)
        labels = None if series is None else series.labels.get(source.labels)
        if series is None:
            changed.append(f"series {source.id} is gone")
        elif series.content != source.content:
            changed.append(f"series {source.id} has other voxels")
        elif labels is None:
            changed.append(f"labels {source.labels} of series {source.id} are gone")
        elif labels.content != source.labels_content:
            changed.append(f"labels {source.labels} of series {source.id} are others")
        elif source.kind in ("truth", "review") and series.labels[source.kind].name != source.labels:
            newer.append(f"series {source.id} has newer labels {series.labels[source.kind].name}")
    added = sorted(set(store) - {source.id for source in sources})
    newer += [f"{len(added)} series of the store are not in the table"] if added else []
    return changed, newer


def _source(root: Path, stated: Mapping[str, Any]) -> SeriesSource:
    return SeriesSource(store=root, **{name: _tuples(value) for name, value in stated.items()})


def _tuples(value: Any) -> Any:
    return tuple(_tuples(one) for one in value) if isinstance(value, list) else value


def _folder(store: Path | Mapping[str, Any], name: str | Path) -> Path:
    if isinstance(name, str) and _NAME.fullmatch(name) and isinstance(store, Path):
        return store / TABLES / name
    path = Path(name)
    if path.parent == Path():
        raise UsageError(f"{str(name)!r} is no name for a table", "use letters, digits, '-', '_' and '.'")
    return path.absolute()
