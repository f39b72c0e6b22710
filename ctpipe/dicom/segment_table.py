"""The frames of a DICOM SEG as its functional groups have them: place, segment and bytes of each (PS3.3 C.7.6.16.2)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage

from ctpipe.dicom import elements
from ctpipe.dicom.classify import sop_class
from ctpipe.dicom.codestreams import CodestreamFaultError, Span
from ctpipe.dicom.elements import ElementFaultError
from ctpipe.dicom.frame_places import FramePlace
from ctpipe.dicom.parse import ByteView, Parsed, quiet
from ctpipe.dicom.segment_frames import MAX_FRAMES, FrameForm, frame_form, spans_of
from ctpipe.dicom.sources import Locator
from ctpipe.dicom.structure import LabelFaultError, digest_of, parse_whole
from ctpipe.errors import InputError

LABEL_MAP_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"
STORAGE = frozenset({str(SegmentationStorage), LABEL_MAP_STORAGE})
KEPT_FILES = 4
_EXPORT = "export it again"


@dataclass(frozen=True)
class FrameTable:
    """The frames of one SEG, without their pixels.

    segments: the segment of each frame, () in a label map. spans: of each frame, in the file, or in its inflated data
    set where in_place is False. threshold: lowest value that belongs, of a binary or fractional frame.
    """

    form: FrameForm
    in_place: bool
    places: tuple[FramePlace, ...]
    spans: tuple[tuple[Span, ...], ...]
    segments: tuple[int, ...]
    threshold: int
    frame_of_reference: str

    @property
    def is_label_map(self) -> bool:
        return not self.segments

    def pixels(self, number: int, view: ByteView | bytes) -> NDArray[np.unsignedinteger]:
        """Pixels of a frame out of the bytes of the data set. Raises CodestreamFaultError."""
        return self.form.pixels(b"".join(view[at : at + n] for at, n in self.spans[number]), number)

    def holds(self, number: int, segment: int, locator: Locator, digest: str) -> NDArray[np.bool_]:
        """Where a frame shows a segment: bool (rows, columns). Raises InputError where its bytes are gone."""
        try:
            if locator.members or not self.in_place:
                return self.shows(self.pixels(number, _body(locator, digest)), segment)
            data = b"".join(locator.read_range(at, n) for at, n in self.spans[number])
            return self.shows(self.form.pixels(data, number), segment)
        except CodestreamFaultError as fault:
            raise InputError("a DICOM SEG changed since it was listed", "run the command again") from fault

    def shows(self, pixels: NDArray[np.unsignedinteger], segment: int) -> NDArray[np.bool_]:
        return np.asarray(pixels == segment if self.is_label_map else pixels >= self.threshold)


def frame_table(parsed: Parsed) -> FrameTable:
    """The frames of a SEG. Raises LabelFaultError where anything of them is missing or broken."""
    kinds = elements.texts(parsed.ds, "SegmentationType")
    kind = kinds[0] if kinds else ""
    if kind not in ("BINARY", "FRACTIONAL", "LABELMAP") or (kind == "LABELMAP") != (
        sop_class(parsed) == LABEL_MAP_STORAGE
    ):
        raise LabelFaultError("not-labels", "a DICOM SEG of no known SegmentationType", _EXPORT)
    form = frame_form(parsed, kind == "BINARY")
    try:
        with quiet():
            places, segments = _per_frame(parsed.ds, kind != "LABELMAP")
    except (LabelFaultError, ElementFaultError) as fault:
        cure = "export it with a position, orientation and spacing for each frame"
        raise LabelFaultError(fault.reason, fault.detail, cure) from fault
    except Exception as error:  # nested items are parsed only here, and pydicom raises nearly anything
        raise LabelFaultError("unreadable", "a DICOM SEG whose frames cannot be read", _EXPORT) from error
    spans = spans_of(parsed, form, len(places))
    frame = elements.text(parsed.ds, "FrameOfReferenceUID") or ""
    if frame and not elements.is_uid(frame):
        raise LabelFaultError("invalid-uid", "FrameOfReferenceUID of a DICOM SEG is no UID", _EXPORT)
    return FrameTable(
        form=form,
        in_place=parsed.in_place,
        places=tuple(places),
        spans=tuple(spans),
        segments=tuple(segments),
        threshold=_threshold(parsed.ds) if kind == "FRACTIONAL" else 1,
        frame_of_reference=frame,
    )


@lru_cache(maxsize=KEPT_FILES)
def listed_frames(locator: Locator, digest: str) -> FrameTable:
    """The frames of a file that was listed, parsed once a process. Raises InputError, LabelFaultError."""
    _refuse_changed(locator, digest)
    with locator.open() as file:
        return frame_table(parse_whole(file))


@lru_cache(maxsize=1)
def _body(locator: Locator, digest: str) -> bytes:
    """All bytes of a data set that cannot be read in part: it is inflated, or stands in an archive."""
    _refuse_changed(locator, digest)
    with locator.open() as file:
        return parse_whole(file).view[:]


def _refuse_changed(locator: Locator, digest: str) -> None:
    if digest_of(locator) != digest:
        raise InputError("a DICOM SEG changed since it was listed", "run the command again")


def _per_frame(ds: Dataset, of_one_segment: bool) -> tuple[list[FramePlace], list[int]]:
    groups = elements.items(ds, "PerFrameFunctionalGroupsSequence")
    shared = next(iter(elements.items(ds, "SharedFunctionalGroupsSequence")), Dataset())
    count = elements.integer(ds, "NumberOfFrames")
    if not groups or count != len(groups) or count > MAX_FRAMES:
        problem = "a DICOM SEG whose number of frames differs from that of its per-frame functional groups"
        raise LabelFaultError("frames", problem, _EXPORT)
    places, segments = [], []
    for group in groups:
        places.append(_place(group, shared))
        if of_one_segment:
            number = elements.integer(_macro(group, shared, "SegmentIdentificationSequence"), "ReferencedSegmentNumber")
            if number is None:
                raise LabelFaultError("not-labels", "a frame of a DICOM SEG names no segment", _EXPORT)
            segments.append(number)
    return places, segments


def _macro(group: Dataset, shared: Dataset, keyword: str) -> Dataset:
    """The item of a functional group: the frame's own before the shared one."""
    return next((item for holder in (group, shared) for item in elements.items(holder, keyword)), Dataset())


def _place(group: Dataset, shared: Dataset) -> FramePlace:
    """Raises ElementFaultError."""
    position = elements.decimals(
        _macro(group, shared, "PlanePositionSequence"), "ImagePositionPatient", 3, "missing-position"
    ).values
    cosines = elements.decimals(
        _macro(group, shared, "PlaneOrientationSequence"), "ImageOrientationPatient", 6, "missing-orientation"
    ).values
    spacing = elements.decimals(
        _macro(group, shared, "PixelMeasuresSequence"), "PixelSpacing", 2, "missing-pixel-spacing", "bad-pixel-spacing"
    ).values
    (ax, ay, az), (dx, dy, dz) = cosines[:3], cosines[3:]
    x, y, z = position
    return FramePlace(
        (x, y, z),
        (dx * spacing[0], dy * spacing[0], dz * spacing[0]),
        (ax * spacing[1], ay * spacing[1], az * spacing[1]),
    )


def _threshold(ds: Dataset) -> int:
    """Half of MaximumFractionalValue, rounded up."""
    highest = elements.integer(ds, "MaximumFractionalValue")
    if highest is None or not 1 <= highest <= 65535:
        raise LabelFaultError("bad-number", "a fractional DICOM SEG without MaximumFractionalValue", _EXPORT)
    return -(-highest // 2)
