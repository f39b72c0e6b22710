"""Scores at the centres of a volume: planes in the model's exact dense form, or windows in fixed micro-batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ctpipe.errors import RunError, UsageError
from ctpipe.patches import PaddedPlanes, PlaneReader, WindowGrid, pad_planes
from ctpipe.predict.dense import exact_form, score_box, worth_it

if TYPE_CHECKING:
    from ctpipe.models import Model

# Probabilities are kept as integers of 1 / SCORE_SCALE: sums of them cannot depend on their order (DESIGN 3).
SCORE_SCALE = 1 << 20
# Features of so many bytes are held at a time, whatever the height of the slab,
FEATURE_BYTES = 64 << 20
# and windows of so many bytes are cut at a time (at least one micro-batch), however many there are.
CUT_BYTES = 32 << 20


def score_centres(model: Model, reader: PlaneReader, z_planes: list[int],
                  mask: NDArray[np.bool_] | None = None) -> NDArray[np.int32]:
    """Class probabilities at the centres of the lattice `model.recipe.predict.stride`, as int32 of 1 / 2^20.

    z_planes: planes of the input level that lie on the lattice, ascending.
    mask: bool (len(z_planes), ny, nx), which centres are evaluated; elsewhere background is certain. None: all.
    Returns (len(z_planes), ny, nx, 1 + classes). Rounded to the nearest integer. A plane is evaluated in one dense
    pass where the model has an exact dense form and that costs less than its windows one by one; which way, and with it
    the last bits, depends on the plane and its mask alone. RunError names the plane where a score is NaN or infinite.
    """
    recipe = model.recipe
    lattice = WindowGrid(reader.grid.shape, recipe.windows.window, recipe.predict.stride)
    z_axis, y_axis, x_axis = lattice.axes()
    wanted = (len(z_planes), len(y_axis), len(x_axis))
    if not set(z_planes) <= set(z_axis.tolist()) or sorted(z_planes) != list(z_planes):
        raise UsageError(f"planes {z_planes} are no ascending lattice planes", f"take multiples of {lattice.stride.z}")
    if mask is not None and mask.shape != wanted:
        raise UsageError(f"mask {mask.shape} does not fit the lattice {wanted}", "make it for the same stride")
    out = np.zeros((*wanted, 1 + len(model.spec.classes)), np.int32)
    out[..., 0] = SCORE_SCALE
    form = exact_form(model)
    for first, last in _plane_groups(z_planes, reader, mask):
        asked = np.ones((last - first, *wanted[1:]), bool) if mask is None else mask[first:last].copy()
        low, padded = _padded(model, reader, z_planes[first], z_planes[last - 1])
        for i, here in enumerate(asked):
            box = worth_it(form, here) if form else None
            if form and box:
                z = z_planes[first + i]
                scores = score_box(model, form, padded, z - low, box)
                if not np.isfinite(scores).all():  # as a window by itself it tells which layer it was
                    y, x = (axis[side][n] for axis, side, n in zip((y_axis, x_axis), box, _first_wrong(scores),
                                                                   strict=True))
                    _scores(model, reader, padded.cut([z - low], [y], [x]), np.array([z]))
                found = _whole(scores, reader, np.array(z))
                out[first + i][box][here[box]] = found[here[box]]
                here[:] = False
        for rows in _groups(np.argwhere(asked), model, padded):
            at = np.asarray(z_planes)[first + rows[:, 0]]
            scores = _scores(model, reader, padded.cut(at - low, y_axis[rows[:, 1]], x_axis[rows[:, 2]]), at)
            out[first + rows[:, 0], rows[:, 1], rows[:, 2]] = _whole(scores, reader, at)
    return out


def _scores(model: Model, reader: PlaneReader, windows: NDArray[np.float32],
            planes: NDArray[np.int64]) -> NDArray[np.float32]:
    """`model.scores`, whose error names the series and the plane of the first window that it is about."""
    try:
        return model.scores(windows)
    except RunError as error:
        if len(windows) > 1:
            half = len(windows) // 2
            _scores(model, reader, windows[:half], planes[:half])
            _scores(model, reader, windows[half:], planes[half:])
        raise RunError(f"series {reader.series.id}, plane {planes[0]}: {error.problem}", error.cure) from error


def _first_wrong(scores: NDArray[np.float32]) -> tuple[int, int]:
    """Row and column of the first score of a plane (ny, nx, classes) that is NaN or infinite."""
    row, column = np.argwhere(~np.isfinite(scores).all(-1))[0]
    return int(row), int(column)


def _whole(scores: NDArray[np.float32], reader: PlaneReader, planes: NDArray[np.int64]) -> NDArray[np.int32]:
    """Scores as integers; planes: of each score, or of all. RunError names the first plane with one that is none."""
    if not np.isfinite(scores).all():
        wrong = ~np.isfinite(scores).all(axis=-1)
        plane = int(np.broadcast_to(planes, wrong.shape)[wrong][0])
        raise RunError(f"series {reader.series.id}: the model gives NaN or infinite scores on plane {plane}",
                       "train the model again; its weights do not suit this input")
    return np.rint(scores * np.float32(SCORE_SCALE)).astype(np.int32)


def _plane_groups(z_planes: list[int], reader: PlaneReader,
                  mask: NDArray[np.bool_] | None) -> Iterator[tuple[int, int]]:
    """Ranges of `z_planes` whose features are held at once; planes without an asked centre are left out."""
    per_plane = reader.channels * reader.grid.shape.y * reader.grid.shape.x * 4
    span = max(1, FEATURE_BYTES // per_plane)
    asked = [i for i in range(len(z_planes)) if mask is None or mask[i].any()]
    group: list[int] = []
    for i in asked:
        if group and z_planes[i] - z_planes[group[0]] >= span:
            yield group[0], group[-1] + 1
            group = []
        group.append(i)
    if group:
        yield group[0], group[-1] + 1


def _padded(model: Model, reader: PlaneReader, first: int, last: int) -> tuple[int, PaddedPlanes]:
    """The planes that windows centred on planes first..last reach, padded, and the number of the first of them."""
    depth = model.recipe.windows.window.z
    low = max(0, first - depth // 2)
    high = min(reader.grid.shape.z, last + depth - depth // 2)
    return low, pad_planes(reader.features(low, high), model.recipe.windows)


def _groups(centres: NDArray[np.int64], model: Model, padded: PaddedPlanes) -> Iterator[NDArray[np.int64]]:
    """Centres in groups of whole micro-batches: only the last batch of a group of planes is filled up with zeros."""
    batch = model.sizes.micro_batch
    window_bytes = 4 * padded.voxels.shape[1] * int(np.prod(padded.window))
    size = batch * max(1, CUT_BYTES // (batch * window_bytes))
    for start in range(0, len(centres), size):
        yield centres[start:start + size]
