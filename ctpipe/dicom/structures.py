"""Structures: label sources of every kind found, tied to their volumes, and painted as label planes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import RTStructureSetStorage

from ctpipe.dicom.classes import Assignment
from ctpipe.dicom.classify import not_a_ct_image, sop_class
from ctpipe.dicom.identity import Pseudonyms
from ctpipe.dicom.label_volume import VolumeLabel, is_raster, read_label_volume
from ctpipe.dicom.mask_series import MaskCollector, MaskSeries
from ctpipe.dicom.parse import Parsed, looks_like_dicom
from ctpipe.dicom.rtstruct import read_rois
from ctpipe.dicom.segment_table import STORAGE as SEGMENTATION_STORAGE
from ctpipe.dicom.segmentation import read_segments
from ctpipe.dicom.sources import HEAD_BYTES, Item, iter_items
from ctpipe.dicom.structure import LabelFaultError, Structure, parse_whole
from ctpipe.dicom.verdict import Verdict
from ctpipe.errors import InputError, UsageError
from ctpipe.volume import Grid, slabs_of
from ctpipe.words import VerdictKind

__all__ = ["Structure", "Structures", "label_planes", "match_structures", "read_structures"]


@dataclass(frozen=True)
class Structures:
    """What lies in a set of label paths: the structures, and a verdict for all that is none."""

    found: tuple[Structure, ...]
    refused: tuple[Verdict, ...]


def read_structures(paths: Iterable[str | os.PathLike[str]], pseudonyms: Pseudonyms) -> Structures:
    """Every structure below `paths`: mask series, NIfTI or NRRD label volumes, RTSTRUCT, DICOM SEG; folders, files or
    archives.

    A broken file becomes a verdict in `refused`, never an exception. Raises NotThereError for a path that is not there.
    """
    found: list[Structure] = []
    refused: list[Verdict] = []
    masks = MaskCollector(pseudonyms)
    for item in iter_items(paths):
        try:
            structures, faults = _read_item(item, masks, pseudonyms)
            found += structures
            refused += [_verdict(fault) for fault in faults]
        except LabelFaultError as fault:
            refused.append(_verdict(fault))
    for result in masks.series():
        if isinstance(result, MaskSeries):
            found.append(result)
        else:
            refused.append(_verdict(*result))
    return Structures(tuple(found), _summed(refused))


def match_structures(
    structures: Sequence[Structure], grids: Mapping[str, Grid]
) -> tuple[dict[str, tuple[Structure, ...]], tuple[Verdict, ...]]:
    """Which structures belong to which volume, by frame of reference where there is one, and geometry.

    A structure that fits no volume, or several, is refused, and so are several of one name that overlap on a volume
    without being equal: parts of one structure lie apart. A label volume on another lattice is taken by nearest voxel
    where all it labels lies within one volume only, and a note says so. Returns ({id: structures}, refusals).
    """
    matched: dict[str, list[Structure]] = {key: [] for key in grids}
    refused = []
    for structure in structures:
        why = {key: structure.fits(grid) for key, grid in grids.items()}
        fitting = [key for key, reason in why.items() if reason is None]
        if not fitting and isinstance(structure, VolumeLabel):
            fitting = [key for key, grid in grids.items() if structure.inside(grid)]
            note = "its lattice is another one than the volume's: nearest voxel taken"
            structure = replace(structure, nearest=True, notes=(*structure.notes, note))
        if len(fitting) == 1:
            matched[fitting[0]].append(structure)
        else:
            refused.append(_verdict(_no_tie(structure, len(fitting), sorted({r for r in why.values() if r}))))
    for key, found in matched.items():
        matched[key], faults = _told_apart(found, grids[key])
        refused += [_verdict(fault) for fault in faults]
    return {key: tuple(found) for key, found in matched.items()}, _summed(refused)


def label_planes(assignment: Assignment, grid: Grid, start: int, stop: int) -> NDArray[np.unsignedinteger]:
    """Labels of planes start..stop-1: unsigned (stop-start, y, x), 0 is background.

    uint8, or uint16 where the class table has a label above 255, used here or not: volumes of one call are alike.
    Structures are painted in the assignment's order, so the class later in the table wins where they overlap.
    Raises UsageError for a structure that does not fit the grid, InputError where a source changed.
    """
    dtype = np.uint8 if assignment.highest < 256 else np.uint16
    out = np.zeros((stop - start, grid.shape.y, grid.shape.x), dtype)
    for label, structure in assignment.by_label:
        reason = structure.fits(grid)
        if reason is not None:
            raise UsageError(f"{structure.origin} does not fit the volume: {reason}", "match structures first")
        out[structure.planes(grid, start, stop)] = label
    return out


def _read_item(
    item: Item, masks: MaskCollector, pseudonyms: Pseudonyms
) -> tuple[Sequence[Structure], Sequence[LabelFaultError]]:
    """(structures of one file, regions in it that are none); mask planes go to `masks`."""
    parsed = None
    try:
        file = _opened(item)
        if file is None:
            return read_label_volume(item), []
        with file:
            parsed = parse_whole(file)
            kind = sop_class(parsed)
            if kind in SEGMENTATION_STORAGE:
                return read_segments(item, parsed, pseudonyms), []
            if kind == RTStructureSetStorage:
                file.seek(0)
                rois = read_rois(item, file.read(), pseudonyms)
                return [r for r in rois if isinstance(r, Structure)], [r for r in rois if not isinstance(r, Structure)]
            other = not_a_ct_image(parsed)
            if other is not None and other.reason != "secondary-capture":
                raise LabelFaultError(other.reason, other.detail, other.cure or "none needed", other.kind)
            masks.add(item, parsed)
    except InputError as error:
        masks.taint(item)
        raise LabelFaultError("unreadable", error.problem, error.cure) from error
    except LabelFaultError as fault:
        # what is broken may be a plane of the mask beside it; what is known to be something else is not
        if fault.reason == "empty-file" or (fault.kind is VerdictKind.REJECT and _may_be_mask_plane(parsed, item)):
            masks.taint(item)
        raise
    return [], []


def _opened(item: Item) -> BinaryIO | None:
    """A DICOM file, open; None for a NIfTI or NRRD file. Raises LabelFaultError for all else, InputError."""
    if item.fault is not None:
        raise LabelFaultError(item.fault.reason, item.fault.detail, item.fault.cure, item.fault.kind)
    file = item.locator.open()
    head = file.read(HEAD_BYTES)
    file.seek(0)
    if looks_like_dicom(head):
        return file
    file.close()
    if not head:
        raise LabelFaultError("empty-file", "an empty file among labels", "fetch it again", VerdictKind.SET_ASIDE)
    if is_raster(head):
        return None
    problem = "a file that is neither DICOM nor NIfTI or NRRD"
    raise LabelFaultError("not-dicom", problem, "none needed", VerdictKind.SET_ASIDE)


def _may_be_mask_plane(parsed: Parsed | None, item: Item) -> bool:
    if parsed is None:
        return not is_raster(item.head()) if item.fault is None else True
    return sop_class(parsed) not in {RTStructureSetStorage, *SEGMENTATION_STORAGE}


def _told_apart(structures: list[Structure], grid: Grid) -> tuple[list[Structure], list[LabelFaultError]]:
    """(structures of one volume, faults): of equal ones of a name the first; none where they contradict each other."""
    by_name: dict[str, dict[str, Structure]] = {}
    for structure in structures:
        by_name.setdefault(structure.name.casefold(), {}).setdefault(structure.digest, structure)
    kept: list[Structure] = []
    faults = []
    for group in (list(by_digest.values()) for by_digest in by_name.values()):
        how = _compared(group, grid) if len(group) > 1 else "apart"
        kept += group if how == "apart" else group[: how == "equal"]
        if how == "contrary":
            problem = f"{len(group)} structures of one name overlap and differ ({group[0].kind})"
            faults += [LabelFaultError("ambiguous", problem, "give the one that is right")] * len(group)
    return kept, faults


def _compared(group: list[Structure], grid: Grid) -> Literal["apart", "equal", "contrary"]:
    """Whether no voxel is in two of the structures, or all hold the same voxels; kept as bits, an eighth of a byte."""
    slabs = slabs_of(grid.shape.z)
    first = union = [np.packbits(group[0].planes(grid, slab.start, slab.stop)) for slab in slabs]
    equal = apart = True
    for structure in group[1:]:
        bits = [np.packbits(structure.planes(grid, slab.start, slab.stop)) for slab in slabs]
        equal = equal and all(np.array_equal(a, b) for a, b in zip(first, bits, strict=True))
        apart = apart and not any((a & b).any() for a, b in zip(union, bits, strict=True))
        if not (equal or apart):
            return "contrary"
        union = [a | b for a, b in zip(union, bits, strict=True)]
    return "equal" if equal else "apart"


def _no_tie(structure: Structure, n_fitting: int, reasons: list[str]) -> LabelFaultError:
    # names of folders and files are the user's own; those of regions and segments are text of a file
    name = f"structure {structure.name!r}" if structure.kind in ("mask-series", "nifti") else structure.origin
    if n_fitting:
        return LabelFaultError(
            "ambiguous", f"{name} fits {n_fitting} volumes alike", "ingest one patient at a time with its labels"
        )
    detail = "; ".join(reasons[:3]) or "there is no volume"
    return LabelFaultError("no-fit", f"{name} fits no volume: {detail}", "give the labels of these CT series")


def _verdict(fault: LabelFaultError, n_files: int = 1, series: str | None = None) -> Verdict:
    return Verdict(
        kind=fault.kind,
        reason=fault.reason,
        detail=fault.detail,
        cure=fault.cure,
        n_files=n_files,
        series=series,
        source=None,
    )


def _summed(verdicts: list[Verdict]) -> tuple[Verdict, ...]:
    """Equal verdicts as one that counts their files: a CT of 500 planes beside its masks is one line, not 500."""
    out: dict[tuple[object, ...], Verdict] = {}
    for v in verdicts:
        key = (v.kind, v.reason, v.detail, v.cure, v.series)
        out[key] = replace(v, n_files=v.n_files + out[key].n_files) if key in out else v
    return tuple(out.values())
