"""Patch tables beside their peers: rows of an index against copied windows, fetch against memcpy, Dask against a loop.

usage: python benchmarks/patches.py [--json] [--scale N [--folder DIR] [--picture FILE]] [--quick]

The peers are scikit-image, torch, MONAI, patchify and xbatcher, each where it is installed (the tested versions are in
pyproject's group `bench`), and NumPy's window view. One 512 x 512 x 100 phantom in memory serves all of them; every
figure is the best of several runs in this one process. `--scale N` builds a store of N synthetic series of
512 x 512 x 300 and holds their whole table on two workers of 2 GiB.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

PLANES, SIDE = 100, 512
IN_THIS_PROCESS: dict[str, Any] = {"processes": False, "n_workers": 1, "dashboard_address": "127.0.0.1:0",
                                   "silence_logs": 50}  # fmt: skip
CLASSES = {1: "liver", 2: "lesion", 3: "spleen"}


@dataclass
class InMemory:
    """A series without files, with the faces of `ctpipe.store.Series` that tables read."""

    hu: np.ndarray
    truth: np.ndarray
    id: str = "phantom"
    patient: str = "p-1"
    labels: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        from ctpipe.volume import Grid, pyramid_levels
        self.grid = Grid.from_affine(self.hu.shape, np.diag([1.0, 0.8, 0.8, 1.0]))
        self.levels, self.content, self.dtype = pyramid_levels(self.grid), self.id, self.hu.dtype
        own = InMemoryLabels(self.truth, self.grid)
        self.labels = {"truth": own, own.name: own}

    def read_planes(self, start: int, stop: int, level: int = 0) -> np.ndarray:
        return self.hu[start:stop]


@dataclass
class InMemoryLabels:
    """Its labels."""

    voxels: np.ndarray
    grid: Any
    name: str = "truth-0"
    kind: str = "truth"
    content: str = ""
    classes: dict[int, str] = field(default_factory=lambda: dict(CLASSES))

    def read_planes(self, start: int, stop: int, level: int = 0) -> np.ndarray:
        return self.voxels[start:stop]


def phantom(planes: int, turn: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """HU int16 and labels uint8 of a body with a liver, lesions in it and a spleen."""
    y, x = (np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) / SIDE - 0.5)
    hu, truth = np.empty((planes, SIDE, SIDE), np.int16), np.zeros((planes, SIDE, SIDE), np.uint8)
    rng = np.random.default_rng(turn)
    grain = rng.integers(-12, 13, (SIDE, SIDE)).astype(np.int16)
    for z in range(planes):
        t = z / planes - 0.5
        body = (x / 0.4) ** 2 + (y / 0.3) ** 2 < 1
        plane = np.where(body, 40, -1000).astype(np.int16)
        wave = 1 + 0.25 * np.sin(7 * t + turn)
        for label, (cx, cy, r, value) in enumerate(((-0.16, -0.04, 0.14, 105), (-0.14, -0.02, 0.03, 60),
                                                    (0.17, 0.02, 0.08, 120)), 1):
            inside = ((x - cx) / wave) ** 2 + (y - cy) ** 2 < r * r
            plane[inside], truth[z][inside] = value, label
        hu[z] = plane + np.roll(grain, (z * 7) % SIDE, axis=0)
    return hu, truth


def best(call: Callable[[], Any], times: int = 5) -> float:
    """Seconds of the quickest of some runs."""
    call()
    found = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return min(found)


# --------------------------------------------------------------------------------------------------------------- rows
def copied_windows(plane: np.ndarray, window: int, stride: int) -> dict[str, Callable[[], Any]]:
    """How the peers make the rows of one plane: each row with its pixels."""
    def numpy_view() -> Any:
        return sliding_window_view(plane, (window, window))[::stride, ::stride].reshape(-1, window, window)

    ways: dict[str, Callable[[], Any]] = {"NumPy window view, copied": numpy_view}
    try:
        from skimage.util import view_as_windows
        ways["scikit-image view_as_windows"] = lambda: np.ascontiguousarray(
            view_as_windows(plane, (window, window), stride))
    except ImportError:
        pass
    try:
        import torch
        torch.set_num_threads(2)
        ways["torch Tensor.unfold"] = lambda: torch.from_numpy(plane).unfold(0, window, stride).unfold(
            1, window, stride).contiguous()
    except ImportError:
        pass
    try:
        from patchify import patchify
        ways["patchify"] = lambda: np.ascontiguousarray(patchify(plane, (window, window), step=stride))
    except ImportError:
        pass
    try:
        from monai.data.utils import iter_patch
        ways["MONAI iter_patch"] = lambda: np.stack([np.array(one) for one, _ in iter_patch(
            plane, (window, window), overlap=(window - stride,) * 2, copy_back=False, mode=None)])
    except ImportError:
        pass
    try:
        import xarray
        import xbatcher

        def batcher() -> Any:
            made = xbatcher.BatchGenerator(
                xarray.DataArray(plane, dims=("y", "x")), {"y": window, "x": window},
                {"y": window - stride, "x": window - stride}, preload_batch=False)
            return np.stack([one.values for one in made])
        ways["xbatcher"] = batcher
    except ImportError:
        pass
    return ways


def rows_figures(series: InMemory, times: int) -> tuple[list[list[str]], dict[str, float]]:
    """Rows per second of ours on two threads and of the peers; ours have label and class shares."""
    from distributed import Client

    from ctpipe.patches import patch_table
    from ctpipe.patches import rows as rows_module
    lines, figures = [], {}
    kept = rows_module.PART_VOXELS
    rows_module.PART_VOXELS = (PLANES // 2 - 2) * SIDE * SIDE  # two partitions: one a core
    with Client(**IN_THIS_PROCESS, threads_per_worker=2) as client:
        for window, stride in ((257, 7), (257, 16), (64, 7)):
            table = patch_table({series.id: series}, (1, window, window), (1, stride, stride), client=client)
            tasks = table._calls(_size_of)
            sent = client.scatter(tasks, broadcast=True)  # the volume is in this process: nothing is sent
            ours = len(table) / best(lambda sent=sent: client.gather(client.map(_call, sent, pure=False)), times)
            peers = {}
            for name, way in copied_windows(series.hu[PLANES // 2], window, stride).items():
                n = ((SIDE - window) // stride + 1) ** 2
                peers[name] = n / best(way, 2)
            top = max(peers, key=peers.__getitem__)
            lines.append([f"rows {window}/{stride}: ours", f"{ours / 1e6:.2f} M/s", f"{ours / peers[top]:.0f} x"])
            lines += [[f"  {name}", f"{rate / 1e3:.0f} k/s", f"{rate / peers[top]:.2f} x"]
                      for name, rate in peers.items()]
            if (window, stride) == (257, 7):
                figures |= {"rows_per_s_257_7": ours, "row_cost_vs_best_peer": ours / peers[top]}
    rows_module.PART_VOXELS = kept
    return lines, figures


def _size_of(rows: Any, part: Any, spec: Any) -> int:
    return len(rows)


def _call(task: Any) -> Any:
    return task()


# -------------------------------------------------------------------------------------------------------------- fetch
def fetch_figures(series: InMemory, times: int) -> tuple[list[list[str]], dict[str, float]]:
    """Patches per second of random rows, against a memcpy of the same bytes and against the peers."""
    import pandas as pd

    from ctpipe.patches import patch_table
    lines, figures = [], {}
    rng = np.random.default_rng(1)
    random = {}
    for window, n in ((257, 256), (64, 4096)):  # more than caches hold, as an epoch is
        table = patch_table({series.id: series}, (1, window, window), (1, 1, 1))
        half = window // 2
        z, y, x = rng.integers(0, PLANES, n), *(rng.integers(half, SIDE - window + half + 1, n) for _ in "yx")
        rows = pd.DataFrame({"series": pd.Categorical([series.id] * n), "z": z, "y": y, "x": x})
        source = rng.integers(-1000, 1000, n * window * window).astype(np.int16)
        target = np.empty_like(source)
        view = sliding_window_view(series.hu, (window, window), (1, 2))
        at = (z, y - half, x - half)
        ways: dict[str, Callable[[], Any]] = {"NumPy window view": lambda view=view, at=at: view[at]}

        def crops(at: Any = at, w: int = window) -> Any:
            return np.stack([series.hu[a, b:b + w, c:c + w] for a, b, c in zip(*at, strict=True)])

        ways["np.stack of slices"] = crops
        try:
            import torch
            tensor = torch.from_numpy(series.hu)
            ways["torch.stack of slices"] = lambda tensor=tensor, at=at, w=window: torch.stack(
                [tensor[a, b:b + w, c:c + w] for a, b, c in zip(*at, strict=True)])
        except ImportError:
            pass
        try:
            from monai.transforms import SpatialCrop
            ways["MONAI SpatialCrop"] = lambda tensor=tensor, at=at, w=window: torch.stack([
                SpatialCrop(roi_start=(b, c), roi_end=(b + w, c + w))(tensor[a][None])[0].as_tensor()
                for a, b, c in zip(*at, strict=True)])
        except ImportError:
            pass
        assert np.array_equal(table.fetch(rows)[:, 0], crops())
        copy = best(lambda s=source, t=target: np.copyto(t, s), 5 * times)  # both buffers warm, as ours is
        buffer = np.empty((n, 1, window, window), np.int16)
        ours = best(lambda t=table, r=rows, b=buffer: t.fetch(r, out=b), 5 * times)
        peers = {name: best(way, times if "MONAI" not in name else 2) for name, way in ways.items()}
        # the best peer runs beside ours once more, turn by turn: a neighbour on this machine then disturbs both
        name = min(peers, key=peers.__getitem__)
        pairs = [(best(lambda t=table, r=rows: t.fetch(r), 3), best(ways[name], 3)) for _ in range(2 * times)]
        random[window] = float(np.median([other / own for own, other in pairs]))
        lines.append([f"fetch {n} x {window}^2: ours", f"{n / ours / 1e3:.1f} k/s", f"{copy / ours:.2f} x memcpy"])
        lines += [[f"  {other}", f"{n / seconds / 1e3:.1f} k/s", f"{copy / seconds:.2f} x memcpy"]
                  for other, seconds in peers.items()]
        figures[f"fetch_vs_memcpy_{window}"] = copy / ours
    figures["fetch_vs_best_peer_random"] = min(random.values())
    lines.append(["fetch, ours over the best peer", f"257: {random[257]:.2f}", f"64: {random[64]:.2f}"])
    return lines, figures


# --------------------------------------------------------------------------------------------------------------- Dask
def make_store(folder: Path, n: int, planes: int = 300) -> Path:
    """A store of `n` series, written once; those that are there are kept."""
    from ctpipe.store import LabelsMeta, VolumeMeta, open_store
    from ctpipe.volume import Grid
    from ctpipe.words import LabelKind
    store = open_store(folder, "a")
    grid = Grid.from_affine((planes, SIDE, SIDE), np.diag([1.0, 0.8, 0.8, 1.0])[[2, 1, 0, 3]])
    hu, truth = phantom(planes)
    for number in range(n):
        name = f"{number:08x}"
        meta = VolumeMeta(name, grid, "int16", f"p-{number:04x}", f"u-{number}", f"v-{number}")
        writers = [(store.volume_writer(meta), np.roll(hu, number, axis=0))]
        for _ in range(2):
            for writer, voxels in writers:
                if not writer.committed:
                    with store.lease(writer.target) as lease:
                        writer.prepare()
                        writer.commit([writer.write_slab(s, voxels[s.start:s.stop]) for s in writer.slabs], lease)
            writers = [(store.labels_writer(name, LabelsMeta("truth-1", LabelKind.TRUTH, grid, CLASSES)),
                        np.roll(truth, number, axis=0))]
    return folder


def dask_figures(folder: Path, times: int, n: int = 6) -> tuple[list[list[str]], dict[str, float]]:
    """A whole-store build on one worker thread against a plain loop over the same partitions."""
    from distributed import Client

    from ctpipe.patches import patch_table
    store = make_store(folder, n)
    alone = patch_table(store)
    with Client(**IN_THIS_PROCESS, threads_per_worker=1) as client:
        shared = patch_table(store, client=client)
        ratios, seconds = [], []
        for _ in range(times):
            one = best(lambda: alone._map(_size_of), 1)
            other = best(lambda: shared._map(_size_of), 1)
            ratios.append(other / one - 1)
            seconds.append(one)
    overhead = float(np.median(ratios))
    rate = len(alone) / min(seconds)
    return [["build of a store, one thread", f"{rate / 1e6:.2f} M/s", f"{len(alone.parts)} tasks"],
            ["Dask's overhead", f"{100 * overhead:.1f} %", ""]], {"dask_overhead": overhead, "rows_per_s_store": rate}


# -------------------------------------------------------------------------------------------------------------- scale
def scale_figures(folder: Path, n: int, picture: Path | None) -> tuple[list[list[str]], dict[str, Any]]:
    """Build and hold the table of 1 … n series at 257 / 7 on two workers of 2 GiB."""
    import psutil
    from distributed import Client, LocalCluster, wait

    from ctpipe.patches import patch_table, plan
    store = make_store(folder, n)
    from ctpipe.store import open_store
    names = sorted(open_store(store))
    counts = [k for k in (1, 2, 5, 10, 20, 50, 100) if k < n] + [n]
    lines, points = [], []
    for k in counts:
        with (LocalCluster(n_workers=2, threads_per_worker=1, memory_limit="2GiB", host="127.0.0.1",
                           dashboard_address="127.0.0.1:0", silence_logs=50) as cluster, Client(cluster) as client):
            table = patch_table(store, client=client, series=names[:k])
            planned = plan(table)
            patch_table(store, (1, 9, 9), (150, 99, 99), client=client, series=names[:8]).count()  # loads the code
            start = time.perf_counter()
            held = table.persist()
            wait(list(held.held or ()))
            seconds = time.perf_counter() - start
            pids = client.run(_pid).values()
            resident = sum(psutil.Process(pid).memory_info().rss for pid in pids)
            peak = max(client.run(_peak).values())
            spilled = sum(client.run(_spilled).values())
            rows = len(table)
            start = time.perf_counter()
            labels = held.count("label")
            query = time.perf_counter() - start
            assert int(labels.sum()) == rows
            held.budget(256 << 20)
            pixels = held.fetch(held.sample(256, 1))
            memory = held.memory()
        # at this time no slab of pixels is resident yet
        expected = planned.peak_per_worker - min(planned.slab_budget, -(-planned.slab_bytes // planned.workers))
        points.append({"series": k, "rows": rows, "seconds": seconds, "ns_per_row": 1e9 * seconds / rows,
                       "tasks": len(table.parts), "resident": resident, "peak": peak, "planned_peak": expected,
                       "spilled": spilled, "index": memory["index"], "materialised": memory["pixels_materialised"],
                       "pixels_resident": memory["pixels_resident"], "count_seconds": query})  # fmt: skip
        ratio = memory["pixels_materialised"] / (memory["index"] + memory["pixels_resident"])
        whole = memory["pixels_materialised"] / resident
        lines.append([f"{k} series, {rows / 1e6:.1f} M rows, {len(table.parts)} tasks", f"{seconds:.1f} s, "
                      f"{1e9 * seconds / rows:.0f} ns/row", f"resident {resident / 2**20:.0f} MiB, copies would be "
                      f"{memory['pixels_materialised'] / 2**30:.0f} GiB: {ratio:.0f} x the table, {whole:.0f} x all"])
        assert pixels.shape == (256, 1, 257, 257)
        print("  ".join(lines[-1]), file=sys.stderr, flush=True)
    if picture:
        _draw(points, picture)
    last = points[-1]
    table_bytes = last["index"] + last["pixels_resident"]
    return lines, {"scale": points, "copies_over_table": last["materialised"] / table_bytes,
                   "copies_over_resident": last["materialised"] / last["resident"],
                   "tasks_for_1000_series": round(1000 * last["tasks"] / last["series"])}  # fmt: skip


def _pid() -> int:
    import os
    return os.getpid()


def _peak() -> int:
    """Highest resident bytes of this process; getrusage would count those of the parent before exec."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def _spilled(dask_worker: Any) -> int:
    return int(getattr(dask_worker.data, "spilled_total", (0, 0))[1])


def _draw(points: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure
    figure = Figure((6, 3.2), dpi=110)
    axes = figure.add_subplot()
    series, spent = [p["series"] for p in points], [p["ns_per_row"] for p in points]
    axes.plot(series, spent, "o-")
    axes.set(xscale="log", ylim=(0, 1.15 * max(spent)), xlabel="series of 512 x 512 x 300, windows 257 x 257, stride 7",
             ylabel="ns per row, two workers", title="Time per row of a table, built and held")
    axes.set_xticks(series, [str(n) for n in series])
    axes.minorticks_off()
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="figures as one JSON object on the last line")
    parser.add_argument("--scale", type=int, default=0, metavar="N", help="also a store of N series (50 take minutes)")
    parser.add_argument("--only-scale", action="store_true", help="leave the comparisons out")
    parser.add_argument("--folder", type=Path, help="where synthetic stores lie (default: a temporary folder)")
    parser.add_argument("--picture", type=Path, help="where to draw the time per row")
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    args = parser.parse_args()
    times = 2 if args.quick else 5
    lines, figures = [], {}
    with tempfile.TemporaryDirectory(prefix="ctpipe-bench-") as temporary:
        import os
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["CTPIPE_KEY"] = str(folder / "key")
        if not args.only_scale:
            series = InMemory(*phantom(PLANES))
            for some, found in (rows_figures(series, times), fetch_figures(series, times),
                                dask_figures(folder / "S", times)):
                lines += some
                figures |= found
        if args.scale:
            some, found = scale_figures(folder / "S", args.scale, args.picture)
            lines += some
            figures |= found
    widths = [max(len(line[i]) for line in lines) for i in range(3)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    if args.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
