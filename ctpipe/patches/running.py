"""Work on the partitions of a table: in this process one after the other, or as one opaque Dask task each.

Only small values travel: a part, a spec and settings go out, a small answer comes back. Answers that are merged are
merged on the workers, eight at a time, so that the client never holds one of every partition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from ctpipe.patches.rows import RowSpec, made, stepped
from ctpipe.patches.sources import Part

if TYPE_CHECKING:
    import pandas as pd
    from distributed import Client, Future

# Answers that are merged at once.
FAN_IN = 8


@dataclass(frozen=True)
class RowsCall:
    """function(rows, part, spec, *settings) as one thing that Dask does not look into; the rows are given or made.

    done: steps of `spec` that the given rows (or those of the part's file) have behind them.
    """

    function: Callable[..., Any]
    part: Part = field(repr=False)
    spec: RowSpec = field(repr=False)
    done: int = 0
    settings: tuple[Any, ...] = field(default=(), repr=False)

    def __call__(self, rows: pd.DataFrame | None = None) -> Any:
        if rows is None:
            rows = made(self.part, self.spec)
            rows = stepped(rows, self.part, self.spec, self.done if self.part.file is not None else 0)
        else:
            rows = stepped(rows, self.part, self.spec, self.done)
        return self.function(rows, self.part, self.spec, *self.settings)


@dataclass(frozen=True)
class _Merge:
    function: Callable[[Any, Any], Any]

    def __call__(self, *answers: Any) -> Any:
        return reduce(self.function, answers)


def the_rows(rows: pd.DataFrame, part: Part, spec: RowSpec) -> pd.DataFrame:
    """The rows themselves."""
    return rows


def submit(client: Client, calls: Sequence[RowsCall], held: Sequence[Future] | None, name: str) -> list[Future]:
    """One task a partition; where its rows are held, it is given them, and so runs where they are."""
    run = uuid4().hex[:12]
    made_of: Sequence[Any] = [(future,) for future in held] if held is not None else [()] * len(calls)
    return [client.submit(call, *given, key=f"{name}-{run}-{number}", pure=False, retries=2)
            for number, (call, given) in enumerate(zip(calls, made_of, strict=True))]


def mapped(client: Client | None, calls: Sequence[RowsCall], held: Sequence[Any] | None, name: str) -> list[Any]:
    """The answers of all partitions, in their order."""
    if client is None:
        return [call(*given) for call, given in zip(calls, _given(held, len(calls)), strict=True)]
    return client.gather(submit(client, calls, held, name))


def merged(client: Client | None, calls: Sequence[RowsCall], held: Sequence[Any] | None, name: str,
           merge: Callable[[Any, Any], Any]) -> Any:
    """The answers of all partitions merged in their order, by an associative function of two."""
    if client is None:
        return reduce(merge, (call(*given) for call, given in zip(calls, _given(held, len(calls)), strict=True)))
    level = submit(client, calls, held, name)
    while len(level) > 1:
        run = uuid4().hex[:12]
        level = [client.submit(_Merge(merge), *level[at : at + FAN_IN], key=f"{name}-merge-{run}-{at}", pure=False)
                 for at in range(0, len(level), FAN_IN)]
    return level[0].result()


def _given(held: Sequence[Any] | None, n: int) -> Sequence[tuple[Any, ...]]:
    return [()] * n if held is None else [(rows,) for rows in held]


@dataclass(frozen=True)
class PlainCall:
    """function(task) as one thing that Dask does not look into."""

    function: Callable[[Any], Any]
    task: Any = field(repr=False)

    def __call__(self) -> Any:
        return self.function(self.task)


@dataclass(frozen=True)
class Held:
    """A call with rows that this process holds."""

    call: RowsCall
    rows: Any = field(repr=False)

    def __call__(self) -> Any:
        return self.call(self.rows)


def called(call: RowsCall | Held) -> Any:
    """What a call gives; the function of a Dask DataFrame's partitions."""
    return call()
