"""Make the pictures of the guide to the review room, from the demo's synthetic patients only.

python docs/make_review_pictures.py DEMO        under a display: make docs brings Xvfb
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import ctpipe
from ctpipe.review import open_review
from ctpipe.review.case_status import Decision, Status, add_status
from ctpipe.review.lesions_widget import LesionListWidget
from ctpipe.review.listing import list_cases
from ctpipe.review.proposal_widget import ProposalWidget
from ctpipe.review.reading_widget import ReadingWidget
from ctpipe.review.view import settle
from ctpipe.review.worklist_widget import WorklistWidget

PICTURES = Path(__file__).parent / "pictures"
WINDOW = 1380, 860  # pixels


def main(demo: Path) -> None:
    """The worklist, the list of lesions, entropy over the CT, a proposal in a region."""
    store = Path(json.loads((demo / "demo.json").read_text("utf-8"))["store"])
    ctpipe.infer(store, demo / "model-0", layers=["entropy"])  # the run is there: it is scored again for the layer alone
    cases, _ = list_cases(store, "reader-1")
    decided = [case for case in cases if not case.runs]
    for case, status, words in zip(decided, (Status.ACCEPTED, Status.FLAGGED), ("", "is this a lesion?"), strict=False):
        add_status(store, Decision(case.series, status, "reader-1", case.on_show, words, 48.0))
    viewer = open_review(store, reviewer="reader-1")
    window = viewer.window._qt_window
    viewer.window.resize(*WINDOW)
    window.resizeDocks([window.findChild(WorklistWidget).parent()], [560], _horizontal())
    settle(20)
    viewer.reset_view()
    settle()
    viewer.screenshot(path=str(PICTURES / "review-worklist.png"), canvas_only=False, flash=False)

    lesions = window.findChild(LesionListWidget)
    viewer.window.dock_widgets["Lesions"].parent().raise_()
    end = time.monotonic() + 300
    while not lesions.part.ready and time.monotonic() < end:
        settle(2)
    listed = sorted(lesions.part.rows(), key=lambda one: one.label)
    lesions.do(lambda: lesions.part.choose(listed[-1]))
    settle(20)
    viewer.screenshot(path=str(PICTURES / "review-lesions.png"), canvas_only=False, flash=False)

    keys = window.findChild(ReadingWidget).keys
    keys.run("next-layer")
    keys.run("next-unsure")
    settle(20)
    viewer.screenshot(path=str(PICTURES / "review-entropy.png"), canvas_only=False, flash=False)
    keys.run("next-layer")

    widget = window.findChild(ProposalWidget)
    viewer.window.dock_widgets["Predict here"].parent().raise_()
    series = widget.proposal.session.series
    label = next(group for group in series.labels.values() if group.name.startswith("truth"))
    for layer in viewer.layers[1:]:
        layer.visible = False
    rows, columns = (label.read_planes(0, series.grid.shape.z).max(axis=0) > 0).nonzero()
    middle = [(side.min() + side.max()) / 2 for side in (rows, columns)]
    viewer.scene.camera.zoom *= 2
    viewer.scene.camera.center = tuple(
        series.grid.translation_mm[axis] + (middle[axis - 1] if axis else 0) * series.grid.spacing_mm[axis]
        for axis in range(3)
    )
    widget.planes.setValue(2)
    widget.tell(widget.ask())
    end = time.monotonic() + 300
    while "proposal" not in viewer.layers and time.monotonic() < end:
        settle(2)
    settle()
    viewer.screenshot(path=str(PICTURES / "review-proposal.png"), canvas_only=False, flash=False)

    viewer.close()


def _horizontal():
    from qtpy.QtCore import Qt

    return Qt.Orientation.Horizontal


if __name__ == "__main__":
    main(Path(sys.argv[1]))
