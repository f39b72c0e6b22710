"""Two label sets of a series in the viewer's model: colours, places, lesions."""

from __future__ import annotations

import numpy as np
import pytest
from lesion_review import OTHER_RUN, SPACING, Applies, ball, drawn_case, write_case
from napari.components import ViewerModel
from review_store import RUN, SERIES, write_volume

from ctpipe.errors import NotThereError, UsageError
from ctpipe.review.comparing import LAYER, Comparison, line_of_change
from ctpipe.review.lesions import COPY
from ctpipe.review.session import ReviewSession
from ctpipe.scoring import Code, Fate
from ctpipe.store import open_store


def other_labels() -> np.ndarray:
    """The dumbbell cut in two, the lesion outside gone, another one made up."""
    labels = drawn_case()[1]
    labels[:, :, 23][labels[:, :, 23] == 2] = 1
    labels[:, :, 47:] = 0
    ball(labels, (6, 54, 60), 3)
    return labels


@pytest.fixture
def session(tmp_path):
    write_case(tmp_path / "S", other_labels())
    session = ReviewSession(ViewerModel(), tmp_path / "S")
    session.show()
    yield session
    session.close()


def test_the_layer_has_the_code_of_every_voxel_and_cannot_be_painted(session):
    found = Comparison(session)
    assert found.compare(RUN, OTHER_RUN, "lesion") == f"{OTHER_RUN} against {RUN}, lesion"
    layer = session.viewer.layers[LAYER]
    right, other = drawn_case()[1] == 2, other_labels() == 2
    data = np.asarray(layer.data)
    assert np.array_equal(data == Code.AGREED, right & other)
    assert np.array_equal(data == Code.FALSE_POSITIVE, other & ~right)
    assert np.array_equal(data == Code.FALSE_NEGATIVE, right & ~other)
    assert not layer.editable
    assert tuple(layer.scale) == pytest.approx(SPACING)
    colours = [tuple(layer.get_color(int(code))) for code in (1, 2, 3)]
    assert len(set(colours)) == 3
    found.compare(RUN, OTHER_RUN)
    assert [one.name for one in session.viewer.layers].count(LAYER) == 1


def test_slabs_are_compared_when_they_are_shown_and_not_before(session, monkeypatch):
    from ctpipe.scoring import Difference

    asked = []
    coded = Difference.coded
    monkeypatch.setattr(Difference, "coded", lambda self, a, b: asked.append(a.shape) or coded(self, a, b))
    found = Comparison(session)
    found.compare(RUN, OTHER_RUN)
    np.asarray(found.layer.data[3])
    assert len(asked) <= 2, "napari's own look at the plane in view, and ours"
    assert asked[-1][0] == 32


def test_a_series_of_two_levels_is_compared_on_both(tmp_path):
    from review_store import phantom

    from ctpipe.store import LabelsMeta
    from ctpipe.words import LabelKind

    store = open_store(tmp_path / "S", "a")
    write_volume(store, SERIES)
    series = open_store(tmp_path / "S")[SERIES]
    from review_store import commit

    meta = LabelsMeta(OTHER_RUN, LabelKind.PREDICTION, series.grid, {1: "liver"}, "uint8", {})
    commit(store, store.labels_writer(SERIES, meta), np.zeros_like(phantom()[1]))
    session = ReviewSession(ViewerModel(), tmp_path / "S")
    session.show()
    found = Comparison(session)
    found.compare(RUN, OTHER_RUN)
    assert found.layer.multiscale
    assert [level.shape for level in found.layer.data] == [(40, 160, 144), (40, 80, 72)]
    assert set(np.unique(np.asarray(found.layer.data[1]))) == {0, Code.FALSE_NEGATIVE}


def test_places_are_stepped_through_from_the_largest(session):
    went = []
    found = Comparison(session, lambda *at: went.append(at))
    lines = [found.step(1) for _ in range(4)]
    assert lines[0].startswith("1 of 3: ")
    assert "false negative" in "".join(lines)
    assert "another class" in "".join(lines)
    assert lines[3] == lines[0]
    assert found.step(-1).startswith("3 of 3")
    assert (32, 40, 58) in went
    found.at = -1
    assert found.step(-1).startswith("3 of 3")


def test_lesions_are_matched_as_objects(session):
    found = Comparison(session)
    found.compare(RUN, OTHER_RUN, "lesion")
    assert sorted(one.fate for one in found.matched()) == [Fate.LOST, Fate.NEW, Fate.SPLIT]
    split = next(one for one in found.matched() if one.fate is Fate.SPLIT)
    assert line_of_change(split).startswith("lesion split 1 → 2: -")
    lost = next(one for one in found.matched() if one.fate is Fate.LOST)
    assert line_of_change(lost).startswith("lesion lost: -")
    assert found.go_to_change(lost) == line_of_change(lost)
    assert session.viewer.dims.point[0] == pytest.approx(100 + 32 * SPACING[0], abs=1)


def test_dice_is_that_of_evaluate(session):
    from ctpipe.scoring import evaluate_volume

    found = Comparison(session)
    found.compare(RUN, OTHER_RUN)
    labels = session.series.labels
    scores = evaluate_volume(labels[RUN], labels[OTHER_RUN])
    assert found.dice() == {name: scores.confusion.dice(scores.index(name)) for name in ("liver", "lesion")}
    assert set(found.dice()) == {"liver", "lesion"}


def test_an_edit_of_the_copy_is_seen_at_once(session):
    session.edit(RUN)
    editing = Applies(session)
    found = Comparison(session, editing=editing)
    assert found.choices[-1] == COPY
    found.compare()
    assert found.usual_pair() == (RUN, COPY)
    assert found.places() == []
    assert found.step(1) == "they agree everywhere"
    editing.apply("brush", (slice(1, 3), slice(0, 4), slice(0, 5)), np.full((2, 4, 5), 2, np.uint8))
    (place,) = found.places()
    assert (place.code, place.voxels) == (Code.FALSE_POSITIVE, 40)
    assert np.count_nonzero(np.asarray(found.layer.data) == Code.FALSE_POSITIVE) == 40
    session.close()
    assert LAYER not in session.viewer.layers
    assert found.difference is None


def test_what_cannot_be_compared_is_told(session, tmp_path):
    found = Comparison(session)
    with pytest.raises(UsageError, match="nothing is compared"):
        found.places()
    with pytest.raises(NotThereError, match="has no labels"):
        found.compare("ffff", RUN)
    with pytest.raises(NotThereError, match="neither side"):
        found.compare(RUN, OTHER_RUN, "spleen")
    write_volume(open_store(tmp_path / "T", "a"), SERIES, arrays=(drawn_case()[0], None))
    alone = ReviewSession(ViewerModel(), tmp_path / "T")
    alone.show()
    with pytest.raises(UsageError, match="two sets"):
        Comparison(alone).compare()
