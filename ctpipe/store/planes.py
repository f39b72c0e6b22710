"""The plane table: one row per plane of a volume, as Parquet."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def planes_bytes(planes: pd.DataFrame) -> bytes:
    """Parquet bytes; the same table gives the same bytes with one pyarrow version."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    # pandas' own metadata holds its version and index: neither belongs to the volume
    table = pa.Table.from_pandas(planes, preserve_index=False).replace_schema_metadata(None)
    buffer = BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def read_planes_bytes(data: bytes) -> pd.DataFrame:
    """The table in Parquet bytes."""
    import pyarrow.parquet as pq

    return pq.read_table(BytesIO(data)).to_pandas()
