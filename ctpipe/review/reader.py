"""The reader that napari finds through napari.yaml: a volume of a store, one of its label groups, or a whole store.

Used as: ``napari --plugin ctpipe S/<volume>.ome.zarr``, ``…/labels/<name>`` for labels alone, and ``napari --plugin
ctpipe S``: a store of one volume is that volume, one of several opens the worklist. All in millimetres.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctpipe.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ctpipe.review.layers import LayerData
    from ctpipe.store import Series

_SUFFIX = ".ome.zarr"
# what napari takes as: read, and there is nothing to add
_NO_LAYERS: list[Any] = [(None,)]


def get_reader(path: str | list[str]) -> Callable[[str | list[str]], list[LayerData]] | None:
    """The reader of `path` where it is a committed volume or labels of a store, or a store; None for anything else.

    napari asks every reader that takes folders about every folder, so this looks at two file names and no more.
    """
    folder = _one(path)
    if folder is None or not (_is_volume(folder) or _is_store(folder) or _is_labels(folder)):
        return None
    return read


def read(path: str | list[str]) -> list[LayerData]:
    """Layers of one volume: the CT below, its labels above, only the preferred ones of them shown; or labels alone.

    Layers that runs kept (entropy, probabilities) lie between, hidden.
    A store of several volumes opens the worklist in napari's window. Raises UsageError for one where there is no
    window, since it would be a guess which volume is meant.
    """
    from ctpipe.review.layers import labels_layer
    from ctpipe.store import open_store

    folder = _one(path)
    if folder is None:
        raise UsageError("ctpipe opens one volume at a time", "give one S/<volume>.ome.zarr")
    if _is_labels(folder):
        volume = folder.parents[1]
        group = open_store(volume.parent)[volume.name.removesuffix(_SUFFIX)].labels[folder.name]
        return [labels_layer(group)]
    if _is_volume(folder):
        return _volume_layers(open_store(folder.parent)[folder.name.removesuffix(_SUFFIX)])
    store = open_store(folder)
    if len(store) == 1:
        return _volume_layers(next(iter(store.values())))
    if len(store) and _worklist_in_window(folder):
        return _NO_LAYERS
    raise UsageError(f"the store holds {len(store)} volumes", "open one S/<volume>.ome.zarr, or use: ctpipe review S")


def _volume_layers(series: Series) -> list[LayerData]:
    from ctpipe.review.layers import image_layer, labels_layer, preferred_labels, run_layer

    shown = preferred_labels(series)
    # the shown group comes last, so that it lies on top
    groups = sorted(series.labels.values(), key=lambda g: (shown is not None and g.name == shown.name, g.name))
    layers = [run_layer(layer) for g in groups for layer in g.layers.values()]
    return [image_layer(series), *layers, *(labels_layer(g, visible=g is groups[-1]) for g in groups)]


def _worklist_in_window(store: Path) -> bool:
    """Open the worklist beside the viewer that asks; False where there is no window."""
    import napari

    viewer = napari.current_viewer()
    if viewer is None:
        return False
    from ctpipe.review.view import open_room

    open_room(viewer, store)
    return True


def _one(path: str | list[str]) -> Path | None:
    paths = [path] if isinstance(path, str | Path) else list(path)
    return Path(paths[0]) if len(paths) == 1 else None


def _is_volume(folder: Path) -> bool:
    return folder.name.endswith(_SUFFIX) and (folder / "zarr.json").is_file() and _is_store(folder.parent)


def _is_labels(folder: Path) -> bool:
    inside = folder.parent.name == "labels" and _is_volume(folder.parents[1])
    return inside and (folder / "zarr.json").is_file()


def _is_store(folder: Path) -> bool:
    return (folder / "ctpipe.json").is_file()
