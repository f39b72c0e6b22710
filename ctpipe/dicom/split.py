"""Which planes of one series make which volume (corpus policy, rules 6 and 10)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from ctpipe.dicom.geometry import Stack, cluster, repeats
from ctpipe.dicom.headers import PHASE_KEYS, PlaneHeader

ORIENTATION_TOLERANCE = 1e-4
PIXEL_SPACING_TOLERANCE_MM = 1e-6

Fault = tuple[str, str]


@dataclass(frozen=True)
class Deduplicated:
    """Planes with identical copies dropped. copies: planes dropped; files: of each plane kept, all its files."""

    planes: list[PlaneHeader]
    files: dict[int, frozenset[int]]  # id of a plane kept -> index entries of the files that hold it
    copies: int
    conflict: bool


def drop_copies(planes: Iterable[PlaneHeader], same_pixels: Callable[[PlaneHeader, PlaneHeader], bool]) -> Deduplicated:
    """One plane for each instance and frame; `conflict` where one UID stands for different content.

    same_pixels: compares decoded voxels; asked only where the stored bytes differ.
    """
    by_instance: dict[Hashable, list[PlaneHeader]] = defaultdict(list)
    for plane in planes:  # an instance without a UID is refused for that; it is nobody's copy
        by_instance[plane.instance or plane.entry, plane.frame].append(plane)
    kept, files, copies = [], {}, 0
    for same in by_instance.values():
        # Which of the copies is kept must not depend on where they lie.
        same.sort(key=lambda plane: (plane.digest, plane.form.syntax if plane.form else ""))
        first = same[0]
        if any(not _same_content(first, other, same_pixels) for other in same[1:]):
            return Deduplicated([], {}, 0, True)
        kept.append(first)
        files[id(first)] = frozenset(plane.entry for plane in same)
        copies += len(same) - 1
    return Deduplicated(kept, files, copies, False)


def _same_content(a: PlaneHeader, b: PlaneHeader, same_pixels: Callable[[PlaneHeader, PlaneHeader], bool]) -> bool:
    if _meaning(a) != _meaning(b):
        return False
    if a.digest and a.digest == b.digest and a.form == b.form:
        return True
    return bool(a.facts and b.facts and a.rescale and b.rescale) and same_pixels(a, b)


def _meaning(plane: PlaneHeader) -> Hashable:
    """What two copies of one instance must agree in, pixels aside."""
    return (
        plane.study,
        plane.patient,
        plane.frame_of_reference,
        plane.rows,
        plane.columns,
        plane.position.values if plane.position else None,
        plane.orientation,
        plane.pixel_spacing,
        plane.rescale,
        tuple(plane.keys.values()),
        plane.faults,
    )


def groups_of(planes: list[PlaneHeader]) -> list[list[PlaneHeader]]:
    """Planes by frame of reference, orientation, size and pixel spacing, each of which all of them must have."""
    orientations = cluster([plane.orientation or () for plane in planes], ORIENTATION_TOLERANCE)
    spacings = cluster([plane.pixel_spacing or () for plane in planes], PIXEL_SPACING_TOLERANCE_MM)
    groups: dict[Hashable, list[PlaneHeader]] = defaultdict(list)
    for plane, orientation, spacing in zip(planes, orientations, spacings, strict=True):
        key = (plane.frame_of_reference, orientation, plane.rows, plane.columns, spacing)
        groups[key].append(plane)
    return [groups[key] for key in sorted(groups)]  # type: ignore[type-var]


def phases_of(planes: list[PlaneHeader]) -> list[list[PlaneHeader]] | None:
    """The planes as they are where no position repeats, else by the first key that tells them apart, or None."""
    if not _repeats(planes):
        return [planes]
    varying = [key for key in PHASE_KEYS if len({str(plane.keys.get(key)) for plane in planes}) > 1]
    for size in range(1, len(varying) + 1):
        for keys in combinations(varying, size):
            parts: dict[tuple[str, ...], list[PlaneHeader]] = defaultdict(list)
            for plane in planes:
                parts[tuple(_sortable(plane.keys.get(key)) for key in keys)].append(plane)
            if not any(_repeats(part) for part in parts.values()):
                return [parts[key] for key in sorted(parts)]
    return None


def _sortable(value: float | str | None) -> str:
    return f"{value:024.6f}" if isinstance(value, float) else str(value)


def stack_of(planes: list[PlaneHeader]) -> Stack:
    """Geometry of planes of one group; all have a position and an orientation."""
    positions = [plane.position for plane in planes if plane.position]
    orientation = min(plane.orientation for plane in planes if plane.orientation)
    unit = min(position.unit for position in positions)
    return Stack(np.array([position.values for position in positions], np.float64), orientation, unit)


def _repeats(planes: list[PlaneHeader]) -> bool:
    return len(planes) > 1 and repeats(stack_of(planes).heights)


def sorted_planes(planes: list[PlaneHeader]) -> tuple[list[PlaneHeader], Stack]:
    """The planes ascending along their normal, and their stack in that order, with the lowest plane's orientation."""
    stack = stack_of(planes)
    ordered = [planes[int(index)] for index in stack.order()]
    return ordered, replace(stack_of(ordered), orientation=ordered[0].orientation or ())
