"""DICOM SEG: segments of binary, fractional and label-map objects, each a structure, placed by patient coordinates.

::

    frame ── position, orientation, spacing (per frame before shared) ──► plane of the volume, row and column by row
    SegmentationType BINARY      one bit a voxel, one segment a frame
                     FRACTIONAL  a voxel belongs to its segment at half of MaximumFractionalValue and above
                     LABELMAP    the voxel's value is the segment's number; PixelPaddingValue (else 0) is background

Order of frames and references to instances mean nothing. Segments may overlap, and be missing on any plane. The frame
of reference counts where both have one. Source: PS3.3 A.51, C.8.20.2, C.8.20.3, C.7.6.16.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ctpipe.dicom import elements
from ctpipe.dicom.codestreams import CodestreamFaultError
from ctpipe.dicom.frame_places import FramePlace, place_frames
from ctpipe.dicom.identity import Pseudonyms
from ctpipe.dicom.parse import ByteView, Parsed, quiet
from ctpipe.dicom.segment_table import FrameTable, frame_table, listed_frames
from ctpipe.dicom.sources import Item, Locator
from ctpipe.dicom.structure import LabelFaultError, Structure, clean_name, digest_of
from ctpipe.errors import InputError
from ctpipe.volume import Grid

_EXPORT = "export it again"


@dataclass(frozen=True)
class Segment(Structure):
    """One segment of one SEG. number: its SegmentNumber. frames: those that hold voxels of it, by number from 0."""

    kind = "seg"

    locator: Locator
    file_digest: str
    number: int
    frames: tuple[int, ...]

    def fits(self, grid: Grid) -> str | None:
        if None not in (self.frame_of_reference, grid.frame_of_reference) and (
            self.frame_of_reference != grid.frame_of_reference
        ):
            return "its frame of reference is another one than the volume's"
        frames = listed_frames(self.locator, self.file_digest)
        # a segment without voxels lies where the others of its file lie
        if not self.frames:
            places: Iterable[FramePlace] = dict.fromkeys(frames.places)
        else:
            places = [frames.places[n] for n in self.frames]
        placed = place_frames(list(places), frames.form.rows, frames.form.columns, grid)
        return placed if isinstance(placed, str) else None

    def planes(self, grid: Grid, start: int, stop: int) -> NDArray[np.bool_]:
        out = np.zeros((stop - start, grid.shape.y, grid.shape.x), bool)
        frames = listed_frames(self.locator, self.file_digest)
        rows, columns = frames.form.rows, frames.form.columns
        placed = place_frames([frames.places[n] for n in self.frames], rows, columns, grid)
        if isinstance(placed, str):
            raise InputError(f"{self.origin} does not fit the volume: {placed}", "give the labels of this CT series")
        for number, placement in zip(self.frames, placed, strict=True):
            if placement.meets(rows, columns, start, stop):
                placement.paint(out, frames.holds(number, self.number, self.locator, self.file_digest), start)
        return out


@dataclass(frozen=True)
class _Head:
    """What SegmentSequence says of one segment."""

    number: int
    name: str


def read_segments(item: Item, parsed: Parsed, pseudonyms: Pseudonyms) -> list[Segment]:
    """Every segment of a file, in the order of its SegmentSequence; each frame is decoded once, to see that it can be.

    Raises LabelFaultError for a file that is not wholly right: none of it is taken then.
    """
    file_digest = digest_of(item.locator)
    frames = frame_table(parsed)
    background = _background(parsed.ds) if frames.is_label_map else None
    heads = [head for head in _heads(parsed.ds) if head.number != background]
    if not heads:
        raise LabelFaultError("not-labels", "a DICOM SEG without segments", _EXPORT)
    if len({head.number for head in heads}) < len(heads):
        raise LabelFaultError("uid-conflict", "a DICOM SEG gives one segment number twice", _EXPORT)
    filled = _filled(frames, parsed.view, {head.number for head in heads}, background)
    frame_of_reference = pseudonyms.uid(frames.frame_of_reference) if frames.frame_of_reference else None
    return [
        Segment(
            name=head.name or f"segment{head.number}",
            origin=f"DICOM SEG segment {head.number}",
            frame_of_reference=frame_of_reference,
            digest=sha256(f"{file_digest} {head.number}".encode()).hexdigest()[:32],
            notes=_notes(parsed.ds),
            locator=item.locator,
            file_digest=file_digest,
            number=head.number,
            frames=tuple(filled[head.number]),
        )
        for head in heads
    ]


def _filled(frames: FrameTable, view: ByteView, numbers: set[int], background: int | None) -> dict[int, list[int]]:
    """Segment number -> frames that hold voxels of it. Raises LabelFaultError for frames that say something else."""
    out: dict[int, list[int]] = {number: [] for number in numbers}
    if not frames.is_label_map and not numbers.issuperset(frames.segments):
        raise LabelFaultError("not-labels", "a DICOM SEG with frames of a segment that it does not describe", _EXPORT)
    for number in range(len(frames.places)):
        try:
            pixels = frames.pixels(number, view)
        except CodestreamFaultError as fault:
            raise LabelFaultError(fault.reason, fault.detail, "fetch the file again") from fault
        if frames.is_label_map:
            found = set(np.flatnonzero(np.bincount(pixels.ravel())).tolist()) - {background}
            if not found <= numbers:
                problem = "a label map with values that no segment describes"
                raise LabelFaultError("not-labels", problem, _EXPORT)
            for value in found:
                out[value].append(number)
        elif frames.shows(pixels, 0).any():
            out[frames.segments[number]].append(number)
    return out


def _heads(ds: Dataset) -> Sequence[_Head]:
    try:
        with quiet():
            return [
                _Head(int(segment.SegmentNumber), clean_name(str(segment.get("SegmentLabel") or "")))
                for segment in elements.items(ds, "SegmentSequence")
            ]
    except Exception as error:  # as in frame_table
        raise LabelFaultError("bad-number", "a DICOM SEG whose segments cannot be read", _EXPORT) from error


def _background(ds: Dataset) -> int:
    """The value of a label map that is no segment (PS3.3 C.8.20.2.3.3): PixelPaddingValue, else 0."""
    raw = elements.raw_element(ds, "PixelPaddingValue")
    if raw is None or len(raw.value) != 2:
        return 0
    return int.from_bytes(raw.value, "little" if raw.little else "big")


def _notes(ds: Dataset) -> tuple[str, ...]:
    if elements.texts(ds, "SegmentationType")[:1] != ("FRACTIONAL",):
        return ()
    return ("fractional: voxels of at least half of MaximumFractionalValue are taken",)
