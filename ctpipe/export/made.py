"""What every DICOM object that ctpipe makes says of itself: its UIDs, its maker, its times."""

from __future__ import annotations

from hashlib import sha256

from pydicom.dataset import Dataset

from ctpipe import __version__
from ctpipe.export.case import Case
from ctpipe.export.references import References

MANUFACTURER = "ctpipe"
MODEL = "ctpipe export"
SERIAL = "0"  # of a device; software has none, and the Enhanced Equipment module wants one


def uid_for(case: Case, references: References, *words: object) -> str:
    """A UID that is a function of labels, source and `words`: what is exported again is the same object.

    Under 2.25 (PS3.5 B.2). Labels count by their voxels and classes, so other labels are never taken for these.
    """
    classes = sorted(case.labels.classes.items())
    told = [case.series.id, case.labels.name, case.labels.content, classes, references.series, references.naming,
            __version__, *words]  # fmt: skip
    return f"2.25.{int.from_bytes(sha256(repr(told).encode()).digest()[:16], 'big')}"


def date_of(case: Case) -> str:
    """Day of the labels' commit as DA."""
    return case.made.strftime("%Y%m%d")


def time_of(case: Case) -> str:
    """Time of the labels' commit as TM."""
    return case.made.strftime("%H%M%S")


def describe(ds: Dataset, case: Case, references: References, series_number: int) -> None:
    """Series, equipment and times of a data set of ours; patient and study from the references."""
    for element in references.head:
        ds.add(element)
    ds.StudyInstanceUID, ds.FrameOfReferenceUID = references.study, references.frame_of_reference
    if "PositionReferenceIndicator" not in ds:
        ds.PositionReferenceIndicator = ""
    ds.SeriesNumber, ds.InstanceNumber = series_number, 1
    ds.SeriesDate = ds.InstanceCreationDate = date_of(case)
    ds.SeriesTime = ds.InstanceCreationTime = time_of(case)
    if "ContentDate" in ds:  # of images and documents; a structure set has dates of its own
        ds.ContentDate, ds.ContentTime = date_of(case), time_of(case)
    for library in ds.get("ContributingEquipmentSequence", ()):
        library.ContributionDateTime = date_of(case) + time_of(case)
    ds.Manufacturer, ds.ManufacturerModelName = MANUFACTURER, MODEL
    ds.DeviceSerialNumber, ds.SoftwareVersions = SERIAL, __version__
