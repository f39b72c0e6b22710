"""Layer data for napari: what a CT volume and its labels look like in a viewer, in millimetres. Needs no napari.

A layer gets `scale` and `translate` along the grid's own axes (z, y, x). For a rectangular grid, oblique or not, that
gives the right proportions and distances, and slices along the planes that were acquired. The grid's rotation in the
patient is not given to napari: it would slice an oblique grid across its planes, which it supports for orthogonal axes
only. The whole affine stands in the layer's metadata.

napari takes the size of a coarse voxel from the ratio of the levels' shapes. Where a side is odd, a coarse level is
therefore shown stretched by less than one of its own voxels; level 0, which is what a reader measures on, is exact.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from ctpipe.review.lazy import LazyLevel
from ctpipe.review.windows import own_window
from ctpipe.volume import pyramid_levels, slabs_of
from ctpipe.words import LABEL_COLOURS, LabelKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from ctpipe.store import Labels, Layer, Series
    from ctpipe.volume import Grid

    LayerData = tuple[Any, dict[str, Any], str]

# A kept gantry tilt: napari gets no shear, so that slices stay the planes that were acquired.
SHEARED = " (sheared grid, drawn straight)"
UNNAMED_RGBA = (1.0, 0.0, 1.0, 1.0)  # a painted label that no class names must be seen, never be transparent


def class_rgba(label: int) -> tuple[float, float, float, float]:
    """Colour (0..1) of a class; the same label has the same colour in every volume."""
    red, green, blue = LABEL_COLOURS[(label - 1) % len(LABEL_COLOURS)]
    return red / 255, green / 255, blue / 255, 1.0


def placement(grid: Grid) -> dict[str, Any]:
    """scale, translate (mm along z, y, x), units and axis labels of every layer on `grid`."""
    return {
        "scale": grid.spacing_mm,
        "translate": grid.translation_mm,
        "units": ("mm", "mm", "mm"),
        "axis_labels": ("z", "y", "x"),
    }


def lazy_levels(volume: Series | Labels | Layer) -> list[LazyLevel]:
    """The pyramid, read when shown: blocks of it, in one cache of bounded size, each checked by the store."""
    return [LazyLevel(volume, level.number) for level in volume.levels]


def image_layer(series: Series) -> LayerData:
    """The CT, multiscale and lazy."""
    options = {
        "name": f"CT {series.id[:8]}" + (SHEARED if series.grid.is_sheared else ""),
        "multiscale": True,
        "colormap": "gray",
        "contrast_limits": own_window(series.voi).limits,
        "metadata": {"ctpipe": _facts(series.id, series.grid)},
        **placement(series.grid),
    }
    return lazy_levels(series), options, "image"


def labels_layer(labels: Labels, visible: bool = True) -> LayerData:
    """Committed labels to look at, never to paint on: multiscale and lazy, which napari does not let one edit.

    A pyramid of one level, which napari cannot take as multiscale labels, is read whole into a read-only array
    (such a level is at most 128 x 128 a plane): a stroke on it is an error, and never lost without a word.
    """
    options = {
        **label_look(labels.classes),
        "name": labels_name(labels.kind, labels.name),
        "visible": visible,
        "metadata": {
            "ctpipe": {
                **_facts(labels.series_id, labels.grid),
                "labels": labels.name,
                "kind": str(labels.kind),
                "classes": dict(labels.classes),
            }
        },
        **placement(labels.grid),
    }
    levels = lazy_levels(labels)
    if len(levels) > 1:
        return levels, {**options, "multiscale": True}, "labels"
    only = np.array(levels[0])
    only.setflags(write=False)
    return only, {**options, "multiscale": False}, "labels"


def run_layer(layer: Layer) -> LayerData:
    """A probability, the entropy or the spread of a run, hidden until it is asked for: multiscale and lazy."""
    of = "" if layer.class_name is None else f" {layer.class_name}"
    stated = {"labels": layer.run, "layer": layer.name, "scale": layer.scale}
    options = {
        "name": f"{layer.name}{of} {layer.run[:8]}",
        "multiscale": True,
        "colormap": "bop orange",  # added to grey it stays a colour
        "blending": "additive",
        "contrast_limits": (0, 255),
        "visible": False,
        "metadata": {"ctpipe": {**_facts(layer.series_id, layer.grid), **stated}},
        **placement(layer.grid),
    }
    return lazy_levels(layer), options, "image"


def label_look(classes: Mapping[int, str]) -> dict[str, Any]:
    """Colours and names of the classes, as napari's Labels layer takes them."""
    colours: dict[int | None, Any] = {label: class_rgba(label) for label in classes}
    return {
        "colormap": {**colours, 0: (0.0, 0.0, 0.0, 0.0), None: UNNAMED_RGBA},
        "features": {"index": [0, *classes], "class": ["background", *classes.values()]},
        "opacity": 0.6,
    }


def labels_name(kind: LabelKind, name: str) -> str:
    """Name of the layer of a label group: its kind, and enough of its key to tell it from others."""
    key = name.removeprefix(f"{kind}-")
    return f"{kind} {key[:8]}"


def preferred_labels(series: Series) -> Labels | None:
    """What a reader wants to see first: the newest review, else the newest prediction, else the truth."""
    return preferred_of(series.labels.values())


def preferred_of(groups: Iterable[Labels]) -> Labels | None:
    """The newest review among `groups`, else the newest prediction (a whole one before a first half), else truth."""
    rank = {LabelKind.REVIEW: 2, LabelKind.PREDICTION: 1, LabelKind.TRUTH: 0}
    listed = list(groups)
    halves = _first_halves(listed[0].path.parents[2]) if listed else set()
    return max(listed, default=None,
               key=lambda g: (rank[g.kind], g.provenance.get("model") not in halves, age_rank(g)))  # fmt: skip


def _first_halves(root: Path) -> set[str]:
    """Digests of the models of a store that run before another one: what they find is not meant to be looked at."""
    found = set()
    for path in (root / "models").glob("*/model.json"):
        try:
            found.add(json.loads(path.read_text()).get("before"))
        except (OSError, ValueError):  # it decides nothing but what is shown first
            continue
    return found - {None}


def age_rank(labels: Labels) -> tuple[int, str]:
    """Sorts label groups from old to new, by file time: it decides nothing but what is shown first."""
    return (labels.path / "zarr.json").stat().st_mtime_ns, labels.name


def telling_plane(labels: Labels) -> int | None:
    """Index of the plane to begin on: most classes in view, then most of the smallest of them; None without labels.

    Judged on the coarsest level, so that little is read. A small lesion in a large organ is thus in view.
    """
    level = pyramid_levels(labels.grid)[-1]
    scores = []
    for at in (level.slab(slab) for slab in slabs_of(labels.grid.shape.z)):
        for plane in labels.read_planes(at.start, at.stop, level=level.number):
            counts = np.bincount(plane.ravel())[1:]
            counts = counts[counts > 0]
            scores.append((len(counts), int(counts.min(initial=plane.size))))
    best = max(range(len(scores)), key=lambda z: scores[z])  # the first of equals
    return min(best * level.factors.z, labels.grid.shape.z - 1) if scores[best][0] else None


def _facts(series_id: str, grid: Grid) -> dict[str, Any]:
    return {"series": series_id, "grid_id": grid.grid_id, "affine": grid.affine.tolist()}
