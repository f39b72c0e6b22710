"""Whom and what an exported DICOM object names: patient, study, frame of reference, and an instance for each plane.

::

    originals     read anew from the files that were ingested (--source): everything true
    kept UIDs     a store made with --keep-uids: UIDs true, the patient a pseudonym
    pseudonyms    any other store: UIDs that stand for the store's pseudonyms, and say so (decision 0009)

Nothing of it is ever written to the store, a log or a message.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import CTImageStorage

from ctpipe.dicom import Originals
from ctpipe.dicom.identity import uid_of_pseudonym
from ctpipe.dicom.parse import quiet
from ctpipe.dicom.sending import PSEUDONYM_METHOD
from ctpipe.errors import InputError
from ctpipe.store import Series

CHARACTER_SET = "ISO_IR 192"  # UTF-8, for whatever the originals and class names are written in
# Type 2 elements of the Patient and General Study modules, and what else is worth keeping (PS3.3 C.7.1.1, C.7.2.1).
_EMPTY_ALLOWED = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
                  "ReferringPhysicianName", "StudyID", "AccessionNumber")  # fmt: skip
_KEPT = ("IssuerOfPatientID", "PatientAge", "PatientSize", "PatientWeight", "StudyDescription",
         "PatientIdentityRemoved", "DeidentificationMethod", "PositionReferenceIndicator")  # fmt: skip


class Naming(StrEnum):
    """What the references of an export are."""

    ORIGINALS = "originals"
    KEPT_UIDS = "kept UIDs"
    PSEUDONYMS = "pseudonyms"


@dataclass(frozen=True)
class Instance:
    """One plane as DICOM refers to it. frame: number from 1 in a multi-frame object, else None."""

    sop_class: str
    uid: str = field(repr=False)
    frame: int | None = None


@dataclass(frozen=True)
class References:
    """What all objects of one export name.

    head: patient and study elements, and SpecificCharacterSet. instances: one a plane, ascending along the normal.
    """

    naming: Naming
    head: Dataset = field(repr=False)
    study: str = field(repr=False)
    series: str = field(repr=False)
    frame_of_reference: str = field(repr=False)
    instances: tuple[Instance, ...] = field(repr=False)


def references_of(series: Series, originals: Originals | None) -> References:
    """The references of a volume. Raises InputError for one that never was DICOM, or has no frame of reference."""
    uids = list(series.planes["sop_instance"]) if "sop_instance" in series.planes else []
    if not uids or not all(uids):
        raise InputError(f"volume {series.id} came from no DICOM series that a DICOM object could refer to",
                         "export it with --to nifti")  # fmt: skip
    if series.grid.frame_of_reference is None:
        raise InputError(f"volume {series.id} has no frame of reference, which a DICOM object must name",
                         "export it with --to nifti")  # fmt: skip
    if originals is not None:
        return _true(originals)
    if series.series.startswith("u-"):
        return _pseudonymous(series, uids)
    if len(set(uids)) < len(uids):
        raise InputError(f"volume {series.id} came from multi-frame objects whose class the store does not hold",
                         "name their files with --source")  # fmt: skip
    instances = tuple(Instance(CTImageStorage, uid) for uid in uids)
    return References(Naming.KEPT_UIDS, _pseudonymous_head(series), series.study, series.series,
                      series.grid.frame_of_reference, instances)  # fmt: skip


def _pseudonymous(series: Series, uids: list[str]) -> References:
    """Every UID is the one that stands for its pseudonym. What class and frames the sources had is not known."""
    assert series.grid.frame_of_reference is not None
    instances = tuple(Instance(CTImageStorage, uid_of_pseudonym(uid)) for uid in uids)
    return References(
        Naming.PSEUDONYMS, _pseudonymous_head(series), uid_of_pseudonym(series.study), uid_of_pseudonym(series.series),
        uid_of_pseudonym(series.grid.frame_of_reference), instances,
    )  # fmt: skip


def _pseudonymous_head(series: Series) -> Dataset:
    head = _head()
    head.PatientID = head.PatientName = series.patient
    head.PatientIdentityRemoved, head.DeidentificationMethod = "YES", PSEUDONYM_METHOD
    return head


def _true(originals: Originals) -> References:
    source = originals.header
    head = _head()
    with quiet():  # what the archive already holds is handed back as it is, well formed or not
        for keyword in (*_EMPTY_ALLOWED, *_KEPT):
            if keyword in source:
                setattr(head, keyword, _text(source[keyword].value))
        sop_class = str(source.get("SOPClassUID", CTImageStorage))
        study, series, frame = (str(source[keyword].value) for keyword in
                                ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"))  # fmt: skip
    instances = tuple(Instance(sop_class, plane.uid, plane.frame) for plane in originals.planes)
    return References(Naming.ORIGINALS, head, study, series, frame, instances)


def _head() -> Dataset:
    head = Dataset()
    head.SpecificCharacterSet = CHARACTER_SET
    for keyword in _EMPTY_ALLOWED:
        setattr(head, keyword, "")
    return head


def _text(value: object) -> str:
    if isinstance(value, MultiValue):
        return "\\".join(map(str, value))
    return "" if value is None else str(value)
