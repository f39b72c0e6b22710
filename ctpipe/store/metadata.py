"""The two faces of a group's zarr.json: what NGFF 0.5 says to every reader, and what ctpipe says to itself.

NGFF 0.5 knows a positive scale and a translation per axis, so an oblique grid is told to other readers by its distances
along its own axes only; the whole truth is the affine under `attributes["ctpipe"]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ctpipe.errors import StoreFaultError, UsageError
from ctpipe.store.commit import CURE
from ctpipe.store.layout import FORMAT, checked_name
from ctpipe.volume import SLAB_PLANES, Grid, Level
from ctpipe.words import LABEL_COLOURS, LabelKind

NGFF = "0.5"
_LIVER_WINDOW = (40.0, 400.0)  # centre, width in HU: soft tissue, where the source names no window
_HU_RANGE = (-1024.0, 3071.0)  # 12-bit CT
IMAGE_DTYPES, LABEL_DTYPES = ("int16", "float32"), ("uint8", "uint16")


@dataclass(frozen=True)
class VolumeMeta:
    """What is stored of one CT volume beside its voxels. All text is pseudonyms, digests or codes.

    voi: (centre, width) in HU of the source's first window. attributes: allow-listed, JSON-plain.
    provenance: only facts that change bits (versions of algorithms, options); no times, no hosts.
    """

    id: str
    grid: Grid
    dtype: str
    patient: str
    study: str
    series: str
    voi: tuple[float, float] | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checked_name(self.id, "the series id")
        _checked_dtype(self.dtype, IMAGE_DTYPES)


@dataclass(frozen=True)
class LabelsMeta:
    """What is stored of one label volume: name ("truth-<key>", a run key, "review-<key>"), classes {1: "liver", …}."""

    name: str
    kind: LabelKind
    grid: Grid
    classes: dict[int, str]
    dtype: str = "uint8"
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checked_name(self.name, "the name of the labels")
        _checked_dtype(self.dtype, LABEL_DTYPES)
        most = 2 ** (8 if self.dtype == "uint8" else 16) - 1
        if not all(isinstance(n, int) and 1 <= n <= most for n in self.classes):
            raise UsageError(f"classes of {self.dtype} labels are numbered 1 to {most}", "give {1: name, …}")


def _checked_dtype(dtype: str, allowed: Sequence[str]) -> None:
    if dtype not in allowed:
        raise UsageError(f"voxels of type {dtype} are not stored", f"give one of {', '.join(allowed)}")


def image_document(meta: VolumeMeta, levels: Sequence[Level], content: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """zarr.json of the group of one CT volume, without its digest."""
    centre, width = meta.voi or _LIVER_WINDOW
    window = {"start": centre - width / 2, "end": centre + width / 2, "min": _HU_RANGE[0], "max": _HU_RANGE[1]}
    channel = {"label": "HU", "color": "FFFFFF", "active": True, "window": window}
    ome = {"version": NGFF, "multiscales": [_multiscale("CT", levels)], "omero": {"channels": [channel]}}
    stated = {
        **_common(meta.grid, meta.dtype, content, manifest, meta.provenance),
        "kind": "volume",
        "id": meta.id,
        "patient": meta.patient,
        "study": meta.study,
        "series": meta.series,
        "voi": None if meta.voi is None else [float(v) for v in meta.voi],
        "attributes": meta.attributes,
    }
    return _group(ome, stated)


def labels_document(
    meta: LabelsMeta,
    levels: Sequence[Level],
    content: str,
    manifest: dict[str, Any],
    series_id: str,
    sequence: int | None,
) -> dict[str, Any]:
    """zarr.json of one label group, without its digest. sequence: only of truth, counts what came in."""
    numbered = sorted(meta.classes.items())
    image_label = {
        "version": NGFF,
        "colors": [{"label-value": n, "rgba": _rgba(n)} for n, _ in numbered],
        "properties": [{"label-value": n, "class": name} for n, name in numbered],
        "source": {"image": "../../"},
    }
    ome = {"version": NGFF, "multiscales": [_multiscale(meta.name, levels)], "image-label": image_label}
    stated = {
        **_common(meta.grid, meta.dtype, content, manifest, meta.provenance),
        "kind": str(meta.kind),
        "name": meta.name,
        "volume": series_id,
        "classes": {str(n): name for n, name in numbered},
    }
    if sequence is not None:
        stated["sequence"] = sequence
    return _group(ome, stated)


def index_document(names: Sequence[str]) -> dict[str, Any]:
    """labels/zarr.json: the list by which NGFF readers find label groups; it decides nothing."""
    ome = {"version": NGFF, "labels": list(names)}
    return {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}}


def read_grid(stated: dict[str, Any]) -> Grid:
    """Grid of a group's ctpipe attributes; StoreFaultError where its grid_id does not say the same."""
    grid = Grid.from_affine(stated["shape"], stated["affine"], stated["frame_of_reference"])
    if grid.grid_id != stated["grid_id"]:
        raise StoreFaultError("the grid of a committed group is not the one that its grid_id names", CURE)
    return grid


def _group(ome: dict[str, Any], stated: dict[str, Any]) -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome, "ctpipe": stated}}


def _rgba(label: int) -> list[int]:
    return [*LABEL_COLOURS[(label - 1) % len(LABEL_COLOURS)], 255]


def _common(
    grid: Grid, dtype: str, content: str, manifest: dict[str, Any], provenance: dict[str, Any]
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "grid_id": grid.grid_id,
        "shape": [int(n) for n in grid.shape],
        "affine": [[float(v) for v in row] for row in grid.rows],
        "frame_of_reference": grid.frame_of_reference,
        "slab_planes": SLAB_PLANES,
        "dtype": dtype,
        "content": content,
        "manifest": manifest,
        "provenance": provenance,
    }


def _multiscale(name: str, levels: Sequence[Level]) -> dict[str, Any]:
    orientations = levels[0].grid.orientations
    axes: list[dict[str, Any]] = [{"name": axis, "type": "space", "unit": "millimeter"} for axis in "zyx"]
    if orientations is not None:  # RFC-4
        for axis, value in zip(axes, orientations, strict=True):
            axis["orientation"] = {"type": "anatomical", "value": value}
    datasets = [
        {
            "path": str(level.number),
            "coordinateTransformations": [
                {"type": "scale", "scale": [float(mm) for mm in level.grid.spacing_mm]},
                {"type": "translation", "translation": [float(mm) for mm in level.grid.translation_mm]},
            ],
        }
        for level in levels
    ]
    return {"name": name, "axes": axes, "datasets": datasets}
