"""The 3-D picture: bodies are where they are in the patient, the nearer before the farther, in true millimetres."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.image import imread

from ctpipe.report import Body, smoothed, solid_png
from ctpipe.report.solid import FRONT, LEFT, PAPER, rendered

RED, BLUE = (255, 40, 40), (40, 40, 255)
EXTENT = (np.array([0.0, 0.0, 0.0]), np.array([100.0, 80.0, 60.0]))


def box(low, high, colour=RED, clear=0.0) -> Body:
    """A closed box in LPS mm."""
    corners = np.array([[x, y, z] for z in (0, 1) for y in (0, 1) for x in (0, 1)], float)
    faces = [(0, 2, 1), (1, 2, 3), (4, 5, 6), (5, 7, 6), (0, 1, 4), (1, 5, 4), (2, 6, 3), (3, 6, 7), (0, 4, 2),
             (2, 4, 6), (1, 3, 5), (3, 7, 5)]  # fmt: skip
    return Body(np.asarray(low) + corners * (np.asarray(high) - low), np.array(faces), colour, clear)


def where(picture, colour):
    """(top, bottom, left, right) of the pixels of a hue."""
    strongest = int(np.argmax(colour))
    rest = [n for n in range(3) if n != strongest]
    rows, columns = np.nonzero(picture[..., strongest] > 40 + picture[..., rest].max(axis=2))
    return rows.min(), rows.max() + 1, columns.min(), columns.max() + 1


@pytest.mark.parametrize(
    ("look", "expected"),
    [
        (FRONT, (2 * 20, 2 * 50, 2 * 30, 2 * 70)),  # S down the picture; L to the right
        (LEFT, (2 * 20, 2 * 50, 2 * 5, 2 * 25)),  # P to the right: the face looks to the left
    ],
)
def test_a_box_is_drawn_where_it_is_in_the_patient(look, expected):
    body = box((30, 5, 10), (70, 25, 40))
    picture = rendered([body], look, EXTENT, per_mm=2)
    assert picture.shape == (120, 200 if look is FRONT else 160, 3)
    assert where(picture, RED) == pytest.approx(expected, abs=1)
    assert tuple(picture[0, 0]) == PAPER


def test_the_nearer_body_hides_the_farther_and_glass_does_not():
    near, far = box((10, 5, 10), (60, 25, 50)), box((40, 40, 20), (90, 60, 40), BLUE)
    for bodies in ([near, far], [far, near]):
        front = rendered(bodies, FRONT, EXTENT, per_mm=2)
        assert front[60, 100].argmax() == 0  # both lie there: the front one is seen
        assert front[60, 150].argmax() == 2
        assert rendered(bodies, LEFT, EXTENT, per_mm=2)[60, 100].argmax() == 2
    glass = rendered([box((10, 5, 10), (60, 25, 50), clear=0.8), far], FRONT, EXTENT, per_mm=2)
    assert glass[60, 100].argmax() == 2
    assert glass[60, 100][0] > PAPER[0] + 10


def test_the_picture_has_both_views_and_is_the_same_each_time():
    bodies = [box((30, 5, 10), (70, 25, 40))]
    png = solid_png(bodies, EXTENT, pixels=200)
    picture = imread(io.BytesIO(png))
    tall, wide = picture.shape[:2]
    assert abs(tall - 200) <= 1
    assert wide == pytest.approx(200 * (100 + 80 + 32) / (60 + 16) + 10, abs=4)
    assert png == solid_png(bodies, EXTENT, pixels=200)


def test_smoothing_takes_the_steps_and_leaves_the_volume():
    from skimage.measure import marching_cubes

    z, y, x = np.indices((30, 40, 40))
    ball = ((z - 15) / 8) ** 2 + ((y - 20) / 14) ** 2 + ((x - 20) / 14) ** 2 <= 1
    points, faces, _, _ = marching_cubes(ball.astype(np.float32), 0.5)

    def volume(at):
        a, b, c = (at[faces[:, n]] for n in range(3))
        return abs(np.einsum("ij,ij->i", a, np.cross(b, c)).sum()) / 6

    def roughness(at):
        return np.abs(((at - (15, 20, 20)) / (8, 14, 14)) ** 2 @ np.ones(3) - 1).std()

    after = smoothed(points.astype(float), faces)
    assert volume(after) == pytest.approx(volume(points), rel=0.05)
    assert roughness(after) < 0.6 * roughness(points)
