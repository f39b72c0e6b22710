"""Originals: the DICOM files that a committed volume came from, found again plane by plane.

A store holds no patient and, as a rule, no UID. What is exported for a PACS must name both; they are read anew from the
files, and a file counts only where it is the very plane: same place in the patient, same stored pixels (SHA-256), and
of one series. Pseudonyms decide between series that are alike; without the key place and pixels must do.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np
from pydicom.dataset import Dataset

from ctpipe.dicom.headers import PlaneHeader
from ctpipe.dicom.identity import Pseudonyms
from ctpipe.dicom.index import Index
from ctpipe.dicom.parse import ParseFaultError, parse
from ctpipe.dicom.volumes import stored_bytes
from ctpipe.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

SAME_PLACE_MM = 1e-3


@dataclass(frozen=True)
class Original:
    """One plane in its file. uid: its SOPInstanceUID; frame: number from 1 in a multi-frame object, else None."""

    uid: str = field(repr=False)
    frame: int | None


@dataclass(frozen=True)
class Originals:
    """All planes of a volume in their files. header: the data set of the first, less its pixels; names a patient."""

    header: Dataset = field(repr=False)
    planes: tuple[Original, ...] = field(repr=False)


def find_originals(
    paths: Sequence[str | os.PathLike[str]], planes: pd.DataFrame, series: str, names: Pseudonyms
) -> Originals:
    """The files of a volume among all that is below `paths`.

    planes: the volume's plane table. series: its series pseudonym. names: pseudonyms as the store was made with, UIDs
    kept or not. Raises InputError where not every plane is there or several series fit, NotThereError.
    """
    index = Index(replace(names, keep_uids=True))
    try:
        index.add(paths)
        there = index.series()
        named = [uid for uid in there if names.uid(uid) == series]
        tried = [_matched(index.planes(uid), planes) for uid in named or there]
    finally:
        index.close()
    whole = [found for found in tried if None not in found]
    if len(whole) > 1:
        raise InputError(f"{len(whole)} series of the source have the pixels of the volume in its place",
                         "give only the series that was ingested, or set CTPIPE_KEY to the store's key")  # fmt: skip
    if not whole:
        most = max((sum(one is not None for one in found) for found in tried), default=0)
        raise InputError(f"the source holds {most} of the volume's {len(planes)} planes with the pixels that were "
                         "ingested", "give the very files that were ingested")  # fmt: skip
    found = [plane for plane in whole[0] if plane is not None]
    header = _header(found[0])
    multi = "PerFrameFunctionalGroupsSequence" in header
    return Originals(header, tuple(Original(plane.instance, plane.frame + 1 if multi else None) for plane in found))


def _matched(headers: list[PlaneHeader], planes: pd.DataFrame) -> list[PlaneHeader | None]:
    """For each row of the table the plane of one series that it was, or None."""
    placed = [header for header in headers if header.position is not None]
    if not placed:
        return [None] * len(planes)
    positions = np.array([header.position.values for header in placed if header.position is not None])
    out: list[PlaneHeader | None] = []
    for row in planes.itertuples():
        apart = np.abs(positions - (row.position_l, row.position_p, row.position_s)).max(axis=1)
        near = np.flatnonzero(apart <= SAME_PLACE_MM)
        out.append(next((placed[n] for n in near if _digest(placed[n]) == row.source_digest), None))
    return out


def _digest(plane: PlaneHeader) -> str:
    if plane.digest:
        return plane.digest
    try:
        return sha256(stored_bytes(plane)).hexdigest() if plane.spans else ""
    except InputError:
        return ""


def _header(plane: PlaneHeader) -> Dataset:
    try:
        with plane.locator.open() as file:
            return parse(file).ds
    except ParseFaultError as fault:
        raise InputError(f"a source file changed: {fault.detail}", "run the command again") from None
