"""What `ctpipe review S [SERIES]` calls: the viewer on a store. napari and Qt are imported inside functions only."""

from __future__ import annotations

import gc
import importlib.util
import os
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

from ctpipe.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    import napari

    from ctpipe.review.room import Room

SNAPSHOT_SIZE = (1180, 800)  # pixels of the window in the documents' pictures
_ROUNDS = 8  # of event processing, after which napari has drawn (5 were enough when tried)


def review(store: str | Path, series: str | None = None, labels: str | None = None, **wishes: Any) -> None:
    """Open the viewer on a store and stay until its window is closed; arguments as of `open_review`."""
    viewer = open_review(store, series, labels=labels, **wishes)
    import napari

    napari.run()
    del viewer


def review_live(store: str | Path, series: str | None = None) -> None:
    """Open the viewer on a run under way and stay until its window is closed."""
    viewer = open_live(store, series)
    import napari

    napari.run()
    del viewer


def open_live(store: str | Path, series: str | None = None) -> napari.Viewer:
    """A viewer with the CT of a series and the runs over it that are under way, looked at again every 2 s.

    series: id or unambiguous prefix; None: the one with a run under way. Nothing is written. Raises as `open_review`.
    """
    require_viewer()
    from ctpipe.review.live import REFRESH_S, LiveRuns
    from ctpipe.store import open_store

    open_store(store)  # a wrong path is told before a window opens
    import napari
    from qtpy.QtCore import QTimer

    viewer = napari.Viewer(show=True, title="ctpipe review --live")
    try:
        live = LiveRuns(viewer, store, series)

        def look() -> None:
            viewer.status = live.refresh()

        timer = QTimer(viewer.window._qt_window)  # ends with the window
        timer.timeout.connect(look)
        timer.start(round(REFRESH_S * 1000))
        settle(3)  # the canvas has its size only now
        viewer.reset_view()
    except BaseException:
        viewer.close()
        raise
    return viewer


def open_review(
    store: str | Path,
    series: str | None = None,
    show: bool = True,
    labels: str | None = None,
    *,
    reviewer: str | None = None,
    order: str | None = None,
    class_name: str | None = None,
    status: str | None = None,
    blinded: bool | None = None,
) -> napari.Viewer:
    """A viewer with a case of the worklist to be read, the parts of the review room beside it.

    series: id or unambiguous prefix; None: the first case in `order` (class_name: whose Dice or volume counts) that has
        `status` (None: any). labels: name of a label group, or a prefix of a run, to be corrected at once; None: a copy
        under way is taken up again, else the newest review, prediction or truth is shown. reviewer: a pseudonym.
        blinded: without truth, Dice and other reviewers. What is None is as the user's settings say.

    Raises: UsageError without napari or display, NotThereError for what is not in the store, BudgetError when the disk
        has no room for the copy.
    """
    require_viewer()
    from ctpipe.review.case_making import checked_reviewer
    from ctpipe.review.settings import load_settings
    from ctpipe.store import open_store

    open_store(store)  # a wrong path is told before a window opens
    wished = load_settings()
    reviewer = checked_reviewer(wished.reviewer if reviewer is None else reviewer)
    import napari

    from ctpipe.review.room import Room

    viewer = napari.Viewer(show=show, title="ctpipe review")
    try:
        room = Room(viewer, store, reviewer, blinded=wished.blinded if blinded is None else blinded)
        room.worklist.arrange(wished.sort if order is None else order, class_name)
        room.worklist.ask_for(status)
        told = room.worklist.open(series)
        if labels is not None:
            told = room.session.edit(labels).story
        elif room.session.copy is not None:
            told = room.session.copy.story
        dock_room(viewer, room)
        viewer.status = told
        if show:
            settle(3)  # the canvas has its size only now that the docks are there
        viewer.reset_view()
    except BaseException:
        viewer.close()
        raise
    return viewer


def open_room(viewer: napari.Viewer, store: str | Path) -> Room:
    """The review room of a store in a viewer that is there, on its first case; the user's settings say who reviews."""
    from ctpipe.review.room import Room
    from ctpipe.review.settings import load_settings

    wished = load_settings()
    viewer = getattr(viewer, "__wrapped__", viewer)  # napari hides its canvas from plugins
    room = Room(viewer, store, wished.reviewer, blinded=wished.blinded)
    room.worklist.arrange(wished.sort)
    viewer.status = room.worklist.open()
    dock_room(viewer, room)
    return room


def dock_room(viewer: napari.Viewer, room: Room) -> None:
    """Put the parts of a room into a window: planes beside the canvas, the rest one tab each, the worklist in front."""
    from ctpipe.review.comparing_widget import ComparisonWidget
    from ctpipe.review.editing_widget import EditingWidget
    from ctpipe.review.lesions_widget import LesionListWidget
    from ctpipe.review.proposal_widget import ProposalWidget
    from ctpipe.review.reading_widget import ReadingWidget, SurfaceWidget
    from ctpipe.review.widget import ReviewWidget
    from ctpipe.review.worklist_widget import WorklistWidget

    viewer.window.add_dock_widget(ReadingWidget(room.reading, room.keys), name="Planes", area="right")
    widgets = {
        "Surfaces": SurfaceWidget(room.reading),
        "Review": ReviewWidget(viewer, room.session),
        "Correcting": EditingWidget(room.editing),
        "Predict here": ProposalWidget(room.proposal),
        "Comparison": ComparisonWidget(room.comparison),
        "Lesions": LesionListWidget(room.lesions),
        "Worklist": WorklistWidget(room.worklist),
    }
    for number, (name, widget) in enumerate(widgets.items()):
        viewer.window.add_dock_widget(widget, name=name, area="right", tabify=number > 0)
    # napari collects garbage with each layer that goes, which takes 0.3 s over all that was ever imported; what is
    # there now stays anyway
    gc.freeze()


def snapshot(store: str | Path, series: str | None, labels: str | None, path: str | Path) -> None:
    """Write a PNG of the viewer's window with a series and its labels (None: the preferred ones); makes no copy."""
    require_viewer()
    import napari

    from ctpipe.review.layers import preferred_labels
    from ctpipe.review.session import ReviewSession
    from ctpipe.review.widget import ReviewWidget

    viewer = napari.Viewer(show=True)  # screenshots of a window that was never shown are black
    try:
        viewer.window.resize(*SNAPSHOT_SIZE)
        session = ReviewSession(viewer, store)
        shown = session.show(series)
        preferred = preferred_labels(shown)
        name = labels if labels is not None else (None if preferred is None else preferred.name)
        if name is not None:
            session.look_at(name)
        viewer.window.add_dock_widget(ReviewWidget(viewer, session), name="Review", area="right")
        settle()
        viewer.reset_view()
        settle()
        viewer.screenshot(path=str(path), canvas_only=False, flash=False)
    finally:
        viewer.close()


def settle(rounds: int = _ROUNDS) -> None:
    """Let Qt work off its events, so that what the viewer should show is drawn."""
    from qtpy.QtWidgets import QApplication

    for _ in range(rounds):
        QApplication.processEvents()
        time.sleep(0.03)


def require_viewer() -> None:
    """Say plainly what is missing for a window to open; Qt itself would end the process."""
    if importlib.util.find_spec("napari") is None or importlib.util.find_spec("qtpy") is None:
        raise UsageError("the viewer napari is not installed", "pip install 'ctpipe[review]'")
    if sys.platform != "linux" or os.environ.get("QT_QPA_PLATFORM") or os.environ.get("WAYLAND_DISPLAY"):
        return
    display = os.environ.get("DISPLAY", "")
    if not display:
        raise UsageError(
            "no display to open a window on (DISPLAY is not set)",
            "log in with a desktop or ssh -X, or make one: xvfb-run -a -s '-screen 0 1400x1000x24' ctpipe review S",
        )
    if not _answers(display):
        raise UsageError(f"the display {display} does not answer", "set DISPLAY to a running X server")


def _answers(display: str) -> bool:
    """Whether an X server listens on `display`, host:number[.screen]; True where that cannot be told."""
    host, _, number = display.rpartition(":")
    number = number.partition(".")[0]
    if not number.isdigit():
        return True
    try:
        if host not in ("", "unix"):
            socket.create_connection((host.rpartition("/")[2], 6000 + int(number)), timeout=3).close()
            return True
    except OSError:
        return False
    local = f"/tmp/.X11-unix/X{number}"
    for address in (local, "\0" + local):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            if link.connect_ex(address) == 0:
                return True
    return False
