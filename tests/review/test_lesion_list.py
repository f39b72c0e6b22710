"""The list of lesions on napari's ViewerModel: what it lists, where it goes, what its edits leave of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from lesion_review import OTHER_RUN, SHAPE, SPACING, Applies, drawn_case, write_case
from napari.components import ViewerModel
from review_store import ORIGIN, RUN, SERIES, write_volume

from ctpipe.errors import UsageError
from ctpipe.review.lesions import COPY, LesionList
from ctpipe.review.session import ReviewSession
from ctpipe.scoring import measure
from ctpipe.store import open_store


@pytest.fixture(scope="session")
def _made_lesions(tmp_path_factory, _own_key) -> Path:
    root = tmp_path_factory.mktemp("lesions") / "S"
    write_case(root)
    return root


@pytest.fixture
def session(_made_lesions, tmp_path):
    session = ReviewSession(ViewerModel(), shutil.copytree(_made_lesions, tmp_path / "S"))
    session.show()
    yield session
    session.close()


@pytest.fixture
def lesions(session):
    """The list of an open copy, with what it went to."""
    session.edit_preferred()
    went: list[tuple] = []
    found = LesionList(session, lambda *at: went.append(at), Applies(session))
    found.went = went
    return found


def voxels(rows):
    return [(one.name, one.voxels) for one in rows]


def as_measured(session):
    """All lesions of the copy, measured from scratch."""
    array = session.copy.array[:]
    return measure(lambda a, b: array[a:b], session.series.read_planes, session.series.grid, {1: "liver", 2: "lesion"})


def test_it_lists_every_component_with_its_measures(session):
    rows = LesionList(session).rows()
    labels = drawn_case()[1]
    assert [(one.name, one.number) for one in rows] == [("liver", 1), ("lesion", 1), ("lesion", 2)]
    outside = rows[2]
    assert outside.volume_ml == pytest.approx(np.count_nonzero(labels[:, :, 47:]) * np.prod(SPACING) / 1000)
    assert outside.axes.plane == 32
    assert outside.axes.long_mm == pytest.approx(14, abs=1)
    assert outside.hu[0] == pytest.approx(50, abs=1)


def test_nothing_is_read_before_it_is_asked_for_and_then_a_class_at_a_time(session):
    found = LesionList(session)
    assert not found.ready
    steps = 1
    while found.measure_next():
        steps += 1
    assert steps == 3  # where the labels are, then two classes
    assert found.ready


def test_it_follows_the_open_copy_and_the_labels_looked_at(session):
    found = LesionList(session)
    assert found.source.name == open_store(session.store.root)[SERIES].labels["4be1"].name
    seen = []
    found.changed.connect(lambda: seen.append(found.source.name))
    session.edit_preferred()
    assert found.source.name == COPY
    session.close()
    session.look_at("4be1")
    assert seen[0] == COPY
    assert seen[-1].startswith("4be1")


def test_a_list_made_late_lists_the_labels_in_view(tmp_path):
    write_case(tmp_path / "S", np.zeros(SHAPE, np.uint8))
    session = ReviewSession(ViewerModel(), tmp_path / "S")
    session.show()
    for name in (OTHER_RUN, RUN):
        session.look_at(name)
        assert LesionList(session).source.name == name


def test_a_volume_without_labels_has_an_empty_list(tmp_path):
    write_volume(open_store(tmp_path / "S", "a"), SERIES, arrays=(drawn_case()[0], None))
    session = ReviewSession(ViewerModel(), tmp_path / "S")
    assert LesionList(session).rows() == []
    session.show()
    found = LesionList(session)
    assert found.rows() == []
    assert found.step(1) == "no lesions in these labels"


def test_the_next_lesion_is_gone_to_and_after_the_last_comes_the_first(lesions):
    lines = [lesions.step(1) for _ in range(4)]
    assert lines[0].startswith("1 of 3: liver 1")
    assert lines[2].startswith("3 of 3: lesion 2")
    assert lines[3].startswith("1 of 3")
    assert lesions.went[2] == pytest.approx((32, 40, 58), abs=0.51)
    assert lesions.step(-1).startswith("3 of 3")
    lesions.only = "lesion"
    assert [one.name for one in lesions.rows()] == ["lesion", "lesion"]
    lesions.chosen = None
    assert lesions.step(-1).startswith("2 of 2")


def test_without_planes_to_link_the_one_view_goes_there(session):
    found = LesionList(session)
    found.choose(found.rows()[2])
    (z, y, x) = found.chosen.middle
    expected = (ORIGIN[2] + z * SPACING[0], ORIGIN[1] + y * SPACING[1], ORIGIN[0] + x * SPACING[2])
    assert session.viewer.dims.point == pytest.approx(expected, abs=2)


def test_each_edit_goes_through_editing_and_the_list_is_right_after_it(lesions, session):
    lesions.choose(lesions.rows()[1])
    assert "parted into 2" in lesions.part()
    rows = lesions.rows()
    assert voxels(rows) == voxels(sorted(as_measured(session), key=lambda one: -one.voxels))
    assert [one.name for one in rows] == ["liver", "lesion", "lesion", "lesion"]
    pieces = sorted((one for one in rows if one.name == "lesion"), key=lambda one: one.voxels)[:2]
    lesions.choose(pieces[0])
    lesions.choose(pieces[1])
    assert "merged into" in lesions.merge()
    assert len(lesions.rows()) == 3
    outside = max(lesions.rows(), key=lambda one: one.first)
    lesions.choose(outside)
    lesions.delete()
    assert [one.name for one in lesions.rows()] == ["liver", "lesion"]
    assert lesions.chosen is None
    assert [kind for kind, _ in lesions.editing.actions] == ["lesion-split", "lesion-merge", "lesion-delete"]
    assert sorted(voxels(lesions.rows())) == sorted(voxels(as_measured(session)))


def test_a_grown_and_a_reclassified_lesion_stay_chosen(lesions, session):
    session.copy.array[26:32] = np.where(drawn_case()[1][26:32] == 2, 0, session.copy.array[26:32])
    outside = max(lesions.rows(), key=lambda one: one.first)
    lesions.choose(outside)
    before = outside.voxels
    assert "grew by" in lesions.grow()
    lesions.rows()
    assert lesions.chosen.voxels > before
    session.layer.selected_label = 1
    lesions.reclassify()
    lesions.rows()
    assert lesions.chosen.name == "liver"


def test_the_plane_in_view_cuts_the_lesion(lesions, session):
    outside = max(lesions.rows(), key=lambda one: one.first)
    lesions.choose(outside)
    session.viewer.dims.set_point(0, ORIGIN[2] + 33 * SPACING[0])
    assert "by plane 33 of z" in lesions.cut()
    assert len(lesions.rows()) == 4


def test_an_edit_without_copy_or_lesion_is_told(session):
    found = LesionList(session)
    found.step(1)
    with pytest.raises(UsageError, match="no copy is open"):
        found.delete()
    session.edit_preferred()
    with pytest.raises(UsageError, match="no lesion is chosen"):
        LesionList(session, None, Applies(session)).delete()


def test_strokes_while_the_list_is_filled_are_in_it(lesions, session):
    lesions.measure_next()
    box = (slice(2, 4), slice(50, 60), slice(60, 70))
    lesions.editing.apply("brush", box, np.full((2, 10, 10), 2, np.uint8))
    assert sorted(voxels(lesions.rows())) == sorted(voxels(as_measured(session)))
    assert ("lesion", 200) in voxels(lesions.rows())


def test_no_two_commands_share_a_key_and_edits_work_in_edit_mode_only(lesions):
    commands = lesions.commands()
    assert len({command.key for command in commands}) == len(commands)
    assert {command.name for command in commands if command.mode != "edit"} == {"next-lesion", "previous-lesion"}
    assert commands[0].run().startswith("1 of 3")
