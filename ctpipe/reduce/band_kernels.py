"""Compiled loops of the score band; one thread, no lock held. A band is int32 (slots, y, heads, x)."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def add_window(band, scores, weights_z, weights_y, weights_x, corner):  # type: ignore[no-untyped-def]
    """Add a window's weighted scores to the band, each product rounded to the nearest whole number.

    Plane z of the network grid is slot z % slots. scores: float32 (heads, z, y, x).
    weights_*: float32 along each axis; their product is a voxel's share times the scale. corner: the window's first
    voxel on the network grid; what lies outside of it is left out.
    """
    slots, height, _, width = band.shape
    heads, depth, rows, columns = scores.shape
    y_from, y_to = max(0, -corner[1]), min(rows, height - corner[1])
    x_from, x_to = max(0, -corner[2]), min(columns, width - corner[2])
    weights = weights_x[x_from:x_to]
    for z in range(depth):
        if weights_z[z] == 0:  # padding
            continue
        slot = (corner[0] + z) % slots
        for head in range(heads):
            for y in range(y_from, y_to):
                weight = weights_z[z] * weights_y[y]
                line = band[slot, corner[1] + y, head, corner[2] + x_from : corner[2] + x_to]
                score = scores[head, z, y, x_from:x_to]
                for x in range(line.size):
                    line[x] += np.int32(np.rint(score[x] * (weight * weights[x])))


@njit(nogil=True, cache=True)
def add_block(band, scores, shares, scale, corner, planes):  # type: ignore[no-untyped-def]
    """`add_window` where shares are no product along the axes: float32 (z, y, x). planes: of the network grid."""
    slots, height, _, width = band.shape
    heads, depth, rows, columns = scores.shape
    y_from, y_to = max(0, -corner[1]), min(rows, height - corner[1])
    x_from, x_to = max(0, -corner[2]), min(columns, width - corner[2])
    for z in range(max(0, -corner[0]), min(depth, planes - corner[0])):
        slot = (corner[0] + z) % slots
        for head in range(heads):
            for y in range(y_from, y_to):
                line = band[slot, corner[1] + y, head, corner[2] + x_from : corner[2] + x_to]
                score, share = scores[head, z, y, x_from:x_to], shares[z, y, x_from:x_to]
                for x in range(line.size):
                    line[x] += np.int32(np.rint(score[x] * (share[x] * scale)))


@njit(nogil=True, cache=True)
def highest(sums, out):  # type: ignore[no-untyped-def]
    """Class of the highest sum of each voxel: sums int32 (y, heads, x) -> out (y, x); the lower class of equals."""
    rows, heads, width = sums.shape
    best, which = np.empty(width, np.int32), np.empty(width, np.int32)
    for y in range(rows):
        best[:] = sums[y, 0]
        which[:] = 0
        for head in range(1, heads):
            row = sums[y, head]
            for x in range(width):
                which[x] = head if row[x] > best[x] else which[x]
                best[x] = max(row[x], best[x])
        line = out[y]
        for x in range(width):
            line[x] = which[x]


@njit(nogil=True, cache=True)
def _mixed_row(band, slots, parts_z, head, y, part_y, out):  # type: ignore[no-untyped-def]
    """One row of a head between rows y, y + 1 of two planes, float32 on the network's x."""
    below = min(y + 1, band.shape[1] - 1)
    for x in range(out.size):
        out[x] = part_y[0] * np.float32(band[slots[0], y, head, x])
    if part_y[1] != 0:
        for x in range(out.size):
            out[x] += part_y[1] * np.float32(band[slots[0], below, head, x])
    if parts_z[1] == 0:
        return
    for x in range(out.size):
        other = part_y[0] * np.float32(band[slots[1], y, head, x])
        if part_y[1] != 0:
            other += part_y[1] * np.float32(band[slots[1], below, head, x])
        out[x] = parts_z[0] * out[x] + parts_z[1] * other


@njit(nogil=True, cache=True)
def resampled_highest(band, slots, parts_z, first_y, parts_y, first_x, parts_x, out):  # type: ignore[no-untyped-def]
    """Class of the highest score between the voxels of a band: linear taps along z, y and x -> out (y, x).

    slots, parts_z: two planes and their parts; first_*, parts_*: (n,), (n, 2). Nothing of the size heads x plane is
    made.
    """
    heads, width = band.shape[2:]
    n = first_x.size
    best, which = np.empty(n, np.float32), np.empty(n, np.int32)
    row = np.empty(width + 1, np.float32)
    for y in range(first_y.size):
        for head in range(heads):
            _mixed_row(band, slots, parts_z, head, first_y[y], parts_y[y], row[:width])
            row[width] = row[width - 1]
            for x in range(n):
                value = parts_x[x, 0] * row[first_x[x]] + parts_x[x, 1] * row[first_x[x] + 1]
                more = head == 0 or value > best[x]
                which[x] = head if more else which[x]
                best[x] = value if more else best[x]
        for x in range(n):
            out[y, x] = which[x]


@njit(nogil=True, cache=True)
def resampled_scores(band, slots, parts_z, first_y, parts_y, first_x, parts_x, out):  # type: ignore[no-untyped-def]
    """Scores of every head between the voxels of a band, out float32 (heads, y, x); see resampled_highest."""
    heads, width = band.shape[2:]
    row = np.empty(width + 1, np.float32)
    for y in range(first_y.size):
        for head in range(heads):
            _mixed_row(band, slots, parts_z, head, first_y[y], parts_y[y], row[:width])
            row[width] = row[width - 1]
            for x in range(first_x.size):
                out[head, y, x] = parts_x[x, 0] * row[first_x[x]] + parts_x[x, 1] * row[first_x[x] + 1]
