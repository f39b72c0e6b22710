"""The real viewer under an X display: what is painted is seen where it was painted, in true proportions."""

from __future__ import annotations

import numpy as np
import pytest
from review_store import ORIGIN, RUN, SERIES, SPACING

from ctpipe.errors import NotThereError
from ctpipe.review import open_review, snapshot
from ctpipe.review.layers import class_rgba
from ctpipe.review.view import settle
from ctpipe.review.widget import ReviewWidget
from ctpipe.store import open_store

pytestmark = pytest.mark.display
PLANE = 12  # holds liver, no lesion


@pytest.fixture
def opened(shared_room):
    """`shared_room.anew`: the window of all tests here, as it is opened."""
    return shared_room.anew


def shot(viewer) -> np.ndarray:
    """The canvas as float RGB, 0..1."""
    settle()
    return viewer.screenshot(canvas_only=True, flash=False)[..., :3] / 255


def where_coloured(picture: np.ndarray, label: int) -> np.ndarray:
    """Pixels whose hue is that of a class, whatever grey lies below it."""
    colour = np.asarray(class_rgba(label)[:3])
    tint = picture - picture.min(axis=-1, keepdims=True)
    wanted = colour - colour.min()
    length = np.linalg.norm(tint, axis=-1)
    likeness = (tint @ wanted) / np.maximum(length * np.linalg.norm(wanted), 1e-6)
    return (length > 0.2) & (likeness > 0.985)


def box(mask: np.ndarray) -> tuple[float, float, float, float]:
    """Top, bottom, left and right edge of the pixels in `mask`."""
    rows, columns = np.nonzero(mask)
    return rows.min(), rows.max() + 1, columns.min(), columns.max() + 1


def to_plane(viewer, plane: int) -> None:
    viewer.dims.set_point(0, ORIGIN[2] + plane * SPACING[0])


def test_what_is_painted_is_seen_where_it_was_painted_in_true_proportions(opened):
    viewer = opened(RUN)
    to_plane(viewer, PLANE)
    layer = viewer.layers["correction"]
    before = shot(viewer)
    assert before.std() > 0.05, "the picture is not black"
    top, bottom, left, right = box(where_coloured(before, 1))
    # 100 rows of 0.6 mm and 50 columns of 1.2 mm are both 60 mm
    assert (bottom - top) / (right - left) == pytest.approx(1, abs=0.02)
    assert not where_coloured(before, 2).any()

    layer.brush_size = 10
    layer.selected_label = 2
    layer.paint((PLANE, 60, 80), 2)
    after = shot(viewer)
    painted = where_coloured(after, 2)
    up, down, near, far = box(painted)
    pixels_a_mm = (bottom - top) / 60
    assert (up + down) / 2 == pytest.approx(top + (60.5 - 30) * 0.6 * pixels_a_mm, abs=2)
    assert (near + far) / 2 == pytest.approx(left + (80.5 - 45) * 1.2 * pixels_a_mm, abs=2)
    changed = np.abs(after - before).max(axis=-1) > 0.05
    edge = 3
    assert not changed[: up - edge].any()
    assert not changed[down + edge :].any()
    assert not changed[:, : near - edge].any()
    assert not changed[:, far + edge :].any()


def test_a_coronal_picture_has_true_proportions(opened):
    viewer = opened()
    viewer.dims.order = (1, 0, 2)
    viewer.dims.set_point(1, ORIGIN[1] + 100 * SPACING[1])
    viewer.reset_view()
    top, bottom, left, right = box(where_coloured(shot(viewer), 1))
    assert (bottom - top) / (right - left) == pytest.approx(22 * 2.5 / 60, abs=0.02)


def test_the_coarse_level_lies_where_the_fine_one_lies(opened, shared_room):
    viewer, store_path = opened(), shared_room.root
    viewer.layers[1].visible = False
    settle()
    viewer.open(store_path / f"{SERIES}.ome.zarr", plugin="ctpipe")
    looked = viewer.layers[-1]
    assert looked.multiscale
    to_plane(viewer, PLANE)
    viewer.reset_view()
    zoom = viewer.camera.zoom = 4.0  # pixels a millimetre
    for level in (0, 1):
        looked.locked_data_level = level
        picture = shot(viewer)
        assert looked.data_level == level
        top, bottom, left, right = box(where_coloured(picture, 1))
        middle = np.array([(top + bottom) / 2, (left + right) / 2]) - np.array(picture.shape[:2]) / 2
        seen = middle / zoom + np.array(viewer.camera.center[1:])
        expected = np.array([ORIGIN[1] + 79.5 * SPACING[1], ORIGIN[0] + 69.5 * SPACING[2]])
        assert seen == pytest.approx(expected, abs=0.6)


def test_the_buttons_edit_and_save(opened, shared_room):
    viewer, store_path = opened(RUN), shared_room.root
    widget = viewer.window._qt_window.findChild(ReviewWidget)
    assert widget.series_list.count() == 1
    assert [widget.labels_list.item(n).text() for n in range(2)] == [
        f"prediction {RUN[:8]}: liver, lesion",
        "(start empty)",
    ]
    widget.save_button.click()
    assert widget.status.text().startswith("nothing to save")
    widget.class_box.setCurrentIndex(1)
    widget.class_box.activated.emit(1)
    layer = viewer.layers["correction"]
    assert layer.selected_label == 2
    layer.paint((PLANE, 60, 80), layer.selected_label)
    widget.save_button.click()
    names = [name for name in open_store(store_path)[SERIES].labels if name.startswith("review-")]
    assert len(names) == 1
    assert widget.status.text().startswith(f"saved as {names[0]}")
    assert widget.labels_list.count() == 3
    widget.new_class.setText("cyst")
    widget.new_class.returnPressed.emit()
    assert layer.selected_label == 3
    widget.labels_list.setCurrentRow(widget.labels_list.count() - 1)
    widget.edit_button.click()
    assert viewer.layers["correction"].data[:].max() == 0


def test_an_error_is_a_line_in_the_widget_and_the_strokes_stay(opened):
    viewer = opened(RUN)
    widget = viewer.window._qt_window.findChild(ReviewWidget)
    viewer.layers["correction"].paint((PLANE, 60, 80), 9)
    widget.save_button.click()
    assert "painted labels without a class: 9" in widget.status.text()
    assert (viewer.layers["correction"].data[PLANE] == 9).any()


def test_the_widget_of_the_plugin_menu_asks_for_a_store(close_viewers, store_path, tmp_path):
    import napari

    viewer = napari.Viewer(show=False)
    close_viewers.append(viewer)
    _, widget = viewer.window.add_plugin_dock_widget("ctpipe", "Review worklist")
    widget.open_store(str(tmp_path / "absent"))
    assert widget.status.text().startswith(f"{tmp_path / 'absent'} is not a store; cure: ")
    widget.open_store(str(store_path))
    assert viewer.layers[0].name == f"CT {SERIES[:8]}"
    assert {"Worklist", "Review", "Predict here"} <= set(viewer.window.dock_widgets)
    assert not widget.open_button.isEnabled()


def test_a_store_of_several_volumes_opens_as_its_worklist(close_viewers, cases_path, monkeypatch):
    """The docks are those of the test before."""
    import napari

    from ctpipe.review import view

    docked = []
    monkeypatch.setattr(view, "dock_room", lambda viewer, room: docked.append((viewer, room)))
    viewer = napari.Viewer(show=False)
    close_viewers.append(viewer)
    viewer.open(str(cases_path), plugin="ctpipe")
    assert docked[0][0] is viewer
    assert len(docked[0][1].worklist) == 4
    assert [layer.name for layer in viewer.layers] == ["CT aaaa0000", "prediction 5be1c0ff"]
    docked[0][1].close()


def test_a_snapshot_shows_the_window_with_the_labels_and_makes_no_copy(display, store_path, tmp_path):
    import matplotlib.image

    snapshot(store_path, None, None, tmp_path / "shot.png")
    picture = matplotlib.image.imread(tmp_path / "shot.png")[..., :3]
    assert picture.shape[1] > 1000
    assert where_coloured(picture, 1).sum() > 5000
    assert where_coloured(picture, 2).sum() > 300
    assert not (store_path / "reviews").exists()


def test_what_is_not_there_is_said_before_a_window_opens(display, tmp_path, store_path):
    with pytest.raises(NotThereError):
        open_review(tmp_path / "absent")
    with pytest.raises(NotThereError):
        open_review(store_path, "9")
