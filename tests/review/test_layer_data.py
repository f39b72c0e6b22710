"""What a viewer is given, without a viewer."""

from __future__ import annotations

import numpy as np
import pytest
from review_store import CLASSES, ORIGIN, SPACING, FakeVolume, grid_of, phantom

from ctpipe.review.layers import (
    class_rgba,
    image_layer,
    label_look,
    labels_layer,
    telling_plane,
)
from ctpipe.review.windows import SOFT_TISSUE
from ctpipe.volume import Grid, pyramid_levels


def test_a_layer_lies_in_millimetres_along_z_y_x():
    """RELIABILITY V6: the affine survives the hand-over to napari."""
    _, options, kind = image_layer(FakeVolume(phantom()[0], grid_of()))
    assert kind == "image"
    assert options["scale"] == pytest.approx(SPACING)
    assert options["translate"] == pytest.approx((ORIGIN[2], ORIGIN[1], ORIGIN[0]))
    assert options["units"] == ("mm", "mm", "mm")
    assert options["axis_labels"] == ("z", "y", "x")
    assert np.array_equal(options["metadata"]["ctpipe"]["affine"], grid_of().affine)


def test_an_oblique_grid_keeps_its_spacing_and_no_scale_is_negative():
    angle = np.deg2rad(20)
    turned = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = grid_of().affine.copy()
    affine[:3, :3] = turned @ affine[:3, :3] @ np.diag([1, -1, 1])  # rows run to the front
    grid = Grid.from_affine(grid_of().shape, affine)
    _, options, _ = image_layer(FakeVolume(phantom()[0], grid))
    assert options["scale"] == pytest.approx(SPACING)
    first, last = grid.to_lps([[0, 0, 0], [39, 159, 143]])
    away = np.array([39, 159, 143]) * options["scale"]
    assert np.linalg.norm(last - first) == pytest.approx(np.linalg.norm(away))


def test_a_kept_tilt_is_told_in_the_name_of_the_layer():
    sheared = grid_of().affine.copy()
    sheared[1, 0] = 0.2  # planes go to the back as they go up
    for affine, told in ((grid_of().affine, False), (sheared, True)):
        _, options, _ = image_layer(FakeVolume(phantom()[0], Grid.from_affine(grid_of().shape, affine)))
        assert ("sheared" in options["name"]) is told


def test_the_pyramid_is_lazy_and_holds_the_voxels():
    hu, _ = phantom()
    volume = FakeVolume(hu, grid_of())
    levels, options, _ = image_layer(volume)
    assert options["multiscale"] is True
    assert [level.shape for level in levels] == [tuple(at.grid.shape) for at in pyramid_levels(grid_of())]
    assert volume.asked == []
    assert np.array_equal(np.asarray(levels[0][20]), hu[20])
    assert set(volume.asked) == {(16, 32, 0)}, "only the blocks of that plane"


@pytest.mark.parametrize("voi", [None, (40.0, 0.0), (float("nan"), 400.0), (40.0, -5.0), (40.0, float("inf"))])
def test_a_window_that_is_none_becomes_soft_tissue(voi):
    _, options, _ = image_layer(FakeVolume(phantom()[0], grid_of(), voi=voi))
    assert options["contrast_limits"] == SOFT_TISSUE.limits == (-160.0, 240.0)


def test_the_window_of_the_series_comes_first():
    _, options, _ = image_layer(FakeVolume(phantom()[0], grid_of(), voi=(50.0, 300.0)))
    assert options["contrast_limits"] == (-100.0, 200.0)


def test_labels_carry_colours_and_names_and_background_is_clear():
    look = label_look(CLASSES)
    assert look["colormap"][0][3] == 0
    assert look["colormap"][1] == class_rgba(1) != class_rgba(2)
    assert look["colormap"][None][3] > 0, "a label without a class must be seen"
    assert look["features"] == {"index": [0, 1, 2], "class": ["background", "liver", "lesion"]}


def test_a_stroke_on_committed_labels_of_one_level_is_an_error_and_never_silent():
    from napari.components import ViewerModel

    labels = phantom()[1][:, :64, :64]
    data, options, _ = labels_layer(FakeVolume(labels, grid_of(labels.shape)))
    layer = ViewerModel().add_labels(data, **options)
    with pytest.raises(ValueError, match="read-only"):
        layer.paint((20, 30, 30), 1)


def test_committed_labels_of_many_levels_cannot_be_edited():
    from napari.components import ViewerModel

    data, options, _ = labels_layer(FakeVolume(phantom()[1], grid_of()))
    layer = ViewerModel().add_labels(data, **options)
    assert layer.multiscale
    assert not layer.editable


def test_the_first_plane_in_view_is_the_one_that_tells_most():
    labels = np.zeros((40, 160, 144), np.uint8)
    assert telling_plane(FakeVolume(labels, grid_of())) is None
    labels[10, 20:80, 20:80] = 1
    assert telling_plane(FakeVolume(labels, grid_of())) == 10
    labels[34:36, 20:60, 20:60] = 1
    labels[34, 30:34, 30:34] = 2
    labels[35, 30:40, 30:40] = 2
    assert telling_plane(FakeVolume(labels, grid_of())) == 35
