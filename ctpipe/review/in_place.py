"""Another volume in the layers that are there: the layers stay, and all that they hold is replaced.

A new layer takes napari some tenths of a second in a window: shaders, textures and controls in each of three viewers.
A layer that is given other data is only sliced anew. So that nothing of the earlier volume is left, a layer takes over
every attribute that napari would save, from a new layer of which no viewer ever hears.

Only layers to look at are kept: the CT, and committed labels. A working copy, whose layer others hold with its history,
strokes and keys, is a new layer every time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels, Layer
from napari.utils.colormaps import DirectLabelColormap

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari.components import ViewerModel

    from ctpipe.review.layers import LayerData

_ALL = (
    "name", "metadata", "affine", "axis_labels", "units", "rotate", "scale", "shear", "translate",
    "blending", "opacity", "projection_mode", "experimental_clipping_planes", "plane", "depiction", "rendering",
)  # fmt: skip
_IMAGE = (
    "auto_contrast", "colormap", "contrast_limits_range", "contrast_limits", "interpolation2d", "interpolation3d",
    "iso_threshold", "attenuation", "gamma", "custom_interpolation_kernel_2d",
)  # fmt: skip
_LABELS = (
    "colormap", "features", "iso_gradient_mode", "contour", "selected_label", "show_selected_label", "brush_size",
    "contiguous", "n_edit_dimensions", "preserve_labels",
)  # fmt: skip


def put_in_place(viewer: ViewerModel, made: Iterable[LayerData]) -> list[Layer]:
    """Make `made`, the CT first, the only layers of a viewer, hidden as yet; layers of volumes before are taken again.

    Raises what reading raises; the viewer may then hold a part of them.
    """
    wanted = [Layer.create(data, {**options, "visible": False}, kind) for data, options, kind in made]
    there = [layer for layer in viewer.layers if "grid_id" in layer.metadata.get("ctpipe", {})]
    pairs = [(next((layer for layer in there if _fits(layer, new)), None), new) for new in wanted]
    if pairs[0][0] is None:  # labels stay above the CT, and napari begins anew only with an empty list
        viewer.layers.clear()
        pairs = [(None, new) for new in wanted]
    for layer in [layer for layer in viewer.layers if all(layer is not kept for kept, _ in pairs)]:
        viewer.layers.remove(layer)
    for kept, _ in pairs:
        if kept is not None:
            kept.visible = False
    viewer.dims.order = tuple(range(viewer.dims.ndim))
    placed = []
    for kept, new in pairs:
        if kept is None:
            viewer.layers.append(new)
        else:
            become(kept, new)
        placed.append(new if kept is None else kept)
    viewer.dims.current_step = tuple(int((steps - 1) / 2) for steps in viewer.dims.nsteps)
    return placed


def become(layer: Layer, other: Layer) -> None:
    """Give a layer all that `other`, of the same kind, holds, the data last; its visibility and its mode stay."""
    layer.editable = False  # napari forgets its undo history then; the data say anew what is editable
    for name in (*_ALL, *(_LABELS if isinstance(layer, Labels) else _IMAGE)):
        value = getattr(other, name)
        if not _same(getattr(layer, name), value):
            setattr(layer, name, value)
    layer.data = other.data
    layer.scale = other.scale  # once more: of a hidden layer napari forgets its extent at that only
    shape = layer.level_shapes[layer.data_level]  # the part in view is all of it until a canvas draws
    layer.corner_pixels = np.array([np.zeros_like(shape), np.asarray(shape) - 1])


def _fits(layer: Layer, new: Layer) -> bool:
    """Whether a layer can take the data of another: napari cannot change these."""
    return (type(layer), layer.ndim, layer.multiscale, layer.dtype) == (type(new), new.ndim, new.multiscale, new.dtype)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, DirectLabelColormap) and isinstance(other, DirectLabelColormap):
        return _same(dict(one.color_dict), dict(other.color_dict))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    if hasattr(one, "equals"):  # a table of features
        return bool(one.equals(other))
    if hasattr(one, "affine_matrix"):
        return np.array_equal(one.affine_matrix, other.affine_matrix)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    return bool(one == other)
