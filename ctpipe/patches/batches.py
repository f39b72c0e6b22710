"""Rows and pixels in an order: fetch, head, and the batches of an epoch.

On a cluster a batch is one task for each partition that it draws from. The task is given that partition, so it runs
where the rows are and where their slabs therefore stay; pixels go from worker to client, never through the scheduler.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from ctpipe.config import WindowSpec
from ctpipe.errors import NotThereError, UsageError
from ctpipe.patches import running
from ctpipe.patches.fetching import cut_rows
from ctpipe.patches.order import RowOrder, grouped
from ctpipe.patches.pixel_steps import PixelSteps
from ctpipe.patches.rows import RowSpec
from ctpipe.patches.sampling import concatenated
from ctpipe.patches.sources import Part, SeriesSource
from ctpipe.patches.virtual import with_virtual

if TYPE_CHECKING:
    import pandas as pd

    from ctpipe.patches.table import PatchTable

# Batches that a cluster works on while one is used.
AHEAD = 2


def rows_at(table: PatchTable, start: int, stop: int) -> pd.DataFrame:
    """Rows start..stop-1 of the table's order."""
    parts, places = RowOrder(table.band_sizes, table.order_seed).at(start, stop)
    if not len(parts):
        return table.empty
    pieces = [(mine, _Piece(table, part, places[mine], None).ask()) for part, mine in grouped(parts)]
    return _in_order([mine for mine, _ in pieces], [_answer(table, piece)[0] for _, piece in pieces])


def fetched(table: PatchTable, rows: pd.DataFrame, steps: PixelSteps, out: NDArray[np.generic] | None = None
            ) -> NDArray[np.generic]:
    """Pixels of rows, cut here or by the workers that hold the rows (or, of rows that nobody holds, by any one)."""
    lacking = [name for name in ("series", "z", "y", "x", *steps.columns) if name not in rows.columns]
    if lacking:
        raise NotThereError(f"the rows have no column {', '.join(lacking)}", "fetch rows with all their columns")
    sources = {source.id: source for source in table.sources}
    if table.client is None or not len(rows):
        return cut_rows(rows, sources, table.windows, steps, out)
    names = rows["series"].astype(str).to_numpy()
    numbers = _part_of(table, names, rows["z"].to_numpy(np.int64))
    run, pieces = uuid4().hex[:12], []
    for number, mine in grouped(numbers):
        some = rows.iloc[mine][list(dict.fromkeys(["series", "z", "y", "x", *steps.columns]))]
        call = CutCall(some.astype({"series": str}), table.parts[number].source, table.windows, steps)
        where = _workers(table, number)
        pieces.append((mine, table.client.submit(call, key=f"cut-{run}-{number}", pure=False, workers=where,
                                                 allow_other_workers=True)))
    found = table.client.gather([future for _, future in pieces], direct=True)
    out = np.empty((len(rows), *found[0].shape[1:]), found[0].dtype)
    for (mine, _), pixels in zip(pieces, found, strict=True):
        out[mine] = pixels
    return out


@dataclass(frozen=True)
class CutCall:
    """Pixels of some rows of one series, as one thing that Dask does not look into."""

    rows: pd.DataFrame = field(repr=False)
    source: SeriesSource = field(repr=False)
    windows: WindowSpec
    steps: PixelSteps

    def __call__(self) -> NDArray[np.generic]:
        return cut_rows(self.rows, {self.source.id: self.source}, self.windows, self.steps)


def batches_of(table: PatchTable, size: int, seed: int | None, steps: PixelSteps,
               transform: Callable[[NDArray[Any], pd.DataFrame], Any] | None, drop_last: bool, pool: int
               ) -> Iterator[Any]:
    """See `PatchTable.batches`."""
    if size < 1 or pool < 1:
        raise UsageError(f"batches of {size} rows out of {pool} slabs cannot be", "give at least 1 of each")
    if table.client is not None:
        table = table.persist()  # each partition is asked many times
    order = RowOrder(table.band_sizes, seed, pool)
    total = len(order)
    kept: OrderedDict[int, pd.DataFrame] = OrderedDict()
    coming: deque[list[tuple[NDArray[np.int64], Any]]] = deque()
    starts = iter(range(0, total - total % size if drop_last else total, size))

    def ask() -> None:
        start = next(starts, None)
        if start is not None:
            parts, places = order.at(start, min(start + size, total))
            coming.append([(mine, _Piece(table, part, places[mine], steps).ask(kept, pool))
                           for part, mine in grouped(parts)])

    for _ in range(AHEAD if table.client is not None else 1):
        ask()
    while coming:
        pieces = coming.popleft()
        answers = [_answer(table, piece) for _, piece in pieces]
        ask()
        mines = [mine for mine, _ in pieces]
        rows = _in_order(mines, [rows for rows, _ in answers])
        pixels = np.empty((len(rows), *answers[0][1].shape[1:]), answers[0][1].dtype)
        for mine, (_, some) in zip(mines, answers, strict=True):
            pixels[mine] = some
        yield transform(pixels, rows) if transform else (pixels, rows)


@dataclass(frozen=True)
class _Piece:
    """The part of a batch (or of `head`) that comes from one partition."""

    table: PatchTable
    number: int
    places: NDArray[np.int64]
    steps: PixelSteps | None

    def ask(self, kept: OrderedDict[int, pd.DataFrame] | None = None, pool: int = 1) -> Any:
        """A future of (rows, pixels), or the pair itself where there is no cluster."""
        table = self.table
        call = running.RowsCall(_piece, table.parts[self.number], table.spec.of(table.parts[self.number].source),
                                table.done, (self.places, self.steps))
        held = None if table.held is None else table.held[self.number]
        if table.client is not None:
            given = () if held is None else (held,)
            return table.client.submit(call, *given, key=f"batch-{uuid4().hex}", pure=False, retries=2)
        if held is not None:
            return call(held)
        kept = OrderedDict() if kept is None else kept
        if self.number not in kept:
            made = running.RowsCall(running.the_rows, call.part, call.spec, table.done)
            kept[self.number] = made()
            while len(kept) > pool:
                kept.popitem(last=False)
        kept.move_to_end(self.number)
        return _piece(kept[self.number], call.part, call.spec, self.places, self.steps)


def _piece(rows: pd.DataFrame, part: Part, spec: RowSpec, places: NDArray[np.int64], steps: PixelSteps | None
           ) -> tuple[pd.DataFrame, NDArray[np.generic] | None]:
    some = rows.iloc[places]
    if steps is None:
        return some, None
    full = with_virtual(some, steps.columns, part, spec)
    return some, cut_rows(full, {part.source.id: part.source}, spec.windows, steps)


def _answer(table: PatchTable, piece: Any) -> Any:
    return piece if table.client is None else table.client.gather(piece, direct=True)


def _in_order(mines: list[NDArray[np.int64]], frames: list[pd.DataFrame]) -> pd.DataFrame:
    rows = concatenated(frames)
    return rows.iloc[np.argsort(np.concatenate(mines), kind="stable")].reset_index(drop=True)


def _part_of(table: PatchTable, names: NDArray[Any], z: NDArray[np.int64]) -> NDArray[np.int64]:
    """The partition that each row lies in."""
    found = np.full(len(names), -1, np.int64)
    for number, part in enumerate(table.parts):
        found[(names == part.source.id) & (z >= part.start) & (z < part.stop)] = number
    if (found < 0).any():
        raise NotThereError(f"row {int(np.argmin(found))} lies in no partition of the table",
                            "fetch rows of this table")
    return found


def _workers(table: PatchTable, number: int) -> list[str]:
    """Who holds a partition; of one that nobody holds, always the same worker, so that its slabs stay there."""
    assert table.client is not None
    if table.held is not None:
        key = table.held[number].key
        holders = list(dict(table.client.who_has([key])).get(key, ()))
        if holders:
            return holders
    everyone = sorted(table.client.scheduler_info(n_workers=-1)["workers"])
    return [everyone[number % len(everyone)]] if everyone else []
