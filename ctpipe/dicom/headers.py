"""One file -> its planes: what the header says of each, what a look at the voxels tells, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian

from ctpipe.dicom import classify, elements
from ctpipe.dicom.codestreams import LOSSY, CodestreamFaultError, Span, frame_spans
from ctpipe.dicom.elements import Decimals, ElementFaultError
from ctpipe.dicom.identity import Pseudonyms
from ctpipe.dicom.parse import Parsed
from ctpipe.dicom.pixels import PixelFormat, PlaneFacts, Rescale, decode, facts_of
from ctpipe.dicom.sources import Locator

UNIT_TOLERANCE = 1e-4  # how far cosines may be from unit and orthogonal (corpus policy, rule 9)
MAX_FRAMES = 1_000_000
# What tells phases of one series apart where positions repeat, in the order in which it is tried (rule 6).
PHASE_KEYS = (
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "TemporalPositionTimeOffset",
    "NominalPercentageOfCardiacPhase",
    "NominalPercentageOfRespiratoryPhase",
    "TriggerTime",
    "NominalCardiacTriggerDelayTime",
    "KVP",
    "StackID",
)

EXPOSURE = ("Exposure", "ExposureInmAs")  # of a classic object, of an enhanced one; mAs
Faults = list[tuple[str, str]]  # (reason, detail)


@dataclass(frozen=True)
class PlaneHeader:
    """One plane as its file's header has it; identifiers are pseudonyms, "" where there is none.

    entry: number of its file in the index. position, orientation, pixel_spacing: LPS mm and cosines as written, None
    where missing or broken. faults: (reason, detail) of all that is wrong with the plane. spans: the bytes of the
    stored pixels in the file; signature: of that file as it was read. digest, facts: what a look at those bytes told
    (`looked_at`), empty before.
    """

    locator: Locator
    entry: int
    frame: int
    in_place: bool
    series: str
    study: str
    instance: str
    patient: str
    frame_of_reference: str
    rows: int
    columns: int
    position: Decimals | None = None
    orientation: tuple[float, ...] | None = None
    pixel_spacing: tuple[float, float] | None = None
    form: PixelFormat | None = None
    rescale: Rescale | None = None
    spans: tuple[Span, ...] = ()
    digest: str = ""
    facts: PlaneFacts | None = None
    keys: dict[str, float | str | None] = field(default_factory=dict)
    voi: tuple[float, float] | None = None
    exposure: float | None = None
    attributes: dict[str, float | str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    faults: tuple[tuple[str, str], ...] = ()
    signature: str = ""


def planes_of(parsed: Parsed, locator: Locator, entry: int, names: Pseudonyms) -> list[PlaneHeader]:
    """Every plane of a CT object, with its faults; a file that cannot be told into planes gives one, with faults."""
    ds = parsed.ds
    faults: Faults = [*_object_faults(parsed)]
    frames, groups = _frames(ds, classify.sop_class(parsed), faults)
    form = _pixel_format(ds, parsed.syntax, faults)
    spans = _spans(parsed, form, frames, faults)
    padding = _padding(ds, form) if form else None
    common = _common(parsed, locator, entry, form, names)
    shared = next(iter(elements.items(ds, "SharedFunctionalGroupsSequence")), None)
    out = []
    for frame in range(frames if spans else 1):
        groups_here = (groups[frame], shared) if groups else None
        own = [*faults]
        geometry = _geometry(ds, groups_here, own)
        out.append(
            PlaneHeader(
                **common,
                frame=frame,
                **geometry,
                rescale=_rescale(ds, groups_here, padding, own),
                spans=spans[frame] if spans else (),
                keys=_phase_keys(ds, groups_here, names),
                exposure=_number(ds, groups_here, "CTExposureSequence", *EXPOSURE),
                faults=tuple(own),
            )
        )
    return out


def looked_at(plane: PlaneHeader, stored: bytes) -> PlaneHeader:
    """The plane with digest of its stored bytes, facts of its voxels, and the fault where they do not decode."""
    if plane.form is None or not plane.spans:
        return plane
    digest = sha256(stored).hexdigest()
    try:
        facts = facts_of(decode(stored, plane.form), plane.rescale or Rescale(1.0, 0.0))
    except CodestreamFaultError as fault:
        return replace(plane, digest=digest, faults=(*plane.faults, (fault.reason, fault.detail)))
    return replace(plane, digest=digest, facts=facts)


def _common(
    parsed: Parsed, locator: Locator, entry: int, form: PixelFormat | None, names: Pseudonyms
) -> dict[str, Any]:
    ds = parsed.ds

    def uid(keyword: str) -> str:
        text = elements.text(ds, keyword)
        return names.uid(text) if text else ""

    patient = elements.text(ds, "PatientID")
    notes = []
    if parsed.syntax in LOSSY or elements.text(ds, "LossyImageCompression") == "01":
        notes.append("lossy: the pixels may have been compressed with loss before they came here")
    if not elements.text(ds, "SOPClassUID"):
        notes.append("sop-class: taken from the file meta group, the data set has none")
    return {
        "locator": locator,
        "entry": entry,
        "in_place": parsed.in_place,
        "form": form,
        "notes": tuple(notes),
        "series": uid("SeriesInstanceUID"),
        "study": uid("StudyInstanceUID"),
        "instance": uid("SOPInstanceUID"),
        "patient": names.patient(patient) if patient else "",
        "frame_of_reference": uid("FrameOfReferenceUID"),
        "rows": elements.integer(ds, "Rows") or 0,
        "columns": elements.integer(ds, "Columns") or 0,
        "voi": _voi(ds),
        "attributes": _attributes(ds),
    }


def _object_faults(parsed: Parsed) -> Iterator[tuple[str, str]]:
    """Faults of the whole object: identifiers, burned-in text, a lookup table, a file that ends early."""
    ds = parsed.ds
    for keyword in ("SeriesInstanceUID", "StudyInstanceUID", "SOPInstanceUID"):
        if not elements.is_uid(elements.text(ds, keyword)):
            yield "invalid-uid", f"{keyword} is no UID"
    frame_of_reference = elements.text(ds, "FrameOfReferenceUID")
    if frame_of_reference and not elements.is_uid(frame_of_reference):
        yield "invalid-uid", "FrameOfReferenceUID is no UID"
    if parsed.truncated:
        yield "truncated", "the file is truncated: it ends within an element"
    if "YES" in elements.texts(ds, "BurnedInAnnotation"):
        yield "burned-in", "BurnedInAnnotation says that text is burned into the pixels"
    if elements.has(ds, "ModalityLUTSequence"):
        yield "modality-lut", "a modality LUT stands in place of rescale slope and intercept"
    if elements.has(ds, "FloatPixelData") or elements.has(ds, "DoubleFloatPixelData"):
        yield "unsupported-pixels", "the pixels are floating point, which CT objects do not have"
    elif not elements.has(ds, "PixelData"):
        yield "no-pixels", "there is no pixel data"


def _frames(ds: Dataset, kind: str, faults: Faults) -> tuple[int, list[Dataset] | None]:
    """(number of frames, functional groups of each or None for a classic object)."""
    groups = elements.items(ds, "PerFrameFunctionalGroupsSequence")
    count = elements.integer(ds, "NumberOfFrames")
    if not groups and kind not in classify.ENHANCED:
        if (count is not None and count != 1) or (count is None and elements.text(ds, "NumberOfFrames")):
            faults.append(("frames", "a multi-frame object without a position for each frame"))
        return 1, None
    if count is None or not 1 <= count <= MAX_FRAMES or count != len(groups):
        faults.append(("frames", "the number of frames differs from the number of per-frame functional groups"))
        return 1, groups[:1] or [Dataset()]
    return count, groups


def _pixel_format(ds: Dataset, syntax: str, faults: Faults) -> PixelFormat | None:
    numbers = [
        elements.integer(ds, keyword)
        for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
    ]
    if any(fault[0] in ("unsupported-pixels", "no-pixels") for fault in faults):
        return None
    if None in numbers or numbers[5] not in (0, 1):
        faults.append(("bits", "Rows, Columns, BitsAllocated, BitsStored, HighBit or PixelRepresentation is missing"))
        return None
    rows, columns, allocated, stored, high, sign = (int(n) for n in numbers if n is not None)
    form = PixelFormat(rows, columns, allocated, stored, high, bool(sign), syntax)
    fault = form.fault()
    if fault:
        faults.append(fault)
        return None
    return form


def _spans(parsed: Parsed, form: PixelFormat | None, frames: int, faults: Faults) -> list[tuple[Span, ...]]:
    """Where each frame's stored bytes lie in the body; [] where they do not add up. Nothing is allocated before."""
    if form is None or any(reason in ("frames", "truncated") for reason, _ in faults):
        return []
    if parsed.pixels is None:
        faults.append(("no-pixels", "the pixel data cannot be read"))
        return []
    start, length, encapsulated = parsed.pixels.start, parsed.pixels.length, parsed.pixels.encapsulated
    if encapsulated != form.compressed:
        faults.append(("decode", "the transfer syntax does not fit the pixel data: one is compressed, the other not"))
        return []
    if form.compressed:
        try:
            return frame_spans(parsed.view, start, length, frames)
        except CodestreamFaultError as fault:
            faults.append((fault.reason, fault.detail))
            return []
    if form.syntax == ExplicitVRBigEndian and form.bits_allocated == 8 and parsed.pixels.vr != "OB":
        faults.append(("unsupported-pixels", "8-bit pixels in big-endian words are not supported"))
        return []
    size = form.frame_bytes
    if length < size * frames:
        faults.append(("truncated", "the pixel data is shorter than Rows x Columns x frames: truncated"))
        return []
    if length > size * frames + (size * frames) % 2:
        faults.append(("unsupported-pixels", "the pixel data is longer than Rows x Columns x frames"))
        return []
    return [((start + size * frame, size),) for frame in range(frames)]


def _padding(ds: Dataset, form: PixelFormat) -> tuple[int, int] | None:
    """Stored values (low, high) that are padding (PS3.3 C.7.5.1.1.2); signed as the pixels are, whatever the VR."""
    found = []
    for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        raw = elements.raw_element(ds, keyword)
        if raw is not None and len(raw.value) in (2, 4):
            found.append(int.from_bytes(raw.value, "little" if raw.little else "big", signed=form.signed))
        elif not found:
            return None
    return min(found), max(found)


Groups = tuple[Dataset, Dataset | None] | None


def _macro(ds: Dataset, groups: Groups, keyword: str) -> Dataset:
    """The item that holds a functional group's elements: per frame before shared; for a classic object the data set."""
    if groups is None:
        return ds
    for group in groups:
        for item in elements.items(group, keyword):
            return item
    return Dataset()


def _geometry(ds: Dataset, groups: Groups, faults: Faults) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, macro, read in (
        ("position", "PlanePositionSequence", _position),
        ("orientation", "PlaneOrientationSequence", _orientation),
        ("pixel_spacing", "PixelMeasuresSequence", _pixel_spacing),
    ):
        try:
            out[name] = read(_macro(ds, groups, macro))
        except ElementFaultError as fault:
            faults.append((fault.reason, fault.detail))
    return out


def _position(ds: Dataset) -> Decimals:
    return position_of(elements.raw_element(ds, "ImagePositionPatient"))


def position_of(raw: elements.Raw | None) -> Decimals:
    """ImagePositionPatient (PS3.3 C.7.6.2.1.1), LPS mm. Raises ElementFaultError."""
    return elements.decimals_of(raw, "ImagePositionPatient", 3, "missing-position")


def _orientation(ds: Dataset) -> tuple[float, ...]:
    values = elements.decimals(ds, "ImageOrientationPatient", 6, "missing-orientation").values
    row, column = values[:3], values[3:]
    dots = [sum(a * b for a, b in zip(p, q, strict=True)) for p, q in ((row, row), (column, column), (row, column))]
    if any(abs(dot**0.5 - 1) > UNIT_TOLERANCE for dot in dots[:2]) or abs(dots[2]) > UNIT_TOLERANCE:
        raise ElementFaultError("bad-orientation", "the cosines of ImageOrientationPatient are not unit and orthogonal")
    return values


def _pixel_spacing(ds: Dataset) -> tuple[float, float]:
    values = elements.decimals(ds, "PixelSpacing", 2, "missing-pixel-spacing", "bad-pixel-spacing").values
    if min(values) <= 0:
        raise ElementFaultError("bad-pixel-spacing", "PixelSpacing is not greater than 0")
    return values[0], values[1]


def _rescale(ds: Dataset, groups: Groups, padding: tuple[int, int] | None, faults: Faults) -> Rescale | None:
    item = _macro(ds, groups, "PixelValueTransformationSequence")
    kind = elements.texts(item, "RescaleType")
    if kind and kind != ("HU",):
        faults.append(("rescale-units", "RescaleType is not HU: the values are not Hounsfield units"))
    try:
        slope = elements.decimals(item, "RescaleSlope", 1, "missing-rescale", "bad-rescale").values[0]
        intercept = elements.decimals(item, "RescaleIntercept", 1, "missing-rescale", "bad-rescale").values[0]
        if slope == 0:
            raise ElementFaultError("bad-rescale", "RescaleSlope is 0")
    except ElementFaultError as fault:
        faults.append((fault.reason, fault.detail))
        return None
    return Rescale(slope, intercept, padding)


_KEY_MACROS = {
    "TemporalPositionIndex": "FrameContentSequence",
    "StackID": "FrameContentSequence",
    "AcquisitionNumber": "FrameContentSequence",
    "TemporalPositionTimeOffset": "TemporalPositionSequence",
    "NominalPercentageOfCardiacPhase": "CardiacSynchronizationSequence",
    "NominalCardiacTriggerDelayTime": "CardiacSynchronizationSequence",
    "NominalPercentageOfRespiratoryPhase": "RespiratorySynchronizationSequence",
    "KVP": "CTXRayDetailsSequence",
}


def _phase_keys(ds: Dataset, groups: Groups, names: Pseudonyms) -> dict[str, float | str | None]:
    out: dict[str, float | str | None] = {}
    for key in PHASE_KEYS:
        item = ds if groups is None or key not in _KEY_MACROS else _macro(ds, groups, _KEY_MACROS[key])
        name = "FrameAcquisitionNumber" if groups is not None and key == "AcquisitionNumber" else key
        value = elements.scalar(item, name)
        out[key] = names.text(value) if isinstance(value, str) else value
    return out


def _number(ds: Dataset, groups: Groups, macro: str, *keywords: str) -> float | None:
    for keyword in keywords:
        value = elements.scalar(_macro(ds, groups, macro), keyword)
        if isinstance(value, float):
            return value
    return None


def _voi(ds: Dataset) -> tuple[float, float] | None:
    """First window of the header; None where absent or of no width (3D-IRCADb writes 0)."""
    holder = next(
        (
            item
            for group in elements.items(ds, "SharedFunctionalGroupsSequence")
            for item in elements.items(group, "FrameVOILUTSequence")
        ),
        ds,
    )
    centre, width = elements.scalar(holder, "WindowCenter"), elements.scalar(holder, "WindowWidth")
    if isinstance(centre, float) and isinstance(width, float) and width > 0:
        return centre, width
    return None


_MANUFACTURERS = ("SIEMENS", "PHILIPS", "TOSHIBA", "CANON", "HITACHI", "FUJIFILM", "NEUSOFT", "UNITED IMAGING", "GE")


def _attributes(ds: Dataset) -> dict[str, float | str]:
    """Allow-list of acquisition facts: numbers, and codes of our own; never text from the file (RELIABILITY P1)."""
    out: dict[str, float | str] = {"modality": "CT"}
    for keyword, name in (("KVP", "kvp"), ("SliceThickness", "slice_thickness_mm")):
        value = elements.scalar(ds, keyword)
        if isinstance(value, float):
            out[name] = value
    maker = (elements.text(ds, "Manufacturer") or "").upper()
    code = next((code for code in _MANUFACTURERS if maker == code or maker.startswith(code + " ")), None)
    if code:
        out["manufacturer"] = code
    return out
