"""From pixels to outlines and back: any mask, by the even-odd rule, by winding, and by its area."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from ctpipe.dicom.rtstruct import fill_even_odd
from ctpipe.export.contours import outlines

MASKS = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.booleans())


@settings(max_examples=300, deadline=None)
@given(MASKS)
def test_outlines_hold_exactly_the_pixels_of_the_mask(mask):
    rings = outlines(mask)
    if not mask.any():
        assert rings == []
        return
    assert np.array_equal(fill_even_odd(rings, mask.shape), mask)
    assert sum(abs(_area(ring)) for ring in rings) == mask.sum()
    wound = sum((_winding(ring, mask.shape) != 0).astype(int) for ring in rings)
    assert np.array_equal(wound, mask.astype(int))  # by winding as well, and no two outlines overlap


@settings(max_examples=100, deadline=None)
@given(MASKS)
def test_outlines_run_along_pixel_sides_and_never_stand_still(mask):
    for ring in outlines(mask):
        steps = np.roll(ring, -1, axis=0) - ring
        assert ((steps != 0).sum(axis=1) == 1).all()  # along a row or a column, and never of no length
        assert (ring % 1 == 0.5).all()  # half a pixel from every centre


def test_a_ring_becomes_one_keyhole():
    mask = np.ones((5, 6), bool)
    mask[2, 2:4] = False
    (ring,) = outlines(mask)
    assert len(ring) == 4 + 4 + 1 + 2  # outline, hole, back to the hole's first corner, the channel's two ends


def _area(ring):
    after = np.roll(ring, -1, axis=0)
    return (ring[:, 0] * after[:, 1] - after[:, 0] * ring[:, 1]).sum() / 2


def _winding(ring, shape):
    """Winding number of the ring about each pixel's centre: crossings of a ray to the right, by their sense."""
    y, x = np.indices(shape)
    out = np.zeros(shape, int)
    for (y0, x0), (y1, _) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        if y0 != y1:  # sides along a column; those along a row are never crossed
            out += np.where((min(y0, y1) <= y) & (y < max(y0, y1)) & (x0 > x), 1 if y1 > y0 else -1, 0)
    return out
