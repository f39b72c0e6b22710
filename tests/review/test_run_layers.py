"""Layers of a run in the review room: laid over the CT, told by the probe, gone through by their highest places."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from review_store import RUN, SERIES, SHAPE, commit, grid_of, write_volume

from ctpipe.errors import UsageError
from ctpipe.review.room import Room
from ctpipe.review.run_layers import APART_MM, SURE
from ctpipe.store import LayerMeta, open_store
from ctpipe.words import LayerKind

BARE = "7f3a9c0000000002"  # a volume whose run kept no layers
# values of spots, all in one voxel of the coarser level (2 x 2 x 2 there): the two last are too near, too sure
SPOTS = {(10, 40, 60): 250, (30, 100, 20): 200, (20, 20, 100): 120, (10, 44, 60): 240, (36, 150, 130): 40}
LIKELY = (18, 70, 64)  # in the lesion


def _keep(store, kind: LayerKind, name: str, voxels: np.ndarray, label: int | None = None) -> None:
    meta = LayerMeta(RUN, name, kind, grid_of(), 1 / 255, label, None if label is None else "lesion")
    commit(store, store.layer_writer(SERIES, meta), voxels)


@pytest.fixture(scope="module")
def layered_path(tmp_path_factory):
    """A store of two volumes; the run of the first kept entropy and the probability of the lesion."""
    root = tmp_path_factory.mktemp("layers") / "S"
    store = open_store(root, "a")
    write_volume(store, SERIES)
    write_volume(store, BARE)
    entropy = np.zeros(SHAPE, np.uint8)
    for (z, y, x), value in SPOTS.items():
        entropy[z : z + 2, y : y + 4, x : x + 4] = value
    _keep(store, LayerKind.ENTROPY, "entropy", entropy)
    likely = np.zeros(SHAPE, np.uint8)
    likely[16:22, 60:80, 60:70] = 204
    _keep(store, LayerKind.PROBABILITIES, "probability-2", likely, 2)
    return root


@pytest.fixture
def room(layered_path):
    made = Room(ViewerModel(), layered_path, "p-01")
    made.session.show(SERIES, RUN)
    yield made
    made.close()


def _names(viewer) -> list[str]:
    return [layer.name for layer in viewer.layers]


def test_each_key_press_shows_the_next_layer_over_the_ct_in_all_planes_and_the_last_one_none(room):
    viewer, part = room.session.viewer, room.run_layers
    ct, labels = _names(viewer)
    said = [part.next_layer() for _ in range(4)]
    assert said == ["entropy", "probability-2 (lesion)", "no layer", "entropy"]
    for one in room.reading.planes.viewers:
        assert _names(one) == [ct, f"entropy {RUN[:8]}", labels], "over the CT, under the labels"
        assert one.layers[1].visible
    assert viewer.layers.selection.active.name == ct
    assert room.reading.image.name == ct


def test_the_probe_tells_the_value_of_the_layer_in_view(room):
    room.reading.go_to(*LIKELY)
    assert room.reading.probe().values == {}
    room.run_layers.next_layer()
    room.run_layers.next_layer()
    assert room.reading.probe().values == {f"probability-2 lesion {RUN[:8]}": pytest.approx(0.8)}
    assert f"probability-2 lesion {RUN[:8]}: 0.80" in str(room.reading.probe())


def test_the_least_sure_places_come_one_by_one_none_beside_another_none_where_it_is_sure(room):
    part, seen = room.run_layers, []
    said = [part.next_unsure() for _ in range(4) if seen.append(room.reading.planes.voxel) or True]
    seen.append(room.reading.planes.voxel)
    assert said == ["least sure 1 of 3", "least sure 2 of 3", "least sure 3 of 3", "least sure 1 of 3"]
    wanted = list(SPOTS)[:3]
    for at, spot in zip(seen[1:4], wanted, strict=True):
        assert all(low <= here < low + size for here, low, size in zip(at, spot, (2, 4, 4), strict=True)), (at, spot)
    assert seen[4] == seen[1]
    assert 4 * grid_of().spacing_mm[1] < APART_MM, "the fourth spot is left out for its neighbour"
    assert SURE > 40 / 255, "the fifth because the model is sure there"


def test_a_layer_stays_on_in_the_next_case_that_has_it_and_goes_where_there_is_none(room):
    part, session = room.run_layers, room.session
    part.next_layer()
    session.show(BARE, RUN)
    assert len(session.viewer.layers) == 2
    with pytest.raises(UsageError, match="no layers are kept of this run"):
        part.next_layer()
    with pytest.raises(UsageError, match="neither entropy nor spread"):
        part.next_unsure()
    session.show(SERIES, RUN)
    assert _names(session.viewer)[1] == f"entropy {RUN[:8]}"
    assert session.viewer.layers[1].metadata["ctpipe"]["series"] == SERIES


def test_a_correction_is_read_with_the_layers_of_the_run_that_it_was_made_on(room):
    session, part = room.session, room.run_layers
    copy = session.edit(RUN)
    assert part.next_layer() == "entropy"
    assert session.viewer.layers.selection.active is session.layer
    copy.array[0, :4, :4] = 1  # what is saved must differ from the run
    session.layer.paint((18, 70, 64), 1)
    name = session.save().name
    session.show(SERIES, name)
    assert [layer.name for layer in part.layers] == ["entropy", "probability-2"]


@pytest.mark.display
def test_the_key_on_the_canvas_lays_it_over_the_ct_and_takes_it_away(shared_room):
    from qtpy.QtCore import Qt
    from test_room import press
    from test_viewer import shot

    room = shared_room
    viewer = room.anew()
    store, entropy = open_store(room.root, "a"), np.zeros(SHAPE, np.uint8)
    entropy[:, 20:40, 20:60] = 255  # where no label lies
    _keep(store, LayerKind.ENTROPY, "entropy", entropy)
    bare = reddish(shot(viewer))
    press(viewer, Qt.Key.Key_U)
    assert bare + 0.002 < reddish(shot(viewer)) < bare + 0.01, "12 x 48 mm of a canvas that shows 173 mm across"
    press(viewer, Qt.Key.Key_U)
    assert reddish(shot(viewer)) == pytest.approx(bare, abs=1e-3)


def reddish(picture: np.ndarray) -> float:
    """Share of pixels that are much more red than blue, as orange."""
    return float((picture[..., 0] - picture[..., 2] > 0.15).mean())
