"""Verdict: what became of one volume of the input, and why, in words that hold no value of a DICOM file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ctpipe.dicom.volumes import VolumeSource
from ctpipe.words import VerdictKind

_EXPORT = "fetch the series again from the archive or the scanner"
# Reason code (those of the corpus) -> what the user can do. The order is the order of weight: the first of several
# faults that stands here is the reason, all of them are in the detail.
CURES: dict[str, str] = {
    "patient-conflict": "correct the PatientID, or check each patient's files alone",
    "study-conflict": "correct the StudyInstanceUID, or check each study's files alone",
    "uid-conflict": "give one copy only: find out which of the instances is the right one",
    "invalid-uid": "export the series again with valid UIDs",
    "bomb": "leave the file out, or fetch it again from a source that you trust",
    "nesting": "leave the file out, or fetch it again from a source that you trust",
    "archive-depth": "unpack the outer archives",
    "unsafe-path": "unpack the archive yourself and give the folder",
    "unreadable": "fetch the file again",
    "truncated": "fetch the truncated files again",
    "no-pixels": _EXPORT,
    "transfer-syntax": "export the series uncompressed, such as with Explicit VR Little Endian",
    "decode": "fetch the file again, or export the series uncompressed",
    "frames": "export the series as single-frame CT, or as enhanced CT with a position for each frame",
    "unsupported-pixels": _EXPORT,
    "bits": _EXPORT,
    "burned-in": "export the series without annotations; burned-in text can identify the patient",
    "modality-lut": "export the series with rescale slope and intercept",
    "missing-rescale": _EXPORT,
    "bad-rescale": _EXPORT,
    "rescale-units": "leave the series out: it holds no Hounsfield units",
    "missing-position": _EXPORT,
    "missing-orientation": _EXPORT,
    "bad-orientation": _EXPORT,
    "missing-pixel-spacing": _EXPORT,
    "bad-pixel-spacing": _EXPORT,
    "bad-number": _EXPORT,
    "duplicate-position": "export each acquisition or phase as a series of its own",
    "too-few-slices": "give the whole series; at least 3 slices are needed to see that none is missing",
    "gap": "fetch the missing slices, or take the series as it is with --on-gap keep-positions "
    "(uneven: it takes no labels, and distances along z are not exact)",
    "uneven-spacing": "take the parts of even spacing with --on-step-change split, or all with --on-gap keep-positions",
    "gantry-tilt": "take it with --on-tilt resample (or keep), or export it with the tilt corrected by the scanner",
    "in-plane-shift": _EXPORT,
    "orientation-varies": "export the planes of each orientation as a series of their own",
    "not-fetched": "run the same command again",
    "duplicate-file": "none needed; identical copies are read once",
    "not-ct": "none needed, unless this was meant to be CT",
}


@dataclass(frozen=True)
class Verdict:
    """One volume, or one lot of files that is none.

    reason: code of the corpus, "" for accept. detail: all that is wrong, in words; cure: what to do about it.
    n_files: files that it speaks for, duplicates counted. series: pseudonym of the series UID, None where unknown.
    source: what `read_planes` reads; only of accept and repair.
    """

    kind: VerdictKind
    reason: str
    detail: str
    cure: str
    n_files: int
    series: str | None = None
    source: VolumeSource | None = None

    def as_json(self) -> dict[str, Any]:
        """One entry of `check --json` (DESIGN 8)."""
        grid = self.source.grid if self.source else None
        return {
            "verdict": self.kind.value,
            "reason": self.reason,
            "detail": self.detail,
            "cure": self.cure,
            "files": self.n_files,
            "series": self.series,
            "shape": None if grid is None else [int(n) for n in grid.shape],
            "affine": None if grid is None else [list(row) for row in grid.rows],
        }


def refusal(faults: Iterable[tuple[str, str]], n_files: int, series: str | None) -> Verdict:
    """A reject for (reason, detail) faults: the weightiest is the reason, all stand in the detail, each once."""
    order = {code: place for place, code in enumerate(CURES)}
    counts: dict[tuple[str, str], int] = {}
    for fault in faults:
        counts[fault] = counts.get(fault, 0) + 1
    ranked = sorted(counts, key=lambda fault: (order.get(fault[0], len(order)), fault))
    detail = "; ".join(
        text if counts[(code, text)] == 1 else f"{text} ({counts[(code, text)]} times)" for code, text in ranked
    )
    reason = ranked[0][0]
    return Verdict(VerdictKind.REJECT, reason, detail, CURES.get(reason, _EXPORT), n_files, series)
