"""From a mask of pixels to closed contours, exactly: along the sides of pixels, holes joined to their outline.

::

    pixels         contours                     keyhole (PS3.3 C.8.8.6.3)
    . # # #        +-----+   outlines run on    +-----+   one contour goes in along a channel of no width,
    . # . #        | +-+ |   the sides, half    | +-+ |   around the hole and back on the same line
    . # # #        | +-+ |   a pixel from any   |-+-+ |
                   +-----+   pixel's centre     +-----+

Area and volume are those of the pixels to the last digit, and a reader that takes the pixels whose centre lies inside
gets the same mask, by the even-odd rule and by winding alike, with half a pixel to spare for its rounding. Pixels that
meet at a corner only are two outlines. Corners are lattice points: corner (r, c) is the first corner of pixel (r, c).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ring = list[tuple[int, int]]  # corners (row, column) in order, not closed


def outlines(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Closed contours of a mask (y, x): each (n, 2) pixel indexes (y, x) with fractions, holes joined as keyholes."""
    rings = _rings(mask)
    holes = [ring for ring in rings if not _is_outer(ring, mask)]
    outer = [ring for ring in rings if _is_outer(ring, mask)]
    # from the left, so that whatever a channel meets has been joined before
    for hole in sorted(holes, key=lambda ring: min((c, r) for r, c in ring)):
        _join(hole, outer, mask)
    return [_pixel_indexes(ring) for ring in outer]


def _pixel_indexes(ring: Ring) -> NDArray[np.float64]:
    """Corners as pixel indexes, none twice in a row (a channel may begin at a corner)."""
    corners = np.asarray(ring)
    return corners[np.any(corners != np.roll(corners, 1, axis=0), axis=1)] - 0.5


def _rings(mask: NDArray[np.bool_]) -> list[Ring]:
    """Every closed line along the sides of pixels that parts the mask from the rest; corners where it turns.

    Corners that lie on one row pair off from the left, the sides between them being outline; so do those of a column.
    A corner where pixels meet across it belongs to two lines: it stands twice, once for each pixel's own line.
    """
    inside = np.pad(mask, 1).astype(np.int8)
    a, b, c, d = inside[:-1, :-1], inside[:-1, 1:], inside[1:, :-1], inside[1:, 1:]  # about each corner: a b / c d
    total = a + b + c + d
    crossed = (total == 2) & (a == d)
    turns = (total % 2 == 1) | crossed
    rows, columns = np.nonzero(turns)
    twice = crossed[rows, columns]
    rows, columns, falls = (np.repeat(v, np.where(twice, 2, 1)) for v in (rows, columns, a[rows, columns] == 1))
    second = np.zeros(len(rows), bool)
    second[1:] = (rows[1:] == rows[:-1]) & (columns[1:] == columns[:-1])
    along_row = np.arange(len(rows)) ^ 1  # nonzero gives corners by row: they pair off in order
    along_column = _column_pairs(rows, columns, second, falls)
    return _traced(rows, columns, along_row, along_column)


def _column_pairs(
    rows: NDArray[np.intp], columns: NDArray[np.intp], second: NDArray[np.bool_], falls: NDArray[np.bool_]
) -> NDArray[np.intp]:
    """For each corner the one that it pairs off with in its column.

    Of a corner that stands twice the first has its side to the left, the second to the right. Where the pixel above
    left is inside (`falls`), its line has the sides left and above: the first stands above the second; else below.
    """
    below = second ^ ~falls
    order = np.lexsort((below, rows, columns))
    out = np.empty(len(rows), np.intp)
    out[order[0::2]], out[order[1::2]] = order[1::2], order[0::2]
    return out


def _traced(
    rows: NDArray[np.intp], columns: NDArray[np.intp], along_row: NDArray[np.intp], along_column: NDArray[np.intp]
) -> list[Ring]:
    """Follows sides along rows and columns in turn until each line is closed."""
    at_row, at_column, across, down = rows.tolist(), columns.tolist(), along_row.tolist(), along_column.tolist()
    seen = bytearray(len(at_row))
    rings = []
    for first in range(len(at_row)):
        if seen[first]:
            continue
        ring, at = [], first
        while not seen[at]:
            beside = across[at]
            seen[at] = seen[beside] = 1
            ring += [(at_row[at], at_column[at]), (at_row[beside], at_column[beside])]
            at = down[beside]
        rings.append(ring)
    return rings


def _is_outer(ring: Ring, mask: NDArray[np.bool_]) -> bool:
    """Whether pixels of the mask lie inside: below and right of the topmost, then leftmost, corner."""
    row, column = min(ring)
    return bool(mask[row, column])


def _join(hole: Ring, outer: list[Ring], mask: NDArray[np.bool_]) -> None:
    """Puts the hole into the ring that a line to the left from its leftmost corner meets first."""
    column, row = min((c, r) for r, c in hole)
    while mask[row - 1, column - 1] and mask[row, column - 1]:
        column -= 1
        if column == 0:
            break
    ring, at = _met(outer, row, column)
    first = hole.index(min(hole, key=lambda corner: (corner[1], corner[0])))
    around = [*hole[first:], *hole[: first + 1]]  # back to where it began
    if _turns_alike(ring, hole):
        around.reverse()
    channel = [(row, column)]
    ring[at:at] = [*channel, *around, *channel]


def _met(outer: list[Ring], row: int, column: int) -> tuple[Ring, int]:
    """The ring that passes the corner (row, column) on a side of its column, and where in it to put a point."""
    for ring in outer:
        for n, (r, c) in enumerate(ring):
            r0, c0 = ring[n - 1]
            if c == c0 == column and min(r0, r) <= row <= max(r0, r) and (r0 != r):
                return ring, n
    raise AssertionError("a hole lies within an outline")  # a line to the left leaves the mask somewhere


def _turns_alike(a: Ring, b: Ring) -> bool:
    return (_turn(a) > 0) == (_turn(b) > 0)


def _turn(ring: Ring) -> int:
    """Twice the signed area."""
    return sum(r0 * c1 - r1 * c0 for (r0, c0), (r1, c1) in zip(ring, [*ring[1:], ring[0]], strict=True))
