"""Predict here on napari's ViewerModel: the labels of a run, shown as a proposal, taken whole, by piece, or dropped."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from napari.components import ViewerModel
from review_store import ORIGIN, RUN, SERIES, SPACING, grid_of

sys.path.insert(0, str(Path(__file__).parents[1] / "pipeline"))

from line_made import small_recipe

from ctpipe import pipeline
from ctpipe.config import recipe_from_dict
from ctpipe.errors import NotThereError, UsageError
from ctpipe.models import Model, build_network
from ctpipe.review.proposal import Proposal
from ctpipe.review.regions import View, box_in_view, pieces_of
from ctpipe.review.session import ReviewSession
from ctpipe.store import open_store

BOX = slice(10, 20), slice(30, 110), slice(40, 100)


class StandIn:
    """`Editing.apply` as the contract has it, without its journal."""

    def __init__(self, session):
        self.session, self.actions = session, []

    def apply(self, kind, box, new, **facts):
        self.session.copy.array[box] = new
        self.actions.append((kind, box, facts))


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> Path:
    """A classifier of three classes, one of which the labels of the store do not have."""
    plain = {**small_recipe().as_dict(), "classes": ["Liver", "cyst"]}
    plain["predict"] = {**plain["predict"], "region": "all"}
    recipe = recipe_from_dict(plain)
    torch.manual_seed(1)
    network = build_network(recipe.network, 1, 3, recipe.windows.window, recipe.options)
    with torch.no_grad():
        network.head[-1].weight *= 0.1
    folder = tmp_path_factory.mktemp("model") / "M"
    Model.of(recipe, recipe.classes, network).save(folder)
    return folder


@pytest.fixture
def proposal(store_path, model_folder):
    session = ReviewSession(ViewerModel(), store_path)
    session.show()
    session.look_at(RUN)
    made = Proposal(session, StandIn(session))
    made.choose(model_folder)
    yield made
    session.close()


def test_a_proposal_is_what_a_run_gives_there(proposal, store_path, model_folder):
    line = proposal.predict(BOX)
    found = proposal.proposed.found
    [run] = pipeline.infer(store_path, model_folder).runs
    whole = open_store(store_path)[SERIES].labels[run.run].read_planes(0, 40)
    assert np.array_equal(found.labels, whole[BOX])
    assert len(np.unique(found.labels)) == 3
    assert found.run == run.run
    assert f"{len(proposal.proposed.pieces)} piece(s) in 10 x 80 x 60 voxels" in line


def test_it_lies_where_the_region_lies_and_cannot_be_painted_on(proposal):
    proposal.predict(BOX)
    layer = proposal.session.viewer.layers["proposal"]
    assert not layer.editable
    place = [ORIGIN[2] + 10 * SPACING[0], ORIGIN[1] + 30 * SPACING[1], ORIGIN[0] + 40 * SPACING[2]]
    assert tuple(layer.translate) == pytest.approx(place)
    piece = proposal.proposed.pieces[0]
    at = [o + c * s for o, c, s in zip(ORIGIN[::-1], piece.centre, SPACING, strict=True)]
    assert layer.get_value(at, world=True) == piece.label
    assert list(layer.features["class"]) == ["background", "Liver", "cyst"]
    assert proposal.session.viewer.layers.selection.active is proposal.session.viewer.layers[0]


def test_taken_whole_it_replaces_the_region_and_nothing_else(proposal):
    proposal.predict(BOX)
    labels = proposal.proposed.found.labels.copy()
    assert proposal.accept().startswith("took the proposal")
    session = proposal.session
    copy = session.copy.array[:]
    assert session.copy.record.classes == {1: "liver", 2: "lesion", 3: "cyst"}, "classes go by name"
    assert np.array_equal(copy[BOX], np.array([0, 1, 3], np.uint8)[labels])
    before = open_store(session.store.root)[SERIES].labels[RUN].read_planes(0, 40)
    outside = np.ones(copy.shape, bool)
    outside[BOX] = False
    assert np.array_equal(copy[outside], before[outside])
    [(kind, box, facts)] = proposal.editing.actions
    assert (kind, box) == ("predict", BOX)
    assert set(facts) == {"model", "run"}
    assert "proposal" not in session.viewer.layers
    assert proposal.proposed is None


def test_taken_by_piece_only_its_voxels_change(proposal):
    proposal.predict(BOX)
    proposed = proposal.proposed
    piece = proposed.pieces[1]
    before = open_store(proposal.session.store.root)[SERIES].labels[RUN].read_planes(0, 40)
    expected = before.copy()
    expected[BOX][proposed.numbers == piece.number] = {"Liver": 1, "cyst": 3}[piece.name]
    proposal.accept_piece(piece.number)
    assert np.array_equal(proposal.session.copy.array[:], expected)
    assert proposal.proposed is proposed, "the others wait"
    assert not (proposal.layer.data[proposed.numbers == piece.number]).any(), "what was taken is not proposed any more"
    with pytest.raises(UsageError, match="no piece"):
        proposal.accept_piece(piece.number)
    proposal.drop()
    assert np.array_equal(proposal.session.copy.array[:], expected)


def test_the_piece_under_the_crosshair_is_taken_else_the_largest(proposal):
    proposal.predict(BOX)
    first, second = proposal.proposed.pieces[:2]
    dims = proposal.session.viewer.dims
    dims.set_point((0, 1, 2), [o + c * s for o, c, s in zip(ORIGIN[::-1], second.centre, SPACING, strict=True)])
    proposal.accept_here()
    proposal.accept_here()
    assert proposal.taken == {first.number, second.number}
    left = len(proposal.proposed.pieces) - 2
    for _ in range(left):
        proposal.accept_here()
    assert proposal.proposed is None
    with pytest.raises(UsageError, match="there is no proposal"):
        proposal.accept_here()


def test_dropped_it_leaves_nothing(proposal):
    proposal.predict(BOX)
    assert proposal.drop() == "the proposal is dropped"
    assert proposal.session.copy is None
    assert not (proposal.session.store.root / "reviews").exists()
    assert proposal.drop() == "there is no proposal"


def test_another_case_lets_a_proposal_go(proposal):
    *_, (_, _, late) = proposal.steps(BOX)
    proposal.predict(BOX)
    proposal.session.show()
    assert proposal.proposed is None
    from review_store import phantom, write_volume

    other = write_volume(open_store(proposal.session.store.root, "a"), "8000000000000001",
                         arrays=(phantom()[0] + np.int16(1), None))  # fmt: skip
    proposal.session.show(other)
    assert proposal.show(late) == "the proposal was for another case"
    assert "proposal" not in proposal.session.viewer.layers


def test_the_region_is_what_is_in_view(proposal):
    viewer = proposal.session.viewer
    viewer.reset_view()
    viewer.dims.set_point(0, ORIGIN[2] + 12 * SPACING[0])
    assert proposal.region() == (slice(8, 17), slice(0, 160), slice(0, 144))
    viewer.scene.camera.zoom = 10  # 80 x 60 mm are left: height is 800 in a viewer without a window
    height, width = viewer.canvas.size
    viewer.scene.camera.center = (0, ORIGIN[1] + 70 * SPACING[1], ORIGIN[0] + 60 * SPACING[2])
    _, y, x = proposal.region()
    assert (y.stop - y.start) * SPACING[1] == pytest.approx(height / 10, abs=2 * SPACING[1])
    assert (x.stop - x.start) * SPACING[2] == pytest.approx(width / 10, abs=2 * SPACING[2])
    assert (y.start + y.stop - 1) / 2 == pytest.approx(70, abs=1)
    assert (x.start + x.stop - 1) / 2 == pytest.approx(60, abs=1)
    viewer.scene.camera.center = (0, 900, 900)
    with pytest.raises(UsageError, match="no voxel"):
        proposal.region()


def test_a_coronal_view_gives_planes_along_y():
    view = View((0, 2), (110.0, ORIGIN[1] + 80 * 0.6, 0.0), (150.0, 0.0, 24.0), 5.0, (100, 120))
    z, y, x = box_in_view(view, grid_of(), 2)
    assert (y.start, y.stop) == (78, 83)
    assert (z.start, z.stop) == (16, 25)  # 140 to 160 mm, 2.5 mm a plane from 100
    assert (x.stop - x.start) == pytest.approx(24 / 1.2, abs=1.1)
    volume = View((0, 1, 2), (0, 0, 0), (0, 0, 0), 1.0, (100, 100))
    assert box_in_view(volume, grid_of(), 2) == (slice(0, 40), slice(0, 160), slice(0, 144))


def test_pieces_touch_by_corners_and_never_across_classes():
    labels = np.zeros((4, 6, 6), np.uint8)
    labels[0, 0, 0] = labels[1, 1, 1] = 1
    labels[1, 1, 2] = 2
    labels[3, 4:6, 4:6] = 2
    numbers, pieces = pieces_of(labels, {1: "liver", 2: "cyst"}, 0.5, (10, 20, 30))
    assert [(piece.name, piece.voxels, piece.ml) for piece in pieces] == [("cyst", 4, 2.0), ("liver", 2, 1.0),
                                                                          ("cyst", 1, 0.5)]  # fmt: skip
    for piece in pieces:
        z, y, x = (c - at for c, at in zip(piece.centre, (10, 20, 30), strict=True))
        assert numbers[z, y, x] == piece.number
        assert labels[z, y, x] == piece.label


def test_what_lacks_is_said(store_path, model_folder, tmp_path):
    session = ReviewSession(ViewerModel(), store_path)
    proposal = Proposal(session)
    with pytest.raises(UsageError, match="no series is shown"):
        proposal.predict()
    session.show()
    with pytest.raises(NotThereError, match="the store keeps no model"):
        proposal.predict()
    with pytest.raises(NotThereError, match="is no model"):
        proposal.choose(tmp_path)
    proposal.choose(model_folder)
    proposal.predict((slice(10, 11), slice(60, 70), slice(60, 70)))
    with pytest.raises(UsageError, match="nothing can be corrected in this viewer"):
        proposal.accept()


def test_the_model_of_the_run_on_show_is_asked_unless_one_is_chosen(store_path, model_folder):
    [run] = pipeline.infer(store_path, model_folder).runs
    session = ReviewSession(ViewerModel(), store_path)
    session.show()
    proposal = Proposal(session)
    assert [folder.name for folder in proposal.models()] == [proposal.model.name]
    assert proposal.model.name == open_store(store_path)[SERIES].labels[run.run].provenance["model"]
