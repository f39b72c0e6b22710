"""What one file on disk holds: the headers of its CT planes, and the faults of all else, an archive with all members.

Plain functions of small values, so that any worker can look at any file; what they give back is text and numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from hashlib import sha256

from ctpipe.dicom import elements
from ctpipe.dicom.alike import HEADER_BYTES, Alike
from ctpipe.dicom.archives import archive_kind
from ctpipe.dicom.classify import not_a_ct_image
from ctpipe.dicom.header_text import to_text
from ctpipe.dicom.headers import PlaneHeader, planes_of
from ctpipe.dicom.identity import Pseudonyms
from ctpipe.dicom.parse import ByteView, Parsed, ParseFaultError, looks_like_dicom, parse, quiet
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
    alike = Alike(task.names)
    return [_look_at(place, item, alike) for place, item in task.files]


def _look_at(place: int, found: Item, alike: Alike) -> Seen:
    if found.fault is not None:
        return Seen(place, "", (Entry((), fault=found.fault),))
    try:
        seen = found.locator.glance(HEADER_BYTES)
        if archive_kind(seen.head) is None:
            known = alike.plane(seen.head, seen.size, found.locator)
            if known is not None:
                return Seen(place, seen.signature, (Entry((), (_line(known, found, None),)),))
    except InputError as error:
        return Seen(place, "", (Entry((), fault=_unreadable(error)),))
    entries = tuple(_entry(item, alike) for item in expand(found))
    return Seen(place, seen.signature, _whole_or_refused(entries))


def _entry(item: Item, alike: Alike) -> Entry:
    members = item.locator.members
    if item.fault is not None:
        return Entry(members, fault=item.fault)
    try:
        with item.locator.open() as file:
            head = file.read(HEAD_BYTES)
            if members or item.locator.is_remote:  # of a file on disk it was tried before
                view = ByteView(file)
                known = alike.plane(view[:HEADER_BYTES], view.size, item.locator, view)
                if known is not None:
                    return Entry(members, (_line(known, item, view),))
            if not looks_like_dicom(head):
                return Entry(members, fault=_no_dicom(head))
            return _dicom_entry(item, parse(file), alike)
    except ParseFaultError as fault:
        series = alike.names.uid(fault.series_uid) if fault.series_uid else None
        return Entry(members, fault=Fault(VerdictKind.REJECT, fault.reason, fault.detail), series=series)
    except InputError as error:
        return Entry(members, fault=_unreadable(error))


def _dicom_entry(item: Item, parsed: Parsed, alike: Alike) -> Entry:
    members, names = item.locator.members, alike.names
    series = None
    try:
        with quiet():
            uid = elements.text(parsed.ds, "SeriesInstanceUID")
            series = names.uid(uid) if uid else None
            aside = not_a_ct_image(parsed)
            if aside is None:
                planes = planes_of(parsed, item.locator, 0, names)
                if len(planes) == 1:
                    alike.learn(parsed, planes[0])
                return Entry(members, tuple(_line(plane, item, parsed.view) for plane in planes))
    except Exception as error:  # pydicom reads sequences late: what a hostile one makes it raise is one verdict too
        fault = Fault(VerdictKind.REJECT, "unreadable", f"the file cannot be read ({type(error).__name__})")
        return Entry(members, fault=fault, series=series)
    if parsed.truncated and aside.reason == "unreadable":
        aside = Fault(VerdictKind.REJECT, "truncated", "a truncated file that cannot be read as a DICOM object")
    return Entry(members, fault=aside, series=series)


def _line(plane: PlaneHeader, item: Item, view: ByteView | None) -> PlaneLine:
    if view and (item.locator.members or not plane.in_place):  # unpacked here already: not once more for the digest
        stored = b"".join(view[at : at + length] for at, length in plane.spans)
        plane = replace(plane, digest=sha256(stored).hexdigest() if plane.spans else "")
    return PlaneLine(plane.series, plane.instance, to_text(plane))


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
