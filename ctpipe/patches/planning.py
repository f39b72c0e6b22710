"""What a table will cost, before anything is computed; and what to change where it does not fit."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Any

from ctpipe.errors import BudgetError, UsageError
from ctpipe.words import ZYX

if TYPE_CHECKING:
    from distributed import Client

    from ctpipe.patches.table import PatchTable

# A worker that has loaded what rows need (Dask, pandas, numba, zarr), before any rows: measured, 220 MiB.
BASE_BYTES = 220 << 20
# While rows are made: the labels of a slab as file, as chunks and whole, and what the allocator keeps of them
# (measured: 80 MiB for a slab of 8), and the HU of a slab where statistics are wanted.
READING, READING_HU = 9, 3
# A partition stays below memory / (8 x threads): larger ones have hung a worker.
SHARE = 8
# Strides up to so many times the wanted one are tried for one that fits.
WIDEST = 64


@dataclass(frozen=True)
class Plan:
    """Sizes in bytes. peak_per_worker: of its resident memory while the table is built and held.

    tasks: what the scheduler will see. slab_bytes: HU of all slabs, were they all resident. pixel_bytes: if every row
    held its own pixels.
    """

    rows: int
    row_bytes: int
    rows_bytes: int
    slab_bytes: int
    pixel_bytes: int
    partitions: int
    tasks: int
    largest_partition: int
    workers: int
    threads: int
    memory_per_worker: int
    slab_budget: int
    peak_per_worker: int

    @property
    def fits(self) -> bool:
        return self.peak_per_worker <= self.memory_per_worker and self.partition_fits

    @property
    def partition_fits(self) -> bool:
        return self.largest_partition <= self.memory_per_worker // (SHARE * self.threads)

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"fits": self.fits}


def plan(table: PatchTable, workers: int | None = None, memory_per_worker: int | None = None,
         threads: int | None = None, slab_budget: int = 256 << 20) -> Plan:
    """What building and persisting `table` takes on `workers` of so much memory; by default those of its client.

    Conditions are not computed, so a selection counts as the whole. Raises nothing for what does not fit: see `check`.
    """
    if table.client is not None:
        found = table.client.scheduler_info(n_workers=-1)["workers"].values()
        workers = workers or len(found)
        threads = threads or max(one["nthreads"] for one in found)
        memory_per_worker = memory_per_worker or min(one["memory_limit"] or 2**63 - 1 for one in found)
    if not workers or not memory_per_worker:
        raise UsageError("the plan needs workers and their memory", "give both, or a table with a client")
    return _plan(table, workers, memory_per_worker, threads or 1, slab_budget, _base(table.client))


def check(table: PatchTable, made: Plan) -> Plan:
    """The plan, where it fits; BudgetError says how much is missing and the smallest change that would do."""
    if made.fits:
        return made
    if not made.partition_fits:
        limit = made.memory_per_worker // (SHARE * made.threads)
        problem = f"a partition of {_mib(made.largest_partition)} is larger than a worker may take ({_mib(limit)})"
    else:
        problem = (f"a worker would need {_mib(made.peak_per_worker)}, it has {_mib(made.memory_per_worker)}: "
                   f"{_mib(made.peak_per_worker - made.memory_per_worker)} are missing")
    raise BudgetError(problem, _smallest_change(table, made))


def _smallest_change(table: PatchTable, made: Plan) -> str:
    """The first of these that fits by itself: fewer slabs resident, no statistics, more workers, a wider stride."""
    base = _base(table.client)

    def fits(other: PatchTable, workers: int, budget: int) -> bool:
        return _plan(other, workers, made.memory_per_worker, made.threads, budget, base).fits

    over = made.peak_per_worker - made.memory_per_worker
    if made.partition_fits and 0 < over <= min(made.slab_budget, made.slab_bytes):
        budget = (min(made.slab_budget, made.slab_bytes) - over) >> 20
        return f"keep at most {budget} MiB of slabs per worker (slab budget)"
    if table.spec.statistics:
        lean = replace(table, spec=replace(table.spec, statistics=False))
        if fits(lean, made.workers, made.slab_budget):
            return "leave the HU statistics out"
    more = next((n for n in range(made.workers + 1, 4 * made.workers + 1) if fits(table, n, made.slab_budget)), None)
    if more:
        return f"use {more} workers of this memory"
    stride = table.windows.stride
    for factor in range(1, WIDEST):
        wider = ZYX(stride.z, stride.y + factor, stride.x + factor)
        other = replace(table, spec=replace(table.spec, windows=replace(table.windows, stride=wider)))
        if fits(other, made.workers, made.slab_budget):
            return f"use stride {wider.z},{wider.y},{wider.x}"
    return f"give each worker more than {_mib(base)} of memory, or take fewer series"


def _plan(table: PatchTable, workers: int, memory: int, threads: int, slab_budget: int, base: int) -> Plan:
    spec = table.spec
    parts = table.given_parts or tuple(spec.parts(table.sources))
    row = table.row_bytes
    sizes, slab = [], 0
    for part in parts:
        grid = spec.grid(part.source)
        sizes.append(len(grid.planes_within(part.start, part.stop)) * grid.counts.y * grid.counts.x)
    slabs = sum(2 * s.shape[0] * s.shape[1] * s.shape[2] for s in table.sources)
    for source in table.sources:
        planes = min(source.band_planes, source.shape[0]) + spec.windows.window.z - 1
        voxels = planes * source.shape[1] * source.shape[2]
        labels = READING * (2 if spec.reviewed else 1)  # a review, and what it corrected
        slab = max(slab, voxels * (labels + (2 * READING_HU if spec.statistics else 0)))
    rows, largest = sum(sizes), max(sizes, default=0) * row
    busy = min(threads, ceil(len(parts) / workers))
    held = ceil(rows * row / workers)
    peak = base + held + busy * (largest + slab) + min(slab_budget, ceil(slabs / workers))
    return Plan(rows, row, rows * row, slabs, rows * spec.window_voxels * 2, len(parts), len(parts), largest, workers,
                threads, memory, slab_budget, peak)


def _base(client: Client | None) -> int:
    """Resident bytes of a worker without rows: measured on the cluster, where there is one."""
    if client is None:
        return BASE_BYTES
    return max(client.run(_warm).values())


def _warm() -> int:
    """Load what rows need, compiled code as well, and say how large this process then is."""
    import numpy as np
    import psutil

    from ctpipe.patches import saving  # noqa: F401
    from ctpipe.patches.columns import ClassCounter, HuMoments
    from ctpipe.patches.windows import WindowGrid
    from ctpipe.store import open_store  # noqa: F401
    from ctpipe.words import Pad
    grid, out = WindowGrid(ZYX(1, 1, 1), ZYX(1, 1, 1), ZYX(1, 1, 1)), np.empty((2, 1), np.float32)
    ClassCounter(np.zeros((1, 1, 1), np.uint8), 0, grid, Pad.EDGE, [1]).into(0, [out[0]])
    HuMoments(np.zeros((1, 1, 1), np.int16), 0, grid, Pad.EDGE).into(0, out[0], out[1])
    return int(psutil.Process().memory_info().rss)


def _mib(n: int) -> str:
    return f"{n / 2**20:.0f} MiB"
