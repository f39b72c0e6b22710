"""Strokes of napari's own tools as what they changed: the list that its `paint` event brings, read for the journal.

napari tells of a stroke at its end (mouse), or just before it writes (a call of `paint`). So the voxels before and
after are made from the stroke's parts, whose old and new values are known, and not from what the array holds then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctpipe.errors import RunError
from ctpipe.review.boxes import Box, inside, shape_of, union
from ctpipe.review.delta import Delta


def stroke_delta(parts: Sequence[Any], labels: NDArray) -> Delta | None:
    """What a stroke of napari 0.9 changes in `labels` (z, y, x); None where it changes nothing.

    parts: (slice_key, mask or None, old_values, new_value), or (indexes, old values, new values), oldest first.
    Raises RunError for parts of another kind: a stroke must never be shown and not be journalled.
    """
    if not parts:
        return None
    boxes = [_box(part) for part in parts]
    box = union(boxes)
    after = labels[box].copy()
    for part, at in zip(reversed(parts), reversed(boxes), strict=True):
        _put(part, at, after, box, old=True)
    before = after.copy()
    for part, at in zip(parts, boxes, strict=True):
        _put(part, at, after, box, old=False)
    return Delta.between(box, before, after)


def _box(part: Any) -> Box:
    if hasattr(part, "slice_key") and len(part.slice_key) == 3:
        z, y, x = part.slice_key
        return z, y, x
    if isinstance(part, tuple) and len(part) == 3 and len(part[0]) == 3:
        z, y, x = (slice(int(np.min(at)), int(np.max(at)) + 1) for at in part[0])
        return z, y, x
    raise RunError("this napari tells of a stroke in a way that cannot be journalled", "use napari 0.9")


def _put(part: Any, at: Box, cut: NDArray, outer: Box, old: bool) -> None:
    if not hasattr(part, "slice_key"):
        indexes, before, after = part
        where = tuple(np.asarray(i) - s.start for i, s in zip(indexes, outer, strict=True))
        cut[where] = before if old else after
        return
    region = cut[inside(at, outer)]
    mask = np.ones(shape_of(at), bool) if part.mask is None else part.mask
    old_values = np.asarray(part.old_values)
    region[mask] = (old_values.ravel() if part.mask is None else old_values) if old else part.new_value
