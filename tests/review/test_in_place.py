"""The next case comes into the layers of the one before: they stay, and nothing of the earlier case shines through."""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels, Layer
from reading_made import grid_at
from review_store import RUN, SERIES, commit, phantom, write_volume

from ctpipe.errors import StoreFaultError
from ctpipe.review.reading import Reading
from ctpipe.review.session import ReviewSession
from ctpipe.store import LabelsMeta, open_store
from ctpipe.words import LabelKind

OTHER, WIDE = "8e3a9c0000000001", "9d3a9c0000000001"
OTHER_SHAPE = (23, 300, 270)  # three levels


@pytest.fixture(scope="module")
def root(tmp_path_factory, _own_key):
    """A store of three cases: two alike in kind and unlike in all else, one whose labels are of two bytes."""
    root = tmp_path_factory.mktemp("in-place") / "S"
    write_volume(open_store(root, "a"), SERIES)
    write(root, OTHER, np.uint8, {1: "spleen", 7: "cyst"})
    write(root, WIDE, np.uint16, {1: "spleen", 700: "cyst"})
    return root


def write(root, series: str, dtype, classes: dict[int, str]) -> None:
    grid = grid_at("oblique", OTHER_SHAPE, (4.0, 0.7, 0.7))
    hu = np.random.default_rng(len(str(dtype))).integers(-900, 900, OTHER_SHAPE).astype(np.int16)
    labels = np.zeros(OTHER_SHAPE, dtype)
    for number, label in enumerate(classes):
        labels[3 + number : 9 + number, 40 * (1 + number) : 40 * (2 + number), 50:120] = label
    write_volume(open_store(root, "a"), series, grid=grid, voi=(-600.0, 1500.0), arrays=(hu, None))
    store = open_store(root, "a")
    meta = LabelsMeta(RUN, LabelKind.PREDICTION, grid, classes, str(np.dtype(dtype)), {"model": "none"})
    commit(store, store.labels_writer(series, meta), labels)


@pytest.fixture
def opened(root):
    """Opens rooms: (session, reading) with nothing on show."""
    made = []

    def one():
        session = ReviewSession(ViewerModel(), root)
        made.append(session)
        return session, Reading(session)

    yield one
    for session in made:
        session.let_go()


def seen(session, reading) -> list:
    """All that three viewers hold and show of a case, as plain data."""
    found: list = [session.viewer.title, session.viewer.layers.selection.active.name, reading.planes.voxel]
    for viewer in reading.planes.viewers:
        dims, camera = viewer.dims, viewer.scene.camera
        found += [dims.range, dims.point[dims.order[0]], dims.order, dims.thickness, dims.axis_labels, dims.displayed]
        found += [camera.center, camera.zoom, camera.orientation2d]
        found += [(name, each.text) for name, each in viewer.canvas.overlays.items() if name.startswith("ctpipe")]
        found += [facts(layer, viewer) for layer in viewer.layers]
    return found


def facts(layer: Layer, viewer: ViewerModel) -> dict:
    shown = layer.extent.world[:, list(viewer.dims.displayed)]
    layer._update_draw(1.0, shown, (300, 300))  # as a canvas does before it draws
    data, state, kind = layer.as_layer_data_tuple()
    state = {name: plain(value) for name, value in state.items()}
    levels = data if layer.multiscale else [data]
    state |= {"kind": kind, "shapes": [level.shape for level in levels], "extent": layer.extent.world.tolist()}
    state |= {"voxels": [digest(level[level.shape[0] // 2]) for level in levels]}
    state |= {"seen": digest(layer._data_view), "editable": layer.editable, "mode": str(layer.mode),
              "level": layer.data_level, "thumbnail": digest(layer.thumbnail)}  # fmt: skip
    if isinstance(layer, Labels):
        state |= {name: getattr(layer, name) for name in ("selected_label", "show_selected_label", "contour",
                                                          "brush_size", "n_edit_dimensions", "preserve_labels")}
        state |= {"undo": len(layer._undo_history) + len(layer._redo_history), "colour": plain(layer.get_color(7))}
    else:
        state["reach"] = tuple(layer.contrast_limits_range)
    return state


def digest(voxels) -> str:
    return sha256(np.ascontiguousarray(voxels)).hexdigest()


def plain(value):
    """For ==: arrays and tables as lists."""
    if hasattr(value, "color_dict"):
        return {key: np.asarray(colour).tolist() for key, colour in value.color_dict.items()}
    if hasattr(value, "to_dict"):
        return value.to_dict("list")
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, np.ndarray | np.generic | float | int):
        return np.asarray(value).tolist()
    return str(value)


def meddle(session, reading) -> None:
    """A reader changes what can be changed, in the layers and in the view."""
    image, labels = session.viewer.layers
    image.name, image.gamma, image.colormap, image.opacity = "mine", 0.5, "magma", 0.4
    image.contrast_limits_range, image.contrast_limits = (-9000, 9000), (-5000, 5000)
    image.projection_mode, image.blending, image.interpolation2d = "max", "additive", "cubic"
    image.affine, image.metadata["note"] = np.diag([2.0, 1, 1, 1]), "mine"
    labels.contour, labels.opacity, labels.selected_label, labels.brush_size = 3, 1.0, 2, 33
    labels.colormap = {1: "red", 2: "yellow", None: "red"}
    labels.features = {"index": [0, 1], "class": ["x", "y"]}
    labels.show_selected_label, labels.n_edit_dimensions, labels.preserve_labels = True, 3, True
    labels.translate, labels.visible = (5, 5, 5), False
    reading.next_pane()
    reading.thicken(20)
    reading.go_to(3, 30, 40)
    reading.planes.enlarge(0)
    session.viewer.scene.camera.zoom = 11
    reading.measure()
    reading._set_lines([line_of_a_case(reading)])
    session.viewer.add_points(np.zeros((1, 3)), name="the reader's own")


def line_of_a_case(reading):
    from ctpipe.review.ruler import line

    return line((3, 10, 10), (3, 50, 50))


@pytest.mark.parametrize(("first", "then"), [(SERIES, OTHER), (OTHER, SERIES)])
def test_the_layers_stay_and_all_they_hold_is_the_next_cases(opened, first, then):
    """In all three viewers, as if the case were the first one in a new window."""
    session, reading = opened()
    session.show(first, RUN)
    kept = [list(viewer.layers) for viewer in reading.planes.viewers]
    meddle(session, reading)
    session.show(then, RUN)
    for viewer, layers in zip(reading.planes.viewers, kept, strict=True):
        assert len(viewer.layers) == 2
        assert all(one is other for one, other in zip(viewer.layers, layers, strict=True))
    fresh, reading_fresh = opened()
    fresh.show(then, RUN)
    for one, other in zip(seen(session, reading), seen(fresh, reading_fresh), strict=True):
        assert one == other


def test_labels_that_need_another_layer_get_one_and_the_ct_stays(opened):
    session, reading = opened()
    session.show(OTHER, RUN)
    image, labels = session.viewer.layers
    session.show(WIDE, RUN)
    assert session.viewer.layers[0] is image
    assert session.viewer.layers[1] is not labels
    assert [len(viewer.layers) for viewer in reading.planes.viewers] == [2, 2, 2]
    session.show(SERIES)  # labels are not asked for
    assert list(session.viewer.layers) == [image]
    assert [len(viewer.layers) for viewer in reading.planes.viewers] == [1, 1, 1]
    fresh, reading_fresh = opened()
    fresh.show(SERIES)
    assert seen(session, reading) == seen(fresh, reading_fresh)


def test_a_working_copy_goes_with_its_case_and_the_next_one_has_a_layer_and_an_undo_of_its_own(opened):
    session, reading = opened()
    session.show(SERIES, RUN)
    session.edit(RUN)
    first = session.layer
    first.paint((12, 80, 70), 2)
    session.show(OTHER, RUN)
    assert first not in session.viewer.layers
    assert [layer.name for layer in session.viewer.layers] == [f"CT {OTHER[:8]}", f"prediction {RUN[:8]}"]
    assert session.viewer.layers[1].visible, "hidden while the copy of the earlier case was open"
    session.edit(RUN)
    assert session.layer is not first
    assert session.editing.undo() == "nothing to undo"
    assert np.array_equal(session.layer.data, session.series.labels[RUN].read_planes(0, OTHER_SHAPE[0]))
    assert reading.planes.copies(session.layer)


def test_of_a_case_that_cannot_be_read_nothing_is_shown_nor_of_the_one_before(opened, root, tmp_path):
    import shutil

    shutil.copytree(root, tmp_path / "S")
    for file in (tmp_path / "S" / f"{OTHER}.ome.zarr" / "labels" / RUN).rglob("*"):
        if file.is_file() and file.name != "zarr.json":
            file.write_bytes(b"rotten")
    session = ReviewSession(ViewerModel(), tmp_path / "S")
    reading = Reading(session)
    session.show(SERIES, RUN)
    with pytest.raises(StoreFaultError):
        session.show(OTHER, RUN)
    assert [len(viewer.layers) for viewer in reading.planes.viewers] == [0, 0, 0]
    session.show(SERIES, RUN)
    assert np.array_equal(np.asarray(session.viewer.layers[1].data[0]), phantom()[1])
