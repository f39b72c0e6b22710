"""The review room: session, worklist and the other parts on one viewer, and the keys that run what they offer.

Each part brings its commands; one key map binds them. Nothing here needs Qt: `view` puts the parts' widgets into a
window.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctpipe.review.commands import Command
from ctpipe.review.comparing import Comparison
from ctpipe.review.keys import KeyMap
from ctpipe.review.lesions import LesionList
from ctpipe.review.proposal import Proposal
from ctpipe.review.reading import Reading
from ctpipe.review.run_layers import RunLayers
from ctpipe.review.session import ReviewSession
from ctpipe.review.worklist import Worklist

if TYPE_CHECKING:
    from pathlib import Path

    from napari.components import ViewerModel


class Room:
    """All parts of a review of one store. blinded: as the worklist has it."""

    def __init__(
        self, viewer: ViewerModel, store: str | Path, reviewer: str = "reader", *, blinded: bool = False
    ) -> None:
        self.session = session = ReviewSession(viewer, store, reviewer)
        self.editing = session.editing
        self.reading = Reading(session)
        self.worklist = Worklist(session, blinded=blinded)
        self.proposal = Proposal(session, self.editing)
        self.lesions = LesionList(session, self.reading.go_to, self.editing)
        self.comparison = Comparison(session, self.reading.go_to, self.editing)
        self.run_layers = RunLayers(session, self.reading.go_to)
        self.keys = KeyMap(session, self.commands())
        self.editing.edited.connect(self._edited)
        self.worklist.opened.connect(lambda _: self.keys.read())  # a copy that is taken up is there to be read first
        for told in (self.keys.told, self.editing.told):
            told.connect(self._tell)

    def commands(self) -> list[Command]:
        """What all parts offer by key."""
        parts = (self.worklist, self.reading, self.run_layers, self.editing, self.lesions, self.comparison,
                 self.proposal)  # fmt: skip
        return [command for part in parts for command in part.commands()]

    def _edited(self, _box: tuple[slice, ...]) -> None:
        """What was painted is seen in the other planes."""
        layer = self.session.layer
        if layer is not None:
            self.reading.planes.labels_changed(layer)

    def _tell(self, line: str) -> None:
        self.session.viewer.status = line

    def close(self) -> None:
        """Let go of the working copy and of what is being read ahead; the viewer may be gone already."""
        self.worklist.preloader.stop()
        self.session.let_go()
