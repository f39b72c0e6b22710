"""Rules of the policy whose loss no entry of the adversarial corpus would show: small cases of our own, seen to fail.

Every case is asked twice: it holds with the code as it is, and no longer once its rule is broken.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import ct_series, hu_block, setter, to_bytes, uid, write_files
from code_broken import Mutation
from pydicom import uid as uids
from pydicom.dataset import Dataset
from rules_own_broken import OWN

from ctpipe.dicom import Options, Pseudonyms, check, read_planes
from ctpipe.dicom.checking import Examination
from ctpipe.errors import InputError

KEY = Pseudonyms(b"\x07" * 32)
HU = hu_block()
Case = Callable[[Path], object]
CASES: dict[str, tuple[Case, object]] = {}


def case(name: str, holds: object) -> Callable[[Case], Case]:
    """A function of an empty folder, and what it gives where the rule stands."""

    def kept(function: Case) -> Case:
        CASES[name] = function, holds
        return function

    return kept


def verdicts(folder: Path, files: list[bytes]) -> list[tuple[str, str]]:
    """(verdict, reason) of what a check of the files tells."""
    return [(v.kind.value, v.reason) for v in check(write_files(folder / "in", files), KEY)]


def moved(*heights: float, form: str = "{:.8g}") -> list[bytes]:
    """A series whose planes stand at these heights."""

    def edit(z: int, ds: Dataset) -> None:
        ds.ImagePositionPatient = ["10", "20", form.format(heights[z])]

    return ct_series(hu_block((len(heights), 6, 8)), edit=edit)


def raw_position(value: bytes) -> list[bytes]:
    """A series of which plane 3 has these bytes as its position, after the plain ones were written."""
    files = ct_series(HU)
    placed = ct_series(HU, edit=setter(3, ImagePositionPatient=["1", "2", "3"]))[3]
    assert placed.count(b"DS\x06\x001\\2\\3 ") == 1
    files[3] = placed.replace(b"DS\x06\x001\\2\\3 ", b"DS" + len(value).to_bytes(2, "little") + value)
    return files


@case("past int16, judged by its headers", "told")
def _(folder: Path) -> object:
    def edit(z: int, ds: Dataset) -> None:
        if z == 3:
            ds.PixelData = np.full(HU[0].shape, 65535, "<u2").tobytes()

    with Examination(write_files(folder / "in", ct_series(HU, edit=edit)), KEY, Options()) as found:
        source = next(verdict.source for part in found.parts(whole=False) for verdict in part)
        assert source is not None
        try:
            read_planes(source, 0, 8)
        except InputError as error:
            return "told" if "does not" in str(error) else str(error)
    return "wrapped"


@case("negative slope", [("accept", "")])
def _(folder: Path) -> object:
    return verdicts(folder, ct_series(HU, edit=setter(RescaleSlope="-1")))


@case("two tubes, two acquisitions", [("accept", "")] * 4)
def _(folder: Path) -> object:
    def part(tube: int, number: int) -> list[bytes]:
        def edit(z: int, ds: Dataset) -> None:
            ds.KVP, ds.AcquisitionNumber, ds.SOPInstanceUID = str(tube), number, uid(tube, number, z)

        return ct_series(hu_block(seed=tube + number), edit=edit)

    return verdicts(folder, [data for tube in (80, 140) for number in (1, 2) for data in part(tube, number)])


@case("steps within 1 %, places not", [("reject", "uneven-spacing")])
def _(folder: Path) -> object:
    steps = [2.015] * 10 + [1.985] * 10
    return verdicts(folder, moved(*np.cumsum([0.0, *steps])))


@case("whole millimetres, one plane off", [("reject", "uneven-spacing")])
def _(folder: Path) -> object:
    return verdicts(folder, moved(0, 2, 4, 7, 8, 10, 12, form="{:.0f}"))


@case("one plane shifted", [("reject", "in-plane-shift")])
def _(folder: Path) -> object:
    return verdicts(folder, ct_series(HU, edit=setter(3, ImagePositionPatient=["-30.75", "12.5", "212.25"])))


@case("two values", [("reject", "missing-position")])
def _(folder: Path) -> object:
    return verdicts(folder, raw_position(b"-31.25\\12.5 "))


@case("decimal commas", [("reject", "bad-number")])
def _(folder: Path) -> object:
    return verdicts(folder, raw_position(b"-31,25\\12,5\\212,25"))


@case("infinite position", [("reject", "bad-number")])
def _(folder: Path) -> object:
    with np.errstate(all="ignore"):  # broken, it comes to the arithmetic
        return verdicts(folder, raw_position(b"-31.25\\12.5\\1e999 "))


@case("copy as RLE", [("repair", "duplicate-file")])
def _(folder: Path) -> object:
    return verdicts(folder, [*ct_series(HU), ct_series(HU, syntax=uids.RLELossless)[2]])


@case("instance in two series", [("reject", "uid-conflict")] * 2)
def _(folder: Path) -> object:
    other = ct_series(HU, series="s2", edit=setter(2, SOPInstanceUID=uid("P1", "s1", 2)))
    return verdicts(folder, [*ct_series(HU), *other])


@case("text beside", [("accept", ""), ("set-aside", "not-dicom")])
def _(folder: Path) -> object:
    return verdicts(folder, [*ct_series(HU), b"no image"])


@case("unreadable plane", [("reject", "nesting")])
def _(folder: Path) -> object:
    files = ct_series(HU)
    at = files[-1].index(b"\x20\x00\x13\x00IS")  # behind the series UID
    item = b"\x20\x00\x15\x91SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    files[-1] = files[-1][:at] + item * 3000 + files[-1][at:]
    return verdicts(folder, files)


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


@case("zip with an unsafe name", [("reject", "unsafe-path")])
def _(folder: Path) -> object:
    files = ct_series(HU)
    return verdicts(folder, [zipped({"../0" if z == 0 else str(z): data for z, data in enumerate(files)})])


@case("tar with a link", [("reject", "unsafe-path")])
def _(folder: Path) -> object:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for z, data in enumerate(ct_series(HU)):
            info = tarfile.TarInfo(str(z))
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "0"
        archive.addfile(link)
    return verdicts(folder, [out.getvalue()])


@case("zip in zip", [("accept", "")])
def _(folder: Path) -> object:
    inner = zipped({str(z): data for z, data in enumerate(ct_series(HU))})
    return verdicts(folder, [zipped({"inner": inner})])


@case("lossy before it came", True)
def _(folder: Path) -> object:
    files = ct_series(HU, edit=setter(LossyImageCompression="01"))
    (verdict,) = check(write_files(folder / "in", files), KEY)
    assert verdict.source is not None
    return any(note.startswith("lossy") for note in verdict.source.notes)


def enhanced(hu: np.ndarray, shared_intercept: str, own_intercept: str) -> bytes:
    """One enhanced CT of frames 2 mm apart, its rescale both shared and in each frame's own groups."""

    def item(**values: Any) -> list[Dataset]:
        ds = Dataset()
        for keyword, value in values.items():
            setattr(ds, keyword, value)
        return [ds]

    def rescale(intercept: str) -> list[Dataset]:
        return item(RescaleSlope="1", RescaleIntercept=intercept, RescaleType="HU")

    made: list[Dataset] = []

    def edit(z: int, ds: Dataset) -> None:
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope",
                        "RescaleIntercept", "RescaleType", "InstanceNumber"):  # fmt: skip
            delattr(ds, keyword)
        ds.SOPClassUID, ds.NumberOfFrames = uids.EnhancedCTImageStorage, len(hu)
        ds.PixelData = (hu.astype(np.int32) + 1024).astype("<u2").tobytes()
        ds.SharedFunctionalGroupsSequence = item(
            PlaneOrientationSequence=item(ImageOrientationPatient=["1", "0", "0", "0", "1", "0"]),
            PixelMeasuresSequence=item(PixelSpacing=["0.8", "0.7"]),
            PixelValueTransformationSequence=rescale(shared_intercept),
        )
        ds.PerFrameFunctionalGroupsSequence = [
            item(PlanePositionSequence=item(ImagePositionPatient=["0", "0", str(2 * k)]),
                 PixelValueTransformationSequence=rescale(own_intercept))[0]
            for k in range(len(hu))
        ]  # fmt: skip
        made.append(ds)

    ct_series(hu[:1], edit=edit)
    return to_bytes(made[0])


@case("shared and own rescale", True)
def _(folder: Path) -> object:
    (verdict,) = check(write_files(folder / "in", [enhanced(HU, "-24", "-1024")]), KEY)
    assert verdict.source is not None
    return bool(np.array_equal(read_planes(verdict.source, 0, len(HU)), HU))


@case("patient id", True)
def _(folder: Path) -> object:
    (verdict,) = check(write_files(folder / "in", ct_series(HU, patient="Planted")), KEY)
    assert verdict.source is not None
    return verdict.source.patient.startswith("p-") and "Planted" not in repr(verdict.source)


@pytest.mark.parametrize("mutation", OWN, ids=lambda m: f"{m.rule}: {m.broken}")
def test_a_case_of_our_own_holds_and_fails_where_its_rule_is_broken(mutation: Mutation, tmp_path: Path) -> None:
    """V1-V4, V7, X4, P2."""
    for name in mutation.entries:
        function, holds = CASES[name]
        assert function(tmp_path / "whole") == holds
        with mutation.applied():
            assert function(tmp_path / "broken") != holds


def test_every_case_of_our_own_is_broken_by_something() -> None:
    assert set(CASES) == {name for mutation in OWN for name in mutation.entries}
