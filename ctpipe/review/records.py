r"""Records of a journal as bytes: each checksummed and chained to the one before. Arithmetic only, no files.

::

    header   "ctpipe journal 1\n" | SHA-256 of what the journal belongs to (its genesis)
    record   marker (8) | length of the body, uint32 | body | SHA-256 of all before it in the record
    body     SHA-256 of the record before (the first: the genesis) | length of the head, uint16 | head, JSON | delta

The digest at the end is the checksum; as the next record repeats it, none can be taken out, put in or changed without
that being seen.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

MAGIC = b"ctpipe journal 1\n"
MARKER = b"\xc7jrnl\r\n\x1a"  # where a record may begin: after a rotten one, reading goes on here
_LENGTH = struct.Struct("<I")
_HEAD = struct.Struct("<H")
DIGEST = 32
HEADER_BYTES = len(MAGIC) + DIGEST

UNDO, REDO = "undo", "redo"


@dataclass(frozen=True)
class Entry:
    """One action. n: its number, from 1. of: the action that an undo or redo is about.

    active_s: seconds of work since the action before. facts: of the delta and of the tool, JSON-plain.
    start, end: its bytes in the file. payload: offset of the delta in the record.
    """

    n: int
    kind: str
    of: int | None
    active_s: float
    facts: dict[str, Any]
    previous: bytes
    digest: bytes
    payload: int
    start: int = 0
    end: int = 0


@dataclass
class Scan:
    """What lies in a journal: good records in order, and what is wrong with the rest, a line each.

    end: first byte after the last good record. torn: bytes after it that are no record.
    """

    entries: list[Entry] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)
    end: int = HEADER_BYTES
    torn: int = 0


def header(genesis: bytes) -> bytes:
    """The first bytes of a journal that belongs to `genesis` (32 bytes)."""
    return MAGIC + genesis


def spell(
    n: int, kind: str, of: int | None, active_s: float, facts: dict[str, Any], payload: bytes, previous: bytes
) -> bytes:
    """A record as bytes."""
    head = json.dumps({"n": n, "kind": kind, "of": of, "active_s": active_s, "facts": facts}, sort_keys=True).encode()
    body = previous + _HEAD.pack(len(head)) + head + payload
    record = MARKER + _LENGTH.pack(len(body)) + body
    return record + sha256(record).digest()


def parse(data: Any, at: int = 0) -> Entry | None:
    """The record that begins at byte `at` of `data` (bytes or mmap), or None where there is no good one."""
    first = at + len(MARKER) + _LENGTH.size
    if bytes(data[at : at + len(MARKER)]) != MARKER or first > len(data):
        return None
    (length,) = _LENGTH.unpack(data[at + len(MARKER) : first])
    end = first + length + DIGEST
    if length < DIGEST + _HEAD.size or end > len(data):
        return None
    digest = bytes(data[end - DIGEST : end])
    if sha256(memoryview(data)[at : end - DIGEST]).digest() != digest:
        return None
    (size,) = _HEAD.unpack(data[first + DIGEST : first + DIGEST + _HEAD.size])
    head_at = first + DIGEST + _HEAD.size
    found = json.loads(bytes(data[head_at : head_at + size]))
    return Entry(
        **found,
        previous=bytes(data[first : first + DIGEST]),
        digest=digest,
        payload=head_at + size - at,
        start=at,
        end=end,
    )


def scan(data: Any, genesis: bytes) -> Scan:
    """All good records of a journal; what is rotten in its middle is named and skipped, what is torn is its end."""
    found = Scan()
    whole = bytes(data[:HEADER_BYTES]) == header(genesis)
    if not whole and len(data) >= HEADER_BYTES:
        found.damage.append("its header is rotten, or of another working copy")
    last, n = genesis, 0
    for entry, gap in _records(data):
        if gap:
            found.damage.append(f"{_actions(n + 1, entry.n - 1)} cannot be read (checksum): {gap} bytes")
        elif entry.previous != last:
            found.damage.append(f"the chain breaks before action {entry.n}: {_actions(n + 1, entry.n - 1)} missing")
        found.entries.append(entry)
        last, n, found.end = entry.digest, entry.n, entry.end
    found.torn = max(0, len(data) - found.end)
    return found


def _actions(first: int, last: int) -> str:
    if last < first:
        return "no action"
    return f"action {first}" if first == last else f"actions {first} to {last}"


def _records(data: Any) -> Iterator[tuple[Entry, int]]:
    """(record, bytes before it that are none) of every good record."""
    at = min(HEADER_BYTES, len(data))
    end = at
    while at < len(data):
        entry = parse(data, at)
        if entry is None:
            at = data.find(MARKER, at + 1)
            if at < 0:
                return
            continue
        yield entry, entry.start - end
        at = end = entry.end


@dataclass
class Stack:
    """Which actions stand and which were undone, oldest first: what undo and redo take next."""

    done: list[int] = field(default_factory=list)
    undone: list[int] = field(default_factory=list)

    def feed(self, entry: Entry) -> None:
        """Take in the next record. An undo or redo of an action that is not known (a lost record) changes nothing."""
        if entry.kind == UNDO:
            if entry.of in self.done:
                self.done.remove(entry.of)
                self.undone.append(entry.of)
        elif entry.kind == REDO:
            if entry.of in self.undone:
                self.undone.remove(entry.of)
                self.done.append(entry.of)
        else:
            self.done.append(entry.n)
            self.undone.clear()
