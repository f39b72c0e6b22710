"""Make the pictures of the documents: from the demo's folder, and from a store of sts where one is given.

python docs/make_pictures.py DEMO [STS_STORE]        under a display: make docs brings Xvfb
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from ctpipe.review import snapshot
from ctpipe.store import open_store
from ctpipe.words import LabelKind

PICTURES = Path(__file__).parent / "pictures"


def of_the_newest_run(store: Path, picture: str) -> None:
    """Snapshot of the first volume that has a prediction, with that prediction."""
    for series in open_store(store).values():
        runs = [labels for labels in series.labels.values() if labels.kind is LabelKind.PREDICTION]
        if runs:
            best = max(runs, key=lambda labels: len(labels.classes))
            snapshot(store, series.id, best.name, PICTURES / picture)
            return


def of_reading(store: Path, picture: str) -> None:
    """The three planes in the middle of the labels of the first volume that has some."""
    import napari

    from ctpipe.review.layers import preferred_labels
    from ctpipe.review.reading import Reading
    from ctpipe.review.reading_widget import ReadingWidget
    from ctpipe.review.session import ReviewSession
    from ctpipe.review.view import settle

    viewer = napari.Viewer(show=True)
    viewer.window.resize(1180, 760)
    session = ReviewSession(viewer, store)
    reading = Reading(session)
    series = session.show()
    session.look_at(preferred_labels(series).name)
    viewer.window.add_dock_widget(ReadingWidget(reading), name="Planes", area="right")
    viewer.window._qt_viewer.dockLayerControls.hide()
    viewer.window._qt_viewer.dockLayerList.hide()
    settle(12)
    place = series.labels[preferred_labels(series).name].array.values.nonzero()
    reading.go_to(*(float(sorted(axis)[len(axis) // 2]) for axis in place))
    reading.fit()
    settle(12)
    viewer.screenshot(path=str(PICTURES / picture), canvas_only=False, flash=False)
    viewer.close()


def main(demo: Path, *stores: Path) -> None:
    """Copy the demo's picture and take the snapshots."""
    made = json.loads((demo / "demo.json").read_text("utf-8"))
    PICTURES.mkdir(exist_ok=True)
    shutil.copyfile(made["png"], PICTURES / "demo.png")
    for store in stores:
        of_the_newest_run(store, "review-sts.png")
        of_reading(store, "review-planes.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
