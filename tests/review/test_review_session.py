"""A whole correction on napari's ViewerModel, without a window: open, paint, save, open again."""

from __future__ import annotations

import errno
import shutil
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from napari.components import ViewerModel
from review_store import CLASSES, ORIGIN, RUN, SERIES, SPACING, phantom, write_volume

from ctpipe.errors import BudgetError, CtpipeError, NotThereError, UsageError
from ctpipe.review.session import ReviewSession
from ctpipe.store import GroupWriter, open_store
from ctpipe.words import LabelKind


@pytest.fixture
def opened(store_path):
    """Opens sessions on a store; closes them at the end."""
    sessions = []

    def open_session(path=store_path, **options) -> ReviewSession:
        sessions.append(ReviewSession(ViewerModel(), path, **options))
        return sessions[-1]

    yield open_session
    for session in sessions:
        session.close()


@pytest.fixture
def session(opened) -> ReviewSession:
    """A session with the copy of the prediction open."""
    session = opened()
    session.show()
    session.edit_preferred()
    return session


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def paint(session: ReviewSession, label: int = 2, at=(12, 80, 70), size: int = 9) -> np.ndarray:
    """Paint a disc (round in mm: a column is two rows wide); returns the voxels expected then."""
    expected = session.copy.array.copy()
    session.layer.brush_size = size
    session.layer.selected_label = label
    session.layer.paint(at, label)
    y, x = np.ogrid[:160, :144]
    expected[at[0]][(y - at[1]) ** 2 + (2 * (x - at[2])) ** 2 <= (size / 2) ** 2] = label
    return expected


def test_painted_voxels_are_in_the_saved_review_and_everything_else_is_the_parents(session, store_path):
    """RELIABILITY R2: the prediction is never changed; a correction is a new group with its parent named."""
    parent = store_path / f"{SERIES}.ome.zarr" / "labels" / RUN
    before = tree(parent)
    expected = paint(session)
    result = session.save()
    assert result.new
    assert result.changed_voxels == np.count_nonzero(expected != phantom()[1]) > 0

    saved = open_store(store_path)[SERIES].labels[result.name]
    assert saved.kind == LabelKind.REVIEW
    assert saved.classes == CLASSES
    assert np.array_equal(saved.read_planes(0, 40), expected)
    assert np.array_equal(saved.array.values, expected)
    assert (saved.read_planes(0, 40, level=1)[12] == 2).any(), "the pyramid was rebuilt"
    assert saved.provenance["parent"] == saved.provenance["parent_run"] == RUN
    assert saved.provenance["parent_content"] == open_store(store_path)[SERIES].labels[RUN].content
    assert tree(parent) == before


def test_the_editable_layer_is_in_memory_in_millimetres_with_the_classes(session):
    layer = session.layer
    assert layer.data is session.copy.array
    assert not layer.multiscale
    assert layer.editable
    assert tuple(layer.scale) == pytest.approx(SPACING)
    assert tuple(layer.translate) == pytest.approx((ORIGIN[2], ORIGIN[1], ORIGIN[0]))
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
    assert list(layer.features["class"]) == ["background", "liver", "lesion"]
    image = session.viewer.layers[0]
    assert tuple(image.contrast_limits) == (-100.0, 200.0)
    assert np.array_equal(image.scale, layer.scale)
    assert np.array_equal(image.translate, layer.translate)


def test_the_view_starts_on_a_labelled_plane(session):
    plane = (session.viewer.dims.point[0] - ORIGIN[2]) / SPACING[0]
    assert 8 <= plane < 30


def test_an_unchanged_copy_has_nothing_to_save(session, store_path):
    before = tree(store_path / f"{SERIES}.ome.zarr")
    result = session.save()
    assert result.name is None
    assert "nothing to save" in str(result)
    assert tree(store_path / f"{SERIES}.ome.zarr") == before


def test_undone_strokes_leave_nothing_to_save(session):
    paint(session)
    session.layer.undo()
    assert session.save().name is None


def test_a_state_is_saved_once_and_the_next_strokes_become_another_review(session, store_path):
    paint(session)
    first = session.save()
    again = session.save()
    assert (again.name, again.new) == (first.name, False)
    folder = store_path / f"{SERIES}.ome.zarr" / "labels" / first.name
    before = tree(folder)
    expected = paint(session, at=(20, 100, 60))
    second = session.save()
    assert second.name != first.name
    assert tree(folder) == before
    assert np.array_equal(open_store(store_path)[SERIES].labels[second.name].read_planes(0, 40), expected)
    assert session.copy.record.saved == (first.name, second.name)


def test_the_same_correction_gives_the_same_bytes(opened, tmp_path, store_path):
    """RELIABILITY V8, for reviews."""
    other = Path(shutil.copytree(store_path, tmp_path / "other"))
    groups = []
    for path in (store_path, other):
        session = opened(path)
        session.show()
        session.edit_preferred()
        paint(session)
        groups.append(tree(path / f"{SERIES}.ome.zarr" / "labels" / session.save().name))
    assert groups[0] == groups[1]


def test_unsaved_strokes_are_there_when_the_store_is_opened_again(opened, session):
    """RELIABILITY R1."""
    expected = paint(session)
    session.close()
    again = opened()
    again.show()
    copy = again.edit_preferred()
    assert copy.resumed
    assert np.array_equal(again.layer.data[:], expected)


def test_two_reviewers_of_one_prediction_give_two_reviews(opened, store_path):
    """RELIABILITY R3, also where both painted the same."""
    names = []
    for reviewer in ("p-01", "p-02"):
        session = opened(reviewer=reviewer)
        session.show()
        session.edit(RUN)
        paint(session)
        names.append(session.save().name)
    labels = open_store(store_path)[SERIES].labels
    assert len(set(names)) == 2
    assert [labels[name].provenance["reviewer"] for name in names] == ["p-01", "p-02"]


def test_a_label_without_a_class_is_refused_and_the_copy_stays(session):
    expected = paint(session, label=7)
    with pytest.raises(UsageError, match=r"without a class: 7 \(classes: 1=liver, 2=lesion\)"):
        session.save()
    assert np.array_equal(session.copy.array[:], expected)


def test_a_class_added_while_reviewing_is_saved(session, store_path):
    label = session.add_class("cyst")
    assert session.layer.selected_label == label == 3
    paint(session, label)
    saved = open_store(store_path)[SERIES].labels[session.save().name]
    assert saved.classes == {**CLASSES, 3: "cyst"}


@pytest.mark.parametrize("nth", [0, 1])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_while_saving_keeps_the_copy_and_leaves_no_half_review(session, store_path, monkeypatch, nth, code):
    """RELIABILITY S5, R6."""
    expected = paint(session)
    before = tree(store_path / f"{SERIES}.ome.zarr")
    write, calls = GroupWriter.write_slab, []

    def full(self, slab, voxels):
        calls.append(slab)
        if len(calls) > nth:
            raise OSError(code, "full")
        return write(self, slab, voxels)

    with monkeypatch.context() as patch:
        patch.setattr(GroupWriter, "write_slab", full)
        with pytest.raises(BudgetError, match="disk is full"):
            session.save()
    assert tree(store_path / f"{SERIES}.ome.zarr") == before
    assert np.array_equal(session.copy.array[:], expected)
    assert session.save().new


def test_a_disk_that_cannot_be_written_is_one_clear_error(session, monkeypatch):
    paint(session)

    def refused(self, slab, voxels):
        raise OSError(errno.EIO, "fault")

    monkeypatch.setattr(GroupWriter, "write_slab", refused)
    with pytest.raises(CtpipeError, match="cannot write labels/review-"):
        session.save()


def test_a_volume_without_labels_gets_an_empty_layer_of_one_class(opened, tmp_path):
    root = tmp_path / "bare"
    write_volume(open_store(root, "a"), SERIES, arrays=(phantom()[0], None))
    session = opened(root)
    session.show()
    copy = session.edit_preferred()
    assert copy.record.classes == {1: "lesion"}
    assert session.save().name is None
    expected = paint(session, label=1)
    saved = open_store(root)[SERIES].labels[session.save().name]
    assert saved.provenance["parent"] is None
    assert np.array_equal(saved.read_planes(0, 40), expected)


def test_committed_labels_can_be_looked_at_beside_the_copy(session):
    session.look_at(RUN)
    session.look_at(RUN)
    looked = [layer for layer in session.viewer.layers if layer.name == f"prediction {RUN[:8]}"]
    assert len(looked) == 1
    assert not looked[0].editable


def test_another_series_takes_the_place_of_the_first(opened, store_path):
    write_volume(open_store(store_path, "a"), "8000000000000001", arrays=(phantom()[0], None))
    session = opened()
    assert session.show().id == SERIES, "the one with a prediction comes first"
    session.edit_preferred()
    session.show("8000")
    assert [layer.name for layer in session.viewer.layers] == ["CT 80000000"]
    assert session.copy is None
    with pytest.raises(NotThereError):
        session.show("9")


def test_what_cannot_be_done_yet_is_said(opened, tmp_path):
    session = opened()
    for step in (session.save, session.edit_preferred, lambda: session.add_class("x")):
        with pytest.raises(UsageError):
            step()
    open_store(tmp_path / "none", "a")
    with pytest.raises(NotThereError, match="holds no volume"):
        opened(tmp_path / "none").show()


def test_looking_needs_no_key_but_editing_does(opened, monkeypatch, tmp_path):
    monkeypatch.setenv("CTPIPE_KEY", str(tmp_path / "another-key"))
    session = opened()
    session.show()
    with pytest.raises(CtpipeError, match="key"):
        session.edit(RUN)
    assert not (session.store.root / "reviews").exists()
