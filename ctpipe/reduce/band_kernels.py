"""Compiled loops of the score band; whole numbers, one thread, no lock held."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def add_window(band, scores, bits, weights_z, weights_y, weights_x, corner, limit):  # type: ignore[no-untyped-def]
    """Add a window's weighted scores to the band, rounded to whole numbers; returns the largest magnitude's bits.

    band: int32 (slots, heads, y, x); plane z of the network grid is slot z % slots. scores: float32 (heads, z, y, x),
    clamped to +-limit; bits: the same memory as uint32. weights_*: float32 along each axis, their product is a voxel's
    weight times the scale. corner: the window's first voxel on the network grid, which may lie outside of it.
    """
    slots, heads, height, width = band.shape
    depth, rows, columns = scores.shape[1:]
    y_from, y_to = max(0, -corner[1]), min(rows, height - corner[1])
    x_from, x_to = max(0, -corner[2]), min(columns, width - corner[2])
    largest = np.uint32(0)
    low, high = np.float32(-limit), np.float32(limit)
    weights = weights_x[x_from:x_to]
    for z in range(depth):
        if weights_z[z] == 0:
            continue
        slot = (corner[0] + z) % slots
        for head in range(heads):
            for y in range(y_from, y_to):
                weight = weights_z[z] * weights_y[y]
                line = band[slot, head, corner[1] + y, corner[2] + x_from : corner[2] + x_to]
                score = scores[head, z, y, x_from:x_to]
                bit = bits[head, z, y, x_from:x_to]
                for x in range(line.size):
                    largest = max(largest, bit[x] & np.uint32(0x7FFFFFFF))
                    value = score[x]
                    value = high if value > high else value
                    value = low if value < low else value
                    line[x] += np.int32(np.rint(value * (weight * weights[x])))
    return largest


@njit(nogil=True, cache=True)
def highest(sums, out):  # type: ignore[no-untyped-def]
    """Class of the highest sum of a plane: sums int32 (heads, y, x) -> out (y, x); the lower class of equals."""
    heads, height, width = sums.shape
    best = np.empty(width, np.int32)
    for y in range(height):
        line = out[y]
        best[:] = sums[0, y]
        line[:] = 0
        for head in range(1, heads):
            row = sums[head, y]
            for x in range(width):
                if row[x] > best[x]:
                    best[x] = row[x]
                    line[x] = head


@njit(nogil=True, cache=True)
def resampled_row(band, slots, parts_z, head, y0, y1, part_y0, part_y1, out):  # type: ignore[no-untyped-def]
    """One row of a head between two rows of two planes, float32 on the network's x."""
    for x in range(out.size):
        out[x] = part_y0 * np.float32(band[slots[0], head, y0, x])
    if part_y1 != 0:
        for x in range(out.size):
            out[x] += part_y1 * np.float32(band[slots[0], head, y1, x])
    if parts_z[1] == 0:
        return
    for x in range(out.size):
        other = part_y0 * np.float32(band[slots[1], head, y0, x])
        if part_y1 != 0:
            other += part_y1 * np.float32(band[slots[1], head, y1, x])
        out[x] = parts_z[0] * out[x] + parts_z[1] * other


@njit(nogil=True, cache=True)
def resampled_highest(band, slots, parts_z, first_y, parts_y, first_x, parts_x, out):  # type: ignore[no-untyped-def]
    """Class of the highest score between the voxels of a band: linear taps along z, y and x -> out (y, x).

    slots, parts_z: two planes and their parts; first_*, parts_*: (n,), (n, 2). Head after head and row after row, so
    that nothing of the size heads x plane is made.
    """
    heads, height, width = band.shape[1:]
    n = first_x.size
    best = np.empty(n, np.float32)
    row = np.empty(width, np.float32)
    for y in range(first_y.size):
        line = out[y]
        y0 = first_y[y]
        y1 = min(y0 + 1, height - 1)
        for head in range(heads):
            resampled_row(band, slots, parts_z, head, y0, y1, parts_y[y, 0], parts_y[y, 1], row)
            for x in range(n):
                x0 = first_x[x]
                value = parts_x[x, 0] * row[x0] + parts_x[x, 1] * row[min(x0 + 1, width - 1)]
                if head == 0:
                    best[x] = value
                    line[x] = 0
                elif value > best[x]:
                    best[x] = value
                    line[x] = head


@njit(nogil=True, cache=True)
def resampled_scores(band, slots, parts_z, first_y, parts_y, first_x, parts_x, out):  # type: ignore[no-untyped-def]
    """Scores of every head between the voxels of a band, out float32 (heads, y, x); see resampled_highest."""
    heads, height, width = band.shape[1:]
    row = np.empty(width, np.float32)
    for head in range(heads):
        for y in range(first_y.size):
            y0 = first_y[y]
            y1 = min(y0 + 1, height - 1)
            resampled_row(band, slots, parts_z, head, y0, y1, parts_y[y, 0], parts_y[y, 1], row)
            for x in range(first_x.size):
                x0 = first_x[x]
                out[head, y, x] = parts_x[x, 0] * row[x0] + parts_x[x, 1] * row[min(x0 + 1, width - 1)]
