"""Structure: one named region of a patient, whatever file it comes from, and what every kind of it shares."""

from __future__ import annotations

import unicodedata
from abc import ABC, abstractmethod
from dataclasses import dataclass
from hashlib import sha256
from typing import BinaryIO, ClassVar

import numpy as np
from numpy.typing import NDArray

from ctpipe.dicom.parse import Parsed, ParseFaultError, parse
from ctpipe.dicom.sources import Locator
from ctpipe.volume import Grid
from ctpipe.words import VerdictKind

MAX_NAME = 64


@dataclass(frozen=True)
class Structure(ABC):
    """One region; picklable and small: voxels and contours are read again where they are needed.

    name: as the source has it, less control characters, at most 64 characters; free text, for matching and lists only.
    origin: safe words on where it comes from, no text of a DICOM file.
    frame_of_reference: pseudonym, or None where the source has none (NIfTI and NRRD never have one).
    digest: 32 hex digits over the content it is read from: equal digests, equal voxels on an equal grid.
    notes: what was not exact, one line each.
    """

    kind: ClassVar[str]  # "mask-series", "nifti", "nrrd", "rtstruct" or "seg"

    name: str
    origin: str
    frame_of_reference: str | None
    digest: str
    notes: tuple[str, ...]

    @abstractmethod
    def fits(self, grid: Grid) -> str | None:
        """None where it belongs on `grid`; else one line that says why not."""

    @abstractmethod
    def planes(self, grid: Grid, start: int, stop: int) -> NDArray[np.bool_]:
        """Planes start..stop-1 of `grid`, by patient coordinates: bool (stop-start, y, x).

        Raises InputError where the source changed or vanished since it was listed.
        """


class LabelFaultError(Exception):
    """A label source that is refused or set aside; the dispatcher makes it a verdict. Holds no text of a file."""

    def __init__(self, reason: str, detail: str, cure: str, kind: VerdictKind = VerdictKind.REJECT) -> None:
        super().__init__(reason, detail, cure, kind)
        self.reason, self.detail, self.cure, self.kind = reason, detail, cure, kind


def clean_name(text: str) -> str:
    """Free text as a structure name: control and format characters gone, trimmed, at most 64 characters."""
    kept = "".join(c for c in text if unicodedata.category(c)[0] != "C")
    return kept.strip()[:MAX_NAME].strip()


def digest_of(locator: Locator) -> str:
    """32 hex digits over all bytes of a file. Raises InputError."""
    running = sha256()
    with locator.open() as file:
        while block := file.read(1 << 20):
            running.update(block)
    return running.hexdigest()[:32]


def parse_whole(source: BinaryIO | bytes) -> Parsed:
    """The data set of one file, open or in memory. Raises LabelFaultError where it is broken or ends early."""
    try:
        parsed = parse(source)
    except ParseFaultError as fault:
        raise LabelFaultError(fault.reason, fault.detail, "fetch the file again") from fault
    if parsed.truncated:
        raise LabelFaultError("truncated", "the file is truncated: it ends within an element", "fetch the file again")
    return parsed
