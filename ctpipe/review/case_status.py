"""What reviewers decided about a case: one small append-only file per volume, read by everybody, never rewritten.

::

    STORE/reviews/<series id>.status.jsonl      a record a line: JSON, a tab, the CRC-32C of the JSON in hex

A record is appended under the file's lock in one write and synced before it counts, so that two reviewers at once lose
nothing. A tail that a power cut left is not a record: readers leave it out and tell, the next writer cuts it off. A bad
record before the tail is named, and the others count. `ctpipe rm SERIES` takes the file with its volume.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from ctpipe.errors import StoreFaultError, UsageError
from ctpipe.review.working_copy import FOLDER, disk_errors
from ctpipe.store.commit import crc32c

SUFFIX = ".status.jsonl"
LONGEST_COMMENT = 2000


class Status(StrEnum):
    """What became of a case."""

    TODO = "todo"  # nobody decided, or a reviewer put it back
    ACCEPTED = "accepted"  # the labels on show are right
    CORRECTED = "corrected"  # a review was saved, and that one is right
    REJECTED = "rejected"  # not usable
    FLAGGED = "flagged"  # for somebody else to look at


@dataclass(frozen=True)
class Decision:
    """One decision. labels: name of the label group that it is about, None where there was none. seconds: on show.

    comment: free text that the reviewer typed, asked not to name a patient. at: UTC, ISO 8601.
    """

    series: str
    status: Status
    reviewer: str
    labels: str | None = None
    comment: str = ""
    seconds: float = 0.0
    at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))


@dataclass(frozen=True)
class CaseHistory:
    """All decisions about one volume, in the order in which they were made; notes: what was not readable."""

    decisions: tuple[Decision, ...] = ()
    notes: tuple[str, ...] = ()

    def newest(self, reviewer: str | None = None) -> Decision | None:
        """The last decision, of one reviewer or of all."""
        found = [one for one in self.decisions if reviewer is None or one.reviewer == reviewer]
        return found[-1] if found else None

    @property
    def by_reviewer(self) -> dict[str, Decision]:
        """Each reviewer's last decision."""
        return {one.reviewer: one for one in self.decisions}

    @property
    def in_conflict(self) -> bool:
        """Whether reviewers who decided came to different ends; both stand, and it is shown."""
        ends = {one.status for one in self.by_reviewer.values() if one.status is not Status.TODO}
        return len(ends) > 1


def read_status(root: Path, series: str) -> CaseHistory:
    """The decisions about a volume; none where there is no file. StoreFaultError where the disk will not give it."""
    path = _path(root, series)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return CaseHistory()
    except OSError as error:
        raise StoreFaultError(f"{FOLDER}/{path.name} cannot be read", "check the disk and your rights") from error
    decisions, bad, whole = _parsed(data)
    notes = [f"record {number} of {FOLDER}/{path.name} cannot be understood and was left out" for number in bad]
    if whole < len(data):
        left = len(data) - whole
        notes.append(f"{left} bytes of an unfinished record at the end of {FOLDER}/{path.name} are left out")
    return CaseHistory(tuple(decisions), tuple(notes))


def add_status(root: Path, decision: Decision) -> str | None:
    """Append a decision, synced; returns a line where the torn tail of an earlier writer was cut off, else None.

    Raises UsageError for a comment that is too long, BudgetError where the disk is full: nothing was written then.
    """
    if len(decision.comment) > LONGEST_COMMENT:
        raise UsageError(f"a comment of {len(decision.comment)} characters", f"keep to {LONGEST_COMMENT}")
    path = _path(root, decision.series)
    line = _line(decision)
    with disk_errors(f"{FOLDER}/{path.name}", len(line)):
        path.parent.mkdir(exist_ok=True)
        with open(path, "a+b") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)  # until the file is closed
            stream.seek(0)
            data = stream.read()
            _, _, whole = _parsed(data)
            if whole < len(data):
                stream.truncate(whole)
            try:
                stream.write(line)
                stream.flush()
                os.fsync(stream.fileno())
            except OSError:
                os.ftruncate(stream.fileno(), whole)  # whole or not at all
                raise
        _sync_folder(path.parent)
    cut = len(data) - whole
    return f"{cut} bytes of an unfinished record were cut off {FOLDER}/{path.name}" if cut else None


def _path(root: Path, series: str) -> Path:
    return root / FOLDER / f"{series}{SUFFIX}"


def _line(decision: Decision) -> bytes:
    text = json.dumps({**asdict(decision), "seconds": round(decision.seconds, 1)}, sort_keys=True).encode()
    return text + f"\t{crc32c(text)}\n".encode()


def _parsed(data: bytes) -> tuple[list[Decision], list[int], int]:
    """(decisions, numbers of damaged records from 1, bytes up to the end of the last record that is whole).

    Damage with whole records behind it is damage; damage at the very end is a torn tail.
    """
    decisions: list[Decision] = []
    bad: list[int] = []
    suspects: list[int] = []
    whole = place = 0
    for number, line in enumerate(data.splitlines(keepends=True), start=1):
        place += len(line)
        text, _, rest = line.partition(b"\t")
        if rest != f"{crc32c(text)}\n".encode():
            suspects.append(number)
            continue
        bad, suspects, whole = bad + suspects, [], place
        decision = _decision(text)
        if decision is None:
            bad.append(number)
        else:
            decisions.append(decision)
    return decisions, bad, whole


def _decision(text: bytes) -> Decision | None:
    """None for a record that is whole and not understood: one of a newer ctpipe."""
    try:
        found: Mapping[str, Any] = json.loads(text)
        return Decision(**{**found, "status": Status(found["status"])})
    except (ValueError, TypeError, KeyError):
        return None


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
