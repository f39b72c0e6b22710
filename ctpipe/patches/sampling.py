"""Random rows that depend on the seed and on the rows alone, not on partitions, workers or order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ctpipe.config import Stratum
from ctpipe.errors import NotThereError, UsageError
from ctpipe.patches.query import evaluated, names_in
from ctpipe.patches.rows import RowSpec
from ctpipe.patches.sources import Part

if TYPE_CHECKING:
    import pandas as pd


def strata_of(by: str | Sequence[Stratum], classes: Mapping[int, str]) -> tuple[Stratum, ...]:
    """The strata of a sample: those given, or one of equal share for each class and background."""
    if isinstance(by, str):
        if by != "label":
            raise UsageError(f"rows cannot be sampled by {by!r}", "sample by 'label', by columns, or by strata")
        return tuple(Stratum(where=f"label == {number}", share=1.0) for number in (0, *classes))
    if not by or not all(np.isfinite(s.share) and s.share >= 0 for s in by) or sum(s.share for s in by) <= 0:
        raise UsageError("the shares of the strata are not positive numbers", "give each stratum a share above 0")
    return tuple(by)


def strata_of_groups(sizes: pd.Series, proportional: bool) -> tuple[Stratum, ...]:
    """A stratum for every group of `sizes` (rows by keys), of equal share or in proportion to its rows."""
    names = list(sizes.index.names)
    keys = sizes.index.to_frame(index=False)
    found = []
    for values, rows in zip(keys.itertuples(index=False, name=None), sizes.to_numpy(), strict=True):
        if rows:
            where = " and ".join(f"`{name}` == {_literal(value)}" for name, value in zip(names, values, strict=True))
            found.append(Stratum(where=where, share=float(rows) if proportional else 1.0))
    return tuple(found)


def _literal(value: object) -> str:
    return repr(value.item() if isinstance(value, np.generic) else value)


def lowest(rows: pd.DataFrame, part: Part, spec: RowSpec, conditions: Sequence[str], n: int, seed: int,
           weight: str | None = None) -> pd.DataFrame:
    """Of each stratum the `n` rows of lowest rank in this partition, with columns `stratum` and `rank`."""
    from ctpipe.patches.virtual import with_virtual
    rank = ranks(rows, part.source.id, seed)
    if weight is not None:
        rank = weighted(rank, with_virtual(rows, [weight], part, spec)[weight].to_numpy(np.float64))
    found = []
    for number, condition in enumerate(conditions):
        fits = evaluated(with_virtual(rows, names_in(condition), part, spec), condition)
        chosen = np.flatnonzero(fits.to_numpy(bool))
        if weight is not None:
            chosen = chosen[rank[chosen] < _NEVER]
        if len(chosen) > n:
            chosen = chosen[np.argpartition(rank[chosen], n - 1)[:n]]
        found.append(rows.iloc[chosen].assign(rank=rank[chosen], stratum=np.int16(number)))
    return concatenated(found)


def lower(n: int, one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Of each stratum the `n` rows of lowest rank of two such frames."""
    rows = concatenated([one, other])
    rows = rows.sort_values(["stratum", "rank", "series", "z", "y", "x"], kind="stable", ignore_index=True)
    return rows[rows.groupby("stratum").cumcount() < n].reset_index(drop=True)


def most_changed(rows: pd.DataFrame, part: Part, spec: RowSpec, n: int) -> pd.DataFrame:
    """The `n` rows that a reviewer changed most, most first; rows that nobody changed are left out."""
    return by_change(rows[rows["changed"].to_numpy() > 0]).head(n)


def by_change(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows in order: those whose centre was changed first, then by the share of the window, then by place."""
    by = ["corrected", "changed", "series", "z", "y", "x"]
    return rows.sort_values(by, ascending=[False, False, True, True, True, True], kind="stable")


def drawn(rows: pd.DataFrame, strata: Sequence[Stratum], n: int, seed: int) -> pd.DataFrame:
    """`n` rows of the strata by their shares, in random order, from the `lowest` of all partitions."""
    rows = rows.sort_values(["stratum", "rank", "series", "z", "y", "x"], kind="stable", ignore_index=True)
    at = [np.flatnonzero(rows["stratum"].to_numpy() == number) for number in range(len(strata))]
    shares = np.array([stratum.share if len(own) else 0.0 for stratum, own in zip(strata, at, strict=True)])
    if shares.sum() == 0:
        raise NotThereError("no row fits any stratum of the sample", "check the strata against PatchTable.count()")
    wanted = apportioned(n, shares / shares.sum())
    picked = np.concatenate([np.resize(own, count) for own, count in zip(at, wanted, strict=True)])
    order = np.random.default_rng(seed).permutation(len(picked))
    return rows.iloc[picked[order]].drop(columns="rank").reset_index(drop=True)


def concatenated(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Frames with the same columns as one, numbered from 0; those without rows do not decide any type."""
    import pandas as pd
    filled = [frame for frame in frames if len(frame)]
    return pd.concat(filled, ignore_index=True) if filled else frames[0].reset_index(drop=True)


def apportioned(n: int, shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Whole numbers that add up to `n`, as near to n * shares as can be (largest remainders, ties to the first)."""
    exact = n * shares
    counts = np.floor(exact).astype(np.int64)
    short = n - int(counts.sum())
    counts[np.argsort(-(exact - counts), kind="stable")[:short]] += 1
    return counts


def ranks(rows: pd.DataFrame, series: str, seed: int) -> NDArray[np.uint64]:
    """A random uint64 for each row, from seed, series id and centre (splitmix64 of their mix)."""
    start = int.from_bytes(sha256(f"{seed} {series}".encode()).digest()[:8], "little")
    state = np.full(len(rows), start, np.uint64)
    for axis in ("z", "y", "x"):
        state = mixed(state ^ rows[axis].to_numpy().astype(np.uint64))
    return state


_NEVER = np.uint64(2**64 - 1)  # rank of a row that is not to be drawn


def weighted(rank: NDArray[np.uint64], weights: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Ranks by which a row is drawn in proportion to its weight (Efraimidis and Spirakis 2006); 0: never."""
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise UsageError("a weight is negative or no number", "give 0 or more to every row")
    uniform = (rank.astype(np.float64) + 0.5) / 2.0**64
    with np.errstate(divide="ignore"):
        keys = -np.log(uniform) / weights  # exponential with rate `weight`: the lowest are drawn
    scaled = -np.expm1(-keys)  # monotone, 0 .. 1; weights above 1 only come out sooner
    out = np.minimum(scaled * 2.0**63, 2.0**63).astype(np.uint64)
    out[weights == 0] = _NEVER
    return out


def mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One step of splitmix64 (Steele, Lea, Flood 2014); arithmetic modulo 2^64 is wanted."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
