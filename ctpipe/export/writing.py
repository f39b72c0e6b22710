"""Labels of one volume into files of a kind: what each kind needs, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydicom.dataset import Dataset

from ctpipe.dicom import Originals
from ctpipe.dicom.parse import quiet
from ctpipe.errors import InputError, UsageError
from ctpipe.export.case import Case
from ctpipe.export.files import whole_file
from ctpipe.export.references import Naming, References, references_of
from ctpipe.export.terms import Term, terms_of


class Kind(StrEnum):
    """What labels are exported as."""

    SEG = "seg"
    RTSTRUCT = "rtstruct"
    NIFTI = "nifti"
    STL = "stl"
    GLB = "glb"
    CSV = "csv"
    SR = "sr"
    REPORT = "report"

    @property
    def is_dicom(self) -> bool:
        return self in (Kind.SEG, Kind.RTSTRUCT, Kind.SR)


ENDINGS: Mapping[Kind, str] = {
    Kind.SEG: ".dcm", Kind.RTSTRUCT: ".dcm", Kind.SR: ".dcm", Kind.NIFTI: ".nii.gz", Kind.STL: ".stl",
    Kind.GLB: ".glb", Kind.CSV: ".csv", Kind.REPORT: ".html",
}  # fmt: skip


@dataclass(frozen=True)
class Wish:
    """What is wanted. form: of a SEG, "binary" or "labelmap". codes: a TOML of coded terms of the user's own.

    smooth_mm: sigma of the filter before surfaces are drawn, 0 for none.
    """

    kind: Kind
    out: Path
    form: str = "binary"
    codes: Path | None = None
    smooth_mm: float = 0.0

    def __post_init__(self) -> None:
        if self.form not in ("binary", "labelmap"):
            raise UsageError(f"a SEG of form {self.form!r} is not known", "give binary or labelmap")
        if not 0 <= self.smooth_mm <= 20:
            raise UsageError(f"a surface is not smoothed by {self.smooth_mm:g} mm", "give 0 to 20")
        if self.kind is Kind.NIFTI and not self.out.name.endswith((".nii", ".nii.gz")):
            raise UsageError(f"{self.out.name} is no name of a NIfTI file", "end it in .nii or .nii.gz")


@dataclass(frozen=True)
class Written:
    """What came of it. voxels: by class. empty: classes without a voxel, which no object but NIfTI holds.

    naming: what DICOM objects refer to, None for other kinds. notes: what a reader of them should know, one line each.
    """

    files: tuple[Path, ...]
    voxels: dict[str, int]
    empty: tuple[str, ...]
    naming: Naming | None
    notes: tuple[str, ...]


def write(case: Case, wish: Wish, originals: Originals | None = None) -> Written:
    """The files of one case. originals: for DICOM kinds, so that they name the true patient and instances.

    Raises InputError for what the kind cannot say, UsageError for an argument, BudgetError for a full disk.
    """
    voxels = {case.labels.classes[label]: n for label, n in case.voxels.items()}
    notes: list[str] = []
    references = None
    if wish.kind.is_dicom:
        references = references_of(case.series, originals)
        files = _write_dicom(case, wish, references, notes)
    else:
        files = _PLAIN[wish.kind](case, wish, notes)
    if case.empty:
        notes.append(f"empty: {', '.join(case.empty)}")
    return Written(tuple(files), voxels, tuple(case.empty), references.naming if references else None,
                   tuple(notes))  # fmt: skip


# ------------------------------------------------------------------------------------------------ DICOM
def _write_dicom(case: Case, wish: Wish, references: References, notes: list[str]) -> list[Path]:
    terms = terms_of(case.labels.classes.values(), wish.codes)
    unknown = [name for name in case.present.values() if not terms[name].known]
    if unknown:
        notes.append(f"no coded term is known for {', '.join(unknown)}: written as tissue with a private code")
    objects = _DICOM[wish.kind](case, wish, references, terms)
    for path, ds in objects.items():
        _save(ds, path)
    return list(objects)


Terms = Mapping[str, Term]


def _seg(case: Case, wish: Wish, references: References, terms: Terms) -> dict[Path, Dataset]:
    _needs("highdicom")
    from ctpipe.export.segmentation import segmentation

    return {wish.out: segmentation(case, references, terms, wish.form.upper())}


def _rtstruct(case: Case, wish: Wish, references: References, terms: Terms) -> dict[Path, Dataset]:
    from ctpipe.export.rtstruct import structure_set

    return {wish.out: structure_set(case, references, terms)}


def _sr(case: Case, wish: Wish, references: References, terms: Terms) -> dict[Path, Dataset]:
    _needs("highdicom")
    from ctpipe.export.report import measurement_report
    from ctpipe.scoring import measured_with_planes

    case.refuse_uneven("a volume in mL")
    found, numbered = measured_with_planes(
        case.labels.read_planes, case.series.read_planes, case.grid, case.labels.classes
    )
    report, seg = measurement_report(case, references, terms, found, numbered)
    return {wish.out.with_name(f"{wish.out.stem}-seg{wish.out.suffix}"): seg, wish.out: report}


def _save(ds: Dataset, path: Path) -> None:
    with whole_file(path) as file, quiet():
        ds.save_as(file, enforce_file_format=True)


def _needs(package: str) -> None:
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise UsageError(f"{package} is not installed, without which there is no such object",
                         "pip install 'ctpipe[export]'")  # fmt: skip


_DICOM: Mapping[Kind, Callable[[Case, Wish, References, Terms], dict[Path, Dataset]]] = {
    Kind.SEG: _seg, Kind.RTSTRUCT: _rtstruct, Kind.SR: _sr,
}  # fmt: skip


# ------------------------------------------------------------------------------------------------ the rest
def _nifti(case: Case, wish: Wish, notes: list[str]) -> list[Path]:
    from ctpipe.export.nifti import write_nifti

    write_nifti(case, wish.out)
    return [wish.out]


def _surfaces(case: Case, wish: Wish, notes: list[str]) -> list[Path]:
    from ctpipe.export.meshes import Named, write_glb, write_stl
    from ctpipe.export.segmentation import colour_of
    from ctpipe.export.surface import surface

    case.refuse_uneven("a surface in millimetres")
    case.extent  # noqa: B018  # raises where there is nothing to draw
    meshes: list[Named] = []
    files = []
    for label, name in case.present.items():
        mesh = surface(case.labels.read_planes, label, case.grid, wish.smooth_mm)
        if not len(mesh.faces):
            notes.append(f"nothing is left of {name} when smoothed by {wish.smooth_mm:g} mm")
        elif wish.kind is Kind.GLB:
            meshes.append((name, colour_of(label), mesh))
        else:
            files.append(_of_class(wish.out, label, name, alone=len(case.labels.classes) == 1))
            write_stl(mesh, files[-1])
    if wish.kind is Kind.GLB and meshes:
        write_glb(meshes, wish.out)
        files = [wish.out]
    if not files:
        raise InputError(f"nothing is left of labels {case.labels.name} when smoothed by {wish.smooth_mm:g} mm",
                         "smooth less")  # fmt: skip
    return files


def _of_class(out: Path, label: int, name: str, *, alone: bool) -> Path:
    """The file of one class: an STL holds one body. Where the class's name cannot be a file's, its label stands."""
    if alone:
        return out
    word = name if name.isascii() and all(c.isalnum() or c in "-_" for c in name) else f"label{label}"
    return out.with_name(f"{out.stem}-{word}{out.suffix}")


def _csv(case: Case, wish: Wish, notes: list[str]) -> list[Path]:
    from ctpipe.export.measurements import write_csv
    from ctpipe.scoring import measure

    case.refuse_uneven("a volume in mL")
    write_csv(
        case, measure(case.labels.read_planes, case.series.read_planes, case.grid, case.labels.classes), wish.out
    )
    return [wish.out]


def _page(case: Case, wish: Wish, notes: list[str]) -> list[Path]:
    from ctpipe.export.page import write_page

    write_page(case, wish.out)
    return [wish.out]


_PLAIN: Mapping[Kind, Callable[[Case, Wish, list[str]], list[Path]]] = {
    Kind.NIFTI: _nifti, Kind.STL: _surfaces, Kind.GLB: _surfaces, Kind.CSV: _csv,
    Kind.REPORT: _page,
}  # fmt: skip
KINDS = tuple(kind.value for kind in Kind)
