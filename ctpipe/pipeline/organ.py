"""Facts about an organ that an earlier run found: its median HU, and where it is. Slab by slab, exact sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from distributed import Client
from numpy.typing import NDArray
from scipy import ndimage

from ctpipe.cluster import run_tasks
from ctpipe.errors import RunError
from ctpipe.pipeline.waves import Wave, Work
from ctpipe.store import Labels, Series, open_store
from ctpipe.volume import Grid, Slab, slabs_of

# The organ's rim is mixed with its neighbours: so many voxels of it do not enter the median.
RIM_VOXELS = 2
_LOWEST_HU = -2048
_BINS = 8192


@dataclass(frozen=True)
class HistogramTask:
    """HU histogram of one slab inside the classes `values` of the label group `labels` of a series."""

    store: str
    series: str
    labels: str
    values: tuple[int, ...]
    slab: Slab


def slab_histogram(task: HistogramTask) -> NDArray[np.int64]:
    """Counts of whole HU from -2048 inside the organ less its rim; (8192,) int64."""
    series = open_store(task.store)[task.series]
    start, stop = task.slab.with_halo(RIM_VOXELS, series.grid.shape.z)
    mask = np.isin(series.labels[task.labels].read_planes(start, stop), task.values)
    if not mask.any():
        return np.zeros(_BINS, np.int64)
    core = ndimage.binary_erosion(mask, iterations=RIM_VOXELS)
    inner = slice(task.slab.start - start, task.slab.stop - start)
    hu = series.read_planes(task.slab.start, task.slab.stop)
    values = np.rint(hu[core[inner]]).astype(np.int64) - _LOWEST_HU
    return np.bincount(np.clip(values, 0, _BINS - 1), minlength=_BINS)


def median_hu(
    store: str, series: Series, labels: Labels, class_names: Sequence[str], client: Client | None = None
) -> float:
    """Median HU (lower median, whole HU) of the named classes less a rim of 2 voxels.

    Raises RunError where the organ has no voxels left: a model that needs it cannot give a right answer.
    """
    tasks = _histogram_tasks(store, series, labels, class_names)
    return _median([part for _, part in run_tasks(client, slab_histogram, tasks)], series, class_names)


def median_work(store: str, series: Series, labels: Labels, class_names: Sequence[str]) -> Work[float]:
    """The same as a wave of tasks, for a volume in flight; its slabs are no step of the progress."""
    tasks = _histogram_tasks(store, series, labels, class_names)
    counts = yield Wave(slab_histogram, tasks, slabs=[0] * len(tasks))
    return _median(counts, series, class_names)


def _histogram_tasks(store: str, series: Series, labels: Labels, class_names: Sequence[str]) -> list[HistogramTask]:
    values = tuple(value for value, name in labels.classes.items() if name in class_names)
    return [HistogramTask(store, series.id, labels.name, values, slab) for slab in slabs_of(series.grid.shape.z)]


def _median(parts: Sequence[NDArray[np.int64]], series: Series, class_names: Sequence[str]) -> float:
    counts = np.sum(parts, axis=0)
    total = int(counts.sum())
    if total == 0:
        raise RunError(f"no {' or '.join(class_names)} was found in series {series.id}",
                       "check that the volume shows the organ; the model's later stage is relative to it")
    return float(np.searchsorted(np.cumsum(counts), (total + 1) // 2) + _LOWEST_HU)


def near_mask(labels: Labels, grid: Grid, start: int, stop: int, margin_mm: float) -> NDArray[np.bool_]:
    """Voxels of planes start..stop that lie within `margin_mm` of any labelled voxel; (n, y, x) bool.

    The same whatever the slab cut: planes within the margin are read as well.
    """
    # On a sheared grid a distance along the axes is not one in the patient: reach far enough for the worst direction.
    axes = grid.directions
    narrowest = float(np.linalg.eigvalsh(axes.T @ axes)[0])
    reach = margin_mm if narrowest > 1 - 1e-6 else margin_mm / np.sqrt(narrowest)
    halo = int(np.ceil(reach / grid.spacing_mm[0]))
    low, high = max(0, start - halo), min(grid.shape.z, stop + halo)
    mask = labels.read_planes(low, high) > 0
    if margin_mm > 0 and mask.any():
        mask = ndimage.distance_transform_edt(~mask, sampling=grid.spacing_mm) <= reach
    return mask[start - low : stop - low]
