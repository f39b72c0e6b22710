"""The reader that napari finds through napari.yaml: a CT volume of a store, with its labels, in millimetres.

Used as: ``napari --plugin ctpipe S/<volume>.ome.zarr``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ctpipe.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ctpipe.review.layers import LayerData

_SUFFIX = ".ome.zarr"


def get_reader(path: str | list[str]) -> Callable[[str | list[str]], list[LayerData]] | None:
    """The reader of `path` where it is a committed volume of a store, or a store; None for anything else.

    napari asks every reader that takes folders about every folder, so this looks at two file names and no more.
    """
    folder = _one(path)
    return read if folder is not None and (_is_volume(folder) or _is_store(folder)) else None


def read(path: str | list[str]) -> list[LayerData]:
    """Layers of one volume: the CT below, its labels above, only the preferred ones of them shown.

    Raises: UsageError for a store of several volumes, since it would be a guess which one is meant.
    """
    from ctpipe.review.layers import image_layer, labels_layer, preferred_labels
    from ctpipe.store import open_store

    folder = _one(path)
    if folder is None:
        raise UsageError("ctpipe opens one volume at a time", "give one S/<volume>.ome.zarr")
    store = open_store(folder.parent if _is_volume(folder) else folder)
    if not _is_volume(folder) and len(store) != 1:
        raise UsageError(
            f"the store holds {len(store)} volumes", "open one S/<volume>.ome.zarr, or use: ctpipe review S"
        )
    series = store[folder.name.removesuffix(_SUFFIX)] if _is_volume(folder) else next(iter(store.values()))
    shown = preferred_labels(series)
    # the shown group comes last, so that it lies on top
    groups = sorted(series.labels.values(), key=lambda g: (shown is not None and g.name == shown.name, g.name))
    return [image_layer(series), *(labels_layer(g, visible=g is groups[-1]) for g in groups)]


def _one(path: str | list[str]) -> Path | None:
    paths = [path] if isinstance(path, str | Path) else list(path)
    return Path(paths[0]) if len(paths) == 1 else None


def _is_volume(folder: Path) -> bool:
    return folder.name.endswith(_SUFFIX) and (folder / "zarr.json").is_file() and _is_store(folder.parent)


def _is_store(folder: Path) -> bool:
    return (folder / "ctpipe.json").is_file()
