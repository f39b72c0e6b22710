"""The review room: session, worklist and the other parts on one viewer, and the keys that run what they offer.

Each part brings its commands; one key map binds them. Nothing here needs Qt: `view` puts the parts' widgets into a
window.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ctpipe.errors import CtpipeError
from ctpipe.review.commands import Command, Mode
from ctpipe.review.proposal import Proposal
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
        self.session = ReviewSession(viewer, store, reviewer)
        self.worklist = Worklist(self.session, blinded=blinded)
        self.proposal = Proposal(self.session)
        bind_commands(viewer, self.commands(), self.in_edit_mode)

    def commands(self) -> list[Command]:
        """What all parts offer by key."""
        return [*self.worklist.commands(), *self.proposal.commands()]

    def in_edit_mode(self) -> bool:
        """Whether strokes are made: the working copy is the active layer."""
        session = self.session
        return session.layer is not None and session.viewer.layers.selection.active is session.layer

    def close(self) -> None:
        """Let go of the working copy and of what is being read ahead; the viewer may be gone already."""
        self.worklist.preloader.stop()
        self.session.let_go()


def bind_commands(viewer: ViewerModel, commands: list[Command], in_edit_mode: Callable[[], bool]) -> None:
    """Run a command when its key is pressed in its mode; what it says, an error of ours too, goes to the status bar.

    napari asks the active layer before the viewer, so every layer gets the keys, those to come too.
    """

    def bind(provider: Any) -> None:
        for command in commands:
            provider.bind_key(command.key, _runner(viewer, command, in_edit_mode), overwrite=True)

    bind(viewer)
    for layer in viewer.layers:
        bind(layer)
    viewer.layers.events.inserted.connect(lambda event: bind(event.value))


def _runner(viewer: ViewerModel, command: Command, in_edit_mode: Callable[[], bool]) -> Callable[[Any], None]:
    def run(_provider: Any) -> None:
        if command.mode is (Mode.READ if in_edit_mode() else Mode.EDIT):
            return
        try:
            line = command.run()
        except CtpipeError as error:
            line = str(error)
        if line is not None:
            viewer.status = line

    return run
