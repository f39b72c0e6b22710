"""DICOM RT Structure Set of one label volume: a region for each class, closed planar contours in each plane.

Points lie in the plane of their image, in LPS mm to a ten-thousandth, so each number fits the 16 characters of DS.
Source: PS3.3 A.19, C.8.8.5, C.8.8.6 (keyholes in C.8.8.6.3), C.8.8.8.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage

from ctpipe.dicom.parse import quiet
from ctpipe.export.case import Case
from ctpipe.export.contours import outlines
from ctpipe.export.made import date_of, describe, time_of, uid_for
from ctpipe.export.references import Instance, References
from ctpipe.export.segmentation import colour_of
from ctpipe.export.terms import Code, Term

SERIES_NUMBER = 9002
DECIMALS = 4  # of a millimetre
_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"  # what RTReferencedStudySequence wants; retired, and still wanted


def structure_set(case: Case, references: References, terms: Mapping[str, Term]) -> Dataset:
    """The object, to be saved as a file. Raises InputError for labels without a voxel."""
    case.extent  # noqa: B018  # raises where there is nothing to draw
    words = ("rtstruct", sorted(terms.items()))
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    with quiet():
        describe(ds, case, references, SERIES_NUMBER)
        _head(ds, case, references, words)
        numbers = {label: n for n, label in enumerate(case.present, start=1)}
        contours: dict[int, list[Dataset]] = {label: [] for label in case.present}
        for label, z, points in _contours(case):
            contours[label].append(_contour(points, references.instances[z], len(contours[label]) + 1))
        ds.StructureSetROISequence = [_region(n, case, references, label) for label, n in numbers.items()]
        ds.ROIContourSequence = [_drawn(n, label, contours[label]) for label, n in numbers.items()]
        ds.RTROIObservationsSequence = [_observed(n, case.present[label], terms) for label, n in numbers.items()]
    return ds


def _contours(case: Case) -> Iterator[tuple[int, int, NDArray[np.float64]]]:
    """(label, plane, (n, 3) points in LPS mm) of every contour, plane by plane."""
    steps = case.grid.affine[:3, 1:3].T
    for slab, labels in case.slabs():
        for offset, plane in enumerate(labels):
            z = slab.start + offset
            for label in np.flatnonzero(np.bincount(plane.ravel())):
                if label:
                    for ring in outlines(plane == label):
                        yield int(label), z, case.positions[z] + ring @ steps


def _head(ds: Dataset, case: Case, references: References, words: tuple[object, ...]) -> None:
    ds.SOPClassUID, ds.Modality = RTStructureSetStorage, "RTSTRUCT"
    ds.SOPInstanceUID = uid_for(case, references, *words)
    ds.SeriesInstanceUID = uid_for(case, references, *words, "series")
    ds.SeriesDescription = f"{case.labels.kind} {case.labels.name}"[:64]
    ds.OperatorsName = ""
    ds.StructureSetLabel = "CTPIPE"
    ds.StructureSetName = f"labels {case.labels.name}"[:64]
    ds.StructureSetDate, ds.StructureSetTime = date_of(case), time_of(case)
    ds.ApprovalStatus = "UNAPPROVED"
    images = {instance.uid: _image(instance, whole=True) for instance in references.instances}
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID, series.ContourImageSequence = references.series, list(images.values())
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = _STUDY_CLASS, references.study
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = references.frame_of_reference, [study]
    ds.ReferencedFrameOfReferenceSequence = [frame]


def _image(instance: Instance, *, whole: bool) -> Dataset:
    ds = Dataset()
    ds.ReferencedSOPClassUID, ds.ReferencedSOPInstanceUID = instance.sop_class, instance.uid
    if instance.frame is not None and not whole:
        ds.ReferencedFrameNumber = instance.frame
    return ds


def _contour(points: NDArray[np.float64], instance: Instance, number: int) -> Dataset:
    ds = Dataset()
    ds.ContourNumber, ds.ContourGeometricType, ds.NumberOfContourPoints = number, "CLOSED_PLANAR", len(points)
    ds.ContourImageSequence = [_image(instance, whole=False)]
    ds.ContourData = [_number(value) for value in points.ravel().tolist()]
    return ds


def _number(value: float) -> str:
    """At most 16 characters (PS3.5 6.2); -0 becomes 0."""
    text = f"{value:.{DECIMALS}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _region(number: int, case: Case, references: References, label: int) -> Dataset:
    ds = Dataset()
    ds.ROINumber, ds.ROIName = number, case.present[label][:64]
    ds.ReferencedFrameOfReferenceUID = references.frame_of_reference
    ds.ROIGenerationAlgorithm = case.algorithm_type
    return ds


def _drawn(number: int, label: int, contours: list[Dataset]) -> Dataset:
    ds = Dataset()
    ds.ReferencedROINumber, ds.ROIDisplayColor = number, list(colour_of(label))
    ds.ContourSequence = contours
    return ds


def _observed(number: int, name: str, terms: Mapping[str, Term]) -> Dataset:
    """What a region is. A finding has no interpreted type: which target volume it is, if any, is a planner's word."""
    term = terms[name]
    ds = Dataset()
    ds.ObservationNumber, ds.ReferencedROINumber = number, number
    ds.ROIObservationLabel = name[:16]
    ds.RTROIInterpretedType = "ORGAN" if term.known and not term.is_finding else ""
    ds.ROIInterpreter = ""
    ds.RTROIIdentificationCodeSequence = [_coded(term.kind)]
    return ds


def _coded(code: Code) -> Dataset:
    ds = Dataset()
    ds.CodeValue, ds.CodingSchemeDesignator, ds.CodeMeaning = code.value, code.scheme, code.meaning
    return ds
