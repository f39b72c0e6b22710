"""Case: one volume and one set of its labels on their way out; read slab by slab."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ctpipe.errors import InputError
from ctpipe.store import Labels, Series
from ctpipe.volume import Grid, Slab, slabs_of
from ctpipe.words import LabelKind

# How a segmentation came about (PS3.3 C.8.20.2.2): truth is somebody's drawing as far as the store knows.
ALGORITHM_TYPES = {
    LabelKind.TRUTH: "MANUAL",
    LabelKind.PREDICTION: "AUTOMATIC",
    LabelKind.REVIEW: "SEMIAUTOMATIC",
}


@dataclass(frozen=True)
class Case:
    """What is exported. All arithmetic is on the volume's grid; labels of another grid do not get this far."""

    series: Series
    labels: Labels

    @property
    def grid(self) -> Grid:
        return self.series.grid

    @property
    def uneven(self) -> bool:
        """Whether planes stand at their own positions, so that one affine does not place them."""
        return bool(self.series.attributes.get("uneven_planes"))

    @property
    def resampled(self) -> bool:
        """Whether the voxels are not those of the source instances, though each plane lies in its instance's plane."""
        return "resampled" in self.series.attributes

    @property
    def algorithm_type(self) -> str:
        return ALGORITHM_TYPES[self.labels.kind]

    @cached_property
    def made(self) -> datetime:
        """When the labels were committed: what is exported again is then the same object, byte for byte."""
        return datetime.fromtimestamp(int((self.labels.path / "zarr.json").stat().st_mtime))

    @cached_property
    def positions(self) -> NDArray[np.float64]:
        """LPS mm of the first voxel of each plane, (z, 3): the instances' own, unless the voxels were resampled."""
        on_grid = self.grid.to_lps([(z, 0, 0) for z in range(self.grid.shape.z)])
        planes = self.series.planes
        if self.resampled or "position_l" not in planes:
            return on_grid
        return planes[["position_l", "position_p", "position_s"]].to_numpy(np.float64)

    def slabs(self) -> Iterator[tuple[Slab, NDArray]]:
        """(slab, its labels) in order."""
        for slab in slabs_of(self.grid.shape.z):
            yield slab, self.labels.read_planes(slab.start, slab.stop)

    @cached_property
    def voxels(self) -> dict[int, int]:
        """Label -> voxels, of every class. Raises InputError for voxels of no class."""
        return {label: int(self._counts[0].get(label, 0)) for label in self.labels.classes}

    @property
    def present(self) -> dict[int, str]:
        """The classes that have voxels, by label."""
        return {label: name for label, name in sorted(self.labels.classes.items()) if self.voxels[label]}

    @property
    def empty(self) -> list[str]:
        """The classes that have none."""
        return [name for label, name in sorted(self.labels.classes.items()) if not self.voxels[label]]

    @property
    def extent(self) -> tuple[int, int]:
        """(start, stop) of the planes between the first and the last that hold a voxel. InputError where none does."""
        if not self.present:
            raise InputError(f"labels {self.labels.name} hold no voxel of any class: {', '.join(self.empty)}",
                             "export them as --to nifti or csv, which can be empty")  # fmt: skip
        return self._counts[1]

    @cached_property
    def _counts(self) -> tuple[dict[int, int], tuple[int, int]]:
        counts: dict[int, int] = {}
        filled: list[int] = []
        for slab, labels in self.slabs():
            for label, n in enumerate(np.bincount(labels.ravel()).tolist()):
                if label and n:
                    counts[label] = counts.get(label, 0) + n
            filled += (slab.start + np.flatnonzero(labels.any(axis=(1, 2)))).tolist()
        unnamed = sorted(set(counts) - set(self.labels.classes))
        if unnamed:
            raise InputError(f"labels {self.labels.name} hold voxels of {len(unnamed)} labels that have no class",
                             "ctpipe verify tells whether the store is whole")  # fmt: skip
        return counts, (filled[0], filled[-1] + 1) if filled else (0, 0)

    def refuse_uneven(self, what: str) -> None:
        """Raises InputError for planes that `what` cannot place."""
        if self.uneven:
            raise InputError(f"planes of volume {self.series.id} stand at their own positions, which {what} cannot say",
                             "export it with --to seg or rtstruct, which place each plane")  # fmt: skip
