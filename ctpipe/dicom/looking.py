"""What one file on disk holds: the headers of its CT planes, and the faults of all else, an archive with all members.

Plain functions of small values, so that any worker can look at any file; what they give back is text and numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256

from ctpipe.dicom import elements
from ctpipe.dicom.classify import not_a_ct_image
from ctpipe.dicom.header_text import to_text
from ctpipe.dicom.headers import PlaneHeader, planes_of
from ctpipe.dicom.identity import Pseudonyms
from ctpipe.dicom.parse import Parsed, ParseFaultError, looks_like_dicom, parse, quiet
from ctpipe.dicom.sources import Fault, Item, expand
from ctpipe.errors import InputError
from ctpipe.words import VerdictKind

HEAD_BYTES = 256  # enough to tell a DICOM file, an archive and all else apart


@dataclass(frozen=True)
class PlaneLine:
    """One plane: what the index sorts by, and its header as text. series, instance: pseudonyms, "" where none."""

    series: str
    instance: str
    text: str


@dataclass(frozen=True)
class Entry:
    """One file, or one member of an archive: its planes, or why it has none.

    series: of a file without planes, where its bytes say it (pseudonym).
    """

    members: tuple[int, ...]
    planes: tuple[PlaneLine, ...] = ()
    fault: Fault | None = None
    series: str | None = None


@dataclass(frozen=True)
class Look:
    """Files on disk to look at, by their place in the walk. The key of the pseudonyms never leaves the task."""

    files: tuple[tuple[int, Item], ...] = field(repr=False)
    names: Pseudonyms = field(repr=False)


@dataclass(frozen=True)
class Seen:
    """What one file on disk holds. place: in the walk; signature: of the file as it was when it was read."""

    place: int
    signature: str
    entries: tuple[Entry, ...]


def look(task: Look) -> list[Seen]:
    """Looks at every file of the task."""
    return [_look_at(place, item, task.names) for place, item in task.files]


def _look_at(place: int, found: Item, names: Pseudonyms) -> Seen:
    try:
        signature = found.locator.signature()
    except InputError as error:
        return Seen(place, "", (Entry((), fault=_unreadable(error)),))
    entries = tuple(_entry(item, names) for item in expand(found))
    return Seen(place, signature, _whole_or_refused(entries))


def _entry(item: Item, names: Pseudonyms) -> Entry:
    members = item.locator.members
    if item.fault is not None:
        return Entry(members, fault=item.fault)
    try:
        with item.locator.open() as file:
            head = file.read(HEAD_BYTES)
            if not looks_like_dicom(head):
                return Entry(members, fault=_no_dicom(head))
            return _dicom_entry(item, parse(file), names)
    except ParseFaultError as fault:
        series = names.uid(fault.series_uid) if fault.series_uid else None
        return Entry(members, fault=Fault(VerdictKind.REJECT, fault.reason, fault.detail), series=series)
    except InputError as error:
        return Entry(members, fault=_unreadable(error))


def _dicom_entry(item: Item, parsed: Parsed, names: Pseudonyms) -> Entry:
    members = item.locator.members
    series = None
    try:
        with quiet():
            uid = elements.text(parsed.ds, "SeriesInstanceUID")
            series = names.uid(uid) if uid else None
            aside = not_a_ct_image(parsed)
            if aside is None:
                return Entry(members, tuple(_lines(parsed, item, names)))
    except Exception as error:  # pydicom reads sequences late: what a hostile one makes it raise is one verdict too
        fault = Fault(VerdictKind.REJECT, "unreadable", f"the file cannot be read ({type(error).__name__})")
        return Entry(members, fault=fault, series=series)
    if parsed.truncated and aside.reason == "unreadable":
        aside = Fault(VerdictKind.REJECT, "truncated", "a truncated file that cannot be read as a DICOM object")
    return Entry(members, fault=aside, series=series)


def _lines(parsed: Parsed, item: Item, names: Pseudonyms) -> Iterator[PlaneLine]:
    for found in planes_of(parsed, item.locator, 0, names):
        plane: PlaneHeader = found
        if item.locator.members or not found.in_place:  # unpacked here already: not once more for the digest
            stored = b"".join(parsed.view[at : at + length] for at, length in found.spans)
            plane = replace(found, digest=sha256(stored).hexdigest() if found.spans else "")
        yield PlaneLine(plane.series, plane.instance, to_text(plane))


def _no_dicom(head: bytes) -> Fault:
    if not head:
        return Fault(VerdictKind.SET_ASIDE, "empty-file", "an empty file")
    return Fault(VerdictKind.SET_ASIDE, "not-dicom", "not a DICOM file, by its content")


def _unreadable(error: InputError) -> Fault:
    return Fault(VerdictKind.REJECT, "unreadable", error.problem, error.cure)


def _whole_or_refused(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """An archive of which one member cannot be read is refused whole: nobody knows what else it lost."""
    corrupt = [e.fault for e in entries if e.members and e.fault and e.fault.reason == "unreadable" and not e.series]
    if not corrupt:
        return entries
    return tuple(Entry(entry.members, fault=corrupt[-1]) for entry in entries)
