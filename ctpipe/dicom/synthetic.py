"""Synthetic DICOM: plain CT series, mask series in the layout of 3D-IRCADb-01, RTSTRUCT.

Written for the demo and for tests, so nothing here comes from a patient: names are "Synthetic^…", dates are empty, and
UIDs are digests of the caller's keys under 2.25 (PS3.5 B.2): equal keys, equal UIDs, equal files. Geometry comes from
the grid's affine alone: plane z lies at index (z, 0, 0), rows and columns run as the grid says.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    RTStructureSetStorage,
)
from pydicom.valuerep import format_number_as_ds

from ctpipe.errors import BudgetError, InputError, UsageError
from ctpipe.volume import Grid

IMPLEMENTATION_UID = "2.25.302144118873049105021316452087361954223"
INTERCEPT_HU = -1024  # of the unsigned pixels that most scanners write


def synthetic_uid(*words: str | int) -> str:
    """A UID under 2.25 that is a function of `words` (PS3.5 B.2: at most 39 digits)."""
    digest = sha256("\x1f".join(str(word) for word in words).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def write_ct_series(
    folder: str | Path,
    hu: NDArray[np.int16],
    grid: Grid,
    *,
    patient: str,
    study_key: str,
    series_key: str = "ct",
    frame_key: str | None = None,
    order: Sequence[int] | None = None,
) -> list[Path]:
    """Write `hu` as CT Image Storage files IM0001, IM0002, … into `folder` and return their paths.

    hu: (z, y, x) int16 in HU, of the grid's shape. 12-bit unsigned with intercept -1024 where the values allow it, else
        16-bit unsigned, else (below -1024) 16-bit signed with intercept 0.
    patient: becomes PatientID and, after "Synthetic^", PatientName.
    study_key, series_key, frame_key: any words; UIDs are their digests. The frame of reference is the study's own
        unless frame_key names one.
    order: z index of each file in turn (default 0, 1, …): InstanceNumber and names follow it; planes left out are gaps.
    Raises UsageError where shape or dtype do not fit, BudgetError where the disk is full.
    """
    hu = np.asarray(hu)
    if hu.shape != tuple(grid.shape) or hu.dtype != np.int16:
        raise UsageError(
            f"HU of shape {hu.shape} and dtype {hu.dtype} are no CT on a grid of {tuple(grid.shape)}",
            "give int16 of the grid's shape",
        )
    stored, bits, signed, intercept = _stored(hu)
    planes = range(hu.shape[0]) if order is None else order
    paths = []
    for number, z in enumerate(planes, start=1):
        ds = _image(grid, z, number, patient, study_key, series_key, frame_key or study_key)
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.KVP = "120"
        _set_pixels(ds, stored[z], bits, signed)
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = str(intercept), "1", "HU"
        ds.WindowCenter, ds.WindowWidth = "40", "400"
        paths.append(_save(ds, Path(folder) / f"IM{number:04d}"))
    return paths


def write_mask_series(
    folder: str | Path,
    masks: Mapping[str, NDArray[np.bool_]],
    grid: Grid,
    *,
    patient: str,
    study_key: str,
    frame_key: str | None = None,
    linked: bool = True,
) -> Path:
    """Write masks as 3D-IRCADb-01 lays them out: `folder`/MASKS_DICOM/<structure>/image_N; returns MASKS_DICOM.

    masks: structure name -> bool (z, y, x) of the grid's shape. Each becomes a series of its own: Modality CT, CT Image
        Storage, 8 bit, 0 or 255, image_N lies on plane N.
    frame_key: as for the CT, so that several patients on one lattice stay apart. linked=False writes no frame of
        reference, as in 3D-IRCADb-01, where equal geometry is the only tie.
    Raises UsageError for a mask of another shape or a name that cannot be a folder, BudgetError where the disk is full.
    """
    top = Path(folder) / "MASKS_DICOM"
    for name, mask in masks.items():
        if np.shape(mask) != tuple(grid.shape):
            raise UsageError(
                f"mask {name!r} has shape {np.shape(mask)}, the grid {tuple(grid.shape)}", "give them alike"
            )
        if not re.fullmatch(r"\w[\w .-]*", name):
            raise UsageError(f"mask name {name!r} cannot be a folder", "use letters, digits, '_', '-', '.'")
        for z, plane in enumerate(mask):
            ds = _image(grid, z, z, patient, f"{study_key} masks", name, (frame_key or study_key) if linked else None)
            ds.ImageType = ["ORIGINAL", "PRIMARY"]
            ds.KVP = None
            _set_pixels(ds, np.where(plane, 255, 0).astype(np.uint8), 8, signed=False)
            ds.RescaleIntercept, ds.RescaleSlope = "0", "1"
            _save(ds, top / name / f"image_{z}")
    return top


def write_rtstruct(
    path: str | Path,
    rois: Mapping[str, Sequence[NDArray[np.float64]]],
    *,
    patient: str,
    study_key: str,
    frame_key: str | None = None,
    geometric_type: str = "CLOSED_PLANAR",
) -> Path:
    """Write an RT Structure Set; rois: ROI name -> contours, each (n, 3) points in LPS mm. Returns the path.

    Coordinates are cut to the 16 characters of DS (PS3.5 6.2). No image is referred to: the link to a CT is the frame
    of reference (that of `write_ct_series` with the same keys) and the position.
    """
    ds = _patient_and_study(patient, study_key)
    ds.SOPClassUID, ds.Modality = RTStructureSetStorage, "RTSTRUCT"
    ds.SOPInstanceUID = synthetic_uid("rtstruct", study_key, *rois)
    ds.SeriesInstanceUID = synthetic_uid("series", study_key, "rtstruct", *rois)
    ds.SeriesNumber, ds.OperatorsName = None, ""
    ds.StructureSetLabel, ds.StructureSetDate, ds.StructureSetTime = "SYNTHETIC", "", ""
    frame = synthetic_uid("frame", frame_key or study_key)
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = frame, ""
    reference = Dataset()
    reference.FrameOfReferenceUID = frame
    ds.ReferencedFrameOfReferenceSequence = DicomSequence([reference])
    ds.StructureSetROISequence = DicomSequence([])
    ds.ROIContourSequence = DicomSequence([])
    ds.RTROIObservationsSequence = DicomSequence([])
    for number, (name, contours) in enumerate(rois.items(), start=1):
        roi, contour_item, observation = Dataset(), Dataset(), Dataset()
        roi.ROINumber, roi.ReferencedFrameOfReferenceUID, roi.ROIName = number, frame, name
        roi.ROIGenerationAlgorithm = "AUTOMATIC"
        contour_item.ReferencedROINumber = number
        contour_item.ContourSequence = DicomSequence([_contour(points, geometric_type) for points in contours])
        observation.ObservationNumber, observation.ReferencedROINumber = number, number
        observation.RTROIInterpretedType, observation.ROIInterpreter = "", ""
        ds.StructureSetROISequence.append(roi)
        ds.ROIContourSequence.append(contour_item)
        ds.RTROIObservationsSequence.append(observation)
    return _save(ds, Path(path))


def _contour(points: NDArray[np.float64], geometric_type: str) -> Dataset:
    ds = Dataset()
    ds.ContourGeometricType, ds.NumberOfContourPoints = geometric_type, len(points)
    ds.ContourData = [_ds(value) for value in np.asarray(points, np.float64).ravel()]
    return ds


def _stored(hu: NDArray[np.int16]) -> tuple[NDArray[np.generic], int, bool, int]:
    """(stored values, bits stored, signed, intercept): the plainest encoding that holds every value."""
    if hu.min() < INTERCEPT_HU:
        return hu, 16, True, 0
    stored = (hu.astype(np.int32) - INTERCEPT_HU).astype(np.uint16)
    return stored, 12 if stored.max() < 4096 else 16, False, INTERCEPT_HU


def _patient_and_study(patient: str, study_key: str) -> Dataset:
    ds = Dataset()
    ds.PatientName, ds.PatientID = f"Synthetic^{patient}", patient
    ds.PatientBirthDate = ds.PatientSex = ""
    ds.StudyInstanceUID = synthetic_uid("study", study_key)
    ds.StudyDate = ds.StudyTime = ds.AccessionNumber = ds.StudyID = ""
    ds.ReferringPhysicianName = ""
    ds.Manufacturer = "ctpipe synthetic"
    return ds


def _image(
    grid: Grid, z: int, number: int, patient: str, study_key: str, series_key: str, frame_key: str | None
) -> Dataset:
    """Everything of one plane but its pixels (PS3.3 C.7.6.2: orientation is along the row, then down the column)."""
    _, y_mm, x_mm = grid.spacing_mm
    ds = _patient_and_study(patient, study_key)
    ds.SOPClassUID, ds.Modality = CTImageStorage, "CT"
    ds.SOPInstanceUID = synthetic_uid("instance", study_key, series_key, z)
    ds.SeriesInstanceUID = synthetic_uid("series", study_key, series_key)
    ds.SeriesNumber, ds.InstanceNumber, ds.AcquisitionNumber = None, number, None
    ds.Laterality = ""  # PS3.3 C.7.3.1: without Body Part Examined it is to be there, and may be empty
    ds.PatientPosition = ""  # PS3.3 C.7.3.1.1.2 lets it be empty; the geometry below is complete without it
    if frame_key is not None:
        ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = synthetic_uid("frame", frame_key), ""
    ds.ImagePositionPatient = [_ds(v) for v in grid.to_lps((z, 0, 0))]
    ds.ImageOrientationPatient = [_ds(v) for v in (*grid.directions[:, 2], *grid.directions[:, 1])]
    ds.PixelSpacing = [_ds(y_mm), _ds(x_mm)]
    normal = np.cross(grid.directions[:, 2], grid.directions[:, 1])
    ds.SliceThickness = _ds(abs(float(normal @ grid.affine[:3, 0])))
    return ds


def _set_pixels(ds: Dataset, plane: NDArray[np.generic], bits: int, signed: bool) -> None:
    allocated = plane.dtype.itemsize * 8
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = plane.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = allocated, bits, bits - 1, int(signed)
    pixels = np.ascontiguousarray(plane, plane.dtype.newbyteorder("<")).tobytes()
    ds.add_new("PixelData", "OB" if allocated == 8 else "OW", pixels + b"\0" * (len(pixels) % 2))


def _ds(value: float) -> str:
    """The number in the at most 16 characters of DS; -0 becomes 0."""
    return format_number_as_ds(float(value) + 0.0)


def _save(ds: Dataset, path: Path) -> Path:
    """Encode as a part 10 file, explicit VR little endian, and write it."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    meta.TransferSyntaxUID, meta.ImplementationClassUID = ExplicitVRLittleEndian, UID(IMPLEMENTATION_UID)
    ds.file_meta = meta
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(buffer.getbuffer())
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BudgetError(
                f"the disk is full: {buffer.tell()} more bytes of DICOM were wanted",
                "free some space or choose another folder",
            ) from error
        raise InputError(f"cannot write {path}: {error.strerror}", "choose a folder that can be written") from error
    return path
