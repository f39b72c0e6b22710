"""Streams of windows give the labels of the whole volume, byte for byte the same in any grouping."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segmenters_made import (
    NNUNET,
    TURNS,
    Volume,
    differing,
    facts_of,
    grid_of,
    segmenter,
    streamed,
    volume_of,
    whole,
    zoomed,
)

from ctpipe.errors import RunError, UsageError
from ctpipe.models import Normalisation, Resampling, Segmenter, SegmentPlan
from ctpipe.pipeline.segmenting import spans_of
from ctpipe.pipeline.slab_stream import SlabStream
from ctpipe.predict import NetworkPlanes
from ctpipe.volume import slabs_of


@settings(deadline=None, max_examples=25)
@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 30), st.integers(1, 30)),
    patch=st.tuples(st.sampled_from([1, 4, 6]), st.sampled_from([8, 12]), st.sampled_from([8, 16])),
    rule=st.sampled_from([NNUNET, {"windows": "cover", "weight": "gaussian-floor"}, {"weight": "constant"}]),
    step=st.sampled_from([0.3, 0.5, 0.75, 1.0]),
    micro_batch=st.sampled_from([1, 3]),
)
def test_streamed_labels_are_those_of_the_whole_volume(shape, patch, rule, step, micro_batch) -> None:
    """I3, I4: every voxel of any shape is covered, smaller than a window or one more than a multiple of it."""
    model = segmenter(patch, step=step, micro_batch=micro_batch, **rule)
    hu, grid = volume_of(shape), grid_of(shape)
    found = streamed(model, hu, grid)
    assert found.shape == hu.shape
    assert differing(found, whole(model, hu, grid)) == 0
    slabs = slabs_of(shape[0])
    for groups in ([[slab] for slab in slabs], spans_of(slabs, 2)):
        assert np.array_equal(streamed(model, hu, grid, groups), found)


@pytest.mark.parametrize("spacing", [(2.6, 1.4, 1.3), (1.3, 0.8, 1.0), (2.0, 1.7, None), (0.9, None, None)])
def test_resampling_inside_the_slab_is_that_of_the_whole_volume(spacing) -> None:
    model = segmenter(spacing_mm=spacing, **NNUNET)
    hu, grid = volume_of((67, 30, 33)), grid_of((67, 30, 33))
    found = streamed(model, hu, grid)
    assert differing(found, whole(model, hu, grid)) == 0
    assert np.array_equal(streamed(model, hu, grid, [[slab] for slab in slabs_of(67)]), found)


@pytest.mark.parametrize("seed", range(3))
def test_the_network_sees_the_same_float32_input_in_any_band(seed) -> None:
    model = segmenter(spacing_mm=(1.3, 0.8, 1.7), **NNUNET)
    hu, grid = volume_of((60, 24, 25), seed), grid_of((60, 24, 25))
    plan = SegmentPlan.of(model.spec, grid)
    planes = NetworkPlanes(Volume(hu), model.spec, plan, facts_of(model, hu, grid))
    all_at_once = np.concatenate(list(planes.produce(0, plan.shape.z)))
    for first, stop in ((0, 5), (31, 33), (40, plan.shape.z)):
        band = np.concatenate(list(planes.produce(first, stop)))
        assert np.array_equal(band, all_at_once[first:stop])
    assert all_at_once.dtype == np.float32


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize(("axes", "order", "flips"), [("SPL", (0, 1, 2), ()), ("SAR", (0, 1, 2), (1, 2)),
                                                      ("RAS", (2, 1, 0), (0, 1)), ("PSL", (1, 0, 2), ())])
def test_axes_are_turned_and_flipped_to_where_the_network_wants_them(axes, order, flips, turn) -> None:
    """V6: a network trained on RAS arrays sees RAS, however the volume is stored."""
    signs = TURNS[turn]
    stored_backwards = {order.index(axis) for axis in range(3) if signs[axis] < 0}
    model = segmenter((6, 12, 8), axes=axes, mirror=(0,), **NNUNET)
    hu, grid = volume_of((40, 21, 26)), grid_of((40, 21, 26), (1.0, 1.0, 1.0), signs)
    expected = whole(model, hu, grid, order, tuple(sorted(set(flips) ^ stored_backwards)))
    assert differing(streamed(model, hu, grid), expected) == 0


def test_the_coarsest_axis_is_resampled_by_itself_as_nnunet_does() -> None:
    """default_resampling.py: over 3 : 1 planes are resampled one by one, then the nearest one is taken along z."""
    how = Resampling(separate="auto")
    model = segmenter(spacing_mm=(2.5, 0.8, 1.3), resample_in=how, **NNUNET)
    hu, grid = volume_of((20, 24, 25)), grid_of((20, 24, 25), (5.0, 1.0, 1.0))
    plan = SegmentPlan.of(model.spec, grid)
    assert plan.separate == 0
    assert plan.shape == (40, 30, 19)
    planes = NetworkPlanes(Volume(hu), model.spec, plan, facts_of(model, hu, grid))


    values = (np.clip(hu.astype(np.float32), -200, 300) - np.float32(20)) / np.float32(90)
    each = np.stack([zoomed(plane.astype(np.float64), (30, 19), 3).clip(plane.min(), plane.max()) for plane in values])
    expected = np.repeat(each, 2, axis=0).astype(np.float32)
    found = np.concatenate(list(planes.produce(0, 40)))
    assert np.abs(found - expected).max() < 1e-6


@pytest.mark.parametrize("scheme", ["volume", "range"])
def test_facts_of_the_volume_come_from_its_slabs(scheme) -> None:
    model = segmenter(normalise=Normalisation(scheme=scheme, low=-150), crop="nonzero", **NNUNET)
    hu = volume_of((45, 20, 22))
    hu[:4], hu[:, 17:], hu[:, :, :3] = 0, 0, 0
    grid = grid_of(hu.shape)
    facts = facts_of(model, hu, grid)
    assert facts is not None
    assert facts.box == ((4, 45), (0, 17), (3, 22))
    inside = np.clip(hu[4:, :17, 3:].astype(np.float64), -150, None)
    assert (facts.low, facts.high) == (inside.min(), inside.max())
    assert facts.mean == pytest.approx(inside.mean(), rel=1e-12)
    assert facts.std == pytest.approx(inside.std(), rel=1e-9)
    found = streamed(model, hu, grid)
    outside = found.copy()
    outside[4:, :17, 3:] = 0
    assert not outside.any()
    assert found.any()


def test_regions_are_painted_in_their_order() -> None:
    model = segmenter(classes=("whole", "part"), regions=(1, 2), outputs=2, **NNUNET)
    hu, grid = volume_of((20, 20, 20)), grid_of((20, 20, 20))
    scores = whole(model, hu, grid)
    expected = np.where(scores[1] > 0, 2, np.where(scores[0] > 0, 1, 0))
    unsure = (np.abs(scores) < 1e-4).any(0)
    assert ((streamed(model, hu, grid) != expected) & ~unsure).sum() == 0
    assert set(np.unique(expected)) == {0, 1, 2}


def test_300_classes_need_two_bytes_a_voxel() -> None:
    """I7: label type fits the class count."""
    model = segmenter(classes=[f"c{n}" for n in range(300)])
    hu, grid = volume_of((6, 12, 16)), grid_of((6, 12, 16))
    found = streamed(model, hu, grid)
    assert found.dtype == np.uint16
    assert differing(found, whole(model, hu, grid)) == 0
    assert found.max() > 255


def test_equal_sums_go_to_the_lower_class() -> None:
    model = segmenter()
    layer = model.networks[0].module.head
    layer.weight.zero_()
    layer.bias.copy_(torch.tensor([0.25, 0.5, 0.5]))
    assert (streamed(model, volume_of((20, 20, 20)), grid_of((20, 20, 20))) == 1).all()


class _Planted:
    """A network whose scores hold one value that is none, in the window whose middle voxel is at `value`."""

    def __init__(self, network, value: float, planted: float) -> None:
        self.network, self.value, self.planted = network, value, planted

    def __call__(self, batch):
        scores = self.network(batch)
        if (batch == self.value).any():
            scores[0, 0, 0, 0, 0] = self.planted
        return scores


@pytest.mark.parametrize("planted", [np.nan, np.inf, -np.inf])
def test_scores_that_are_no_numbers_stop_the_volume_and_name_the_window(planted) -> None:
    """I1: never background."""
    hu, grid = volume_of((40, 20, 20)), grid_of((40, 20, 20))
    hu[hu == 113] = 112
    hu[37, 3, 4] = 113
    model = segmenter(normalise=Normalisation(), weight="constant", step=1.0)
    broken = Segmenter(model.spec, [_Planted(model.networks[0], 113.0, planted)])
    with pytest.raises(RunError, match="NaN or infinite, in the window at z 34, y 0, x 0"):
        streamed(broken, hu, grid)


def test_hu_that_are_no_numbers_stop_the_volume_and_name_the_plane() -> None:
    """I1."""
    hu = volume_of((40, 20, 20)).astype(np.float32)
    hu[33, 3, 3] = np.nan
    with pytest.raises(RunError, match="plane 33 are NaN"):
        streamed(segmenter(), hu, grid_of(hu.shape))


def test_scores_beyond_the_limit_are_clamped_and_told() -> None:
    model = segmenter()
    model.networks[0].module.head.bias.mul_(0).add_(1e6)
    hu, grid = volume_of((8, 12, 16)), grid_of((8, 12, 16))
    stream = SlabStream(model, SegmentPlan.of(model.spec, grid), Volume(hu), None)
    list(stream.labels(slabs_of(8), hu.shape))
    assert stream.clamped
    assert stream.windows == SegmentPlan.of(model.spec, grid).n_windows


def test_each_window_of_a_volume_is_scored_once() -> None:
    model = segmenter(**NNUNET)
    hu, grid = volume_of((80, 30, 33)), grid_of((80, 30, 33))
    plan = SegmentPlan.of(model.spec, grid)
    stream = SlabStream(model, plan, Volume(hu), None)
    list(stream.labels(slabs_of(80), hu.shape))
    assert stream.windows == plan.n_windows == len(plan.windows(0, plan.shape.z))


def test_spans_take_every_slab_once() -> None:
    slabs = slabs_of(32 * 7)
    for count in (1, 2, 3, 7, 9):
        spans = spans_of(slabs, count)
        assert [slab for span in spans for slab in span] == slabs
        assert all(before[-1].index + 1 == after[0].index for before, after in pairwise(spans))
        assert len(spans) == min(count, 7)


def test_a_spec_that_fits_no_network_is_refused_with_all_its_faults() -> None:


    with pytest.raises(UsageError, match=r"axes 'SPX'.*step 0.*"):
        replace(segmenter().spec, axes="SPX", step=0.0)
