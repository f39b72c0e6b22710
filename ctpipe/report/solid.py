"""The 3-D picture of a case: surfaces seen from the front and from the left, drawn without a graphics card.

Orthographic, in true millimetres. Every body is drawn alone into a depth buffer; of each pixel they are then laid over
one another from the back, a glassy body clear where one looks straight at it and denser at its rim. Source: Phong 1975
for the light; Taubin 1995 for the smoothing, which keeps volumes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RGB = tuple[int, int, int]

PAPER = (14, 17, 22)
_SUPERSAMPLE = 2
_TAUBIN = ((0.5, -0.52), 40)  # two steps of opposite sign, so many times
_LIGHT = (-0.45, -0.62, -0.65)  # right, down, away: from the upper left, before the picture
_MARGIN_MM = 8.0


@dataclass(frozen=True, eq=False)
class Body:
    """A closed surface. points: (n, 3) LPS mm. faces: (m, 3). clear: 0 for a solid, towards 1 for glass."""

    points: NDArray[np.float64]
    faces: NDArray[np.int64]
    colour: RGB
    clear: float = 0.0


@dataclass(frozen=True)
class Look:
    """From where: unit vectors (LPS) that go right and down in the picture; letters left, right, top, bottom."""

    name: str
    right: tuple[float, float, float]
    down: tuple[float, float, float]
    letters: tuple[str, str, str, str]


FRONT = Look("from the front", (1, 0, 0), (0, 0, -1), ("R", "L", "H", "F"))
LEFT = Look("from the left", (0, 1, 0), (0, 0, -1), ("A", "P", "H", "F"))
Extent = tuple[NDArray[np.float64], NDArray[np.float64]]  # lowest and highest LPS mm that are shown


def smoothed(points: NDArray[np.float64], faces: NDArray[np.int64]) -> NDArray[np.float64]:
    """Points (n, 3) without the steps of voxels; volume and small bodies stay."""
    from scipy.sparse import coo_matrix

    n = len(points)
    ends = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    links = coo_matrix((np.ones(2 * len(ends)), (ends.T.ravel(), ends[:, ::-1].T.ravel())), (n, n)).tocsr()
    links.data[:] = 1
    share = 1 / np.maximum(np.asarray(links.sum(axis=1)), 1)
    steps, times = _TAUBIN
    for step in steps * times:
        points = points + step * (share * (links @ points) - points)
    return points


def solid_png(bodies: Sequence[Body], extent: Extent, pixels: int = 620) -> bytes:
    """PNG of the bodies from the front and from the left, side by side, heights alike.

    extent: what is shown, whatever lies beyond. pixels: height of the picture.
    """
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    low, high = (np.asarray(end) + sign * _MARGIN_MM for end, sign in zip(extent, (-1, 1), strict=True))
    per_mm = pixels / (high[2] - low[2])
    pictures = [rendered(bodies, look, (low, high), per_mm) for look in (FRONT, LEFT)]
    gap, dpi = 10, 100
    wide = sum(picture.shape[1] for picture in pictures) + gap
    tall = pictures[0].shape[0]
    with style.context("default", after_reset=True):
        figure = Figure(figsize=(wide / dpi, tall / dpi), dpi=dpi, facecolor="#{:02x}{:02x}{:02x}".format(*PAPER))
        left = 0
        for picture, look in zip(pictures, (FRONT, LEFT), strict=True):
            share = picture.shape[1] / wide
            axes = figure.add_axes((left / wide, 0, share, 1))
            axes.imshow(picture, aspect="auto", interpolation="nearest")
            axes.set_axis_off()
            _letter(axes, look, picture.shape[1], tall)
            left += picture.shape[1] + gap
        _scale(axes, pictures[-1].shape[1], tall, per_mm)
        buffer = io.BytesIO()
        FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def rendered(bodies: Sequence[Body], look: Look, extent: Extent, per_mm: float) -> NDArray[np.uint8]:
    """RGB (rows, columns, 3) of the bodies. per_mm: pixels for a millimetre."""
    axes = np.array([look.right, look.down, np.cross(look.right, look.down)])  # right, down, away; LPS
    corners = np.array([[extent[k >> n & 1][n] for n in range(3)] for k in range(8)]) @ axes.T
    origin, end = corners.min(axis=0), corners.max(axis=0)
    fine = per_mm * _SUPERSAMPLE
    columns, rows = (max(2, round(float(side) * per_mm)) * _SUPERSAMPLE for side in (end - origin)[:2])
    layers = [_drawn(body, axes, origin, fine, (rows, columns)) for body in bodies]
    colour = np.empty((rows, columns, 3), np.float32)
    colour[:] = PAPER
    if layers:
        depths = np.stack([depth for depth, _, _ in layers])
        order = np.argsort(-depths, axis=0, kind="stable")
        for rank in range(len(layers)):
            for n, (_, lit, cover) in enumerate(layers):
                here = (order[rank] == n) & (cover > 0)
                alpha = cover[here][:, None]
                colour[here] = colour[here] * (1 - alpha) + lit[here] * alpha
    small = colour.reshape(rows // _SUPERSAMPLE, _SUPERSAMPLE, columns // _SUPERSAMPLE, _SUPERSAMPLE, 3)
    return np.clip(np.rint(small.mean(axis=(1, 3))), 0, 255).astype(np.uint8)


def _drawn(
    body: Body, axes: NDArray[np.float64], origin: NDArray[np.float64], per_mm: float, shape: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """(depth, lit colour, how much it covers) of one body by pixel."""
    from ctpipe.report.solid_kernels import fill  # numba

    depth = np.full(shape, np.inf, np.float32)
    normals = np.zeros((*shape, 3), np.float32)
    seen = (body.points @ axes.T - origin) * per_mm
    fill(seen, _normals(body) @ axes.T, body.faces, depth, normals)
    there = np.isfinite(depth)
    lit = np.zeros((*shape, 3), np.float32)
    cover = there.astype(np.float32)
    normal = normals[there] / np.maximum(np.linalg.norm(normals[there], axis=1, keepdims=True), 1e-6)
    normal *= np.where(normal[:, 2:] > 0, -1, 1)  # towards the viewer
    light = np.array(_LIGHT) / np.linalg.norm(_LIGHT)
    half = light + (0, 0, -1)
    diffuse = 0.30 + 0.70 * np.clip(0.5 + 0.5 * normal @ light, 0, 1) ** 1.6
    gloss = 70 * np.clip(normal @ (half / np.linalg.norm(half)), 0, 1) ** 36
    lit[there] = np.asarray(body.colour) * diffuse[:, None] + gloss[:, None]
    rim = (1 - np.abs(normal[:, 2])) ** 2
    cover[there] = 1 - body.clear * (1 - rim)
    return depth, lit, cover


def _normals(body: Body) -> NDArray[np.float64]:
    """Of each point, the mean of its faces' normals, larger faces counting more. Unit length."""
    a, b, c = (body.points[body.faces[:, n]] for n in range(3))
    of_faces = np.cross(b - a, c - a)
    out = np.stack([
        sum(np.bincount(body.faces[:, corner], of_faces[:, axis], len(body.points)) for corner in range(3))
        for axis in range(3)
    ], axis=1)  # fmt: skip
    return np.asarray(out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12))


def _letter(axes, look: Look, wide: int, tall: int) -> None:  # type: ignore[no-untyped-def]
    left, right, top, bottom = look.letters
    style = {"color": "#f0f3f6", "fontsize": 11, "ha": "center", "va": "center"}
    for words, x, y in ((left, 14, tall / 2), (right, wide - 14, tall / 2), (top, wide / 2, 14),
                        (bottom, wide / 2, tall - 14)):  # fmt: skip
        axes.text(x, y, words, **style)
    axes.text(10, tall - 14, look.name, **{**style, "ha": "left", "color": "#9aa7b4"})


def _scale(axes, wide: int, tall: int, per_mm: float) -> None:  # type: ignore[no-untyped-def]
    length = next((mm for mm in (100, 50, 20) if mm * per_mm <= 0.3 * wide), 10)
    right = wide - 14
    axes.plot([right - length * per_mm, right], [tall - 14] * 2, color="#f0f3f6", linewidth=2.4, solid_capstyle="butt")
    axes.text(right - length * per_mm / 2, tall - 22, f"{length // 10} cm", color="#f0f3f6", fontsize=9, ha="center",
              va="bottom")  # fmt: skip
    axes.set(xlim=(-0.5, wide - 0.5), ylim=(tall - 0.5, -0.5))
