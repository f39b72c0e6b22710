"""The key map: which command a key runs, in read mode and in edit mode, whatever layer is active. Without Qt.

napari looks a key up in the user's keymap, then in the active layer (its instance, then its class), then in the viewer.
A Labels layer owns 1 to 7, E, F, L, M, P, X and Z, an Image layer C, O, X, Y and Z: a key bound on the viewer never
fires while such a layer is active. So commands are bound on every layer instance, those to come too, and on the viewer.
All other keys end there (a catch-all), so that none reaches napari's own by accident::

    mode   active layer            bound                              napari's own keys that work
    read   any, or none            read and both, left and right      none
    edit   the working copy        edit and both, left and right      those of Labels, and Space (pan while held)
    edit   any other, or none      edit and both, left and right      none

`Enter` begins edit mode, `Escape` leaves it, `?` shows the map. In read mode a brush cannot be taken up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from napari.utils.key_bindings import coerce_keybinding
from psygnal import Signal

from ctpipe.errors import CtpipeError
from ctpipe.review.commands import Command, Mode
from ctpipe.review.keys_file import assigned, napari_key, user_keys

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels
    from napari.utils.key_bindings import KeymapProvider

    from ctpipe.review.session import ReviewSession


class KeyMap:
    """Binds commands to keys in a session's viewer.

    keys: key by name of command, in place of the defaults; None: as the user's keys.toml says.
    Signals: `mode_changed(Mode)`, `told(str)`: what a command says, an error of ours too; `help_wanted`.

    Raises: UsageError that names every unknown command, unusable key and pair of commands on one key.
    """

    mode_changed = Signal(Mode)
    told = Signal(str)
    help_wanted = Signal()

    def __init__(
        self, session: ReviewSession, commands: Iterable[Command], keys: Mapping[str, str] | None = None
    ) -> None:
        self.session = session
        self.mode = Mode.READ
        own = (
            Command("edit-mode", "begin to edit", "Enter", Mode.READ, self.edit),
            Command("read-mode", "back to reading", "Escape", Mode.EDIT, self.read),
            Command("show-keys", "show this map", "?", Mode.BOTH, self._help),
        )
        self.commands = assigned((*commands, *own), user_keys() if keys is None else keys)
        self._viewers: list[ViewerModel] = []
        self.also(session.viewer)
        session.copy_opened.connect(self._opened)
        session.copy_closed.connect(lambda: self._enter(Mode.READ))
        self._enter(Mode.READ)

    def also(self, viewer: ViewerModel) -> None:
        """The same keys in another viewer (a plane beside, the 3-D view), and in its layers."""
        self._viewers.append(viewer)
        viewer.layers.events.inserted.connect(lambda event: self._bind(event.value, viewer))
        for provider in (viewer, *viewer.layers):
            self._bind(provider, viewer)

    def text(self) -> str:
        """The map as lines: one for each command, those of both modes first."""
        heads = {Mode.BOTH: "always", Mode.READ: "while reading", Mode.EDIT: "while editing"}
        lines = []
        for mode, head in heads.items():
            lines.append(f"{head}:")
            lines += [f"  {one.key:<10} {one.title}  [{one.name}]" for one in self.commands if one.mode == mode]
        lines += ["left and right: one plane back and on", "while editing, napari's keys of a Labels layer work too"]
        return "\n".join(lines)

    def edit(self) -> str:
        """Begin edit mode: on the open working copy, else on the copy that was used last, else on a new one."""
        if self.session.layer is None:
            self.session.edit_preferred()
        self._enter(Mode.EDIT)
        return "editing; Escape goes back to reading"

    def read(self) -> str:
        """Back to read mode; the working copy stays open."""
        self._enter(Mode.READ)
        return "reading"

    def run(self, name: str) -> None:
        """Run a command by name, as its key does: an error of ours becomes a line, the viewer goes on."""
        command = next(one for one in self.commands if one.name == name)
        try:
            line = command.run()
        except CtpipeError as error:
            line = str(error)
        if line is not None:
            self._tell(line)

    def _help(self) -> None:
        self.help_wanted.emit()

    def _opened(self) -> None:
        """A working copy opened: whoever opens one wants to paint."""
        copy = self.session.layer
        if copy is not None:
            copy.events.mode.connect(lambda event=None: self._no_brush(copy))
        self._enter(Mode.EDIT)

    def _no_brush(self, copy: Labels) -> None:
        if self.mode == Mode.READ and str(copy.mode) != "pan_zoom":
            copy.mode = "pan_zoom"
            self._tell("reading: Enter begins to edit")

    def _enter(self, mode: Mode) -> None:
        changed, self.mode = mode != self.mode, mode
        layers, copy = self.session.viewer.layers, self.session.layer
        if copy is not None and copy in layers:
            if mode == Mode.EDIT:
                layers.selection.active = copy
            copy.mode = "paint" if mode == Mode.EDIT else "pan_zoom"
        if mode == Mode.READ and len(layers):
            layers.selection.active = layers[0]
        for viewer in self._viewers:
            for provider in (viewer, *viewer.layers):
                self._bind(provider, viewer)
        if changed:
            self.mode_changed.emit(mode)

    def _bind(self, provider: KeymapProvider, viewer: ViewerModel) -> None:
        """The keymap of a viewer or of one of its layers, for the mode that is on."""
        keymap: dict[Any, Any] = {napari_key(key): _stepper(viewer, step) for key, step in (("Left", -1), ("Right", 1))}
        if self.mode == Mode.READ or provider is not self.session.layer:
            # what is not bound ends here, never in a class of napari's; a function, since `...` for a value, which
            # napari documents, makes its Qt part fail at every key (0.9.2)
            keymap[...] = _nothing
        if self.mode == Mode.EDIT and provider is viewer:
            keymap |= {key: found for key, found in type(viewer).class_keymap.items() if key == napari_key("Space")}
        for command in self.commands:
            if command.mode in (self.mode, Mode.BOTH):
                keymap[napari_key(command.key)] = _runner(self, command.name)
                if command.key == "?":  # a canvas hears it as a key that napari has no name for
                    keymap[coerce_keybinding("?")] = _runner(self, command.name)
        provider.keymap.clear()
        provider.keymap.update(keymap)

    def _tell(self, line: str) -> None:
        self.session.viewer.status = line
        self.told.emit(line)


def _nothing(_provider: object) -> None:
    """What a key does that no command has."""


def _runner(keys: KeyMap, name: str) -> Callable[[object], None]:
    return lambda _provider: keys.run(name)


def _stepper(viewer: ViewerModel, step: int) -> Callable[[object], None]:
    """One plane back or on, of the plane that this viewer shows."""

    def go(_provider: object) -> None:
        if viewer.dims.ndim == 3 and viewer.dims.ndisplay == 2:
            axis = viewer.dims.order[0]
            viewer.dims.set_current_step(axis, viewer.dims.current_step[axis] + step)

    return go
