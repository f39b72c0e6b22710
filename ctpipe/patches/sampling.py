"""Random rows that depend on the seed and on the rows alone, not on partitions, workers or order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ctpipe.config import Stratum
from ctpipe.errors import NotThereError, UsageError
from ctpipe.patches.query import select
from ctpipe.patches.rows import Part, RowSpec, rows_of

if TYPE_CHECKING:
    import pandas as pd


def strata_of(by: str | Sequence[Stratum], classes: Mapping[int, str]) -> tuple[Stratum, ...]:
    """The strata of a sample: those given, or one of equal share for each class and background."""
    if isinstance(by, str):
        if by != "label":
            raise UsageError(f"rows cannot be sampled by {by!r}", "sample by 'label' or by strata")
        return tuple(Stratum(where=f"label == {number}", share=1.0) for number in (0, *classes))
    if not by or not all(np.isfinite(s.share) and s.share >= 0 for s in by) or sum(s.share for s in by) <= 0:
        raise UsageError("the shares of the strata are not positive numbers", "give each stratum a share above 0")
    return tuple(by)


def lowest(part: Part, spec: RowSpec, conditions: Sequence[str], n: int, seed: int) -> pd.DataFrame:
    """Of each stratum the `n` rows of lowest rank in this partition, with columns `stratum` and `rank`."""
    import pandas as pd
    rows = rows_of(part, spec)
    rows["rank"] = ranks(rows, part.source.id, seed)
    found = []
    for number, condition in enumerate(conditions):
        chosen = select(rows, condition)
        if len(chosen) > n:
            chosen = chosen.iloc[np.argpartition(chosen["rank"].to_numpy(), n - 1)[:n]]
        found.append(chosen.assign(stratum=np.int16(number)))
    return pd.concat(found, ignore_index=True)


def drawn(parts: Sequence[pd.DataFrame], strata: Sequence[Stratum], n: int, seed: int) -> pd.DataFrame:
    """`n` rows of the strata by their shares, in random order, from the `lowest` of all partitions."""
    import pandas as pd
    rows = pd.concat(parts, ignore_index=True)
    rows = rows.sort_values(["stratum", "rank", "series", "z", "y", "x"], kind="stable", ignore_index=True)
    at = [np.flatnonzero(rows["stratum"].to_numpy() == number) for number in range(len(strata))]
    shares = np.array([stratum.share if len(own) else 0.0 for stratum, own in zip(strata, at, strict=True)])
    if shares.sum() == 0:
        raise NotThereError("no row fits any stratum of the sample", "check the strata against PatchTable.count()")
    wanted = apportioned(n, shares / shares.sum())
    picked = np.concatenate([np.resize(own, count) for own, count in zip(at, wanted, strict=True)])
    order = np.random.default_rng(seed).permutation(len(picked))
    return rows.iloc[picked[order]].drop(columns="rank").reset_index(drop=True)


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
        state = _mixed(state ^ rows[axis].to_numpy().astype(np.uint64))
    return state


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One step of splitmix64 (Steele, Lea, Flood 2014); arithmetic modulo 2^64 is wanted."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
