"""Corrections on napari's ViewerModel: tools, napari's own strokes, undo over planes and days, a full disk, a mouse."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import numpy as np
import pytest
from napari.components import ViewerModel
from review_store import ORIGIN, RUN, SERIES, SPACING, phantom

from ctpipe.errors import BudgetError, RunError, UsageError
from ctpipe.review import journal as journal_module
from ctpipe.review import working_copy
from ctpipe.review.boxes import Box
from ctpipe.review.editing import Editing
from ctpipe.review.session import ReviewSession
from ctpipe.store import open_store


@pytest.fixture
def opened(store_path):
    """Opens sessions with the copy of the prediction; closes them at the end."""
    sessions = []

    def open_session(**options) -> ReviewSession:
        sessions.append(ReviewSession(ViewerModel(), store_path, **options))
        sessions[-1].show()
        sessions[-1].edit(RUN)
        return sessions[-1]

    yield open_session
    for session in sessions:
        session.let_go()


@pytest.fixture
def session(opened) -> ReviewSession:
    return opened()


@pytest.fixture
def tools(session):
    return session.editing.tools


def to_plane(session, plane: int, axis: int = 0) -> None:
    session.viewer.dims.order = (axis, *(k for k in range(3) if k != axis))
    origin = (ORIGIN[2], ORIGIN[1], ORIGIN[0])[axis]
    session.viewer.dims.set_point(axis, origin + plane * SPACING[axis])


def far_mm(at) -> np.ndarray:
    away = np.indices(phantom()[1].shape) - np.asarray(at, float)[:, None, None, None]
    return np.sqrt(sum((step * d) ** 2 for step, d in zip(SPACING, away, strict=True)))


def kinds(session) -> list[str]:
    return [entry.kind for entry in session.copy.journal.entries]


# ------------------------------------------------------------------------------------------- tools
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_brush_paints_a_disc_in_the_plane_shown_whatever_the_axis(session, tools, axis):
    at = (12, 81, 71)
    to_plane(session, at[axis], axis)
    tools.radius_mm = 7.3
    tools.brush([at], 2)
    inside = (far_mm(at) <= 7.3) & (np.indices(phantom()[1].shape)[axis] == at[axis])
    assert np.array_equal(session.copy.array, np.where(inside, 2, phantom()[1]))
    assert kinds(session) == ["brush"]
    assert session.copy.journal.entries[0].facts["radius_mm"] == 7.3


def test_the_brush_and_the_eraser_in_three_dimensions_within_an_hu_range(session, tools):
    hu, labels = phantom()
    at = (15, 70, 62)  # at the border of the lesion, which is darker than the liver
    tools.three_d = True
    tools.radius_mm = 9
    tools.hu_range = (50, 70)  # liver
    tools.brush([at], 2)
    ball = far_mm(at) <= 9
    expected = np.where(ball & (hu >= 50) & (hu <= 70), 2, labels)
    assert np.array_equal(session.copy.array, expected)
    tools.hu_range = (0, 30)
    tools.erase([at])
    assert np.array_equal(session.copy.array, np.where(ball & (hu >= 0) & (hu <= 30), 0, expected))
    assert kinds(session) == ["brush", "erase"]


def test_preserve_labels_paints_on_background_only_and_erases_the_chosen_class_only(session, tools):
    labels = phantom()[1]
    at = (12, 80, 46)  # at the border of the liver
    session.layer.preserve_labels = True
    to_plane(session, 12)
    tools.radius_mm = 6
    tools.brush([at], 2)
    disc = (far_mm(at) <= 6) & (np.indices(labels.shape)[0] == 12)
    expected = np.where(disc & (labels == 0), 2, labels)
    assert np.array_equal(session.copy.array, expected)
    session.layer.selected_label = 2
    tools.erase([at])
    assert np.array_equal(session.copy.array, labels)


def test_a_polygon_is_one_action(session, tools):
    to_plane(session, 12)
    tools.polygon([(12, 20.5, 20.5), (12, 20.5, 40.5), (12, 50.5, 40.5), (12, 50.5, 20.5)], 2)
    expected = phantom()[1]
    expected[12, 21:51, 21:41] = 2
    assert np.array_equal(session.copy.array, expected)
    assert kinds(session) == ["polygon"]
    with pytest.raises(UsageError, match="three corners"):
        tools.polygon([(12, 1, 1), (12, 2, 2)])


def test_interpolation_fills_the_gap_at_the_plane_shown(session, tools):
    session.layer.selected_label = 2
    to_plane(session, 24)
    tools.radius_mm = 6
    for plane in (24, 28):
        to_plane(session, plane)
        tools.brush([(plane, 100, 60)])
    to_plane(session, 26)
    assert tools.interpolate() == "interpolated planes 25 to 27"
    disc = session.copy.array[24] == 2
    assert all(np.array_equal(session.copy.array[z] == 2, disc) for z in (25, 26, 27)), "equal discs, equal between"
    with pytest.raises(UsageError, match="plane 26 is not between two planes"):
        tools.interpolate()


def test_fill_smooth_grow_and_shrink_change_one_class_in_the_plane_shown(session, tools):
    session.layer.selected_label = 1
    to_plane(session, 12)
    tools.radius_mm = 2
    tools.erase([(12, 80, 70)])
    hole = session.copy.array[12, 78:83, 68:73].copy()
    assert (hole == 0).any()
    assert tools.fill().startswith("fill: ")
    assert np.array_equal(session.copy.array, phantom()[1])
    assert tools.fill() == "fill: nothing to change"

    assert tools.grow(3.0).startswith("grow: ")
    labels = phantom()[1]
    rows, columns = np.nonzero(session.copy.array[12] == 1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (30 - 5, 129 + 5, 45 - 2, 94 + 2)
    assert np.array_equal(session.copy.array[13], labels[13]), "other planes stay"
    tools.grow(-3.0)
    assert np.count_nonzero(session.copy.array != labels) < 30, "but for the corners, which a disc rounds"
    tools.three_d = True
    assert tools.smooth().startswith("smooth: ")
    assert kinds(session)[-1] == "smooth"
    with pytest.raises(UsageError, match="class 9 is not in the volume"):
        tools.smooth(9)


def test_a_lesion_that_grows_takes_from_the_organ_and_gives_back_to_it(session, tools):
    tools.three_d = True
    tools.grow(2.5, label=2)
    grown = session.copy.array.copy()
    assert np.array_equal(grown > 0, phantom()[1] > 0)
    assert (grown == 2).sum() > (phantom()[1] == 2).sum()
    tools.grow(-2.5, label=2)
    assert np.count_nonzero(session.copy.array != phantom()[1]) < 0.2 * (phantom()[1] == 2).sum()
    assert np.array_equal(session.copy.array > 0, phantom()[1] > 0), "what it gave up is liver again"


def test_what_is_done_slab_by_slab_is_what_the_whole_volume_gives(session, tools, monkeypatch):
    from ctpipe.review import tools as tools_module

    tools.three_d = True
    results = []
    for slab in (5, 1000):
        monkeypatch.setattr(tools_module, "SLAB", slab)
        tools.sigma_mm = 2.0
        tools.smooth(label=1)
        tools.grow(4.0, label=2)
        tools.grow(-2.0, label=1)
        results.append(session.copy.array.copy())
        for _ in range(3):
            session.editing.undo()
    assert np.array_equal(*results)


def test_other_parts_change_voxels_by_apply(session):
    boxes: list[Box] = []
    session.editing.edited.connect(boxes.append)
    box = (slice(3, 5), slice(6, 9), slice(7, 8))
    session.editing.apply("predict", box, np.full((2, 3, 1), 2, np.int64), model="none")
    assert (session.copy.array[box] == 2).all()
    assert boxes == [box]
    session.editing.apply("predict", box, np.full((2, 3, 1), 2), model="none")
    assert kinds(session) == ["predict"], "what changes nothing is no action"
    for wrong in (
        ((slice(0, 50), slice(0, 1), slice(0, 1)), np.zeros((50, 1, 1), int)),
        (box, np.zeros((2, 3, 2), int)),
        (box, np.zeros((2, 3, 1))),
        (box, np.full((2, 3, 1), 256)),
        (box, np.full((2, 3, 1), -1)),
    ):
        with pytest.raises(UsageError):
            session.editing.apply("predict", *wrong)
    session.close()
    with pytest.raises(UsageError, match="no copy is open"):
        session.editing.apply("predict", box, np.zeros((2, 3, 1), int))


# ------------------------------------------------------------------------------------------- undo, and other days
def test_undo_reaches_over_planes_and_days_and_commits_down_to_the_base(opened, store_path):
    """RELIABILITY R2."""
    session = opened()
    states = [session.copy.array.copy()]
    for plane in (5, 12, 30):
        to_plane(session, plane)
        session.editing.tools.brush([(plane, 60, 60), (plane, 70, 80)], 2)
        states.append(session.copy.array.copy())
    saved = session.save()
    session.editing.undo()
    session.close()

    again = opened()
    assert again.copy.resumed
    assert np.array_equal(again.copy.array, states[2])
    assert again.editing.redo().startswith("redo brush")
    assert np.array_equal(again.copy.array, states[3])
    for state in reversed(states[:-1]):
        again.editing.undo()
        assert np.array_equal(again.copy.array, state)
    assert np.array_equal(again.copy.array, phantom()[1])
    assert again.editing.undo() == "nothing to undo"
    assert np.array_equal(open_store(store_path)[SERIES].labels[saved.name].read_planes(0, 40), states[3])
    assert again.save().name is None, "back at the parent"


def test_an_action_after_an_undo_drops_what_could_be_redone(session, tools):
    tools.brush([(20, 60, 60)], 2)
    session.editing.undo()
    tools.brush([(20, 90, 60)], 2)
    assert session.editing.redo() == "nothing to redo"
    assert kinds(session) == ["brush", "undo", "brush"], "and yet it stays in the journal"


def test_undo_shows_the_plane_that_it_changes(session, tools):
    to_plane(session, 30)
    tools.brush([(30, 60, 60)], 2)
    to_plane(session, 3)
    session.editing.undo()
    assert tools.plane() == (0, 30)


def test_napari_undo_is_the_journals(session, tools):
    tools.brush([(20, 60, 60)], 2)
    session.layer.paint((20, 90, 60), 2)
    for _ in range(2):
        session.layer.undo()
    assert np.array_equal(session.copy.array, phantom()[1])
    session.layer.redo()
    assert kinds(session) == ["brush", "paint", "undo", "undo", "redo"]


# ------------------------------------------------------------------------------------------- napari's own tools
def test_strokes_of_naparis_own_tools_are_journalled_one_action_each(opened):
    """RELIABILITY R1."""
    session = opened()
    layer = session.layer
    with layer.block_history():  # a drag
        for column in range(50, 90, 4):
            layer.paint((20, 80, column), 2)
    layer.fill((5, 5, 5), 1)
    layer.paint_polygon([(20, 10, 10), (20, 10, 30), (20, 40, 20)], 2)
    layer.n_edit_dimensions = 3
    layer.paint((30, 40, 40), 2)
    layer.data_setitem((np.array([1, 2]), np.array([3, 4]), np.array([5, 6])), 2)
    assert kinds(session) == ["paint"] * 5
    assert not any(layer._undo_history), "napari keeps no second history, and none of its memory"
    expected = session.copy.array.copy()
    session.close()
    again = opened()
    assert np.array_equal(again.copy.array, expected)
    for _ in range(5):
        again.editing.undo()
    assert np.array_equal(again.copy.array, phantom()[1])


def test_strokes_on_a_linked_layer_are_journalled_and_seen_in_the_first(session):
    linked = ViewerModel().add_labels(session.copy.array)
    session.editing.watch(linked)
    session.editing.watch(linked)
    linked.paint((20, 90, 60), 2)
    assert kinds(session) == ["paint"]
    assert session.layer.data[20, 90, 60] == 2
    session.editing.unwatch(linked)
    session.editing.undo()
    assert np.array_equal(session.copy.array, phantom()[1])


def test_a_second_editing_takes_the_place_of_the_first(session):
    second = Editing(session)
    assert session.editing is second
    session.layer.paint((20, 90, 60), 2)
    assert kinds(session) == ["paint"], "a stroke is journalled once"


def test_data_of_the_layer_cannot_be_replaced(session):
    lines = []
    session.editing.told.connect(lines.append)
    session.layer.data = session.layer.data.astype(np.int32)
    assert session.layer.data is session.copy.array
    assert "cannot be replaced" in lines[-1]


def test_a_stroke_that_cannot_be_read_is_an_error_and_never_silent(session):
    with pytest.raises(RunError, match="cannot be journalled"):
        session.layer.events.paint(value=[object()])


# ------------------------------------------------------------------------------------------- full disks
def test_a_full_disk_is_told_at_once_and_the_strokes_are_written_when_there_is_room(opened, monkeypatch, tmp_path):
    """RELIABILITY R6."""
    session = opened()
    lines = []
    session.editing.told.connect(lines.append)
    with monkeypatch.context() as patch:
        patch.setattr(journal_module.os, "pwrite", full)
        session.editing.tools.brush([(20, 60, 60)], 2)
        session.layer.paint((20, 90, 60), 2)
        assert lines[-1].startswith("NOT SAVED, 2 in memory: the disk is full")
        assert session.viewer.status == lines[-1]
        assert not session.editing.saved
        session.editing.undo()
        with pytest.raises(BudgetError):
            session.close()
        assert session.layer in session.viewer.layers, "nothing was closed"
        assert "kept in" in session.editing.keep_elsewhere(tmp_path)
        assert session.editing.saved
        assert session.editing.try_again().startswith("NOT SAVED")
    assert session.editing.try_again() == "saved: 3 actions that were in memory"
    assert list(tmp_path.glob("*.journal")) == []
    expected = session.copy.array.copy()
    session.close()
    assert np.array_equal(opened().copy.array, expected)


def test_what_the_store_has_no_room_for_when_the_window_closes_is_taken_in_next_time(opened, monkeypatch, tmp_path):
    """RELIABILITY R6."""
    monkeypatch.setattr(working_copy, "_shelter", lambda: tmp_path / "state")
    session = opened()
    with monkeypatch.context() as patch:
        patch.setattr(journal_module.os, "pwrite", full)
        session.editing.tools.brush([(20, 60, 60)], 2)
        expected = session.copy.array.copy()
        session.let_go()
    again = opened()
    assert np.array_equal(again.copy.array, expected)
    assert again.copy.told == ["1 actions were taken in that the store had no room for"]
    assert list((tmp_path / "state").iterdir()) == []


def full(*_args):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# ------------------------------------------------------------------------------------------- the record of a review
def test_a_saved_review_says_what_it_took_beside_the_store(session, store_path, monkeypatch):
    now = iter(np.arange(0, 500, 25.0))
    monkeypatch.setattr("ctpipe.review.editing.monotonic", lambda: next(now))
    session.editing._last = 0.0
    for plane in (5, 12):
        session.editing.tools.brush([(plane, 60, 60)], 2)
    session.editing.undo()
    next(now), next(now), next(now)  # a break
    session.editing.tools.brush([(7, 60, 60)], 2)
    name = session.save().name
    record = open_store(store_path).run(name)
    assert (record["kind"], record["reviewer"], record["parent_run"]) == ("review", "reader", RUN)
    assert (record["actions"], record["actions_by_kind"], record["undone"]) == (3, {"brush": 2}, 0)
    assert record["seconds"] == pytest.approx(0 + 25 + 25 + 60, abs=0.1), "a break counts as a minute"
    assert record["working_copy"] == session.copy.folder.name
    text = (store_path / f"{SERIES}.ome.zarr/labels/{name}/zarr.json").read_text()
    assert "seconds" not in text
    assert session.save().new is False


# ------------------------------------------------------------------------------------------- settings, keys and mouse
def test_the_radius_and_naparis_brush_follow_each_other(session, tools):
    tools.radius_mm = 6.0
    assert session.layer.brush_size == 20, "counted in the finest step of the plane, 0.6 mm"
    session.layer.brush_size = 10
    assert tools.radius_mm == pytest.approx(3.0)
    session.layer.n_edit_dimensions = 3
    assert tools.three_d
    tools.three_d = False
    assert session.layer.n_edit_dimensions == 2
    with pytest.raises(UsageError):
        tools.radius_mm = 0


def test_commands_have_names_and_keys_of_their_own(session, tools):
    commands = session.editing.commands()
    assert len({command.name for command in commands}) == len({command.key for command in commands}) == len(commands)
    tools.brush([(20, 60, 60)], 2)
    undo = next(command for command in commands if command.name == "undo")
    assert undo.run().startswith("undo brush")


def drag(layer, points, axis: int = 0, button: int = 1) -> None:
    """Press, move and release napari's mouse over `points` (voxel indexes)."""
    from napari.utils.interactions import mouse_move_callbacks, mouse_press_callbacks, mouse_release_callbacks

    def event(kind: str, at):
        shown = tuple(k for k in range(3) if k != axis)
        return SimpleNamespace(
            type=kind, position=layer.data_to_world(at), dims_displayed=shown, button=button, modifiers=(),
            view_direction=None, handled=False, is_dragging=kind == "mouse_move", native=None, pos=(0, 0),
        )  # fmt: skip

    mouse_press_callbacks(layer, event("mouse_press", points[0]))
    for point in points[1:]:
        mouse_move_callbacks(layer, event("mouse_move", point))
    mouse_release_callbacks(layer, event("mouse_release", points[-1]))


@pytest.mark.parametrize(("mode", "kind"), [("paint", "brush"), ("erase", "erase")])
def test_a_drag_of_the_mouse_is_one_stroke_of_ours_within_hu(session, tools, mode, kind):
    hu, labels = phantom()
    to_plane(session, 18)
    tools.radius_mm, tools.hu_range = 4.0, (50, 70)
    session.layer.selected_label = 2
    session.layer.mode = mode
    drag(session.layer, [(18, 55, 60), (18, 65, 64), (18, 80, 69)])
    assert kinds(session) == [kind]
    changed = session.copy.array != labels
    assert changed.sum() > 10
    assert set(hu[changed]) == {60}, "the lesion in its way is darker"
    assert set(np.nonzero(changed)[0]) == {18}
    session.layer.mode = "pan_zoom"
    drag(session.layer, [(18, 55, 60), (18, 65, 64)])
    session.layer.mode = "fill"
    tools.hu_range = None
    drag(session.layer, [(18, 5, 5)])
    assert kinds(session) == [kind, "paint"], "modes that are not brushes stay napari's"


def test_a_drag_in_a_coronal_plane_paints_in_that_plane(session, tools):
    to_plane(session, 100, axis=1)
    session.layer.mode = "paint"
    session.layer.selected_label = 2
    tools.radius_mm = 4.0
    drag(session.layer, [(15, 100, 60), (15, 100, 80)], axis=1)
    changed = np.nonzero(session.copy.array != phantom()[1])
    assert set(changed[1]) == {100}
    assert len(set(changed[0])) == 3, "planes are 2.5 mm apart"
