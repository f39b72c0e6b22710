"""Compiled loops over voxels: sums of windows at a cost that grows with voxels, and windows cut out at memory speed.

All of them hold no lock (nogil) and use one thread: a Dask task is the unit of parallel work. They are compiled once
and kept on disk by numba (`NUMBA_CACHE_DIR`, else beside this file or in the user's cache).

Sums are 64-bit integers that may overflow on the way: a window's sum is a difference of running sums, and differences
modulo 2^64 are exact wherever the window's own sum fits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

# Rows that `cut` asks memory for in advance.
AHEAD = 4


@intrinsic
def _copy(typing: Any, to: Any, at: Any, source: Any, first: Any, count: Any) -> Any:
    """Copies `count` items of flat arrays: numba's own slice assignment is three times slower."""
    signature = types.void(to, types.intp, source, types.intp, types.intp)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        to, at, source, first, count = arguments
        target = context.make_array(signature.args[0])(context, builder, to)
        origin = context.make_array(signature.args[2])(context, builder, source)
        size = signature.args[0].dtype.bitwidth // 8
        cgutils.raw_memcpy(builder, builder.gep(target.data, [at]), builder.gep(origin.data, [first]), count, size)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _expect(typing: Any, source: Any, first: Any) -> Any:
    """Tell the processor that item `first` of a flat array will be read: rows of a window lie far apart in memory."""
    signature = types.void(source, types.intp)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, first = arguments
        origin = context.make_array(signature.args[0])(context, builder, source)
        at = builder.bitcast(builder.gep(origin.data, [first]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [at.type, number, number, number]), "llvm.prefetch.p0i8")
        builder.call(function, [at, number(0), number(3), number(1)])  # for reading, to keep, data
        return context.get_dummy_value()

    return signature, generate


@njit(nogil=True, cache=True, inline="always")
def _along_x(column, running, x_axis, window, edge, out):
    """out[j]: the sum of `column` over the window around x_axis[j]."""
    length = len(column)
    total = np.int64(0)
    running[0] = 0
    for x in range(length):
        total += column[x]
        running[x + 1] = total
    for j in range(len(x_axis)):
        start = x_axis[j] - window // 2
        stop = start + window
        value = running[min(stop, length)] - running[max(start, 0)]
        if edge:
            if start < 0:
                value += -start * column[0]
            if stop > length:
                value += (stop - length) * column[length - 1]
        out[j] = value


@njit(nogil=True, cache=True)
def label_sums(labels, worth, y_axis, x_axis, window_y, window_x, edge, out):
    """out[i, j]: sum of worth[label] over the window around (y_axis[i], x_axis[j]) of one plane of labels (y, x).

    worth: (256,) int64. edge: beyond the plane its nearest voxel counts again; else nothing does.
    """
    height, width = labels.shape
    column, running = np.zeros(width, np.int64), np.zeros(width + 1, np.int64)
    held_from = held_to = y_axis[0] - window_y // 2
    for i in range(len(y_axis)):
        start = y_axis[i] - window_y // 2
        stop = start + window_y
        if start >= held_to:
            column[:] = 0
            held_from = held_to = start
        for y in range(held_from, start):
            if edge or 0 <= y < height:
                row = labels[min(max(y, 0), height - 1)]
                for x in range(width):
                    column[x] -= worth[row[x]]
        for y in range(held_to, stop):
            if edge or 0 <= y < height:
                row = labels[min(max(y, 0), height - 1)]
                for x in range(width):
                    column[x] += worth[row[x]]
        held_from, held_to = start, stop
        _along_x(column, running, x_axis, window_x, edge, out[i])


@njit(nogil=True, cache=True)
def value_sums(values, y_axis, x_axis, window_y, window_x, edge, out):
    """As `label_sums`, of the numbers themselves: values (y, x) int64."""
    height, width = values.shape
    column, running = np.zeros(width, np.int64), np.zeros(width + 1, np.int64)
    held_from = held_to = y_axis[0] - window_y // 2
    for i in range(len(y_axis)):
        start = y_axis[i] - window_y // 2
        stop = start + window_y
        if start >= held_to:
            column[:] = 0
            held_from = held_to = start
        for y in range(held_from, start):
            if edge or 0 <= y < height:
                row = values[min(max(y, 0), height - 1)]
                for x in range(width):
                    column[x] -= row[x]
        for y in range(held_to, stop):
            if edge or 0 <= y < height:
                row = values[min(max(y, 0), height - 1)]
                for x in range(width):
                    column[x] += row[x]
        held_from, held_to = start, stop
        _along_x(column, running, x_axis, window_x, edge, out[i])


@njit(nogil=True, cache=True)
def hu_sums(hu, y_axis, x_axis, window_y, window_x, edge, zero, out, out_squares):
    """Sums of hu - zero and of its square over the windows of one plane (y, x) of int16."""
    height, width = hu.shape
    column, squares = np.zeros(width, np.int64), np.zeros(width, np.int64)
    running = np.zeros(width + 1, np.int64)
    held_from = held_to = y_axis[0] - window_y // 2
    for i in range(len(y_axis)):
        start = y_axis[i] - window_y // 2
        stop = start + window_y
        if start >= held_to:
            column[:] = 0
            squares[:] = 0
            held_from = held_to = start
        for y in range(held_from, start):
            if edge or 0 <= y < height:
                row = hu[min(max(y, 0), height - 1)]
                for x in range(width):
                    value = np.int64(row[x]) - zero
                    column[x] -= value
                    squares[x] -= value * value
        for y in range(held_to, stop):
            if edge or 0 <= y < height:
                row = hu[min(max(y, 0), height - 1)]
                for x in range(width):
                    value = np.int64(row[x]) - zero
                    column[x] += value
                    squares[x] += value * value
        held_from, held_to = start, stop
        _along_x(column, running, x_axis, window_x, edge, out[i])
        _along_x(squares, running, x_axis, window_x, edge, out_squares[i])


@njit(nogil=True, cache=True)
def add_labels(labels, worth, times, total):
    """Adds times * worth[label] to `total`, for one plane."""
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            total[y, x] += times * worth[labels[y, x]]


@njit(nogil=True, cache=True)
def add_squares(values, times, total, squares):
    """Adds times * value to `total` and times * value^2 to `squares`, for one plane of int64."""
    for y in range(values.shape[0]):
        for x in range(values.shape[1]):
            value = values[y, x]
            total[y, x] += times * value
            squares[y, x] += times * value * value


@njit(nogil=True, cache=True)
def fractions(words, bits, first, total, out):
    """out[k - first][at + i]: field k of word i over `total`, float32; fields of `bits` bits lie side by side."""
    mask = np.int64((np.int64(1) << bits) - 1)
    flat = words.reshape(-1)
    for k in range(out.shape[0]):
        shift = np.int64((first + k) * bits)
        for i in range(len(flat)):
            out[k, i] = np.float32(((flat[i] >> shift) & mask) / total)


@njit(nogil=True, cache=True)
def moments(sums, squares, total, zero, scale, mean, deviation):
    """Mean and standard deviation (of all `total` voxels) from exact sums of scale * (value - zero) and its square."""
    flat, flat_squares = sums.reshape(-1), squares.reshape(-1)
    for i in range(len(flat)):
        centre = flat[i] / total
        spread = flat_squares[i] / total - centre * centre
        mean[i] = np.float32(centre / scale + zero)
        deviation[i] = np.float32(np.sqrt(max(spread, 0.0)) / scale)


@njit(nogil=True, cache=True)
def cut(slab, plane, y, x, height, width, edge, fill, where, out):
    """out[where[i]] = the window of (height, width) of slab[plane[i]] that starts at (y[i], x[i]), also beyond it.

    slab (planes, y, x) and out (n, height, width): C order, one dtype. edge: the nearest voxel fills; else `fill`.
    """
    _, rows, columns = slab.shape
    line = 64 // slab.itemsize
    source, target = slab.reshape(-1), out.reshape(-1)
    for i in range(len(plane)):
        before = min(width, max(0, -x[i]))
        inside = max(before, min(width, columns - x[i]))
        last = -2  # the row of the slab that the row before was cut from; -1: a row of fill
        for r in range(height):
            to = (where[i] * height + r) * width
            row = y[i] + r
            if row < 0 or row >= rows:
                row = (0 if row < 0 else rows - 1) if edge else -1
            if row == last:
                _copy(target, to, target, to - width, width)  # type: ignore[call-arg]
                continue
            last = row
            ahead = row + AHEAD
            if row >= 0 and ahead < rows:
                soon = (plane[i] * rows + ahead) * columns + x[i] + before
                for c in range(0, inside - before, line):
                    _expect(source, soon + c)  # type: ignore[call-arg]
            if row < 0:
                for c in range(width):
                    target[to + c] = fill
                continue
            first = (plane[i] * rows + row) * columns
            if before:
                value = source[first] if edge else fill
                for c in range(before):
                    target[to + c] = value
            if inside > before:
                _copy(target, to + before, source, first + x[i] + before, inside - before)  # type: ignore[call-arg]
            if inside < width:
                value = source[first + columns - 1] if edge else fill
                for c in range(inside, width):
                    target[to + c] = value
