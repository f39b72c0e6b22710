"""How far two reviews of one case agree: by class in numbers, and voxel by voxel as a layer (RELIABILITY R3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ctpipe.errors import UsageError
from ctpipe.review.boxes import Box, bounds, union
from ctpipe.volume import slabs_of
from ctpipe.words import LabelKind

if TYPE_CHECKING:
    import dask.array as da

    from ctpipe.store import Labels, Series

# Labels of the agreement layer.
SAME, FIRST_ONLY, SECOND_ONLY, OTHER_CLASS = 1, 2, 3, 4
_PLANES = 16  # compared at once


@dataclass(frozen=True)
class Agreement:
    """Two reviews compared. dice: by class name, NaN where neither has it. differ: voxels with different classes.

    box: smallest box around them, or None.
    """

    first: str
    second: str
    dice: dict[str, float]
    differ: int
    box: Box | None

    def __str__(self) -> str:
        scores = ", ".join(f"{name} {score:.3f}" for name, score in self.dice.items() if score == score)
        return f"{self.first} and {self.second}: {self.differ} voxels differ; Dice {scores or 'of nothing'}"


def reviews_of(series: Series) -> dict[str, Labels]:
    """All committed reviews of a series by name. Each is kept: none takes the place of another."""
    return {name: labels for name, labels in series.labels.items() if labels.kind is LabelKind.REVIEW}


def agreement(first: Labels, second: Labels) -> Agreement:
    """Compare two label groups of one volume slab by slab, classes matched by name.

    Raises UsageError where they lie on different grids.
    """
    names, number = _common(first, second)
    counts = np.zeros((3, len(names) + 1), np.int64)  # in first, in second, in both
    differ, boxes = 0, []
    for slab in slabs_of(first.grid.shape.z):
        a, b = (number[k][g.read_planes(slab.start, slab.stop)] for k, g in enumerate((first, second)))
        other = a != b
        for row, values in zip(counts, (a, b, a[~other]), strict=True):
            row += np.bincount(values.ravel(), minlength=len(row))
        differ += int(np.count_nonzero(other))
        if (found := bounds(other)) is not None:
            z, y, x = found
            boxes.append((slice(z.start + slab.start, z.stop + slab.start), y, x))
    with np.errstate(invalid="ignore"):
        dice = 2 * counts[2] / (counts[0] + counts[1])
    scores = {name: float(score) for name, score in zip(names, dice[1:], strict=True)}
    return Agreement(first.name, second.name, scores, differ, union(boxes) if boxes else None)


def agreement_layer(first: Labels, second: Labels) -> tuple[list[da.Array], dict[str, Any]]:
    """(pyramid, options) of a layer that shows where two reviews agree and differ: lazy, not to be painted on."""
    import dask.array as da

    from ctpipe.review.layers import label_look, lazy_levels, placement

    _, number = _common(first, second)

    def compare(a: NDArray, b: NDArray) -> NDArray:
        return compared(number[0][a], number[1][b])

    pairs = zip(lazy_levels(first), lazy_levels(second), strict=True)
    classes = {
        SAME: "both",
        FIRST_ONLY: f"only {first.name[:15]}",
        SECOND_ONLY: f"only {second.name[:15]}",
        OTHER_CLASS: "other class",
    }
    options = {
        **label_look(classes),
        "name": f"{first.name[:15]} and {second.name[:15]}",
        "metadata": {"ctpipe": {"series": first.series_id, "agreement": [first.name, second.name]}},
        **placement(first.grid),
    }
    blocks = ([da.from_array(level, chunks=(_PLANES, -1, -1)) for level in pair] for pair in pairs)
    return [da.map_blocks(compare, a, b, dtype=np.uint8) for a, b in blocks], options


def compared(a: NDArray, b: NDArray) -> NDArray[np.uint8]:
    """Where two label arrays of the same classes are the same, of one only, or of different classes; 0 in neither."""
    out = np.zeros(a.shape, np.uint8)
    out[(a == b) & (a > 0)] = SAME
    out[(a > 0) & (b == 0)] = FIRST_ONLY
    out[(a == 0) & (b > 0)] = SECOND_ONLY
    out[(a != b) & (a > 0) & (b > 0)] = OTHER_CLASS
    return out


def _common(first: Labels, second: Labels) -> tuple[list[str], list[NDArray[np.uint16]]]:
    """Names of all classes, and for each group the table from its labels to their place (from 1) in that list."""
    if first.grid.grid_id != second.grid.grid_id:
        raise UsageError(f"{first.name} and {second.name} lie on different grids", "compare reviews of one volume")
    names = list(dict.fromkeys([*first.classes.values(), *second.classes.values()]))
    tables = []
    for group in (first, second):
        table = np.zeros(np.iinfo(group.dtype).max + 1, np.uint16)
        for label, name in group.classes.items():
            table[label] = names.index(name) + 1
        tables.append(table)
    return names, tables
