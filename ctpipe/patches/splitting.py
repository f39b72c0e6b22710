"""Splits by patient: two patients' rows never mix, and the same pixels under two patients are caught."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ctpipe.errors import NotThereError, RunError, UsageError
from ctpipe.patches.sampling import ranks
from ctpipe.patches.sources import SeriesSource

if TYPE_CHECKING:
    import pandas as pd


def named_splits(patients: Sequence[str], validate: Sequence[str], test: Sequence[str]) -> dict[str, str]:
    """{patient: split}; those that are not named train. UsageError, NotThereError for splits that cannot be."""
    named = {"validate": set(validate), "test": set(test)}
    unknown = sorted((named["validate"] | named["test"]) - set(patients))
    if unknown:
        raise NotThereError(f"the table has no patient {', '.join(unknown)}", f"it has {', '.join(patients)}")
    if named["validate"] & named["test"]:
        raise UsageError(f"patient {min(named['validate'] & named['test'])} is named for validate and test",
                         "name each patient once")
    if set(patients) <= named["validate"] | named["test"]:
        raise UsageError("no patient is left to train on", "name fewer patients for validate and test")
    return {patient: next((split for split in named if patient in named[split]), "train") for patient in patients}


def stratified_splits(counts: pd.DataFrame, shares: Mapping[str, float], seed: int) -> dict[str, str]:
    """{patient: split}, so that every split has its share of patients, and of each stratum's rows as nearly as can be.

    counts: rows by patient (index) and stratum (columns). Patients are taken from the rarest stratum's largest on
    (ties by seed), each to the split that then lacks most of what it brings.
    """
    if len(shares) < 2 or not all(np.isfinite(v) and v > 0 for v in shares.values()):
        raise UsageError("a split needs two or more shares above 0", "give {'train': 0.8, 'validate': 0.2}")
    if len(counts) < len(shares):
        raise UsageError(f"{len(counts)} patients cannot fill {len(shares)} splits", "name fewer splits")
    part = np.array(list(shares.values())) / sum(shares.values())
    brings = counts.to_numpy(np.float64) / np.maximum(counts.to_numpy().sum(axis=0), 1)  # share of each stratum
    brings = np.concatenate([brings, np.full((len(counts), 1), 1 / len(counts))], axis=1)  # and of the patients
    order = sorted(range(len(counts)), key=lambda i: (-brings[i].max(), _draw(counts.index[i], seed)))
    held = np.zeros((len(part), brings.shape[1]))
    members = np.zeros(len(part), int)
    found = {}
    for left, i in zip(range(len(order), 0, -1), order, strict=True):
        lack = 1 - held / part[:, None]  # relative, so that a small split gets its share of what is rare
        gain = (lack * brings[i]).sum(axis=1)
        empty = np.flatnonzero(members == 0)
        allowed = empty if len(empty) >= left else np.arange(len(part))  # no split stays empty
        best = int(allowed[np.argmax(gain[allowed])])
        held[best] += brings[i]
        members[best] += 1
        found[str(counts.index[i])] = list(shares)[best]
    return found


def _draw(patient: str, seed: int) -> int:
    import pandas as pd
    one = pd.DataFrame({"z": [0], "y": [0], "x": [0]})
    return int(ranks(one, patient, seed)[0])


def assert_apart(splits: Mapping[str, Iterable[SeriesSource]]) -> None:
    """RunError where a patient, or the same voxels under whatever name, lie in two splits.

    The same voxels: equal content of the whole volume, or a plane whose stored pixels (by the plane table's digest)
    occur under a patient of another split. Planes of one value (air) are no evidence, so three equal planes are wanted.
    """
    for what in ("patient", "content"):
        owner: dict[str, str] = {}
        for split, sources in splits.items():
            for source in sources:
                first = owner.setdefault(getattr(source, what), split)
                if first != split:
                    raise RunError(f"series {source.id} has its {what} in {first} and in {split}",
                                   "put both patients into one split, or remove one of the series")
    planes: dict[str, tuple[str, str]] = {}
    for split, sources in splits.items():
        for source in sources:
            shared: dict[str, int] = {}
            for digest in _plane_digests(source):
                other_split, other = planes.setdefault(digest, (split, source.id))
                if other_split != split:
                    shared[other] = shared.get(other, 0) + 1
            twins = [other for other, n in shared.items() if n >= 3]
            if twins:
                raise RunError(f"series {source.id} shares {shared[twins[0]]} planes with series {twins[0]} of another "
                               "split", "put both patients into one split, or remove one of the series")


def _plane_digests(source: SeriesSource) -> set[str]:
    planes = getattr(source.series, "planes", None)
    if planes is None or "source_digest" not in planes:
        return set()
    return {str(digest) for digest in planes["source_digest"] if digest}
