"""What kind of object a file is: a CT image to be judged, or something that is set aside or refused unread."""

from __future__ import annotations

from pydicom import uid
from pydicom.dataset import Dataset

from ctpipe.dicom import elements
from ctpipe.dicom.parse import Parsed
from ctpipe.dicom.sources import Fault
from ctpipe.words import VerdictKind

CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED = frozenset({"1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"})
MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
# Modalities (PS3.3 C.7.3.1.1.1) whose objects hold no image of their own.
_NO_IMAGE = frozenset(
    {
        "SR",
        "PR",
        "KO",
        "RTSTRUCT",
        "RTPLAN",
        "RTRECORD",
        "RTDOSE",
        "SEG",
        "DOC",
        "REG",
        "FID",
        "AU",
        "ECG",
        "HD",
        "PLAN",
        "RWV",
        "SMR",
        "STAIN",
        "M3D",
    }
)


def sop_class(parsed: Parsed) -> str:
    """SOPClassUID, or the file meta's where the data set's is absent or empty."""
    return elements.text(parsed.ds, "SOPClassUID") or parsed.media_class


def not_a_ct_image(parsed: Parsed) -> Fault | None:
    """Why an object is set aside (or refused as unknown); None for a CT image, classic or enhanced."""
    ds, kind = parsed.ds, sop_class(parsed)
    modality = (elements.text(ds, "Modality") or "").upper()
    if kind == MEDIA_DIRECTORY or elements.has(ds, "DirectoryRecordSequence"):
        return _aside("not-image", "a DICOMDIR: a directory of media, not an image")
    if kind.startswith(SECONDARY_CAPTURE):
        return _aside("secondary-capture", "a secondary capture, by its SOP class not CT")
    if kind == CT or kind in ENHANCED:
        return _not_plain_ct(ds, modality)
    if modality == "CT" and not _is_registered(kind):
        return Fault(
            VerdictKind.REJECT,
            "not-ct",
            "the SOP class is none that DICOM knows, though the modality is CT",
            "export the series again with its true SOP class",
        )
    if modality in _NO_IMAGE or not _has_pixels(ds):
        if not kind and not modality:
            return Fault(
                VerdictKind.REJECT,
                "unreadable",
                "a DICOM file that cannot be read: it has no SOP class",
                "fetch the file again",
            )
        return _aside("not-image", "not an image, by its modality or SOP class (report, segmentation, RT, document)")
    return _aside("not-ct", "not CT, by its modality and SOP class")


def _not_plain_ct(ds: Dataset, modality: str) -> Fault | None:
    if modality not in ("", "CT"):
        return _aside("not-ct", "the modality is not CT, though the SOP class is")
    if "LOCALIZER" in (*elements.texts(ds, "ImageType"), *_frame_types(ds)):
        return _aside("localizer", "a localizer (scout), by its image type")
    samples = elements.integer(ds, "SamplesPerPixel")
    photometric = elements.texts(ds, "PhotometricInterpretation")
    if (samples or 1) != 1 or (photometric and not photometric[0].startswith("MONOCHROME")):
        return _aside("not-grayscale", "a color picture, by its photometric interpretation or samples per pixel")
    return None


def _frame_types(ds: Dataset) -> tuple[str, ...]:
    """Frame types of an enhanced object's shared group (PS3.3 C.8.15.3.1)."""
    return tuple(
        value
        for group in elements.items(ds, "SharedFunctionalGroupsSequence")
        for item in elements.items(group, "CTImageFrameTypeSequence")
        for value in elements.texts(item, "FrameType")
    )


def _is_registered(kind: str) -> bool:
    return kind in uid.UID_dictionary


def _has_pixels(ds: Dataset) -> bool:
    return any(elements.has(ds, keyword) for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"))


def _aside(reason: str, detail: str) -> Fault:
    return Fault(VerdictKind.SET_ASIDE, reason, detail)
