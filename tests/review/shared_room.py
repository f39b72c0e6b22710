"""One window of the review room for many tests, put back before each to how `ctpipe review` opens it."""

from __future__ import annotations

import shutil
from pathlib import Path

from ctpipe.review import open_review
from ctpipe.review.proposal_widget import ProposalWidget
from ctpipe.review.reading_widget import ReadingWidget
from ctpipe.review.view import settle
from ctpipe.review.widget import ReviewWidget
from ctpipe.review.worklist_widget import WorklistWidget
from ctpipe.store import open_store


class SharedRoom:
    """A window on a copy of the store `made` in `root`, its cases by patient."""

    def __init__(self, made: Path, root: Path) -> None:
        self.made, self.root = made, root
        shutil.copytree(made, root)
        self.viewer = open_review(root, reviewer="p-01", order="patient")
        self.worklist = self.part(WorklistWidget)
        self.review = self.part(ReviewWidget)
        self.keys = self.part(ReadingWidget).keys
        self.session = self.worklist.worklist.session

    def part(self, kind):
        return self.viewer.window._qt_window.findChild(kind)

    def anew(self, labels: str | None = None):
        """The store as it was made, its first case opened; labels: what is corrected at once. Returns the viewer."""
        from qtpy.QtCore import QThreadPool

        widget, worklist, proposal = self.worklist, self.worklist.worklist, self.part(ProposalWidget)
        for workers in (widget._workers, proposal._workers):
            while workers:
                workers.pop().quit()
        worklist.preloader.stop()
        worklist.preloader.wait()
        QThreadPool.globalInstance().waitForDone()
        self.session.close()
        put_back(self.root, self.made)
        self.session.store = open_store(self.root)
        proposal.proposal._model, worklist.current = None, None
        proposal.planes.setValue(4)
        widget.words.clear()
        widget.comment.clear()
        worklist.ask_for()
        worklist.refresh()
        worklist.arrange("patient")
        worklist._spent.clear()
        worklist.open()
        self.keys.read()
        if labels is not None:
            self.session.edit(labels)
        self.review.refresh()
        self.review.tell("")
        widget.compute()
        settle(3)
        self.viewer.reset_view()
        return self.viewer

    def close(self) -> None:
        self.viewer.close()
        settle(3)


def put_back(root: Path, made: Path) -> None:
    """Make the files of a store those of another again."""
    wanted = {path.relative_to(made): path for path in made.rglob("*") if path.is_file()}
    for path in [path for path in root.rglob("*") if path.is_file() and path.relative_to(root) not in wanted]:
        path.unlink()
    for folder in sorted((path for path in root.rglob("*") if path.is_dir()), reverse=True):
        if not any(folder.iterdir()) and not (made / folder.relative_to(root)).is_dir():
            folder.rmdir()
    for name, path in wanted.items():
        if not (root / name).exists() or (root / name).read_bytes() != path.read_bytes():
            shutil.copy2(path, root / name)
