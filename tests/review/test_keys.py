"""The key map by napari's own resolution of keys, without Qt: both modes, every active layer."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from napari.layers import Labels
from napari.utils.action_manager import action_manager
from napari.utils.key_bindings import KeymapHandler, coerce_keybinding
from reading_made import opened
from review_store import RUN

from ctpipe.errors import UsageError
from ctpipe.review.commands import Command, Mode
from ctpipe.review.keys import KeyMap
from ctpipe.review.keys_file import assigned, keys_path, napari_key, user_keys


@pytest.fixture(scope="module", autouse=True)
def _napari_shortcuts():
    """napari's default keys on its classes, which a Qt viewer binds from its settings."""
    import napari.components._viewer_key_bindings
    import napari.layers.labels._labels_key_bindings  # noqa: F401
    from napari.settings import get_settings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some actions ask for a window
        for action, shortcuts in get_settings().shortcuts.shortcuts.items():
            for shortcut in shortcuts:
                action_manager.bind_shortcut(action, shortcut)
    assert {"E", "3"} <= {str(key) for key in Labels.class_keymap}


class Pressed:
    """Commands of all modes that note when they run."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.commands = [
            self.command("accept", "A", Mode.READ),
            self.command("paint-more", "E", Mode.READ),
            self.command("undo", "Ctrl-Z", Mode.EDIT),
            self.command("window-lung", "3", Mode.READ),
            self.command("window-lung-any", "F3", Mode.BOTH),
        ]

    def command(self, name: str, key: str, mode: Mode) -> Command:
        def run() -> str:
            self.ran.append(name)
            return f"{name} done"

        return Command(name, f"do {name}", key, mode, run)


@pytest.fixture
def room(store_path):
    """(session, key map, what ran, press): a case with labels in view and an open copy, in read mode."""
    session, reading = opened(store_path)
    session.look_at(RUN)
    pressed = Pressed()
    keys = KeyMap(session, pressed.commands, {})
    session.edit(RUN)
    keys.read()

    def press(key: str, active="as it is", viewer=session.viewer) -> bool:
        """As napari does it: the active layer first, then the viewer."""
        if active != "as it is":
            viewer.layers.selection.active = active
        handler = KeymapHandler()
        found = viewer.layers.selection.active
        handler.keymap_providers = [viewer] if found is None else [found, viewer]
        action_manager._get_repeatable_shortcuts(handler.keymap_chain)  # what its Qt part asks first
        return handler.press_key(key)

    yield session, keys, pressed.ran, press, reading
    session.close()


NAPARI_KEYS = ("1", "2", "3", "4", "5", "6", "7", "E", "P", "F", "L", "Z", "X", "B", "M", "[", "]", "-", "=", "C", "O",
               "Y", "V", "Space", "Ctrl-E", "Ctrl-T", "Ctrl-G", "Ctrl-R", "Ctrl-Z", "Ctrl-Delete", "Up", "Down",
               "Shift-Up", "Ctrl-Y", "S", "D", "Enter", "Escape", "Tab", "Delete")  # fmt: skip


def states(session) -> dict:
    """Everything that a stray key of napari would change."""
    layer, dims, camera = session.layer, session.viewer.dims, session.viewer.scene.camera
    return {
        "layers": [(one.name, one.visible, str(one.mode)) for one in session.viewer.layers],
        "label": (layer.selected_label, layer.brush_size, layer.preserve_labels, layer.n_edit_dimensions),
        "limits": tuple(session.viewer.layers[0].contrast_limits),
        "dims": (dims.order, dims.ndisplay, dims.point),
        "camera": (camera.zoom, camera.center, camera.angles),
        "grid": session.viewer.canvas.grid.enabled,
        "voxels": int(np.asarray(layer.data[10:20]).sum()),
    }


def test_in_read_mode_no_key_of_naparis_does_anything_on_any_layer(room):
    session, keys, ran, press, _ = room
    ours = {str(napari_key(one.key)) for one in keys.commands if one.mode in (Mode.READ, Mode.BOTH)}
    for active in (*session.viewer.layers, None):
        session.viewer.layers.selection.active = active
        before = states(session)
        for key in NAPARI_KEYS:
            if str(coerce_keybinding(key)) not in ours:
                press(key)
                assert states(session) == before, f"{key} fell through"
    assert ran == []


def test_our_keys_run_whatever_layer_is_active_and_never_a_brush_instead(room):
    session, _, ran, press, _ = room
    for active in (*session.viewer.layers, None):
        ran.clear()
        for key in ("A", "E", "3", "F3"):  # E and 3 are napari's on a Labels layer
            assert press(key, active)
        assert ran == ["accept", "paint-more", "window-lung", "window-lung-any"]
        assert session.layer.mode == "pan_zoom"
    assert session.viewer.status == "window-lung-any done"


def test_a_layer_that_comes_later_has_the_keys_too(room):
    session, _, ran, press, _ = room
    points = session.viewer.add_points(np.zeros((1, 3)))
    assert press("A", points)
    assert ran == ["accept"]


def test_enter_begins_to_edit_and_escape_leaves(room):
    session, keys, _, press, _ = room
    modes = []
    keys.mode_changed.connect(modes.append)
    assert press("Enter", session.viewer.layers[0])
    assert keys.mode == Mode.EDIT
    assert session.viewer.layers.selection.active is session.layer
    assert session.layer.mode == "paint"
    assert press("Escape")
    assert (keys.mode, session.layer.mode) == (Mode.READ, "pan_zoom")
    assert session.viewer.layers.selection.active is session.viewer.layers[0]
    assert modes == [Mode.EDIT, Mode.READ]


def test_in_edit_mode_the_copy_has_naparis_own_keys_and_ours(room):
    session, _, ran, press, _ = room
    press("Enter")
    assert press("E")
    assert session.layer.mode == "erase"
    assert press("3")
    assert session.layer.mode == "polygon"
    assert ran == [], "the read commands of these keys rest"
    assert press("F3")
    assert press("Ctrl-Z")
    assert ran == ["window-lung-any", "undo"], "our undo goes before napari's"
    press("A")
    assert ran == ["window-lung-any", "undo"]
    assert press("Space"), "hold to pan"
    before = states(session)
    for key in ("V", "Ctrl-E", "Ctrl-T", "Ctrl-G", "Ctrl-Delete", "Shift-Up", "Ctrl-Y"):
        press(key)
    assert states(session) == before, "the viewer's keys stay shut"


def test_in_edit_mode_another_active_layer_has_ours_only(room):
    session, _, ran, press, _ = room
    press("Enter")
    for active in (session.viewer.layers[0], session.viewer.layers[1], None):
        session.viewer.layers.selection.active = active
        before = states(session)
        for key in ("1", "2", "C", "E", "P", "Z", "V", "Ctrl-E"):
            press(key)
        assert states(session) == before
        assert press("F3")
    assert ran == ["window-lung-any"] * 3


def test_in_read_mode_a_brush_cannot_be_taken_up(room):
    session, keys, _, _, _ = room
    told = []
    keys.told.connect(told.append)
    session.layer.mode = "paint"
    assert session.layer.mode == "pan_zoom"
    assert told == ["reading: Enter begins to edit"]


def test_a_copy_that_opens_begins_to_edit_and_the_next_case_is_read(room):
    session, keys, _, _, _ = room
    session.edit(RUN)
    assert (keys.mode, str(session.layer.mode)) == (Mode.EDIT, "paint")
    session.show()
    assert keys.mode == Mode.READ


def test_left_and_right_go_from_plane_to_plane_in_the_viewer_that_has_the_key(room):
    _, keys, _, press, reading = room
    reading.go_to(10, 50, 60)
    side = reading.planes.sides[0]
    keys.also(side)
    assert press("Right")
    assert press("Right", viewer=side)
    assert press("Left", side.layers[0], viewer=side)
    assert press("Left", viewer=side)
    assert reading.planes.voxel == (11, 49, 60)


def test_an_error_of_ours_is_a_line_and_a_fault_of_the_code_is_not_hidden(room):
    session, _, _, press, _ = room

    def refuse():
        raise UsageError("nothing to accept", "choose a case")

    KeyMap(session, [Command("a", "a", "A", Mode.READ, refuse), Command("b", "b", "B", Mode.READ, lambda: 1 / 0)], {})
    press("A", session.viewer.layers[0])
    assert session.viewer.status == "nothing to accept; cure: choose a case"
    with pytest.raises(ZeroDivisionError):
        press("B")


def test_the_map_as_text_has_every_command_with_its_key(room):
    _, keys, _, press, _ = room
    wanted = []
    keys.help_wanted.connect(lambda: wanted.append(keys.text()))
    assert press("Shift-/"), "what the ? key is"
    (text,) = wanted
    for one in keys.commands:
        assert any(one.name in line and line.split()[0] == one.key for line in text.splitlines())


def test_all_commands_of_reading_fit_beside_those_of_the_map(room):
    session, _, _, press, reading = room
    KeyMap(session, reading.commands(), {})
    press("3", session.viewer.layers[1])
    assert tuple(session.viewer.layers[0].contrast_limits) == (-1200, 200)
    press("H")
    assert not session.viewer.layers[1].visible


def test_a_key_map_of_the_users_own_is_read(tmp_path, monkeypatch, room):
    session, _, _, press, _ = room
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert keys_path() == tmp_path / "ctpipe" / "keys.toml"
    assert user_keys() == {}
    keys_path().parent.mkdir()
    keys_path().write_text('[keys]\naccept = "Q"\npaint-more = "A"\n')
    KeyMap(session, Pressed().commands)
    pressed = Pressed()
    KeyMap(session, pressed.commands)
    press("Q", session.viewer.layers[0])
    press("A")
    press("E")
    assert pressed.ran == ["accept", "paint-more"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[keys\n", "is not TOML"),
        ('colour = "red"\n', "it holds colour"),
        ("[keys]\naccept = 3\n", "a key is not a text"),
        ("keys = 3\n", "a key is not a text"),
    ],
)
def test_a_file_that_is_no_key_map_is_told(tmp_path, text, said):
    (tmp_path / "keys.toml").write_text(text)
    with pytest.raises(UsageError, match=said):
        user_keys(tmp_path / "keys.toml")


def test_every_fault_of_a_key_map_is_told_at_once():
    commands = Pressed().commands
    wrong = {"acept": "Q", "paint-more": "A", "undo": "Ctrl-Nothing", "window-lung-any": "3"}
    with pytest.raises(UsageError) as told:
        assigned(commands, wrong)
    text = str(told.value)
    assert "no command 'acept'" in text
    assert "'A' is the key of accept and of paint-more" in text
    assert "undo: 'Ctrl-Nothing' is no key" in text
    assert "'3' is the key of window-lung and of window-lung-any" in text, "a key of both modes takes it in each"
    assert "the commands are: accept, paint-more" in text
    assert assigned(commands, {"undo": "E"})[2].key == "E", "one key may do two things in two modes"
    with pytest.raises(UsageError, match="two commands are called 'accept'"):
        assigned([*commands, commands[0]], {})
