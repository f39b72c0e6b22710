"""The two faces of a group's zarr.json: what NGFF 0.5 says to every reader, and what ctpipe says to itself.

NGFF 0.5 knows a positive scale and a translation per axis, so an oblique grid is told to other readers by its distances
along its own axes only; the whole truth is the affine under `attributes["ctpipe"]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ctpipe.errors import StoreFaultError, UsageError
from ctpipe.store.commit import CURE
from ctpipe.store.layout import FORMAT, PLANES, checked_name, shard_file
from ctpipe.volume import SLAB_PLANES, Grid, Level
from ctpipe.words import LABEL_COLOURS, LabelKind, LayerKind

NGFF = "0.5"
_LIVER_WINDOW = (40.0, 400.0)  # centre, width in HU: soft tissue, where the source names no window
_HU_RANGE = (-1024.0, 3071.0)  # 12-bit CT
IMAGE_DTYPES, LABEL_DTYPES, LAYER_DTYPES = ("int16", "float32"), ("uint8", "uint16"), ("uint8",)


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


@dataclass(frozen=True)
class LayerMeta:
    """What is stored of one layer of a run: its name ("entropy", "probability-1"), what it is, what one step is worth.

    scale: a voxel times scale is the value that it stands for. label, class_name: of the class that a probability is
    of; None for the others. provenance: facts that change bits, as of labels.
    """

    run: str
    name: str
    kind: LayerKind
    grid: Grid
    scale: float
    label: int | None = None
    class_name: str | None = None
    dtype: str = "uint8"
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checked_name(self.run, "the run key")
        checked_name(self.name, "the name of the layer")
        _checked_dtype(self.dtype, LAYER_DTYPES)
        if self.scale <= 0 or (self.kind is LayerKind.PROBABILITIES) != (self.label is not None):
            raise UsageError(f"layer {self.name} states a wrong scale or label", "give a scale, and a class's label")


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
    """zarr.json of one label group, without its digest. sequence: of truths and of reviews, as they came in."""
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


def layer_document(
    meta: LayerMeta, levels: Sequence[Level], content: str, manifest: dict[str, Any], series_id: str
) -> dict[str, Any]:
    """zarr.json of one layer, without its digest: an image to other readers, its values in steps of `scale`."""
    title = meta.name if meta.class_name is None else f"{meta.name} {meta.class_name}"
    colour = "FFFFFF" if meta.label is None else "".join(f"{part:02X}" for part in _rgba(meta.label)[:3])
    window = {"start": 0.0, "end": 255.0, "min": 0.0, "max": 255.0}
    channel = {"label": title, "color": colour, "active": True, "window": window}
    ome = {"version": NGFF, "multiscales": [_multiscale(title, levels)], "omero": {"channels": [channel]}}
    stated = {
        **_common(meta.grid, meta.dtype, content, manifest, meta.provenance),
        "kind": "layer",
        "layer": str(meta.kind),
        "name": meta.name,
        "run": meta.run,
        "volume": series_id,
        "scale": meta.scale,
        "label": meta.label,
        "class": meta.class_name,
    }
    return _group(ome, stated)


# What the ctpipe attributes of a committed group hold, by the type that JSON gives it.
Types = dict[str, type | tuple[type, ...]]
_STATED: Types = {
    "grid_id": str, "shape": list, "affine": list, "frame_of_reference": (str, type(None)), "slab_planes": int,
    "dtype": str, "content": str, "manifest": dict, "provenance": dict,
}  # fmt: skip
_STATED_VOLUME: Types = {
    "id": str, "patient": str, "study": str, "series": str, "voi": (list, type(None)), "attributes": dict,
}  # fmt: skip
_STATED_LABELS: Types = {"name": str, "volume": str, "kind": str, "classes": dict}
_STATED_LAYER: Types = {
    "name": str, "run": str, "volume": str, "kind": str, "layer": str, "scale": float,
    "label": (int, type(None)), "class": (str, type(None)),
}  # fmt: skip
_STATED_ARRAY = {"zarr_json": str, "shards": list}
_STATED_SHARD = {"file": str, "size": int, "crc32c": str, "voxels": str}


def checked_volume(stated: dict[str, Any], what: str) -> dict[str, Any]:
    """`stated`, if each thing in the ctpipe attributes of a volume is of its type; StoreFaultError else.

    A right digest says that nothing changed, not that ctpipe wrote it: a store may come from anywhere.
    """
    planes = _checked(stated, {**_STATED, **_STATED_VOLUME}, what)["manifest"].get("planes")
    if planes is not None:
        if not isinstance(planes, dict):
            raise _not_ours(what)
        _checked(planes, {"file": str, "sha256": str}, what)
        if planes["file"] != f"{PLANES}/{stated['id']}.parquet":  # never a path that the file chooses
            raise _not_ours(what)
    voi = stated["voi"]
    if voi is not None and not (len(voi) == 2 and all(isinstance(v, int | float) for v in voi)):
        raise _not_ours(what)
    return stated


def checked_labels(stated: dict[str, Any], what: str) -> dict[str, Any]:
    """The same for the ctpipe attributes of a label group."""
    _checked(stated, {**_STATED, **_STATED_LABELS}, what)
    numberless = 0 if stated["kind"] == LabelKind.REVIEW else None  # reviews were not counted at first
    counted = stated["kind"] in (LabelKind.TRUTH, LabelKind.REVIEW)
    if stated["kind"] not in list(LabelKind) or (counted and not isinstance(stated.get("sequence", numberless), int)):
        raise _not_ours(what)
    if not all(n.isdecimal() and isinstance(name, str) for n, name in stated["classes"].items()):
        raise _not_ours(what)
    return stated


def checked_layer(stated: dict[str, Any], what: str) -> dict[str, Any]:
    """The same for the ctpipe attributes of a layer."""
    _checked(stated, {**_STATED, **_STATED_LAYER}, what)
    if stated["kind"] != "layer" or stated["layer"] not in list(LayerKind) or not stated["scale"] > 0:
        raise _not_ours(what)
    return stated


def read_manifest(stated: dict[str, Any], levels: Sequence[Level], dtypes: Sequence[str], what: str) -> dict[str, Any]:
    """The arrays of a manifest by level, if they list every shard of `levels` under its own name; StoreFaultError else.

    dtypes: those that voxels of such a group may have.
    """
    arrays = stated["manifest"].get("arrays")
    if not isinstance(arrays, dict) or stated["dtype"] not in dtypes or len(arrays) != len(levels):
        raise _not_ours(what)
    for level in levels:
        array = arrays.get(str(level.number))
        if not isinstance(array, dict):
            raise _not_ours(what)
        shards = _checked(array, _STATED_ARRAY, what)["shards"]
        if level.slab_planes < 1 or len(shards) != -(-level.grid.shape.z // level.slab_planes):
            raise _not_ours(what)
        for index, shard in enumerate(shards):
            if not isinstance(shard, dict) or _checked(shard, _STATED_SHARD, what)["file"] != shard_file(index):
                raise _not_ours(what)
    return arrays


def _checked(stated: dict[str, Any], kinds: Mapping[str, type | tuple[type, ...]], what: str) -> dict[str, Any]:
    if not all(isinstance(stated.get(name, ...), kind) for name, kind in kinds.items()):
        raise _not_ours(what)
    return stated


def _not_ours(what: str) -> StoreFaultError:
    return StoreFaultError(f"the metadata of {what} is not what ctpipe writes", CURE)


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
