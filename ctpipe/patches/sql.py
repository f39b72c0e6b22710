"""SQL over the rows of a table: DuckDB reads them partition by partition, beside them, and only the answer travels.

The rows are streamed through DuckDB in one task on one worker, so a query holds what it needs (groups, a sort) and
never the table. A query that names `rows` several times has the columns that it uses put into a temporary table first.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from ctpipe.errors import BudgetError, NotThereError, UsageError
from ctpipe.patches import running
from ctpipe.patches.rows import RowSpec, stepped
from ctpipe.patches.sources import Part
from ctpipe.patches.virtual import with_virtual

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from ctpipe.patches.table import PatchTable

# Memory that DuckDB may use before it writes to a temporary folder, and bytes that an answer may have.
MEMORY = "256MB"
ANSWER_BYTES = 256 << 20
_CURE = "write one SELECT over rows, such as: SELECT label, count(*) FROM rows GROUP BY label"


def ask(table: PatchTable, query: str) -> pd.DataFrame:
    """See `PatchTable.sql`. UsageError for what is not one SELECT over rows; files and settings are out of reach."""
    columns, times = _reads(query, table.all_columns)
    call = _Ask(query, columns, times, tuple(table._calls(running.the_rows)), table.spec)
    if table.client is None or table.held is None:
        if table.client is None:
            return call(table.held)
        return table.client.submit(call, pure=False).result()
    # the futures are handed over by name: as arguments all of them would be copied to one worker first
    name = f"ctpipe-sql:{uuid4().hex}"
    table.client.publish_dataset(list(table.held), name=name)
    try:
        return table.client.submit(_AskHeld(call, name), pure=False).result()
    finally:
        table.client.unpublish_dataset(name)


def _reads(query: str, columns: list[str]) -> tuple[tuple[str, ...], int]:
    """The columns of `rows` that a query may read, and how often it names the table."""
    import duckdb
    with _connected() as connection:
        try:
            [text] = connection.execute("SELECT json_serialize_sql(?)", [query]).fetchone() or ("{}",)
        except duckdb.Error as error:
            raise UsageError(f"the query cannot be read: {_first_line(error)}", _CURE) from error
    tree = json.loads(text)
    if tree.get("error"):
        raise UsageError(f"the query cannot be read: {tree.get('error_message', 'no SELECT')}", _CURE)
    if len(tree.get("statements", ())) != 1:
        raise UsageError("the query is not one statement", _CURE)
    tables, names, star = [], set(), False
    for node in _nodes(tree):
        if node.get("type") == "BASE_TABLE":
            tables.append(str(node.get("table_name")))
        if node.get("class") == "STAR":
            star = True
        if node.get("class") == "COLUMN_REF":
            names |= set(node.get("column_names", ()))
    if "rows" not in tables:
        raise UsageError("the query does not read rows", _CURE)
    used = tuple(name for name in columns if star or name in names)
    return used or ("label",), tables.count("rows")


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for one in value.values():
            yield from _nodes(one)
    elif isinstance(value, list):
        for one in value:
            yield from _nodes(one)


@dataclass(frozen=True)
class _Ask:
    query: str
    columns: tuple[str, ...]
    times: int
    calls: tuple[running.RowsCall, ...] = field(repr=False)
    spec: RowSpec = field(repr=False)

    def __call__(self, held: Any = None) -> pd.DataFrame:
        """The answer; held: rows of the partitions by their number, or None to make them."""
        import duckdb
        import pyarrow as pa

        def batches() -> Iterator[pa.RecordBatch]:
            for number, call in enumerate(self.calls):
                rows = call() if held is None else stepped(held[number], call.part, call.spec, call.done)
                yield from _arrow(rows, self.columns, call.part, call.spec).to_batches()

        from ctpipe.patches.rows import empty_rows
        first = self.calls[0] if self.calls else None
        empty = empty_rows(self.spec) if held is None and not (first and first.part.file) else None
        if empty is None:
            assert first is not None
            empty = (first() if held is None else stepped(held[0], first.part, first.spec, first.done)).iloc[:0]
        schema = _arrow(empty, self.columns, first.part if first else None, self.spec).schema
        with tempfile.TemporaryDirectory(prefix="ctpipe-sql-") as folder, _connected(folder) as connection:
            stream = pa.RecordBatchReader.from_batches(schema, batches())
            connection.register("stream", stream)
            kind = "VIEW" if self.times == 1 else "TABLE"
            try:
                connection.execute(f"CREATE TEMP {kind} rows AS SELECT * FROM stream")
                answer = connection.sql(self.query).to_arrow_table()
            except duckdb.OutOfMemoryException as error:
                raise BudgetError("the query needs more memory and disk than it may use", "group or filter more"
                                  ) from error
            except duckdb.CatalogException as error:
                raise NotThereError(f"the query names what is not there: {_first_line(error)}", _CURE) from error
            except duckdb.Error as error:
                raise UsageError(f"the query failed: {_first_line(error)}", _CURE) from error
            if answer.nbytes > ANSWER_BYTES:
                raise BudgetError(f"the answer has {answer.nbytes / 2**20:.0f} MiB, {ANSWER_BYTES >> 20} MiB may leave "
                                  "the cluster", "select fewer rows or columns, or save the table")
            return answer.to_pandas()


@dataclass(frozen=True)
class _AskHeld:
    ask: _Ask
    name: str  # of the dataset of futures

    def __call__(self) -> pd.DataFrame:
        from distributed import get_client, secede
        futures = get_client().get_dataset(self.name)
        secede()  # the partitions may have to be made again: their tasks need the thread that this one leaves
        return self.ask(_Fetched(futures))


class _Fetched:
    """Partitions by number, brought to this worker when they are asked for and forgotten at once."""

    def __init__(self, futures: list[Any]) -> None:
        self.futures = futures

    def __getitem__(self, number: int) -> pd.DataFrame:
        return self.futures[number].result()  # asked through the client that it came with


def _arrow(rows: pd.DataFrame, columns: tuple[str, ...], part: Part | None, spec: RowSpec) -> pa.Table:
    import pyarrow as pa
    full = with_virtual(rows, columns, part, spec)[list(columns)]
    plain = {}
    for name in columns:
        if hasattr(full[name].dtype, "categories"):
            # dictionaries differ from partition to partition where few values occur: one type for all
            plain[name] = pa.array(full[name].cat.rename_categories(
                full[name].cat.categories.astype(str))).cast(pa.dictionary(pa.int32(), pa.string()))
        else:
            plain[name] = pa.array(full[name].to_numpy())
    return pa.table(plain)


def _connected(folder: str | Path | None = None) -> Any:
    import duckdb
    settings: dict[str, str | bool | int | float | list[str]] = {
                "threads": 1, "memory_limit": MEMORY, "autoinstall_known_extensions": False,
                "autoload_known_extensions": False}
    if folder is not None:
        settings["temp_directory"] = str(folder)
    connection = duckdb.connect(":memory:", config=settings)
    connection.execute("SET enable_external_access = false")
    connection.execute("SET python_enable_replacements = false")  # else names of Python variables are tables
    connection.execute("SET lock_configuration = true")
    return connection


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
