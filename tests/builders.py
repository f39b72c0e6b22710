"""Real DICOM in memory for tests: CT series of known voxels, with one thing wrong at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import uid as uids
from pydicom.dataset import Dataset, FileMetaDataset

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
ORIENTATIONS: dict[str, tuple[float, ...]] = {
    "axial": AXIAL,
    "coronal": (1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "oblique": (*(0.8, 0.6, 0.0), *(-0.36, 0.48, 0.8)),
    "reversed": (1, 0, 0, 0, -1, 0),
    "feet first": (-1, 0, 0, 0, 1, 0),
}
ORIGIN = (-31.25, 12.5, 204.75)


def uid(*words: object) -> str:
    """A UID that is a function of its words."""
    return str(uids.generate_uid(prefix="2.25.", entropy_srcs=[str(word) for word in words]))


def hu_block(shape: Sequence[int] = (8, 12, 16), seed: int = 3) -> NDArray[np.int16]:
    """Voxels (z, y, x) of int16 HU that no flip or swap of axes leaves as they are."""
    z, y, x = np.indices(shape)
    noise = np.random.default_rng(seed).integers(0, 5, shape)
    return (-900 + 100 * z + 17 * y + 5 * x + noise).astype(np.int16)


def ct_series(
    hu: NDArray[np.int16],
    spacing_mm: Sequence[float] = (2.5, 0.8, 0.7),
    orientation: Sequence[float] = AXIAL,
    *,
    drop: Iterable[int] = (),
    duplicate: Iterable[int] = (),
    tilt_deg: float = 0.0,
    signed: bool = False,
    syntax: str = uids.ExplicitVRLittleEndian,
    series: str = "s1",
    patient: str = "P1",
    edit: Callable[[int, Dataset], None] | None = None,
) -> list[bytes]:
    """One file a plane, in order along the normal.

    hu: (z, y, x), stored with intercept -1024 (0 where `signed`). drop: planes left out; duplicate: planes that come
    twice. tilt_deg: shear of the positions along the columns. edit(z, data set): a last change to each plane.
    """
    axes = np.asarray(orientation, np.float64).reshape(2, 3)
    normal = np.cross(*axes)
    files = []
    for z in [*(k for k in range(len(hu)) if k not in set(drop)), *duplicate]:
        shear = axes[1] * np.tan(np.radians(tilt_deg)) * spacing_mm[0] * z
        ds = _plane(hu[z], 0 if signed else -1024, signed)
        ds.PatientID, ds.PatientName = patient, "Builder^Test"
        ds.StudyInstanceUID, ds.SeriesInstanceUID = uid("study", patient), uid(patient, series)
        ds.FrameOfReferenceUID, ds.SOPInstanceUID = uid("frame", patient), uid(patient, series, z)
        ds.ImagePositionPatient = [f"{v:.8g}" for v in ORIGIN + normal * spacing_mm[0] * z + shear]
        ds.ImageOrientationPatient = [f"{v:.8g}" for v in axes.ravel()]
        ds.PixelSpacing = [str(spacing_mm[1]), str(spacing_mm[2])]
        ds.InstanceNumber = z + 1
        if edit:
            edit(z, ds)
        files.append(to_bytes(ds, syntax))
    return files


def _plane(hu: NDArray[np.int16], intercept: int, signed: bool) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.SOPClassUID, ds.Modality = uids.CTImageStorage, "CT"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = hu.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, int(signed)
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = "1", str(intercept), "HU"
    ds.WindowCenter, ds.WindowWidth = "40", "400"
    ds.PixelData = (hu.astype(np.int32) - intercept).astype("<i2" if signed else "<u2").tobytes()
    ds["PixelData"].VR = "OW"
    return ds


def to_bytes(ds: Dataset, syntax: str = uids.ExplicitVRLittleEndian) -> bytes:
    """The data set as a part 10 file of a transfer syntax."""
    ds.file_meta.TransferSyntaxUID = uids.ExplicitVRLittleEndian
    if uids.UID(syntax).is_compressed and syntax != uids.DeflatedExplicitVRLittleEndian:
        ds.compress(uids.UID(syntax), generate_instance_uid=False)
    else:
        ds.file_meta.TransferSyntaxUID = uids.UID(syntax)
    out = BytesIO()
    pydicom.dcmwrite(out, ds, enforce_file_format=True)
    return out.getvalue()


def write_files(folder: Path, files: Sequence[bytes], names: Sequence[str] | None = None) -> Path:
    """The files in `folder`, under names that tell nothing of their order unless given."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(files):
        (folder / (names[number] if names else f"{number * 7 % 101:03d}")).write_bytes(data)
    return folder


def setter(only: int | None = None, **values: Any) -> Callable[[int, Dataset], None]:
    """An `edit` that sets elements (None deletes) in every plane, or in plane `only`."""

    def edit(z: int, ds: Dataset) -> None:
        if only is None or z == only:
            for keyword, value in values.items():
                if value is None:
                    delattr(ds, keyword)
                else:
                    setattr(ds, keyword, value)

    return edit
