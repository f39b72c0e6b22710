"""Every file of the input looked at once: planes of CT images, and verdicts on all that is none."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ctpipe.dicom import elements
from ctpipe.dicom.classify import not_a_ct_image
from ctpipe.dicom.headers import PlaneHeader, planes_of
from ctpipe.dicom.parse import ParseFaultError, looks_like_dicom, parse, quiet
from ctpipe.dicom.sources import Fault, Item, count_items, iter_items
from ctpipe.errors import InputError
from ctpipe.words import VerdictKind

Progress = Callable[[str, int, int], None] | None


@dataclass(frozen=True)
class Lone:
    """A file that gives no plane: set aside, or refused. series_uid: raw, where its bytes say it."""

    number: int
    path: str
    fault: Fault
    series_uid: str | None = None
    in_archive: bool = False


@dataclass
class Index:
    """All planes and all other files of the input."""

    planes: list[PlaneHeader] = field(default_factory=list)
    lone: list[Lone] = field(default_factory=list)


def build_index(
    paths: Iterable[str | os.PathLike[str]], exclude: Sequence[str | os.PathLike[str]] = (), progress: Progress = None
) -> Index:
    """Looks at every file below `paths` except those below `exclude`; one file's bytes are held at a time.

    Raises NotThereError for a path that does not exist.
    """
    left_out = [Path(os.path.realpath(path)) for path in exclude]
    paths = list(paths)
    total = count_items(paths) if progress else 0
    index = Index()
    # Not listed first: a member's head and whole come from one unpacking only while it is the last that was touched.
    for item in iter_items(paths):
        if not _is_below(Path(item.locator.path), left_out):
            _look(item, index)
        if progress:
            progress("check", item.number, max(total, item.number))
    return _without_corrupt_archives(index)


def _is_below(path: Path, folders: list[Path]) -> bool:
    return any(path == folder or folder in path.parents for folder in folders)


def _look(item: Item, index: Index) -> None:
    inside = bool(item.locator.members)
    try:
        if item.fault is not None:
            index.lone.append(Lone(item.number, item.locator.path, item.fault, in_archive=inside))
            return
        head = item.head()
        if not looks_like_dicom(head):
            index.lone.append(Lone(item.number, item.locator.path, _no_dicom(head)))
            return
        index_file(item, index)
    except InputError as error:
        fault = Fault(VerdictKind.REJECT, "unreadable", error.problem, error.cure)
        index.lone.append(Lone(item.number, item.locator.path, fault, in_archive=inside))


def index_file(item: Item, index: Index) -> None:
    """Planes, or the one verdict, of a file that looks like DICOM. Raises InputError where it cannot be read at all."""
    path = item.locator.path
    try:
        parsed = parse(item.read())
    except ParseFaultError as fault:
        reject = Fault(VerdictKind.REJECT, fault.reason, fault.detail)
        index.lone.append(Lone(item.number, path, reject, fault.series_uid))
        return
    try:
        with quiet():
            aside = not_a_ct_image(parsed)
            if aside is None:
                index.planes.extend(planes_of(parsed, item.locator, item.number))
                return
    except Exception as error:  # pydicom reads sequences late: what a hostile one makes it raise is one verdict too
        reject = Fault(VerdictKind.REJECT, "unreadable", f"the file cannot be read ({type(error).__name__})")
        uid = elements.text(parsed.ds, "SeriesInstanceUID") or None
        index.lone.append(Lone(item.number, path, reject, uid))
        return
    if parsed.truncated and aside.reason == "unreadable":
        aside = Fault(VerdictKind.REJECT, "truncated", "a truncated file that cannot be read as a DICOM object")
    series = elements.text(parsed.ds, "SeriesInstanceUID") or None
    index.lone.append(Lone(item.number, path, aside, series))


def _no_dicom(head: bytes) -> Fault:
    if not head:
        return Fault(VerdictKind.SET_ASIDE, "empty-file", "an empty file")
    return Fault(VerdictKind.SET_ASIDE, "not-dicom", "not a DICOM file, by its content")


def _without_corrupt_archives(index: Index) -> Index:
    """An archive of which one member cannot be read is refused whole: nobody knows what else it lost."""
    corrupt = {lone.path: lone for lone in index.lone if lone.in_archive and lone.fault.reason == "unreadable"}
    if not corrupt:
        return index
    kept = Index([plane for plane in index.planes if plane.locator.path not in corrupt])
    dropped = {plane.number: plane.locator.path for plane in index.planes if plane.locator.path in corrupt}
    kept.lone = [lone for lone in index.lone if lone.path not in corrupt]
    numbers = {**dropped, **{lone.number: lone.path for lone in index.lone if lone.path in corrupt}}
    for number, path in sorted(numbers.items()):
        kept.lone.append(Lone(number, path, corrupt[path].fault))
    return kept
