"""What a call of infer is going to cost, as plain frozen values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

MIB = 1 << 20
# A worker before it holds any voxel: Python with torch, SciPy, Zarr and Dask, and the golden case.
BASE_BYTES = 376 << 20
# Label volumes are compressed to so much of their size, at worst (real ones: 1/40 to 1/300).
COMPRESSED = 1 / 25


@dataclass(frozen=True)
class PassPlan:
    """One run over one volume: of the model, or of the one that runs before it.

    state: `committed` (nothing is done), `half-done` or `new`. windows: still to be evaluated; at_most: their number is
    an upper bound, since the run before says where they lie. flops: two for each multiply-add. tasks: on the cluster.
    peak_bytes: of a worker; vram_bytes: of its GPU. disk_bytes: estimate of what is written. seconds: on all workers.
    """

    run: str
    model: str
    recipe: str
    state: str
    windows: int
    at_most: bool
    flops: int
    tasks: int
    peak_bytes: int
    vram_bytes: int
    disk_bytes: int
    seconds: float


@dataclass(frozen=True)
class SeriesPlan:
    """The runs over one volume, the first to run first; fault: why there can be none."""

    series: str
    passes: tuple[PassPlan, ...]
    fault: str = ""


@dataclass(frozen=True)
class InferPlan:
    """All of one call, and whether it can be done.

    refusal: why it cannot, with the smallest change that would; empty: it can. workers: how many tasks run at the same
    time. memory_bytes: what there is for all of them. calibration: seconds of a really computed plane for each model,
    and the multiply-adds per second that follow.
    """

    series: tuple[SeriesPlan, ...]
    workers: int
    memory_bytes: int
    disk_free_bytes: int
    calibration: tuple[dict[str, Any], ...]
    refusal: str = ""

    @property
    def passes(self) -> list[PassPlan]:
        return [one for series in self.series for one in series.passes]

    @property
    def totals(self) -> dict[str, Any]:
        """Sums over all runs; peaks are the highest of one worker."""
        summed = ("windows", "flops", "tasks", "disk_bytes", "seconds")
        highest = ("peak_bytes", "vram_bytes")
        return {**{name: sum(getattr(one, name) for one in self.passes) for name in summed},
                **{name: max((getattr(one, name) for one in self.passes), default=0) for name in highest}}  # fmt: skip

    @property
    def exit_code(self) -> int:
        return 4 if self.refusal else 0

    def as_json(self) -> dict[str, Any]:
        """Plain values, sums under "totals"."""
        return {**asdict(self), "totals": self.totals}


def refusal(peak_bytes: int, disk_bytes: int, workers: int, memory_bytes: int, disk_free_bytes: int) -> str:
    """Why that cannot be done, and the smallest change that would do; empty where it can.

    memory_bytes: of all workers together.
    """
    if disk_bytes > disk_free_bytes:
        return (f"the labels take about {disk_bytes / MIB:.0f} MiB, the disk has {disk_free_bytes / MIB:.0f} MiB; "
                f"cure: free {(disk_bytes - disk_free_bytes) / MIB:.0f} MiB, or give fewer volumes with --series")
    if peak_bytes * workers <= memory_bytes:
        return ""
    told = (f"{workers} worker(s) of {peak_bytes / MIB:.0f} MiB do not fit into {memory_bytes / MIB:.0f} MiB of "
            "memory; cure: ")
    fitting = memory_bytes // peak_bytes
    if fitting:
        return told + f"{fitting} worker(s) would: start them with `dask worker`, and give --cluster"
    return told + f"one worker needs {(peak_bytes - memory_bytes) / MIB:.0f} MiB more"
