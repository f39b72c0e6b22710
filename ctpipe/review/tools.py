"""The tools of a correction with their settings, in millimetres and HU; each use is one action of `Editing`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctpipe.errors import UsageError
from ctpipe.review import shapes
from ctpipe.review.boxes import Box, bounds_of_label, inside, of_plane, shape_of, union, with_margin
from ctpipe.review.brush import polygon
from ctpipe.review.commands import Command, Mode
from ctpipe.review.hu_blocks import HuBlocks
from ctpipe.review.painting import Stroke

if TYPE_CHECKING:
    from napari.layers import Labels as LabelsLayer

    from ctpipe.review.editing import Editing

SLAB = 16  # planes worked on at a time, so that memory does not grow with an organ


class Tools:
    """Brush, eraser, polygon, interpolation, fill, smooth, grow. What they do goes through `editing`.

    radius_mm: of the brush. hu_range: (lowest, highest) HU that may be gained or erased, or None. three_d: a ball
    instead of a disc, and shapes in 3-D instead of the plane shown. sigma_mm: of smoothing. step_mm: of grow and
    shrink. The class is the layer's selected label; the layer's "preserve labels" is kept: then only background is
    painted on, and only the selected class is erased.
    """

    def __init__(self, editing: Editing) -> None:
        self.editing = editing
        self.hu_range: tuple[float, float] | None = None
        self.sigma_mm = 1.0
        self.step_mm = 1.0
        self._radius_mm = 5.0
        self._three_d = False
        self._following = False
        self._hu: HuBlocks | None = None

    @property
    def radius_mm(self) -> float:
        """Radius of the brush; napari's circle shows it, and its slider and `[ ]` keys set it."""
        return self._radius_mm

    @radius_mm.setter
    def radius_mm(self, radius: float) -> None:
        if not radius > 0:
            raise UsageError("a brush of no size", "give a radius in mm above 0")
        self._radius_mm = float(radius)
        self._show_size()

    @property
    def three_d(self) -> bool:
        return self._three_d

    @three_d.setter
    def three_d(self, on: bool) -> None:
        self._three_d = bool(on)
        if self.editing.session.layer is not None:
            self.editing.layer.n_edit_dimensions = 3 if on else 2  # napari's own tools do the same

    def follow(self, layer: LabelsLayer) -> None:
        """Bring the settings to a new layer, and take its own controls as ours from now on."""
        layer.n_edit_dimensions = 3 if self._three_d else 2
        self._show_size()
        layer.events.brush_size.connect(self._size_chosen)
        layer.events.n_edit_dimensions.connect(self._dimensions_chosen)

    def plane(self) -> tuple[int | None, int]:
        """(axis across the plane shown, its index); (None, 0) in a 3-D view."""
        dims = self.editing.session.viewer.dims
        if dims.ndisplay != 2:
            return None, 0
        axis = int(dims.order[0])
        return axis, int(np.rint(self.editing.layer.world_to_data(dims.point)[axis]))

    def stroke(self, kind: str, label: int | None = None, axis: int | None = None) -> Stroke:
        """A brush stroke to be drawn point by point; axis: across the plane it lies in (None: the plane shown)."""
        where = axis if axis is not None else self._shown_axis()
        value = self._label(label)
        return Stroke(self.editing, kind, value, None if self.three_d else where)

    def brush(self, points: Sequence[ArrayLike], label: int | None = None) -> None:
        """Paint along `points` (voxel indexes z, y, x; fractions) with the selected class, or `label`."""
        self._along("brush", points, label)

    def erase(self, points: Sequence[ArrayLike]) -> None:
        """Erase along `points`."""
        self._along("erase", points, 0)

    def polygon(self, points: ArrayLike, label: int | None = None) -> None:
        """Paint a closed polygon in the plane shown; points: (n, 3) voxel indexes (z, y, x), n >= 3."""
        array = self.editing.copy.array
        drawn = polygon(array.shape, points, self._shown_axis())
        if drawn is None:
            raise UsageError("a polygon without a voxel in it", "give three corners or more, within the volume")
        box, mask = drawn
        value = self._label(label)
        mask &= self.allowed(box, array[box], value)
        self.editing.apply("polygon", box, np.where(mask, value, array[box]).astype(array.dtype))

    def interpolate(self, label: int | None = None) -> str:
        """Fill the gap at the plane shown from the nearest planes before and after it that hold the class."""
        array, value = self.editing.copy.array, self._label(label)
        axis = self._shown_axis()
        _, here = self.plane()
        first, last = _ends(array, value, axis, here)
        ends = [bounds_of_label(array, value, of_plane(axis, at, array.shape)) for at in (first, last)]
        box = list(with_margin(union([end for end in ends if end is not None]), (1, 1, 1), array.shape))
        masks = []
        for at in (first, last):
            box[axis] = slice(at, at + 1)
            masks.append((array[box[0], box[1], box[2]] == value).squeeze(axis))
        box[axis] = slice(first + 1, last)
        flat = [s for k, s in enumerate(self._spacing()) if k != axis]
        wanted = np.moveaxis(shapes.between(masks[0], masks[1], last - first - 1, flat), 0, axis)
        place = (box[0], box[1], box[2])
        wanted &= self.allowed(place, array[place], value)
        if not wanted.any():
            raise UsageError(f"the shapes in planes {first} and {last} do not overlap", "draw one between them")
        new = np.where(wanted, value, array[place]).astype(array.dtype)
        self.editing.apply("interpolate", place, new, axis=axis, first=first, last=last)
        return f"interpolated planes {first + 1} to {last - 1}"

    def fill(self, label: int | None = None) -> str:
        """Fill the holes of the class, in the plane shown or in 3-D; only background is filled."""
        array, value, axis = self.editing.copy.array, self._label(label), self._axis()
        box = self._around(value, (1, 1, 1))
        cut = array[box]
        holes = shapes.filled(cut == value, axis) & (cut == 0) & self._in_range(box)
        return self._done("fill", box, np.where(holes, value, cut).astype(array.dtype))

    def smooth(self, label: int | None = None) -> str:
        """Smooth the class by a Gaussian of `sigma_mm`."""
        value, axis, sigma = self._label(label), self._axis(), self.sigma_mm
        spacing = self._spacing()

        def wanted(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
            return shapes.smoothed(mask, spacing, sigma, axis)

        return self._reshape("smooth", value, wanted, shapes.TRUNCATE * sigma, mm=sigma)

    def grow(self, by_mm: float | None = None, label: int | None = None) -> str:
        """Grow the class by `by_mm` (None: `step_mm`), or shrink it by a negative length."""
        value, axis = self._label(label), self._axis()
        length = self.step_mm if by_mm is None else by_mm
        spacing = self._spacing()

        def wanted(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
            return shapes.grown(mask, spacing, length, axis)

        return self._reshape("grow" if length > 0 else "shrink", value, wanted, abs(length), mm=length)

    def allowed(self, box: Box, cut: NDArray, value: int) -> NDArray[np.bool_]:
        """Which voxels of `box`, which now hold `cut`, a tool may set to `value`: by HU, and by "preserve labels"."""
        free = self._in_range(box)
        if self.editing.layer.preserve_labels:
            free &= cut == (self.editing.layer.selected_label if value == 0 else 0)
        return free

    def commands(self) -> list[Command]:
        """Keys that napari's own Labels tools leave free."""
        return [
            Command("interpolate", "Interpolate the gap at this plane", "I", Mode.EDIT, self.interpolate),
            Command("fill-holes", "Fill holes of the class", "Shift-F", Mode.EDIT, self.fill),
            Command("smooth", "Smooth the class", "S", Mode.EDIT, self.smooth),
            Command("grow", "Grow the class by the step", "G", Mode.EDIT, self.grow),
            Command("shrink", "Shrink the class by the step", "Shift-G", Mode.EDIT, lambda: self.grow(-self.step_mm)),
            Command("brush-3d", "Brush and shapes: plane or 3-D", "D", Mode.EDIT, self._turn_3d),
        ]

    def _turn_3d(self) -> str:
        self.three_d = not self.three_d
        return f"tools work in {'3-D' if self.three_d else 'the plane shown'}"

    def _along(self, kind: str, points: Sequence[ArrayLike], label: int | None) -> None:
        stroke = self.stroke(kind, label)
        for point in points:
            stroke.to(point)
        stroke.finish()

    def _reshape(
        self,
        kind: str,
        value: int,
        wanted: Callable[[shapes.Mask], shapes.Mask],
        reach_mm: float,
        **facts: Any,
    ) -> str:
        """A few planes at a time, with as many around them as decide them."""
        array, spacing = self.editing.copy.array, self._spacing()
        reach = [int(np.ceil(reach_mm / step)) + 1 for step in spacing]
        box = self._around(value, reach)
        new = array[box].copy()
        for start in range(box[0].start, box[0].stop, SLAB):
            part = (slice(start, min(start + SLAB, box[0].stop)), box[1], box[2])
            wide = with_margin(part, (0 if self._axis() == 0 else reach[0], 0, 0), array.shape)
            cut = array[wide]
            free = self.allowed(wide, cut, value)
            made = shapes.reshaped(cut, value, wanted(cut == value), free, spacing)
            new[inside(part, box)] = made[inside(part, wide)]
        return self._done(kind, box, new, **facts)

    def _done(self, kind: str, box: Box, new: NDArray, **facts: Any) -> str:
        changed = int(np.count_nonzero(new != self.editing.copy.array[box]))
        self.editing.apply(kind, box, new, three_d=self.three_d, **facts)
        return f"{kind}: {changed} voxels" if changed else f"{kind}: nothing to change"

    def _around(self, value: int, margin: Sequence[int]) -> Box:
        """Box around the class, in the plane shown or in the volume."""
        array, axis = self.editing.copy.array, self._axis()
        plane = of_plane(axis, self.plane()[1], array.shape) if axis is not None else None
        found = bounds_of_label(array, value, plane)
        if found is None:
            where = "this plane" if plane else "the volume"
            raise UsageError(f"class {value} is not in {where}", "choose another class")
        return with_margin(found, [0 if k == axis else m for k, m in enumerate(margin)], array.shape)

    def _in_range(self, box: Box) -> NDArray[np.bool_]:
        if self.hu_range is None:
            return np.ones(shape_of(box), bool)
        series = self.editing.session.series
        if series is None:
            raise UsageError("no series is shown", "choose a series first")
        if self._hu is None or self._hu.series.id != series.id:
            self._hu = HuBlocks(series)
        hu = self._hu.read(box)
        return (hu >= self.hu_range[0]) & (hu <= self.hu_range[1])

    def _label(self, label: int | None) -> int:
        return int(self.editing.layer.selected_label) if label is None else int(label)

    def _axis(self) -> int | None:
        return None if self.three_d else self._shown_axis()

    def _shown_axis(self) -> int:
        axis, _ = self.plane()
        if axis is None and not self.three_d:
            raise UsageError("tools for a plane do not work in the 3-D view", "show planes, or switch the tools to 3-D")
        return axis if axis is not None else 0

    def _spacing(self) -> tuple[float, float, float]:
        z, y, x = self.editing.layer.scale  # mm a voxel: what `Grid.spacing_mm` is
        return float(z), float(y), float(x)

    def _finest_mm(self) -> float:
        """The finest step among the axes shown: napari counts its brush in it."""
        shown = self.editing.session.viewer.dims.displayed
        return min(self._spacing()[axis] for axis in shown)

    def _show_size(self) -> None:
        if self.editing.session.layer is None:
            return
        self._following = True
        try:
            self.editing.layer.brush_size = max(1, round(2 * self._radius_mm / self._finest_mm()))
        finally:
            self._following = False

    def _size_chosen(self) -> None:
        if not self._following and self.editing.session.layer is not None:
            self._radius_mm = self.editing.layer.brush_size * self._finest_mm() / 2

    def _dimensions_chosen(self) -> None:
        if self.editing.session.layer is not None:
            self._three_d = self.editing.layer.n_edit_dimensions == 3


def _ends(array: NDArray, value: int, axis: int, here: int) -> tuple[int, int]:
    """The nearest planes before and after `here` that hold the class; `here` must not."""

    def holds(plane: int) -> bool:
        return bool((array[of_plane(axis, plane, array.shape)] == value).any())

    first = next((at for at in range(here - 1, -1, -1) if holds(at)), None)
    last = next((at for at in range(here + 1, array.shape[axis]) if holds(at)), None)
    if holds(here) or first is None or last is None:
        raise UsageError(
            f"plane {here} is not between two planes that hold class {value}", "draw it in two planes, go between them"
        )
    return first, last

