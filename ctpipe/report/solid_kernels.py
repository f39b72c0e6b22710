"""The compiled loop of the 3-D picture: triangles into a depth buffer. One thread, no lock held."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(nogil=True, cache=True)
def fill(
    points: NDArray[np.float64], normals: NDArray[np.float64], faces: NDArray[np.int64], depth: NDArray[np.float32],
    facing: NDArray[np.float32],
) -> None:  # fmt: skip
    """Draw triangles: of each pixel the nearest one stays.

    points: (n, 3) columns right, down (pixels) and away (any unit). normals: (n, 3) of the same axes, unit length.
    depth: (rows, columns), infinite where nothing lies; facing: (rows, columns, 3), the normals there. Both change.
    """
    rows, columns = depth.shape
    for n in range(len(faces)):
        a, b, c = faces[n, 0], faces[n, 1], faces[n, 2]
        ax, ay = points[a, 0], points[a, 1]
        bx, by = points[b, 0], points[b, 1]
        cx, cy = points[c, 0], points[c, 1]
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if area == 0:
            continue
        left, right = max(0, int(np.ceil(min(ax, bx, cx)))), min(columns - 1, int(np.floor(max(ax, bx, cx))))
        top, bottom = max(0, int(np.ceil(min(ay, by, cy)))), min(rows - 1, int(np.floor(max(ay, by, cy))))
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                u = ((bx - x) * (cy - y) - (cx - x) * (by - y)) / area
                v = ((cx - x) * (ay - y) - (ax - x) * (cy - y)) / area
                w = 1 - u - v
                if u < 0 or v < 0 or w < 0:
                    continue
                away = u * points[a, 2] + v * points[b, 2] + w * points[c, 2]
                if away < depth[y, x]:
                    depth[y, x] = away
                    for k in range(3):
                        facing[y, x, k] = u * normals[a, k] + v * normals[b, k] + w * normals[c, k]
