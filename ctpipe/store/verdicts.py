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


def forget_series(root: Path, series: str) -> None:
    """Drop what is told of one series."""
    with Lease(root, "the verdicts of the store", wait_s=_WAIT_S, name="verdicts.json"):
        before = read_verdicts(root)
        if (before["series"] == series).any():
            _write(root, before[before["series"] != series])


def read_verdicts(root: Path) -> pd.DataFrame:
    """All rows; none where nothing was ever given."""
    import pandas as pd

    data = files.read(root / VERDICTS)
    return pd.DataFrame(columns=list(COLUMNS)) if data is None else pd.read_parquet(BytesIO(data))


def _write(root: Path, table: pd.DataFrame) -> None:
    out = BytesIO()
    numbers = {name: "Int64" for name in ("files", "planes", "rows", "columns")}
    texts = {name: "string" for name in COLUMNS if name not in numbers}
    table.astype({**numbers, **texts}).to_parquet(out, index=False)
    files.write_atomic(root / VERDICTS, out.getvalue())
