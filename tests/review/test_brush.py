"""What tools cover, in millimetres, on anisotropic, oblique and sheared grids; shapes against plain definitions."""

from __future__ import annotations

import numpy as np
import pytest
from review_store import grid_of
from scipy import ndimage

from ctpipe.review import shapes
from ctpipe.review.boxes import bounds, bounds_of_label, clipped, inside, union, with_margin
from ctpipe.review.brush import polygon, swept
from ctpipe.review.delta import Delta
from ctpipe.review.strokes import stroke_delta
from ctpipe.volume import Grid

SHAPE = (24, 60, 50)


def turned(spacing, degrees=25.0, shear=0.0) -> Grid:
    """A grid that is rotated about two axes, and sheared across its planes by `shear` mm a plane."""
    a = np.deg2rad(degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    affine = grid_of(SHAPE, spacing).affine.copy()
    affine[1, 0] += shear
    affine[:3, :3] = about_z @ about_x @ affine[:3, :3] @ np.diag([1, -1, 1])
    return Grid.from_affine(SHAPE, affine)


GRIDS = {
    "anisotropic": grid_of(SHAPE, (4.0, 0.7, 1.3)),
    "oblique": turned((3.0, 0.8, 0.8)),
    "sheared": turned((2.5, 0.9, 0.7), shear=0.9),
}


def far_mm(grid: Grid, a, b) -> np.ndarray:
    """Distance in mm, in the patient, of every voxel centre to the line a-b: sampled, without any metric."""
    points = grid.to_lps(np.stack(np.indices(SHAPE), axis=-1).reshape(-1, 3).astype(float))
    start, end = grid.to_lps([a, b])
    line = end - start
    along = np.clip((points - start) @ line / max(line @ line, 1e-12), 0, 1)
    return np.linalg.norm(points - start - along[:, None] * line, axis=1).reshape(SHAPE)


def whole(found) -> np.ndarray:
    out = np.zeros(SHAPE, bool)
    if found is not None:
        box, mask = found
        out[box] = mask
    return out


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("end", [(11.3, 30.2, 24.8), (13.0, 41.0, 12.0)], ids=["a point", "a line"])
def test_a_ball_holds_the_voxels_within_its_radius_in_the_patient(name, end):
    grid, start = GRIDS[name], (11.3, 30.2, 24.8)
    for radius in (2.9, 7.1):
        expected = far_mm(grid, start, end) <= radius
        found = whole(swept(grid, start, end, radius, None))
        assert np.array_equal(found | expected, found), "all within the radius"
        extra = found & ~expected
        assert far_mm(grid, start, end)[extra].max(initial=0) <= max(grid.spacing_mm), "and the line's own voxels"
        assert expected.sum() > 20


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("name", GRIDS)
def test_a_disc_lies_in_its_plane_and_is_round_in_the_patient(name, axis):
    grid = GRIDS[name]
    centre = np.array([12.0, 31.0, 22.0])
    found = whole(swept(grid, centre, centre, 6.9, axis))
    plane = np.zeros(SHAPE, bool)
    plane[tuple(int(centre[k]) if k == axis else slice(None) for k in range(3))] = True
    expected = plane & (far_mm(grid, centre, centre) <= 6.9)
    assert np.array_equal(found, expected)
    assert expected.sum() > 15


def test_a_brush_smaller_than_a_voxel_paints_the_voxels_on_its_line():
    grid = GRIDS["anisotropic"]
    assert whole(swept(grid, (5, 10, 10), (5, 10, 10), 0.01, None)).sum() == 1
    line = whole(swept(grid, (5, 10, 10), (5, 20, 18), 0.01, 0))
    assert line[5, 10, 10]
    assert line[5, 20, 18]
    assert ndimage.label(line, np.ones((3, 3, 3)))[1] == 1, "without gaps"


def test_a_brush_outside_the_volume_paints_nothing_and_one_at_the_border_is_cut():
    grid = GRIDS["anisotropic"]
    assert swept(grid, (5, -40, 10), (5, -40, 10), 3.0, 0) is None
    assert swept(grid, (-2, 10, 10), (-2, 10, 10), 3.0, 0) is None
    box, _ = swept(grid, (0, 0, 0), (0, 0, 0), 3.0, None)
    assert [s.start for s in box] == [0, 0, 0]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_polygon_holds_the_voxels_whose_centre_it_encloses(axis):
    rng = np.random.default_rng(axis)
    free = [k for k in range(3) if k != axis]
    corners = np.zeros((3, 3))
    corners[:, axis] = 9.2
    corners[:, free] = rng.uniform(2, 20, (3, 2))
    found = whole(polygon(SHAPE, corners, axis))
    a, b, c = corners[:, free]
    at = np.stack(np.indices(SHAPE), axis=-1)[..., free].astype(float)

    def side(p, q):
        return (q[0] - p[0]) * (at[..., 1] - p[1]) - (q[1] - p[1]) * (at[..., 0] - p[0])

    signs = np.stack([side(a, b), side(b, c), side(c, a)])
    expected = ((signs > 0).all(0) | (signs < 0).all(0)) & (np.indices(SHAPE)[axis] == 9)
    assert np.array_equal(found, expected)
    assert polygon(SHAPE, corners[:2], axis) is None


def test_interpolation_between_two_discs_is_the_cone_between_them():
    y, x = np.ogrid[:60, :60]
    discs = [((y - 30) ** 2 * 0.25 + (x - 30) ** 2) <= r**2 for r in (8, 16)]  # round where rows are 0.5 mm
    made = shapes.between(*discs, 7, (0.5, 1.0))
    areas = [np.sqrt(plane.sum() * 0.5 / np.pi) for plane in made]
    assert areas == pytest.approx(np.linspace(8, 16, 9)[1:-1], abs=0.4)
    assert not shapes.between(y + 0 * x < 5, y + 0 * x > 55, 3, (1.0, 1.0)).any(), "no overlap, nothing between"
    assert shapes.between(discs[0], np.zeros_like(discs[0]), 3, (0.5, 1.0)).sum(axis=(1, 2))[0] < discs[0].sum()


def test_holes_are_filled_in_the_plane_or_in_three_dimensions():
    mask = np.zeros((5, 9, 9), bool)
    mask[:, 2:7, 2:7] = True
    mask[1:4, 4, 4] = False  # closed in every plane and in 3-D
    mask[:, 2:4, 3] = False  # a groove that is open at the rim
    assert shapes.filled(mask, 0)[2, 4, 4]
    tube = np.zeros((5, 9, 9), bool)
    tube[:, 2:7, 2:7] = True
    tube[:, 4, 4] = False  # open above and below
    assert shapes.filled(tube, 0)[:, 4, 4].all()
    assert not shapes.filled(tube, None)[:, 4, 4].any()
    assert not shapes.filled(mask, 0)[2, 2, 3]


@pytest.mark.parametrize("axis", [None, 0, 1, 2])
def test_growing_and_shrinking_go_by_millimetres(axis):
    spacing = (3.0, 0.8, 1.1)
    mask = np.zeros((15, 40, 30), bool)
    mask[7, 20, 15] = True
    grown = shapes.grown(mask, spacing, 6.0, axis)
    away = np.indices(mask.shape) - np.array([7, 20, 15])[:, None, None, None]
    far = np.sqrt(sum((step * d) ** 2 for step, d in zip(spacing, away, strict=True)))
    expected = far <= 6.0
    if axis is not None:
        expected &= away[axis] == 0
    assert np.array_equal(grown, expected)
    back = shapes.grown(grown, spacing, -6.0, axis)
    assert np.array_equal(back & mask, back)
    assert shapes.grown(np.ones((3, 4, 5), bool), spacing, -2.0, axis).all(), "the border of the volume is no outside"


def test_smoothing_keeps_a_plain_border_and_takes_a_spike_away():
    mask = np.zeros((20, 40, 40), bool)
    mask[:, :20] = True
    mask[10, 20:26, 20] = True
    smooth = shapes.smoothed(mask, (1.0, 1.0, 1.0), 1.5, None)
    assert np.array_equal(smooth[:, :, 5], mask[:, :, 5])
    assert not smooth[10, 22:].any()


def test_what_a_lesion_gives_up_goes_to_what_is_nearest():
    labels = np.zeros((1, 9, 9), np.uint8)
    labels[:, :, :5] = 1
    labels[:, 3:6, 2:7] = 2  # a lesion across the border of the organ
    wanted = np.zeros_like(labels, bool)
    made = shapes.reshaped(labels, 2, wanted, np.ones_like(wanted), (1.0, 1.0, 1.0))
    assert (made[0, 3:6, 2] == 1).all()
    assert (made[0, 3:6, 6] == 0).all()
    grown = shapes.reshaped(labels, 2, np.ones_like(wanted), labels == 0, (1.0, 1.0, 1.0))
    assert np.array_equal(grown == 1, labels == 1), "gained only where it is free"


def test_boxes_are_cut_joined_and_found():
    assert clipped((-3, 0.2, 5), (2, 3.9, 5), (10, 10, 10)) == (slice(0, 3), slice(1, 4), slice(5, 6))
    assert clipped((11, 0, 0), (12, 3, 3), (10, 10, 10)) is None
    a, b = (slice(0, 2),) * 3, (slice(4, 5), slice(1, 3), slice(0, 1))
    assert union([a, b]) == (slice(0, 5), slice(0, 3), slice(0, 2))
    assert inside(b, union([a, b])) == b
    assert with_margin(b, (1, 9, 1), (6, 6, 6)) == (slice(3, 6), slice(0, 6), slice(0, 2))
    labels = np.zeros((6, 7, 8), np.uint8)
    labels[2:4, 1, 5:7] = 3
    expected = (slice(2, 4), slice(1, 2), slice(5, 7))
    assert bounds(labels == 3) == bounds_of_label(labels, 3) == expected
    assert bounds_of_label(labels, 3, (slice(3, 6), slice(0, 7), slice(6, 8))) == (
        slice(3, 4), slice(1, 2), slice(6, 7))  # fmt: skip
    assert bounds_of_label(labels, 4) is None


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_delta_is_small_and_comes_back_from_its_bytes(dtype):
    rng = np.random.default_rng(0)
    before = np.zeros((30, 200, 200), dtype)
    after = before.copy()
    after[4:9, 50:90, 60:130] = 300 if dtype is np.uint16 else 7
    box = tuple(slice(10, 10 + n) for n in before.shape)
    delta = Delta.between(box, before, after)
    assert delta.box == (slice(14, 19), slice(60, 100), slice(70, 140))
    data = delta.to_bytes()
    assert len(data) < 200, f"{delta.voxels} equal voxels"
    volume = rng.integers(0, 9, (50, 220, 220)).astype(dtype)
    expected = volume.copy()
    expected[delta.box] = after[4:9, 50:90, 60:130]
    again = Delta.from_bytes(delta.facts(), data)
    again.put(volume)
    assert np.array_equal(volume, expected)
    assert Delta.between(box, before, before) is None


@pytest.mark.parametrize("told", ["at the end", "before it writes"])
def test_a_stroke_of_napari_is_what_it_changed_whenever_it_is_told(told):
    """Overlapping stamps of several labels, as napari's history lists them."""
    from napari.layers import Labels

    rng = np.random.default_rng(3)
    data = rng.integers(0, 3, (4, 30, 30)).astype(np.uint8)
    layer = Labels(data.copy())
    before, parts, replayed = data.copy(), [], data.copy()
    layer.events.paint.connect(lambda event: parts.extend(event.value))
    for step in range(6):
        held = layer.data.copy()
        if step % 3 == 2:
            at = tuple(rng.integers(0, n, 20) for n in data.shape)
            layer.data_setitem(at, rng.integers(0, 5, 20).astype(np.uint8))
        else:
            layer.n_edit_dimensions = 2 + step % 2
            layer.brush_size = 9
            layer.paint((1, 10 + step, 12), int(rng.integers(0, 5)))
        if told == "before it writes":
            delta = stroke_delta(parts[-1:], held)
            if parts[-1:]:
                delta.put(replayed)
            parts.clear()
    if told == "at the end":
        delta = stroke_delta(parts, layer.data)
        undone = layer.data.copy()
        delta.put(undone, undo=True)
        assert np.array_equal(undone, before)
        delta.put(replayed)
    assert np.array_equal(replayed, layer.data)
    assert not np.array_equal(replayed, before)
    assert stroke_delta([], layer.data) is None
