"""Planes of a series have headers that are alike: what one of them was found to say is not worked out again.

A header is cut into its elements by their lengths alone (PS3.5 7.1, explicit and implicit VR, little endian). Where all
elements that ctpipe reads are byte for byte those of a plane that was looked at in full, what was found of that plane
holds here too, less the few elements that tell planes apart. Anything else, down to one odd length, is looked at in
full: this is never the first to judge anything, and never gives a fault.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from struct import Struct
from struct import error as _STRUCT_ERROR  # noqa: N812

from pydicom.datadict import tag_for_keyword
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_16, EXPLICIT_VR_LENGTH_32

from ctpipe.dicom import elements
from ctpipe.dicom.codestreams import CodestreamFaultError, Span, frame_spans
from ctpipe.dicom.elements import ElementFaultError, Raw
from ctpipe.dicom.headers import EXPOSURE, PHASE_KEYS, PlaneHeader, position_of
from ctpipe.dicom.identity import Pseudonyms
from ctpipe.dicom.parse import ByteView, Parsed, end_of_items
from ctpipe.dicom.sources import Locator

HEADER_BYTES = 1 << 16  # where pixels begin later than this, the file is looked at in full

# What tells planes of a series apart, and is read anew for each.
OWN = ("SOPInstanceUID", "ImagePositionPatient", *EXPOSURE)
# All else that is read of a classic CT object. A test holds this against what `headers` and `classify` ask for.
COMMON = (
    "TransferSyntaxUID", "MediaStorageSOPClassUID",
    "SOPClassUID", "Modality", "ImageType", "Manufacturer", "SeriesInstanceUID", "StudyInstanceUID",
    "FrameOfReferenceUID", "PatientID", "BurnedInAnnotation", "LossyImageCompression", "NumberOfFrames",
    "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "ImageOrientationPatient", "PixelSpacing",
    "RescaleType", "RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "SliceThickness", *PHASE_KEYS,
    "DirectoryRecordSequence", "ModalityLUTSequence", "FloatPixelData", "DoubleFloatPixelData",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
)  # fmt: skip
_FRAMED = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")

_PIXEL_DATA, _UNDEFINED = 0x7FE00010, 0xFFFFFFFF
_EXPLICIT, _IMPLICIT, _LONG = Struct("<HH2sH"), Struct("<HHI"), Struct("<I")
_SHORT_VRS = frozenset(vr.encode() for vr in EXPLICIT_VR_LENGTH_16)
_LONG_VRS = frozenset(vr.encode() for vr in EXPLICIT_VR_LENGTH_32)

Element = tuple[int, bytes, bytes]  # tag, VR (b"" in implicit VR), value


class Alike:
    """Remembers the planes of one task's files that were looked at in full. Not for several threads."""

    def __init__(self, names: Pseudonyms) -> None:
        self.names = names
        self._known: dict[tuple[Element, ...], PlaneHeader] = {}

    def learn(self, parsed: Parsed, plane: PlaneHeader) -> None:
        """Takes a plane as it was found by a look at the whole of its header."""
        if plane.faults or not plane.spans or parsed.syntax == ExplicitVRBigEndian or not parsed.in_place:
            return
        cut = _cut(parsed.view[:HEADER_BYTES])
        if cut is not None and not any(_tag(keyword) in parsed.ds for keyword in _FRAMED):
            self._known[cut.common] = plane

    def plane(self, head: bytes, size: int, locator: Locator, view: ByteView | None = None) -> PlaneHeader | None:
        """The plane that a file is, by a plane that was learnt; None where it must be looked at in full.

        head: its first HEADER_BYTES; size: of the file; view: of it, where it is open already.
        """
        if not self._known:
            return None
        cut = _cut(head)
        like = self._known.get(cut.common) if cut else None
        if cut is None or like is None or like.form is None:
            return None
        instance = cut.own.get(_tag("SOPInstanceUID"))
        uid = elements.text_of(instance) if instance else None
        if like.form.compressed:
            span = _compressed_span(cut, size, locator, view)
        else:
            span = cut.span(size, like.form.frame_bytes)
        if uid is None or not elements.is_uid(uid) or span is None:
            return None
        try:
            position = position_of(cut.own.get(_tag("ImagePositionPatient")))
        except ElementFaultError:
            return None
        values = (elements.scalar_of(cut.own.get(_tag(keyword))) for keyword in EXPOSURE)
        exposure = next((value for value in values if isinstance(value, float)), None)
        return replace(
            like, locator=locator, instance=self.names.uid(uid), position=position, exposure=exposure, spans=span,
            digest="",
        )  # fmt: skip


class _Cut:
    """The elements of one header, and where its pixels stand."""

    def __init__(self, elements_: list[Element], start: int, length: int) -> None:
        common, own = _tags(COMMON), _tags(OWN)
        self.common = tuple(element for element in elements_ if element[0] in common)
        self.own = {
            tag: Raw(value, vr.decode() if vr not in (b"", b"UN") else elements.dictionary_vr(tag), True)
            for tag, vr, value in elements_
            if tag in own
        }
        self.start, self.length = start, length

    def span(self, size: int, frame_bytes: int) -> tuple[Span, ...] | None:
        """Where the stored bytes of the one frame lie; None unless they end with the file."""
        fits = self.length in (frame_bytes, frame_bytes + frame_bytes % 2)
        return ((self.start, frame_bytes),) if fits and self.start + self.length == size else None


def _compressed_span(cut: _Cut, size: int, locator: Locator, view: ByteView | None) -> tuple[Span, ...] | None:
    """The same of fragments (PS3.5 A.4)."""
    if cut.length != _UNDEFINED:
        return None
    if view is None:
        with locator.open() as file:
            return _compressed_span(cut, size, locator, ByteView(file))
    if end_of_items(view, cut.start) != size:
        return None
    try:
        return frame_spans(view, cut.start, size - cut.start, 1)[0]
    except CodestreamFaultError:
        return None


def _cut(head: bytes) -> _Cut | None:
    """None where a thing is not as in a plain file of PS3.10: preamble, file meta group, ascending elements, pixels."""
    if head[128:134] != b"DICM\x02\x00":
        return None
    found: list[Element] = []
    at, last, explicit = 132, -1, True
    try:
        while True:
            if last < 0x00030000 <= head[at + 1] << 24 | head[at] << 16:  # the data set begins
                explicit = _is_explicit(found, head[at + 4 : at + 6])
            if explicit:
                group, element, vr, length = _EXPLICIT.unpack_from(head, at)
                at += 8
                if vr in _LONG_VRS:
                    (length,) = _LONG.unpack_from(head, at)
                    at += 4
                elif vr not in _SHORT_VRS:
                    return None
            else:
                group, element, length = _IMPLICIT.unpack_from(head, at)
                vr = b""
                at += 8
            tag = group << 16 | element
            if tag == _PIXEL_DATA:
                return _Cut(found, at, length)
            if tag <= last or tag > 0x7FE00000 or length > len(head) - at:  # undefined lengths are among these
                return None
            found.append((tag, vr, head[at : at + length]))
            at, last = at + length, tag
    except (IndexError, ValueError, _STRUCT_ERROR):
        return None


def _is_explicit(meta: list[Element], vr: bytes) -> bool:
    """By the transfer syntax. Raises ValueError where the first element does not look so: pydicom would guess."""
    syntax = b"".join(value for tag, _, value in meta if tag == 0x00020010).strip(b"\0 ")
    explicit = syntax != ImplicitVRLittleEndian.encode()
    if explicit != (vr.isalpha() and vr.isupper()):
        raise ValueError
    return explicit


@cache
def _tag(keyword: str) -> int:
    return int(tag_for_keyword(keyword) or 0)


@cache
def _tags(keywords: tuple[str, ...]) -> frozenset[int]:
    return frozenset(map(_tag, keywords))
