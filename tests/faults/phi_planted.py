"""A folder of DICOM in which everything that may name a patient is planted, and the search for it in every byte.

Each planted text is one of its own, so that a find tells which element came through.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import sqlite3
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.uid import JPEGLSLossless

from ctpipe.dicom import write_ct_series, write_mask_series
from ctpipe.volume import Grid

STEM = "KILROY"  # in every planted text that may be free text
SHAPE = (36, 24, 28)  # two slabs
AFFINE = np.array([[0, 0, 0.8, -20.0], [0, 0.8, 0, -20.0], [2.0, 0, 0, 5.0], [0, 0, 0, 1]])


@dataclass
class Planted:
    """Where everything lies, and {where it was planted: the text}."""

    ct: Path
    masks: Path
    needles: dict[str, str] = field(default_factory=dict)

    def text(self, where: str) -> str:
        """The text that is planted at `where`; names nobody, found nowhere else."""
        return self.needles.setdefault(where, f"ZQ{len(self.needles):03d}{STEM}")

    def save(self, path: Path) -> None:
        path.write_text(json.dumps({"ct": str(self.ct), "masks": str(self.masks), "needles": self.needles}))


def plant_everything(folder: Path) -> Planted:
    """A right series, a dozen that are refused or set aside for as many reasons, archives, and masks.

    The two folders that are given to ctpipe name nobody: a path is the user's own parameter and is shown as given.
    """
    planted = Planted(folder / "ct", folder / "masks")
    _taken(planted)
    for number, (name, edit) in enumerate(_REFUSED.items()):
        files = _series(planted, name, seed=10 + number)
        for index, path in enumerate(files):
            _plant(planted, path, lambda ds, i=index, edit=edit: edit(planted, ds, i))
        if name == "truncated":
            files[1].write_bytes(files[1].read_bytes()[:-700])
    _odd_files(planted)
    return planted


def _grid() -> Grid:
    return Grid.from_affine(SHAPE, AFFINE)


def _series(planted: Planted, name: str, seed: int, planes: int = 4) -> list[Path]:
    """Files in a folder whose name, and whose own names, name a patient."""
    hu = np.random.default_rng(seed).integers(-1000, 1000, (planes, *SHAPE[1:])).astype(np.int16)
    grid = Grid.from_affine(hu.shape, AFFINE)
    place = planted.ct / f"{planted.text('name of a folder')}^{name}"
    order = [0, 1, 2, 4, 5] if name == "gap" else None
    if order:
        hu = np.concatenate([hu, hu])[:6]
        grid = Grid.from_affine(hu.shape, AFFINE)
    written = write_ct_series(place, hu, grid, patient="P", study_key=name, order=order)
    return [path.rename(path.with_name(f"{planted.text('name of a file')}_{i}.dcm")) for i, path in enumerate(written)]


def _taken(planted: Planted) -> None:
    z, y, x = np.indices(SHAPE)
    organ = np.hypot(y - 12, x - 13) < 8
    hu = np.where(organ, 100 + z + x, -1000).astype(np.int16)
    place = planted.ct / f"{planted.text('name of the folder of the taken series')}"
    for index, path in enumerate(write_ct_series(place, hu, _grid(), patient="P", study_key="taken")):
        _plant(planted, path.rename(path.with_name(f"{planted.text('name of a taken file')}-{index}")))
    other = np.hypot(y - 4, x - 4) < 2
    masks = {"liver": organ, planted.text("name of a structure"): other}
    written = write_mask_series(planted.masks, masks, _grid(), patient="P", study_key="taken")
    for path in sorted(written.rglob("*")):
        if path.is_file():
            _plant(planted, path)
            path.rename(path.with_name(f"{planted.text('name of a mask file')}{path.name}"))


def _plant(planted: Planted, path: Path, edit: Callable[[Dataset], None] = lambda ds: None) -> None:
    """Plant all that a header can hold into one file."""
    text, needles = planted.text, planted.needles
    with config.disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = pydicom.dcmread(path)
        ds.SpecificCharacterSet = "ISO_IR 192"
        ds.PatientName = f"{text('PatientName')}^{text('given name')}=ŻÓŁ{text('ideographic name')}"
        ds.PatientID = text("PatientID")
        ds.PatientBirthDate = needles.setdefault("PatientBirthDate", "19470816")
        for keyword, date in (("StudyDate", "19880229"), ("SeriesDate", "19880301"), ("AcquisitionDate", "19880302"),
                              ("ContentDate", "19880303")):  # fmt: skip
            setattr(ds, keyword, needles.setdefault(keyword, date))
        ds.AcquisitionDateTime = needles.setdefault("AcquisitionDateTime", "19880304070809.123456")
        for keyword in ("AccessionNumber", "InstitutionName", "InstitutionAddress", "ReferringPhysicianName",
                        "PerformingPhysicianName", "OperatorsName", "PatientComments", "ImageComments",
                        "StudyDescription", "SeriesDescription", "ProtocolName", "StudyID", "StationName",
                        "DeviceSerialNumber", "OtherPatientIDs", "OtherPatientNames", "PatientAddress", "Allergies",
                        "ContrastBolusAgent", "ConvolutionKernel", "SoftwareVersions", "ManufacturerModelName",
                        "PatientMotherBirthName", "MedicalRecordLocator", "AdmissionID"):  # fmt: skip
            setattr(ds, keyword, text(keyword))
        ds.Manufacturer = f"GE {text('Manufacturer')}"
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL", text("ImageType")]
        _plant_deep(planted, ds)
        ds.preamble = text("preamble").encode().ljust(128, b"\0")
        ds.file_meta.SourceApplicationEntityTitle = text("SourceApplicationEntityTitle")
        ds.file_meta.ImplementationVersionName = text("ImplementationVersionName")
        ds.file_meta.PrivateInformationCreatorUID = "1.2.3.4"
        ds.file_meta.PrivateInformation = text("PrivateInformation").encode()
        edit(ds)
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID"):
            if ds.get(keyword):
                needles[f"{keyword} {ds[keyword].value}"] = str(ds[keyword].value)
        ds.save_as(path)


def _plant_deep(planted: Planted, ds: Dataset) -> None:
    text = planted.text
    inner = Dataset()
    inner.PatientName, inner.PatientID = text("name in a sequence"), text("ID in a sequence")
    inner.add_new(0x00091001, "LO", text("private in a sequence"))
    for keyword in ("ReferencedImageSequence", "SourceImageSequence", "RequestAttributesSequence"):
        outer = Dataset()
        outer.RequestedProcedureDescription = text(f"text in {keyword}")
        outer.ReferencedPatientSequence = [inner]
        setattr(ds, keyword, [outer])
    ds.add_new(0x00090010, "LO", text("private creator"))
    ds.add_new(0x00091010, "LO", text("private text"))
    ds.add_new(0x00091011, "UN", text("private bytes").encode())
    ds.add_new(0x00091012, "OB", text("private UTF-16").encode("utf-16-le"))
    ds.add_new(0x00091013, "OB", gzip.compress(text("private gzip").encode()))
    ds.add_new(0x60003000, "OW", text("overlay").encode().ljust(84, b"\0"))
    ds.add_new(0x60000010, "US", SHAPE[1])
    ds.add_new(0x60004000, "LT", text("overlay comment"))
    ds.add_new(0x50003000, "OW", text("curve").encode().ljust(16, b"\0"))
    ds.add_new(0xFFFCFFFC, "OB", text("trailing padding").encode().ljust(16, b"\0"))


# ------------------------------------------------------------------------------------------------ refusals
def _bad_pixels(planted: Planted, ds: Dataset, index: int) -> None:
    from pydicom.encaps import encapsulate

    ds.file_meta.TransferSyntaxUID = JPEGLSLossless
    ds.PixelData = encapsulate([planted.text("codestream").encode() * 3])
    ds["PixelData"].VR = "OB"


def _text_for(keyword: str) -> Callable[[Planted, Dataset, int], None]:
    def edit(planted: Planted, ds: Dataset, index: int) -> None:
        del ds[keyword]
        ds.add_new(keyword, "LO", planted.text(f"text in {keyword}"))

    return edit


def _set(keyword: str, value: object) -> Callable[[Planted, Dataset, int], None]:
    return lambda planted, ds, index: setattr(ds, keyword, value)


_REFUSED: dict[str, Callable[[Planted, Dataset, int], None]] = {
    "gap": lambda planted, ds, index: None,
    "truncated": lambda planted, ds, index: None,
    "no-rescale": lambda planted, ds, index: delattr(ds, "RescaleSlope"),
    "other-units": lambda planted, ds, index: setattr(ds, "RescaleType", planted.text("RescaleType")),
    "burned-in": _set("BurnedInAnnotation", "YES"),
    "two-patients": lambda planted, ds, index: setattr(ds, "PatientID", planted.text(f"PatientID {index % 2}")),
    "bad-pixels": _bad_pixels,
    "no-position": _text_for("ImagePositionPatient"),
    "no-spacing": _text_for("PixelSpacing"),
    "bad-rows": _text_for("Rows"),
    "bad-uid": lambda planted, ds, index: setattr(ds, "SeriesInstanceUID", planted.text("SeriesInstanceUID")),
    "other-modality": lambda planted, ds, index: setattr(ds, "Modality", planted.text("Modality")),
    "other-class": lambda planted, ds, index: setattr(ds, "SOPClassUID", f"1.2.840.{index}.77777777777"),
    "bad-charset": lambda planted, ds, index: setattr(ds, "SpecificCharacterSet", planted.text("charset")),
}


def _odd_files(planted: Planted) -> None:
    text, ct = planted.text, planted.ct
    (ct / f"{text('name of a note')}.txt").write_text(f"{text('a note beside the images')}\n" * 9)
    one = next(path for path in sorted(ct.rglob("*.dcm"))).read_bytes()
    with zipfile.ZipFile(ct / f"{text('name of an archive')}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{text('name of a member')}/1.dcm", one)
    with zipfile.ZipFile(ct / f"{text('name of an unsafe archive')}.zip", "w") as archive:
        archive.writestr(f"../{text('name that leaves the archive')}", one)
    whole = (ct / f"{text('name of an archive')}.zip").read_bytes()
    (ct / f"{text('name of a broken archive')}.zip").write_bytes(whole[: len(whole) // 2])
    deep = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 3000
    (ct / f"{text('name of a nested file')}.dcm").write_bytes(
        b"\0" * 128 + b"DICM" + deep + b"\x10\x00\x10\x00PN\x0c\0" + text("name in the deep").encode().ljust(12)
    )


# ------------------------------------------------------------------------------------------------ the search
def finds(needles: dict[str, str], files: Iterable[Path], root: Path) -> list[str]:
    """"where: in which file, how" for every needle that is in a file's name or in any view of its bytes."""
    search = _Search(needles)
    found = []
    for path in files:
        name = str(path.relative_to(root)).encode("utf-8", "surrogateescape")
        for how, data in [("name", name), *views_of(path)]:
            found += [f"{where}: {how} of {path.relative_to(root)}" for where in search(data.lower())]
    return found


class _Search:
    """Which needles some lower-cased bytes hold: as text, as UTF-16, or as a digest that anyone could make."""

    def __init__(self, needles: dict[str, str]) -> None:
        self._forms = {where: (low.encode(), low.encode("utf-16-le"), low.encode("utf-16-be"))
                       for where, low in ((where, text.lower()) for where, text in needles.items())}  # fmt: skip
        self._stems = tuple(STEM.lower().encode(code) for code in ("ascii", "utf-16-le", "utf-16-be"))
        self._digests = {hashlib.new(kind, text.encode()).hexdigest().encode(): where
                         for where, text in needles.items() for kind in ("md5", "sha1", "sha256")}  # fmt: skip
        self._plain = {where for where, text in needles.items() if STEM not in text}

    def __call__(self, data: bytes) -> set[str]:
        stem = any(form in data for form in self._stems)  # few bytes hold one, so few are searched for each text
        names = self._forms if stem else self._plain
        found = {where for where in names if any(form in data for form in self._forms[where])}
        digests = set(re.findall(rb"(?<![0-9a-f])(?:[0-9a-f]{64}|[0-9a-f]{40}|[0-9a-f]{32})(?![0-9a-f])", data))
        return found | {self._digests[digest] for digest in digests & self._digests.keys()}


def views_of(path: Path) -> Iterator[tuple[str, bytes]]:
    """(what it is, bytes): as they lie on the disk, and whatever is packed in them."""
    data = path.read_bytes()
    yield "bytes", data
    if data[:2] == b"\x1f\x8b":
        yield "gzip", gzip.decompress(data)
    if data[:16] == b"SQLite format 3\0":
        yield "database", _database(path)
    if data[:4] == b"PAR1":
        yield "parquet", _table(path)
    if path.name == "zarr.json" and b'"array"' in data:
        yield "voxels", _voxels(path.parent)
    if data[:4] == b"\x89PNG":
        yield "picture", _deflated(data)


def _database(path: Path) -> bytes:
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        lines = list(database.iterdump())
        tables = [row[0] for row in database.execute("select name from sqlite_master where type = 'table'")]
        for table in tables:  # blobs are dumped as hex: as bytes too, and unpacked
            for row in database.execute(f'select * from "{table}"'):
                for value in row:
                    if isinstance(value, bytes):
                        lines += [value.decode("latin-1"), _deflated(value).decode("latin-1")]
    database.close()
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def _table(path: Path) -> bytes:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    return repr((table.to_pylist(), table.schema.metadata, table.column_names)).encode()


def _voxels(path: Path) -> bytes:
    import zarr

    return np.asarray(zarr.open_array(str(path), mode="r")[:]).tobytes()


def _deflated(data: bytes) -> bytes:
    """What is deflated anywhere in some bytes (PNG text, blobs)."""
    out = b""
    for start in [at for at in range(len(data) - 1) if data[at] == 0x78 and data[at + 1] in (1, 0x5E, 0x9C, 0xDA)]:
        try:
            out += zlib.decompressobj().decompress(data[start:], 1 << 20)
        except zlib.error:
            continue
    return out
