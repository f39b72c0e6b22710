"""verdicts.parquet: what became of every series ever given to this store, and of the files of the last call."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctpipe.store import files
from ctpipe.store.leases import Lease

if TYPE_CHECKING:
    import pandas as pd

VERDICTS = "verdicts.parquet"
COLUMNS = ("series", "verdict", "reason", "detail", "cure", "files", "id", "planes", "rows", "columns")
_WAIT_S = 60.0


def write_verdicts(root: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Put the rows of one ingest in place of what stood there of their series, and of files of no series."""
    import pandas as pd

    with Lease(root, "the verdicts of the store", wait_s=_WAIT_S, name="verdicts.json"):
        told = {row["series"] for row in rows}
        before = read_verdicts(root)
        kept = before[before["series"].notna() & ~before["series"].isin(told)]
        fresh = pd.DataFrame(rows, columns=list(COLUMNS))
        _write(root, pd.concat([kept.astype(object), fresh.astype(object)], ignore_index=True))


def forget_volume(root: Path, volume: str) -> None:
    """Drop what is told of a volume, and of its series beside it."""
    with Lease(root, "the verdicts of the store", wait_s=_WAIT_S, name="verdicts.json"):
        before = read_verdicts(root)
        its_own = before["id"] == volume
        if its_own.any():
            _write(root, before[~its_own & ~before["series"].isin(before.loc[its_own, "series"].dropna())])


def read_verdicts(root: Path) -> pd.DataFrame:
    """All rows; none where nothing was ever given, or where the table cannot be read: it is told, never relied on."""
    import pandas as pd
    import pyarrow as pa

    none = pd.DataFrame(columns=list(COLUMNS))
    data = files.read(root / VERDICTS)
    if data is None:
        return none
    try:
        found = pd.read_parquet(BytesIO(data))
    except (OSError, ValueError, pa.ArrowException):
        return none
    return found if tuple(found.columns) == COLUMNS else none


def _write(root: Path, table: pd.DataFrame) -> None:
    out = BytesIO()
    numbers = {name: "Int64" for name in ("files", "planes", "rows", "columns")}
    texts = {name: "string" for name in COLUMNS if name not in numbers}
    table.astype({**numbers, **texts}).to_parquet(out, index=False)
    files.write_atomic(root / VERDICTS, out.getvalue())
