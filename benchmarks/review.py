"""The review room beside plain napari with the same arrays in memory: next case, plane change, stroke, peak memory.

python benchmarks/review.py [--planes 800] [--side 512] [--classes 20] [--keep FOLDER] [--json]

Makes a store of two cases (noise as CT, balls as labels), then measures each side in a process of its own. With ctpipe,
the *next case* is what the key N does in the review room: `next_case_s` when the room has had time to read it ahead,
`next_case_cold_s` when nothing was read ahead (the page cache is warm), `next_case_edit_s` when it is opened to be
corrected and nothing was read ahead. Plain napari has both arrays in memory and adds them as layers, which is the least
that can be done. Each is the median of a few.
Planes are changed along all three axes. A stroke is a drag of a brush of 5 mm over 23 mm, its time divided by its
stamps: with us it ends on the disk, synced; with plain napari nothing is written.
With DISPLAY set the real viewer draws (`real viewer`), else napari's ViewerModel without a window (`ViewerModel`).
`next_case_window_s` is from the key to the last of the three canvases drawn in the whole window of `ctpipe review`, the
case read ahead; without a display it is measured under xvfb-run where that is installed.
Medians over the repeats; the peak is the highest resident size of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

SERIES = ("ca5e000000000001", "ca5e000000000002")
RUN = "4be1c0ffee000000"
SPACING = (1.0, 0.7, 0.7)
STAMPS = 12


def main() -> int:
    args = arguments()
    if args.side_name:
        print(json.dumps(PARTS[args.side_name](args)))
        return 0
    folder = Path(args.keep or tempfile.mkdtemp(prefix="ctpipe-review-"))
    try:
        if not (folder / "S" / "ctpipe.json").exists():
            make_store(folder, args)
        found: dict[str, Any] = {}
        print(f"{args.planes} x {args.side} x {args.side}, {args.classes} classes")
        print(f"{'':14} {'viewer':12} {'next case s':>11} {'plane ms z/y/x':>22} {'stroke ms':>10} {'3-D ms':>8} "
              f"{'MiB':>7}")  # fmt: skip
        for name in SIDES:
            got = child(name, folder, args)
            planes = "/".join(f"{ms:.1f}" for ms in got["planes_ms"])
            print(f"{name:14} {got['viewer']:12} {got['next_case_s']:11.2f} {planes:>22} {got['stroke_ms']:10.1f} "
                  f"{got['stroke_3d_ms']:8.1f} {got['peak_mib']:7.0f}", flush=True)  # fmt: skip
            prefix = "" if name == "ctpipe" else "napari_"
            found |= {prefix + key: got[key] for key in ("next_case_s", "plane_ms", "stroke_ms", "peak_mib")}
            found |= {prefix + "planes_ms": got["planes_ms"], prefix + "stroke_3d_ms": got["stroke_3d_ms"]}
            found["viewer"] = got["viewer"]
            found |= {key: got[key] for key in ("next_case_cold_s", "next_case_edit_s") if key in got}
        found |= window_side(folder, args)
        for key in ("next_case_cold_s", "next_case_edit_s", "next_case_window_s"):
            if key in found:
                print(f"{key} {found[key]:.2f}")
        if args.json:
            print(json.dumps(found))
    finally:
        if not args.keep:
            shutil.rmtree(folder)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--planes", type=int, default=800)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--keep", help="folder of the store: made there once, and used again")
    parser.add_argument("--json", action="store_true", help="all figures as one JSON document on the last line")
    parser.add_argument("--side-name", help=argparse.SUPPRESS)
    return parser.parse_args()


def window_side(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The next case in the whole window; nothing where no window can be opened."""
    if os.environ.get("DISPLAY"):
        return child("window", folder, args)
    if not shutil.which("xvfb-run"):
        return {}
    return child("window", folder, args, before=("xvfb-run", "-a", "-s", "-screen 0 1400x1000x24"))


def child(name: str, folder: Path, args: argparse.Namespace, before: tuple[str, ...] = ()) -> dict[str, Any]:
    """One side in a process of its own, so that its memory is its own."""
    command = [*before, sys.executable, __file__, "--side-name", name, "--keep", str(folder)]
    command += ["--planes", str(args.planes)]
    command += ["--side", str(args.side), "--classes", str(args.classes), "--repeats", str(args.repeats)]
    settings = {"CTPIPE_KEY": str(folder / "key"), "NAPARI_CONFIG": str(folder / "settings.yaml")}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, **settings})
    return json.loads(done.stdout.splitlines()[-1])


# ------------------------------------------------------------------------------------------- cases
def made_labels(args: argparse.Namespace, seed: int) -> np.ndarray:
    """A ball for each class."""
    rng = np.random.default_rng(seed)
    shape = (args.planes, args.side, args.side)
    labels = np.zeros(shape, np.uint8)
    for label in range(1, args.classes + 1):
        radius = int(rng.integers(min(shape) // 16, min(shape) // 6))
        centre = [int(rng.integers(radius, n - radius)) for n in shape]
        box = tuple(slice(c - radius, c + radius) for c in centre)
        ball = sum((np.arange(-radius, radius) ** 2).reshape([-1 if k == a else 1 for k in range(3)]) for a in range(3))
        labels[box][ball < radius**2] = label
    return labels


def made_hu(args: argparse.Namespace, slab: slice, seed: int) -> np.ndarray:
    rng = np.random.default_rng((seed, slab.start))
    return rng.normal(40, 20, (slab.stop - slab.start, args.side, args.side)).astype(np.int16)


def make_store(folder: Path, args: argparse.Namespace) -> None:
    os.environ["CTPIPE_KEY"] = str(folder / "key")
    from ctpipe.store import LabelsMeta, VolumeMeta, open_store
    from ctpipe.volume import Grid
    from ctpipe.words import LabelKind

    store = open_store(folder / "S", "a")
    affine = np.eye(4)
    affine[:3, :3] = np.diag(SPACING)[:, ::-1].T  # z, y, x index to x, y, z mm
    grid = Grid.from_affine((args.planes, args.side, args.side), affine)
    for seed, series in enumerate(SERIES):
        labels = made_labels(args, seed)
        volume = VolumeMeta(id=series, grid=grid, dtype="int16", patient=f"p{seed}", study="u", series="v",
                            voi=(40.0, 400.0), attributes={}, provenance={})  # fmt: skip
        classes = {label: f"class {label}" for label in range(1, args.classes + 1)}
        write(store, store.volume_writer(volume), lambda slab, seed=seed: made_hu(args, slab, seed))
        meta = LabelsMeta(RUN, LabelKind.PREDICTION, grid, classes, "uint8", {})
        write(store, store.labels_writer(series, meta), lambda slab, labels=labels: labels[slab])


def write(store: Any, writer: Any, voxels: Callable[[slice], np.ndarray]) -> None:
    """Commit a group whose slabs `voxels` makes."""
    with store.lease(writer.target) as lease:
        writer.prepare()
        records = [writer.write_slab(slab, voxels(slice(slab.start, slab.stop))) for slab in writer.slabs]
        writer.commit(records, lease)


# ------------------------------------------------------------------------------------------- the two sides
def new_viewer() -> tuple[Any, str, Callable[[], None]]:
    """(viewer, what it is, how to wait until it has drawn)."""
    if os.environ.get("DISPLAY"):
        import napari
        from qtpy.QtWidgets import QApplication

        viewer = napari.Viewer(show=True)

        def drawn() -> None:
            for _ in range(3):
                QApplication.processEvents()

        return viewer, "real viewer", drawn
    from napari.components import ViewerModel

    return ViewerModel(), "ViewerModel", lambda: None


def ctpipe_side(args: argparse.Namespace) -> dict[str, Any]:
    from ctpipe.review.room import Room

    viewer, what, drawn = new_viewer()
    room = Room(viewer, Path(args.keep) / "S", f"bench-{os.getpid()}")  # nobody with a copy under way
    room.worklist.open(SERIES[0])  # imports, compiled colours and the page cache are warm then
    drawn()
    ahead, cold = next_cases(room, drawn, read_ahead=True), next_cases(room, drawn, read_ahead=False)
    session, edited = room.session, []
    for series in (*SERIES, *SERIES):
        forget(room)
        edited.append(timed(lambda series=series: (session.show(series), session.edit(RUN), drawn())))
    planes = plane_times(viewer, drawn, args)
    tools = session.editing.tools
    tools.radius_mm = 5.0

    def stroke(at: np.ndarray, label: int) -> None:
        made = tools.stroke("brush", label)
        for step in range(STAMPS):
            made.to(at + [0, 0, step * 3])
            drawn()
        made.finish()
        drawn()

    flat = stroke_times(stroke, viewer, args)
    tools.three_d = True
    ball = stroke_times(stroke, viewer, args)
    session.let_go()
    more = {"next_case_cold_s": round(cold, 3), "next_case_edit_s": round(statistics.median(edited), 3)}
    return figures(what, ahead, planes, flat, ball) | more


def next_cases(room: Any, drawn: Callable[[], None], read_ahead: bool) -> float:
    """Median seconds of `next-case` and `previous-case`, as their keys run them, until it is drawn."""
    found = []
    for step in ("next-case", "previous-case") * 3:
        room.worklist.preloader.wait()
        if not read_ahead:
            forget(room)
        elif step == "previous-case":  # the room reads ahead what comes next, so the way back is not what is measured
            room.worklist.preloader.load(SERIES[0], RUN)
            room.worklist.preloader.wait()
        found.append(timed(lambda step=step: (room.keys.run(step), drawn())))
    return statistics.median(found)


def forget(room: Any) -> None:
    """Voxels in memory, as after a start: none."""
    from ctpipe.review import lazy

    room.worklist.preloader.stop()
    room.worklist.preloader.wait()
    room.session.cache.clear()
    lazy.BLOCKS.clear()


def window_of_room(args: argparse.Namespace) -> dict[str, Any]:
    """The next case in the window of `ctpipe review`: until no canvas draws any more."""
    from qtpy.QtWidgets import QApplication

    from ctpipe.review.reading_widget import ReadingWidget
    from ctpipe.review.view import open_review, settle
    from ctpipe.review.worklist_widget import WorklistWidget

    viewer = open_review(Path(args.keep) / "S", SERIES[0], order="patient", reviewer="reads-only")
    viewer.window.resize(1380, 960)
    settle()
    window = viewer.window._qt_window
    room, reading = window.findChild(WorklistWidget).worklist, window.findChild(ReadingWidget)
    draws = [0]

    def count(_event: object) -> None:
        draws[0] += 1

    for canvas in (viewer.window._qt_viewer, *reading.canvases):
        canvas.canvas._scene_canvas.events.draw.connect(count)

    def drawn() -> None:
        before, still = -1, 0
        while still < 3:
            before = draws[0]
            QApplication.processEvents()
            still = still + 1 if draws[0] == before else 0

    while any(room[series].volumes_ml is None for series in SERIES):  # figures of the list are computed beside it
        QApplication.processEvents()
        time.sleep(0.05)
    drawn()
    rooms = SimpleNamespace(worklist=room, session=room.session, keys=reading.keys)
    seconds = next_cases(rooms, drawn, read_ahead=True)
    viewer.close()
    settle()
    return {"next_case_window_s": round(seconds, 3)}


def napari_side(args: argparse.Namespace) -> dict[str, Any]:
    viewer, what, drawn = new_viewer()
    slabs = [slice(z, min(z + 32, args.planes)) for z in range(0, args.planes, 32)]
    labels = made_labels(args, 1)
    hu = np.empty(labels.shape, np.int16)  # one case in memory, which is kind to this side's peak
    for slab in slabs:
        hu[slab] = made_hu(args, slab, 1)
    place = {"scale": SPACING}
    layer = None

    def show() -> None:
        nonlocal layer
        viewer.layers.clear()
        viewer.add_image(hu, contrast_limits=(-160, 240), **place)
        layer = viewer.add_labels(labels, **place)
        drawn()

    show()
    seconds = statistics.median(timed(show) for _ in range(3))
    planes = plane_times(viewer, drawn, args)
    layer.brush_size = round(10 / 0.7)

    def stroke(at: np.ndarray, label: int) -> None:
        with layer.block_history():
            for step in range(STAMPS):
                layer.paint(at + [0, 0, step * 3], label)
                drawn()

    flat = stroke_times(stroke, viewer, args)
    layer.n_edit_dimensions = 3
    ball = stroke_times(stroke, viewer, args)
    return figures(what, seconds, planes, flat, ball)


SIDES = {"ctpipe": ctpipe_side, "plain napari": napari_side}
PARTS = {**SIDES, "window": window_of_room}


def plane_times(viewer: Any, drawn: Callable[[], None], args: argparse.Namespace) -> list[float]:
    """Median ms of a step by one plane, along z, y and x."""
    found = []
    for axis in range(3):
        viewer.dims.order = (axis, *(k for k in range(3) if k != axis))
        drawn()

        def step(at: int, axis: int = axis) -> None:
            viewer.dims.set_current_step(axis, at)
            drawn()

        middle = (args.planes, args.side, args.side)[axis] // 2
        step(middle - 1)
        taken = [timed(lambda at=at: step(at)) for at in range(middle, middle + args.repeats)]
        found.append(1000 * statistics.median(taken))
    viewer.dims.order = (0, 1, 2)
    drawn()
    return found


def stroke_times(stroke: Callable[[np.ndarray, int], None], viewer: Any, args: argparse.Namespace) -> float:
    """Median ms of a stroke, divided by its stamps: what a hand waits for; its end and the sync are in it."""
    plane = args.planes // 2
    viewer.dims.set_current_step(0, plane)
    found = []
    for n in range(args.repeats):
        at = np.array([plane, args.side // 4 + 9 * n, args.side // 3], float)
        found.append(1000 * timed(lambda at=at, n=n: stroke(at, 1 + n % args.classes)) / STAMPS)
    return statistics.median(found)


def timed(step: Callable[[], Any]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def figures(what: str, seconds: float, planes: list[float], flat: float, ball: float) -> dict[str, Any]:
    return {
        "viewer": what,
        "next_case_s": round(seconds, 3),
        "planes_ms": [round(ms, 2) for ms in planes],
        "plane_ms": round(planes[0], 2),
        "stroke_ms": round(flat, 2),
        "stroke_3d_ms": round(ball, 2),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


if __name__ == "__main__":
    sys.exit(main())
