"""Export: labels of a volume into files for other programs; and sending those files to a PACS."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ctpipe import dicom
from ctpipe.dicom import Originals, Pseudonyms
from ctpipe.errors import CtpipeError, NotThereError, UsageError
from ctpipe.export import Case, Kind, Wish, Written
from ctpipe.export import write as write_files
from ctpipe.store import Series, Store, open_store
from ctpipe.words import Progress


@dataclass(frozen=True)
class Exported:
    """One set of labels on its way out: volume, labels, and what was written."""

    series: str
    labels: str
    kind: str  # of the labels: truth, prediction or review
    written: Written
    seconds: float

    def as_json(self) -> dict[str, Any]:
        made = self.written
        return {
            "series": self.series, "labels": self.labels, "kind": self.kind, "files": [str(f) for f in made.files],
            "voxels": made.voxels, "empty": list(made.empty), "references": made.naming and str(made.naming),
            "notes": list(made.notes), "seconds": round(self.seconds, 3),
        }  # fmt: skip


@dataclass(frozen=True)
class ExportReport:
    """What one call wrote, and what failed: {volume: one line}."""

    exports: tuple[Exported, ...]
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        return 3 if self.failed else 0

    @property
    def files(self) -> list[Path]:
        return [path for one in self.exports for path in one.written.files]

    def as_json(self) -> dict[str, Any]:
        return {"exports": [one.as_json() for one in self.exports], "failed": self.failed}


def export(
    store: str | Path | Store, series: str, labels: str, to: str, out: str | Path, *,
    source: Sequence[str | Path] | None = None, form: str = "binary", codes: str | Path | None = None,
    smooth_mm: float = 0.0, progress: Progress = None,
) -> ExportReport:  # fmt: skip
    """Write `labels` of one volume as `to` (seg, rtstruct, nifti, stl, glb, csv, sr, report) into the file `out`.

    labels: a name of the volume's labels, an unambiguous beginning of one, or "truth" for the newest truth.
    source: the files that were ingested (folders, archives, URLs): DICOM objects then name the true patient, study and
        instances, which no store holds; without it they name what the store holds, and the report says so.
    form: of a SEG, "binary" or "labelmap". codes: TOML of coded terms. smooth_mm: of surfaces.
    Raises NotThereError, UsageError, InputError, BudgetError, StoreFaultError.
    """
    target = store if isinstance(store, Store) else open_store(store)
    wish = _wish(to, Path(out), source, form, codes, smooth_mm)
    volume = target[series]
    case = Case(volume, volume.labels[labels])
    with dicom.fetch(list(source or []), progress) as paths:
        return ExportReport((_export(case, wish, paths),))


def export_all(
    store: str | Path | Store, labels: str, to: str, out: str | Path, *, series: Sequence[str] | None = None,
    source: Sequence[str | Path] | None = None, form: str = "binary", codes: str | Path | None = None,
    smooth_mm: float = 0.0, progress: Progress = None,
) -> ExportReport:  # fmt: skip
    """`export` of every volume that has such labels, or of `series` only, each into a file of its own in folder `out`.

    labels: as for `export`, or the digest of a model for all of its runs. Files are named <volume>-<labels> and the
    kind's ending. One that fails does not stop the others. Raises NotThereError where no volume has such labels.
    """
    from ctpipe.export.writing import ENDINGS

    target = store if isinstance(store, Store) else open_store(store)
    kind = Kind(to) if to in list(Kind) else None
    ending = ENDINGS[kind] if kind else ""
    cases = _cases(target, labels, series)
    wishes = [_wish(to, Path(out) / f"{case.series.id}-{case.labels.name}{ending}", source, form, codes, smooth_mm)
              for case in cases]  # fmt: skip
    done: list[Exported] = []
    failed: dict[str, str] = {}
    with dicom.fetch(list(source or []), progress) as paths:
        for n, (case, wish) in enumerate(zip(cases, wishes, strict=True), start=1):
            try:
                done.append(_export(case, wish, paths))
            except CtpipeError as error:
                if error.exit_code == 4:  # no disk, no memory: the next one would fail as well
                    raise
                failed[case.series.id] = str(error)
            if progress:
                progress("export", n, len(cases))
    return ExportReport(tuple(done), failed)


def _export(case: Case, wish: Wish, paths: Sequence[str | Path]) -> Exported:
    began = time.monotonic()
    written = write_files(case, wish, _originals(case.series, paths))
    labels = case.labels
    return Exported(case.series.id, labels.name, str(labels.kind), written, time.monotonic() - began)


def _wish(to: str, out: Path, source: object, form: str, codes: str | Path | None, smooth_mm: float) -> Wish:
    if to not in list(Kind):
        raise UsageError(f"labels are not exported as {to!r}", f"give one of {', '.join(Kind)}")
    kind = Kind(to)
    if source and not kind.is_dicom:
        raise UsageError(f"{to} refers to no patient: it takes no source", "leave --source out")
    if codes and not kind.is_dicom:
        raise UsageError(f"{to} holds no coded terms", "leave --codes out")
    if smooth_mm and kind not in (Kind.STL, Kind.GLB):
        raise UsageError(f"{to} is no surface to be smoothed", "leave --smooth out")
    if form != "binary" and kind is not Kind.SEG:
        raise UsageError(f"{to} has no form {form}", "leave --form out")
    return Wish(kind, out, form, Path(codes) if codes else None, smooth_mm)


def _cases(store: Store, labels: str, series: Sequence[str] | None) -> list[Case]:
    chosen = list(store.values()) if series is None else [store[name] for name in series]
    found = []
    for volume in chosen:
        if labels in volume.labels:
            found.append(Case(volume, volume.labels[labels]))
        else:
            found += [Case(volume, one) for one in volume.labels.values()
                      if labels and str(one.provenance.get("model", "")).startswith(labels)]  # fmt: skip
    if not found:
        raise NotThereError(f"no volume has labels {labels!r}", "ctpipe ls names what is there")
    return found


def _originals(series: Series, paths: Sequence[str | Path]) -> Originals | None:
    if not paths:
        return None
    planes = series.planes
    if "sop_instance" not in planes or not all(planes["sop_instance"]):
        return None  # never was DICOM: `references_of` says so
    return dicom.find_originals(paths, planes, series.series, _names_of(series))


def _names_of(series: Series) -> Pseudonyms:
    """The pseudonyms of a volume; without the key any will do, since place and pixels tell the files as well."""
    kept = not series.series.startswith("u-")
    try:
        return dicom.load_pseudonyms(create=False, keep_uids=kept)
    except NotThereError:
        return Pseudonyms(secrets.token_bytes(32), kept)
