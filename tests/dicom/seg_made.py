"""Builder of DICOM SEG files: every type, any order of frames, geometry shared or per frame, several encodings."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SegmentationStorage,
)
from pydicom.valuerep import format_number_as_ds

from ctpipe.dicom import synthetic_uid
from ctpipe.volume import Grid

LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"
PLAIN = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)


def frame_uid(key: str = "frame") -> str:
    return synthetic_uid("frame", key)


def write_seg(
    path: Path,
    masks: Mapping[str, np.ndarray],
    on: Grid,
    *,
    kind: str = "BINARY",
    syntax: str = ExplicitVRLittleEndian,
    order: Sequence[int] | None = None,
    frame: str | None = "frame",
    shared: bool = True,
    bits: int = 8,
    name: str = "seg",
) -> Path:
    """`masks`: label -> (z, y, x), bool; fractions 0..1 of a fractional object. Frames without voxels are left out.

    A label map takes the masks in their order, the later one on top. order: of the frames, as indexes in the plain one.
    """
    frames: list[tuple[int, int, np.ndarray]] = []  # z, segment number, pixels
    if kind == "LABELMAP":
        values = np.zeros(on.shape, f"<u{bits // 8}")
        for number, mask in enumerate(masks.values(), start=1):
            values[mask > 0] = number
        frames = [(z, 0, plane) for z, plane in enumerate(values) if plane.any()]
    else:
        for number, mask in enumerate(masks.values(), start=1):
            scaled = np.rint(mask * 200).astype(np.uint8) if kind == "FRACTIONAL" else (mask > 0).astype(np.uint8)
            frames += [(z, number, plane) for z, plane in enumerate(scaled) if plane.any()]
    frames = [frames[i] for i in order] if order is not None else frames
    ds = _head(masks, on, kind, frame, name)
    ds.SharedFunctionalGroupsSequence = Items([_geometry(on) if shared else Dataset()])
    ds.PerFrameFunctionalGroupsSequence = Items([_group(on, z, number, shared) for z, number, _ in frames])
    ds.NumberOfFrames = len(frames)
    _set_pixels(ds, [plane for _, _, plane in frames], on, kind, bits, syntax)
    return save(ds, path, syntax)


def save(ds: Dataset, path: Path, syntax: str) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    meta.TransferSyntaxUID, meta.ImplementationClassUID = syntax, "2.25.1"
    ds.file_meta = meta
    little, implicit = syntax != ExplicitVRBigEndian, syntax == ImplicitVRLittleEndian
    if syntax in PLAIN:
        ds.save_as(path, implicit_vr=implicit, little_endian=little, enforce_file_format=True)
        return path
    # pydicom does not write syntaxes that it does not know
    out = DicomBytesIO(b"")
    out.is_little_endian, out.is_implicit_VR = True, False
    out.write(bytes(128) + b"DICM")
    write_file_meta_info(out, meta)
    ds["PixelData"].is_undefined_length = True
    write_dataset(out, ds)
    path.write_bytes(out.getvalue())
    return path


def _head(masks: Mapping[str, np.ndarray], on: Grid, kind: str, frame: str | None, name: str) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID = LABEL_MAP if kind == "LABELMAP" else SegmentationStorage
    ds.Modality, ds.SegmentationType = "SEG", kind
    ds.SOPInstanceUID, ds.SeriesInstanceUID = synthetic_uid(name, "instance"), synthetic_uid(name, "series")
    ds.StudyInstanceUID = synthetic_uid("study")
    ds.PatientName, ds.PatientID = "", "P1"
    if frame is not None:
        ds.FrameOfReferenceUID = frame_uid(frame)
    ds.SegmentSequence = Items([])
    for number, label in enumerate(masks, start=1):
        segment = Dataset()
        segment.SegmentNumber, segment.SegmentLabel, segment.SegmentAlgorithmType = number, label, "MANUAL"
        ds.SegmentSequence.append(segment)
    if kind == "FRACTIONAL":
        ds.SegmentationFractionalType, ds.MaximumFractionalValue = "PROBABILITY", 200
    return ds


def _set_pixels(ds: Dataset, planes: list[np.ndarray], on: Grid, kind: str, bits: int, syntax: str) -> None:
    bits = 1 if kind == "BINARY" else bits
    ds.Rows, ds.Columns = on.shape.y, on.shape.x
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits, bits - 1, 0
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    if syntax == DEFLATED_FRAMES:
        packed = [np.packbits(p, bitorder="little").tobytes() if bits == 1 else p.tobytes() for p in planes]
        data = encapsulate([_deflated(p) for p in packed])
    elif bits == 1:
        data = np.packbits(np.stack(planes).ravel(), bitorder="little").tobytes()
    else:
        data = np.stack(planes).tobytes()
    if syntax == ExplicitVRBigEndian and bits == 16:
        data = np.frombuffer(data, "<u2").byteswap().tobytes()
    ds.add_new("PixelData", "OW" if bits == 16 else "OB", data + b"\0" * (len(data) % 2))


def _deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    out = packer.compress(data) + packer.flush()
    return out + b"\0" * (len(out) % 2)


def _ds(values: Sequence[float]) -> list[str]:
    return [format_number_as_ds(float(v) + 0.0) for v in values]


def _geometry(on: Grid) -> Dataset:
    orientation, measures, out = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = _ds([*on.directions[:, 2], *on.directions[:, 1]])
    measures.PixelSpacing = _ds(on.spacing_mm[1:])
    measures.SliceThickness = "99"  # never used
    out.PlaneOrientationSequence, out.PixelMeasuresSequence = Items([orientation]), Items([measures])
    return out


def _group(on: Grid, z: int, number: int, shared: bool) -> Dataset:
    out = Dataset() if shared else _geometry(on)
    position = Dataset()
    position.ImagePositionPatient = _ds(on.to_lps((z, 0, 0)))
    out.PlanePositionSequence = Items([position])
    if number:
        segment = Dataset()
        segment.ReferencedSegmentNumber = number
        out.SegmentIdentificationSequence = Items([segment])
    return out
