"""Layers of a run: probabilities, entropy and spread beside its labels, each an image of its own with its own commit.

``<id>.ome.zarr/layers/<run>/<layer>/zarr.json`` is the commit of a layer. Labels are committed before layers, so that a
layer without its labels is a fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctpipe.errors import NotThereError, StoreFaultError
from ctpipe.store import commit, files
from ctpipe.store.commit import CURE
from ctpipe.store.group import Group
from ctpipe.store.layout import COMMIT, LAYERS, PARTIAL, layers_target, volume_target
from ctpipe.store.metadata import LAYER_DTYPES, checked_layer
from ctpipe.store.reader import as_data_array
from ctpipe.words import LayerKind

if TYPE_CHECKING:
    import xarray


def layered_runs(root: Path, series_id: str) -> list[str]:
    """Runs that have layers, committed or not."""
    return files.names(root / volume_target(series_id) / LAYERS)


def layer_names(root: Path, series_id: str, run: str) -> list[str]:
    """Names of all layers of a run, committed or not."""
    return [name for name in files.names(root / layers_target(series_id, run)) if not name.endswith(PARTIAL)]


def committed_layers(root: Path, series_id: str, run: str) -> list[str]:
    """Names of the layers that are committed, sorted."""
    folder = root / layers_target(series_id, run)
    return [name for name in layer_names(root, series_id, run) if (folder / name / COMMIT).exists()]


class Layer(Group):
    """One committed layer of a run: uint8 (z, y, x) on the grid of its CT; a voxel times `scale` is its value.

    kind: what it is. label, class_name: of the class whose probability it is; None for the others.
    """

    _dtypes = LAYER_DTYPES

    def __init__(self, root: Path, series_id: str, stated: dict[str, Any]) -> None:
        self.series_id = series_id
        self.run: str = stated["run"]
        self.name: str = stated["name"]
        path = root / layers_target(series_id, self.run) / self.name
        super().__init__(path, stated, f"layer {self.name} of run {self.run} of volume {series_id}")
        self.kind = LayerKind(stated["layer"])
        self.scale: float = stated["scale"]
        self.label: int | None = stated["label"]
        self.class_name: str | None = stated["class"]

    @cached_property
    def array(self) -> xarray.DataArray:
        """Lazy uint8 (z, y, x), one dask chunk a shard, coordinates in mm, attrs affine, grid_id and scale."""
        token = f"layer-{self.series_id}-{self.run}-{self.name}-{self.content}"
        array = as_data_array(self.arrays[0], self.name, token, None)
        array.attrs["scale"] = self.scale
        return array


class LayersOf(Mapping[str, Layer]):
    """Committed layers of one run by name."""

    def __init__(self, root: Path, series_id: str, run: str, grid_id: str) -> None:
        self._root, self._series_id, self._run, self._grid_id = root, series_id, run, grid_id

    def __getitem__(self, name: str) -> Layer:
        what = f"layer {name} of run {self._run} of volume {self._series_id}"
        if name not in self:
            there = f"it has {', '.join(self)}" if len(self) else "it has none"
            raise NotThereError(f"run {self._run} of volume {self._series_id} has no layer {name!r}",
                                f"{there}; ctpipe infer --layers makes them")  # fmt: skip
        path = self._root / layers_target(self._series_id, self._run) / name / COMMIT
        document = commit.read_sealed(path, what, "attributes", "ctpipe")
        if document is None:
            raise NotThereError(f"{what} was removed", "ctpipe infer --layers makes it")
        stated = checked_layer(document["attributes"]["ctpipe"], what)
        if (stated["name"], stated["run"], stated["volume"]) != (name, self._run, self._series_id):
            raise StoreFaultError(f"{what} was committed as another", CURE)
        layer = Layer(self._root, self._series_id, stated)
        if layer.grid.grid_id != self._grid_id:
            problem = f"{what} is on grid {layer.grid.grid_id}, its labels on {self._grid_id}"
            raise StoreFaultError(problem, CURE)
        return layer

    def __iter__(self) -> Iterator[str]:
        return iter(committed_layers(self._root, self._series_id, self._run))

    def __len__(self) -> int:
        return len(committed_layers(self._root, self._series_id, self._run))

    def __contains__(self, name: object) -> bool:
        return name in committed_layers(self._root, self._series_id, self._run)

    def get(self, name: str, default: Any = None) -> Any:
        if name not in self:
            return default
        return self[name]
