"""The picture of a case: CT, truth and prediction in three planes and a close-up, all at one scale in millimetres."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ctpipe.report.files import write_whole
from ctpipe.report.planes import Focus, SeriesLike, View, choose_focus, cut_planes, views_of
from ctpipe.report.text import visible
from ctpipe.scoring import LabelsLike, VolumeScores, number, union_of_classes
from ctpipe.volume import Grid
from ctpipe.words import LABEL_COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Box = tuple[float, float, float, float]  # mm from the upper left corner of a picture: left, right, top, bottom

WINDOW_HU = (40.0, 400.0)  # centre, width: abdominal soft tissue
CLOSE_WIDTH_HU = 200.0  # narrow, for lesions 30 HU from their organ
AIR_HU = -400.0  # what is above belongs to the body (or lies on its table) and is shown
MARGIN_MM = 8.0
TALLEST = 1.15  # a picture is at most so many times as tall as the widest one is wide; a whole body is cut to that
CLOSE_MM = (70.0, 180.0)  # smallest and largest side of the close-up

MOST_CHIPS = 12

_INCHES, _DPI = 15.0, 110
_LEFT, _RIGHT, _GAP, _HEADER, _FOOTER = 0.42, 0.16, 0.10, 1.02, 0.46  # inches
_CHIP_COLUMNS, _CHIP_ROW = 4, 0.28  # entries of the legend side by side; inches from row to row
_SEPARATOR = "   ·   "
_PAPER, _INK, _FAINT, _FRAME = "#0e1116", "#f0f3f6", "#9aa7b4", "#2a313c"


@dataclass(frozen=True)
class Scene:
    """All that is drawn: pictures by name of view, boxes in mm, names and colours."""

    grid: Grid
    views: tuple[View, ...]
    focus: Focus
    hu: Mapping[str, NDArray[Any]]
    labels: Mapping[str, tuple[LabelsLike, Mapping[str, NDArray[Any]]]]  # row name -> labels and their pictures
    boxes: Mapping[str, Box]
    close_box: Box
    close_centre_hu: float


def case_png(
    path: str | Path,
    series: SeriesLike,
    truth: LabelsLike | None,
    prediction: LabelsLike | None,
    title: str,
    scores: VolumeScores | None = None,
    second: str = "prediction",
) -> Path:
    """Writes the picture of a case and returns its path. second: what the row of `prediction` is called.

    Rows are CT, truth and prediction (those given); columns are axial, coronal and sagittal plane and a close-up, cut
    through the largest piece of the last class. Radiological display in true proportions. With `scores` the legend
    says Dice and IoU. Reads each volume slab by slab and keeps its three planes.
    """
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    scene = _scene(series, truth, prediction, second)
    wide = sum(_width(scene.boxes[v.name]) for v in scene.views)
    tall = max(_height(box) for box in scene.boxes.values())
    columns = len(scene.views) + 1
    per_mm = (_INCHES - _LEFT - _RIGHT - columns * _GAP) / (wide + tall)  # the close-up is a square as tall as a row
    rows = ["CT", *scene.labels]
    chips = _chips(scene, truth, prediction)
    footer = _FOOTER + _CHIP_ROW * -(-len(chips) // _CHIP_COLUMNS)
    inches_tall = _HEADER + footer + len(rows) * (tall * per_mm + _GAP)

    with style.context("default", after_reset=True):  # a user's own matplotlibrc would move and flip things
        figure = Figure(figsize=(_INCHES, inches_tall), dpi=_DPI, facecolor=_PAPER)
        for n, row in enumerate(rows):
            bottom = inches_tall - _HEADER - (n + 1) * tall * per_mm - n * _GAP
            _draw_row(figure, scene, row, bottom, tall * per_mm, per_mm)
        _draw_header(figure, scene, series, title)
        _draw_footer(figure, scene, chips, scores)
        buffer = io.BytesIO()
        FigureCanvasAgg(figure).print_png(buffer)
    path = Path(path)
    write_whole(path, buffer.getvalue())
    return path


def _scene(series: SeriesLike, truth: LabelsLike | None, prediction: LabelsLike | None, second: str) -> Scene:
    grid, views = series.grid, views_of(series.grid)
    focus = choose_focus(truth, prediction, grid)
    hu = cut_planes(series.read_planes, grid, focus.voxel, views)
    labels = {
        name: (side, cut_planes(side.read_planes, grid, focus.voxel, views))
        for name, side in (("truth", truth), (second, prediction))
        if side is not None
    }
    boxes = _boxes(views, hu, focus, series)
    axial = views[0]
    x, y = axial.point(focus.voxel, grid)
    half = float(np.clip(2.2 * focus.extent_mm, *CLOSE_MM)) / 2 if focus.class_name else CLOSE_MM[1] / 2
    close_box = (x - half, x + half, y - half, y + half)
    centre = _close_centre(axial, hu["axial"], [pictures["axial"] for _, pictures in labels.values()], close_box)
    return Scene(grid, views, focus, hu, labels, boxes, close_box, centre)


def _boxes(views: tuple[View, ...], hu: Mapping[str, NDArray[Any]], focus: Focus, series: SeriesLike) -> dict[str, Box]:
    """What is shown of each picture: the body with a margin; the same part of an axis in both pictures that show it."""
    grid = series.grid
    spans: dict[int, tuple[float, float]] = {}  # grid axis -> first and last index, as far as either picture has body
    for view in views:
        body = hu[view.name] > AIR_HU
        for axis, step, other in ((view.down, view.down_step, 1), (view.right, view.right_step, 0)):
            at = np.flatnonzero(np.any(body, axis=other)[::step])
            if len(at):
                low, high = spans.get(axis, (np.inf, -np.inf))
                spans[axis] = min(low, at[0]), max(high, at[-1])
    mm: dict[int, tuple[float, float]] = {}  # grid axis -> mm along it, from the outer face of its first voxel
    for axis, spacing in enumerate(grid.spacing_mm):
        low, high = spans.get(axis, (0, grid.shape[axis] - 1))
        end = grid.shape[axis] * spacing
        mm[axis] = max(0.0, low * spacing - MARGIN_MM), min(end, (high + 1) * spacing + MARGIN_MM)
    head_axis = views[1].down  # a long volume is shown around the focus only
    widest = max(b - a for axis, (a, b) in mm.items() if axis != head_axis)
    middle = (focus.voxel[head_axis] + 0.5) * grid.spacing_mm[head_axis]
    mm[head_axis] = _around(middle, TALLEST * widest, mm[head_axis])

    def along(axis: int, step: int) -> tuple[float, float]:
        low, high = mm[axis]
        end = grid.shape[axis] * grid.spacing_mm[axis]
        return (low, high) if step > 0 else (end - high, end - low)

    return {v.name: (*along(v.right, v.right_step), *along(v.down, v.down_step)) for v in views}


def _around(middle: float, length: float, within: tuple[float, float]) -> tuple[float, float]:
    low, high = within
    if high - low <= length:
        return within
    start = float(np.clip(middle - length / 2, low, high - length))
    return start, start + length


def _close_centre(view: View, hu: NDArray[Any], labels: list[NDArray[Any]], box: Box) -> float:
    """Middle of the close-up's grey window: the median HU of what is labelled in it, to the next 10 HU."""
    left, right, top, bottom = box
    rows = slice(max(0, int(top / view.down_mm)), max(0, int(bottom / view.down_mm) + 1))
    columns = slice(max(0, int(left / view.right_mm)), max(0, int(right / view.right_mm) + 1))
    inside = [hu[rows, columns][picture[rows, columns] > 0] for picture in labels]
    values = np.concatenate([np.zeros(0, hu.dtype), *inside])
    return WINDOW_HU[0] if not len(values) else float(round(float(np.median(values)) / 10) * 10)


def _draw_row(figure: Figure, scene: Scene, row: str, bottom: float, height: float, per_mm: float) -> None:
    left, top_row = _LEFT, row == "CT"
    _text(figure, 0.16, bottom + height / 2, row, size=12, color=_INK, rotation=90, ha="center", va="center")
    for view in scene.views:
        box = scene.boxes[view.name]
        width, tall = _width(box) * per_mm, _height(box) * per_mm
        axes = _axes(figure, left, bottom + (height - tall) / 2, width, tall, box)
        _draw_cut(axes, scene, row, view, WINDOW_HU, tint=0.24)
        _draw_letters(axes, view.edges)
        if top_row:
            _text(figure, left + width / 2, bottom + height + 0.09, view.name, size=11, color=_FAINT, ha="center")
            _draw_marks(axes, scene, view)
            if view is scene.views[0]:
                _draw_scale(axes, box)
                _draw_frame(axes, scene.close_box)
        left += width + _GAP
    axes = _axes(figure, left, bottom, height, height, scene.close_box)
    _draw_cut(axes, scene, row, scene.views[0], (scene.close_centre_hu, CLOSE_WIDTH_HU), tint=0.17)
    if top_row:
        _text(figure, left + height / 2, bottom + height + 0.09, "close-up", size=11, color=_FAINT, ha="center")
        _draw_scale(axes, scene.close_box)


def _draw_cut(axes: Axes, scene: Scene, row: str, view: View, window_hu: tuple[float, float], *, tint: float) -> None:
    """CT and, but for the first row, the labels of that row: filled with opacity `tint`, and outlined."""
    hu = scene.hu[view.name]
    centre, width = window_hu
    extent = (0.0, hu.shape[1] * view.right_mm, hu.shape[0] * view.down_mm, 0.0)
    low, high = centre - width / 2, centre + width / 2
    axes.imshow(
        np.clip(hu.astype(np.float32), low, high), cmap="gray", vmin=low, vmax=high, extent=extent, aspect="auto",
        interpolation="hanning", origin="upper",
    )  # fmt: skip
    if row != "CT":
        labels, pictures = scene.labels[row]
        for label in sorted(labels.classes):
            mask = pictures[view.name] == label
            if label and mask.any():
                colour = _colour(_label_of(scene, labels.classes[label]))
                _fill(axes, mask, (*colour, tint), extent)
                _outline(axes, view, mask, colour, 1.3)
    if row not in ("CT", "truth") and "truth" in scene.labels:
        labels, pictures = scene.labels["truth"]
        for label in sorted(labels.classes):
            if label:
                _outline(axes, view, pictures[view.name] == label, "white", 0.7)


def _fill(axes: Axes, mask: NDArray[np.bool_], rgba: tuple[float, ...], extent: Box) -> None:
    painted = np.empty((*mask.shape, 4), np.float32)
    painted[..., :3], painted[..., 3] = rgba[:3], rgba[3] * mask  # one colour throughout, so edges blend without a rim
    axes.imshow(
        painted, extent=extent, origin="upper", aspect="auto", interpolation="hanning", interpolation_stage="rgba"
    )


def _outline(axes: Axes, view: View, mask: NDArray[np.bool_], colour: Any, width: float) -> None:
    if not mask.any():
        return
    padded = np.pad(mask, 1).astype(np.float32)  # so that a mask at the border is closed
    x = (np.arange(padded.shape[1]) - 0.5) * view.right_mm
    y = (np.arange(padded.shape[0]) - 0.5) * view.down_mm
    axes.contour(x, y, padded, levels=[0.5], colors=[colour], linewidths=width)


def _draw_letters(axes: Axes, edges: tuple[str, str, str, str]) -> None:
    """Which side of the patient each border is; placed in points, so that they clear the ticks at any size."""
    places = ((0, 0.5, 10, 0), (1, 0.5, -10, 0), (0.5, 1, 0, -10), (0.5, 0, 0, 10))
    for letter, (x, y, right, up) in zip(edges, places, strict=True):
        axes.annotate(
            letter, (x, y), (right, up), xycoords="axes fraction", textcoords="offset points", color=_INK, size=9,
            ha="center", va="center", path_effects=_rim(),
        )  # fmt: skip


def _draw_marks(axes: Axes, scene: Scene, view: View) -> None:
    """Short ticks at the border where the two other planes cut this one."""
    x, y = _focus_point(scene, view)
    left, right, top, bottom = scene.boxes[view.name]
    tick = 0.03 * min(right - left, bottom - top)
    style: dict[str, Any] = {"color": "#ffd75e", "linewidth": 1.5, "solid_capstyle": "butt"}
    for a, b in ((top, top + tick), (bottom - tick, bottom)):
        axes.plot([x, x], [a, b], **style)
    for a, b in ((left, left + tick), (right - tick, right)):
        axes.plot([a, b], [y, y], **style)


def _draw_scale(axes: Axes, box: Box) -> None:
    length = next((mm for mm in (100, 50, 20, 10) if mm <= 0.4 * _width(box)), 5)
    left, y = box[1] - 0.04 * _width(box) - length, box[3] - 0.05 * _height(box)
    axes.plot([left, left + length], [y, y], color=_INK, linewidth=2.4, solid_capstyle="butt", path_effects=_rim())
    text = f"{length // 10} cm" if length >= 10 else f"{length} mm"
    axes.annotate(
        text, (left + length / 2, y), (0, 3), textcoords="offset points", color=_INK, size=9, ha="center", va="bottom",
        path_effects=_rim(),
    )  # fmt: skip


def _rim() -> list[Any]:
    """A dark rim that keeps light words readable on bone."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=2.2, foreground="#000000c0")]


def _draw_frame(axes: Axes, box: Box) -> None:
    left, right, top, bottom = box
    x, y = [left, right, right, left, left], [top, top, bottom, bottom, top]
    axes.plot(x, y, color=_INK, linewidth=0.7, linestyle=(0, (4, 3)), alpha=0.8)


def _draw_header(figure: Figure, scene: Scene, series: SeriesLike, title: str) -> None:
    top = figure.get_figheight()
    grid = series.grid
    z_mm, y_mm, x_mm = grid.spacing_mm
    planes, rows, columns = grid.shape
    facts = [
        f"series {series.id[:12]}",
        f"{columns} × {rows} × {planes} voxels of {x_mm:.3g} × {y_mm:.3g} × {z_mm:.3g} mm",
        f"cut through voxel z {scene.focus.voxel.z}, y {scene.focus.voxel.y}, x {scene.focus.voxel.x}",
    ]
    if scene.focus.class_name:
        facts.append(f"largest piece of {_short(scene.focus.class_name, 24)}")
    if grid.is_sheared:
        facts.append("SHEARED GRID, drawn straight: planes are offset in the patient")
    _text(figure, _LEFT, top - 0.38, _short(title, 110), size=15, color=_INK, weight="bold")
    _text(figure, _LEFT, top - 0.64, _SEPARATOR.join(facts), size=9.5, color=_FAINT)


def _chips(scene: Scene, truth: LabelsLike | None, prediction: LabelsLike | None) -> list[str]:
    """Classes that the legend names: at most MOST_CHIPS, those first that are in the picture."""
    names = union_of_classes(truth.classes if truth else {}, prediction.classes if prediction else {})
    seen = {
        labels.classes.get(int(label))
        for labels, pictures in scene.labels.values()
        for picture in pictures.values()
        for label in np.unique(picture)
    }
    chosen = sorted(names, key=lambda name: name not in seen)[:MOST_CHIPS]
    return [name for name in names if name in chosen]


def _draw_footer(figure: Figure, scene: Scene, chips: list[str], scores: VolumeScores | None) -> None:
    from matplotlib.patches import Rectangle

    pitch = (_INCHES - _LEFT - _RIGHT) / _CHIP_COLUMNS
    rows = -(-len(chips) // _CHIP_COLUMNS)
    tall = figure.get_figheight()
    for n, name in enumerate(chips):
        x, y = _LEFT + (n % _CHIP_COLUMNS) * pitch, 0.46 + (rows - 1 - n // _CHIP_COLUMNS) * _CHIP_ROW
        colour = _colour(_label_of(scene, name))
        corner, size = (x / _INCHES, y / tall), (0.22 / _INCHES, 0.14 / tall)
        figure.add_artist(Rectangle(corner, *size, facecolor=(*colour, 0.45), edgecolor=colour, linewidth=1.4))
        _text(figure, x + 0.32, y + 0.01, _short(name, 24) + _scored(scores, name), size=11, color=_INK)
    notes = [
        f"grey: {WINDOW_HU[0]:.0f} ± {WINDOW_HU[1] / 2:.0f} HU, close-up {scene.close_centre_hu:.0f} ± "
        f"{CLOSE_WIDTH_HU / 2:.0f} HU"
    ]
    known = {name for labels, _ in scene.labels.values() for label, name in labels.classes.items() if label}
    if len(known) > len(chips):
        notes.insert(0, f"and {len(known) - len(chips)} more classes")
    if len(scene.labels) == 2:
        notes.append("white line: truth")
    notes.append("yellow ticks: where the other planes cut; dashed: the close-up")
    if scene.grid.anatomical is None:
        notes.append("oblique grid: letters are the nearest sides")
    _text(figure, _LEFT, 0.17, _SEPARATOR.join(notes), size=9.5, color=_FAINT)


def _scored(scores: VolumeScores | None, name: str) -> str:
    if scores is None or name not in scores.classes:
        return ""
    c = scores.index(name)
    return f"   Dice {number(scores.confusion.dice(c))}, IoU {number(scores.confusion.iou(c))}"


def _label_of(scene: Scene, name: str) -> int:
    """The label that gives a class its colour: the truth's, so that both rows paint a class alike, else the other's."""
    for labels, _ in scene.labels.values():
        for label, found in labels.classes.items():
            if found == name:
                return label
    return 1


def _colour(label: int) -> tuple[float, float, float]:
    r, g, b = LABEL_COLOURS[(label - 1) % len(LABEL_COLOURS)]
    return r / 255, g / 255, b / 255


def _focus_point(scene: Scene, view: View) -> tuple[float, float]:
    return view.point(scene.focus.voxel, scene.grid)


def _axes(figure: Figure, left: float, bottom: float, width: float, height: float, box: Box) -> Axes:
    """Axes placed in inches, scaled in the mm of `box`."""
    tall = figure.get_figheight()
    axes = figure.add_axes((left / _INCHES, bottom / tall, width / _INCHES, height / tall), facecolor="black")
    axes.set(xlim=box[:2], ylim=(box[3], box[2]), xticks=[], yticks=[], autoscale_on=False)
    axes.spines[:].set(color=_FRAME, linewidth=0.8)
    return axes


def _text(figure: Figure, x: float, y: float, words: str, **style: Any) -> None:
    """Text at inches from the lower left corner; a $ in a name is a $ and no formula."""
    figure.text(x / _INCHES, y / figure.get_figheight(), _readable(words), parse_math=False, **style)


def _short(words: str, most: int) -> str:
    return words if len(words) <= most else words[: most - 1] + "…"


def _readable(words: str) -> str:
    """`visible`, with what the font cannot draw as a question mark (matplotlib would warn and draw a box)."""
    from matplotlib.font_manager import findfont, get_font

    known = get_font(findfont("DejaVu Sans")).get_charmap()
    return "".join(c if ord(c) in known else "?" for c in visible(words))


def _width(box: Box) -> float:
    return box[1] - box[0]


def _height(box: Box) -> float:
    return box[3] - box[2]
