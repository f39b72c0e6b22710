"""Every step done slab by slab equals the step done on the whole volume with scipy, whatever the slabs."""

from __future__ import annotations

import itertools
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ctpipe.errors import NotThereError, UsageError
from ctpipe.postprocess import (
    Band,
    Crf,
    Fill,
    Inside,
    Largest,
    MinVolume,
    Near,
    Smooth,
    apply,
    bind,
    decide,
    local,
    look,
    parse_steps,
    step_text,
)
from ctpipe.postprocess import mean_field as mf
from ctpipe.volume import Grid

CLASSES = {1: "liver", 2: "lesion", 5: "vessel"}
LIVER, LESION, VESSEL = 1, 2, 5


def grid_of(shape, spacing=(3.0, 1.5, 1.25), shear=0.0):
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]]) * np.asarray(spacing)
    affine[1, 0] = shear * spacing[0]
    return Grid.from_affine(shape, affine)


def band_of(labels, start, stop, halo):
    low, high = max(0, start - halo), min(len(labels), stop + halo)
    return Band(labels[low:high], start, stop - start, start - low, len(labels))


def by_slab(step, labels, cuts, grid, hu=None):
    """The step over slabs that end at `cuts`; asserts that the labels it is given stay as they are."""
    bound = bind(step, CLASSES, grid)
    before = labels.copy()
    slabs = list(itertools.pairwise(cuts))
    hits = [None] * len(slabs)
    if bound.looks:
        hits = decide(bound, [look(bound, band_of(labels, a, b, bound.look_halo)) for a, b in slabs])
    out = []
    for (a, b), hit in zip(slabs, hits, strict=True):
        near = None if hu is None else band_of(hu, a, b, bound.apply_halo).labels
        out.append(apply(bound, band_of(labels, a, b, bound.apply_halo), hit, near))
    np.testing.assert_array_equal(labels, before)
    assert all(part.dtype == labels.dtype for part in out)
    return np.concatenate(out)


@st.composite
def volumes(draw):
    """Labels in blotches of several sizes, random slabs, a random anisotropic grid."""
    shape = draw(st.tuples(st.integers(1, 14), st.integers(1, 10), st.integers(1, 10)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    noise = ndimage.gaussian_filter(rng.random(shape), draw(st.sampled_from([0, 0.5, 0.8])))
    shares = draw(st.sampled_from([(0.5, 0.8, 0.95), (0.2, 0.3, 0.9), (0.1, 0.8, 0.9), (0, 0.5, 1), (0.9, 1, 1)]))
    edges = np.quantile(noise, shares) if noise.size > 1 else np.array([0.3, 0.6, 0.9])
    names = np.array([0, LIVER, LESION, VESSEL], draw(st.sampled_from([np.uint8, np.uint16])))
    labels = names[np.digitize(noise, edges)]
    if draw(st.booleans()) and min(shape) > 2:  # a hollow box of liver, since noise seldom encloses anything
        low = [draw(st.integers(0, n - 3)) for n in shape]
        high = [draw(st.integers(at + 3, n)) for at, n in zip(low, shape, strict=True)]
        labels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = LIVER
        inner = tuple(slice(a + 1, b - 1) for a, b in zip(low, high, strict=True))
        labels[inner] = draw(st.sampled_from([0, LESION, LIVER]))
        labels[low[0], low[1] + 1, low[2] + 1] = draw(st.sampled_from([LIVER, 0, VESSEL]))  # open or not
    cuts = sorted(draw(st.sets(st.integers(1, shape[0]), max_size=6)) | {0, shape[0]})
    spacing = draw(st.tuples(*[st.sampled_from([0.7, 1.0, 1.5, 2.5, 5.0])] * 3))
    return labels, cuts, grid_of(shape, spacing)


def sizes_of(mask):
    numbers, count = ndimage.label(mask, np.ones((3, 3, 3)))
    return numbers, np.bincount(numbers.ravel(), minlength=count + 1)


def whole_largest(labels, values):
    numbers, sizes = sizes_of(np.isin(labels, values))
    if len(sizes) == 1:
        return labels
    firsts = [int(np.flatnonzero(numbers.ravel() == n)[0]) for n in range(1, len(sizes))]
    keep = min(range(1, len(sizes)), key=lambda n: (-sizes[n], firsts[n - 1]))
    return np.where((numbers > 0) & (numbers != keep), 0, labels)


def whole_min(labels, values, voxels):
    numbers, sizes = sizes_of(np.isin(labels, values))
    return np.where((numbers > 0) & (sizes[numbers] < voxels), 0, labels)


def whole_within(mask, mm, spacing):
    """Voxels within mm of the mask, by brute force over all its voxels."""
    at = np.argwhere(mask) * spacing
    if not len(at):
        return np.zeros(mask.shape, bool)
    here = np.indices(mask.shape).reshape(3, -1).T * spacing
    return (np.linalg.norm(here[:, None] - at[None], axis=2).min(axis=1) <= mm + 1e-6).reshape(mask.shape)


def whole_smooth(labels, values, mm, spacing):
    reach = [int(mm / s + 1e-6) for s in spacing]
    offsets = np.stack(np.meshgrid(*[np.arange(-n, n + 1) for n in reach], indexing="ij"), -1)
    ball = (np.linalg.norm(offsets * spacing, axis=-1) <= mm + 1e-6).astype(int)
    voters = [0, *sorted(values)]
    votes = np.stack([ndimage.convolve((labels == v).astype(int), ball, mode="constant") for v in voters])
    out = labels.copy()
    for place in np.ndindex(labels.shape):
        if labels[place] in voters:
            own = votes[voters.index(labels[place])][place]
            best = votes[(slice(None), *place)]
            out[place] = labels[place] if own == best.max() else voters[int(best.argmax())]
    return out


@settings(max_examples=120, deadline=None)
@given(volumes(), st.sampled_from([("liver",), ("lesion",), ("liver", "lesion")]))
def test_the_largest_component_is_that_of_the_whole_volume(volume, names):
    labels, cuts, grid = volume
    values = [{"liver": LIVER, "lesion": LESION}[name] for name in names]
    np.testing.assert_array_equal(by_slab(Largest(names), labels, cuts, grid), whole_largest(labels, values))


@settings(max_examples=100, deadline=None)
@given(volumes(), st.integers(1, 30))
def test_components_below_a_volume_in_mm3_go_on_any_grid(volume, voxels):
    labels, cuts, grid = volume
    mm3 = voxels * float(np.prod(grid.spacing_mm))
    np.testing.assert_array_equal(by_slab(MinVolume(("lesion",), mm3), labels, cuts, grid),
                                  whole_min(labels, [LESION], voxels))  # fmt: skip
    np.testing.assert_array_equal(by_slab(MinVolume(("lesion",), mm3 * 1.001), labels, cuts, grid),
                                  whole_min(labels, [LESION], voxels + 1))  # fmt: skip


@settings(max_examples=120, deadline=None)
@given(volumes(), st.sampled_from([("liver",), ("lesion", "liver")]))
def test_holes_are_those_that_scipy_fills_in_the_whole_volume(volume, names):
    labels, cuts, grid = volume
    values = [{"liver": LIVER, "lesion": LESION}[name] for name in names]
    holes = ndimage.binary_fill_holes(np.isin(labels, values)) & (labels == 0)
    np.testing.assert_array_equal(by_slab(Fill(names), labels, cuts, grid), np.where(holes, values[0], labels))


@settings(max_examples=150, deadline=None)
@given(volumes(), st.sampled_from([0.5, 1.4, 2.5, 3.5, 7.0]), st.sampled_from([3, 128]))
def test_containment_is_a_distance_in_mm_to_the_filled_organ(volume, mm, tile):
    labels, cuts, grid = volume
    organ = ndimage.binary_fill_holes(labels == LIVER)
    gone = (labels == LESION) & ~whole_within(organ, mm, grid.spacing_mm)
    with mock.patch.object(local, "TILE", tile):
        found = by_slab(Inside(("lesion",), ("liver",), mm), labels, cuts, grid)
    np.testing.assert_array_equal(found, np.where(gone, 0, labels))


@settings(max_examples=120, deadline=None)
@given(volumes(), st.sampled_from([0.5, 1.4, 2.5, 5.0]))
def test_components_go_whole_unless_some_voxel_is_near_the_organ(volume, mm):
    labels, cuts, grid = volume
    numbers, sizes = sizes_of(labels == VESSEL)
    close = whole_within(labels == LIVER, mm, grid.spacing_mm)
    kept = np.isin(np.arange(len(sizes)), numbers[close & (numbers > 0)])
    np.testing.assert_array_equal(by_slab(Near(("vessel",), ("liver",), mm), labels, cuts, grid),
                                  np.where((numbers > 0) & ~kept[numbers], 0, labels))  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(volumes(), st.sampled_from([("liver",), ("lesion", "liver")]), st.sampled_from([0.5, 1.5, 3.0, 5.0]))
def test_smoothing_is_the_vote_of_the_ball_in_the_whole_volume(volume, names, mm):
    labels, cuts, grid = volume
    values = [{"liver": LIVER, "lesion": LESION}[name] for name in names]
    np.testing.assert_array_equal(by_slab(Smooth(names, mm), labels, cuts, grid),
                                  whole_smooth(labels, values, mm, grid.spacing_mm))  # fmt: skip


def whole_crf(labels, hu, values, mm, sigma, spacing):
    """The mean field on the whole volume, voxel by voxel and offset by offset, as the module's docstring has it."""
    classes = [0, *sorted(values)]
    given = np.stack([labels == c for c in classes])
    q = given.astype(np.int64) << 12
    unary = np.where(given, np.log(mf.CONFIDENCE), np.log((1 - mf.CONFIDENCE) / (len(classes) - 1)))
    pad = [(n, n) for n in mf.HALF_WINDOW]
    grey = np.pad(np.rint(hu).astype(np.int64), pad)
    live = np.pad(np.isin(labels, classes), pad)
    for _ in range(mf.ITERATIONS):
        near = np.pad(q, [(0, 0), *pad])
        sums, total = np.zeros_like(q), np.zeros(labels.shape, np.int64)
        for offset in np.ndindex(*(2 * n + 1 for n in mf.HALF_WINDOW)):
            d = np.subtract(offset, mf.HALF_WINDOW)
            if not d.any():
                continue
            view = tuple(slice(o, o + n) for o, n in zip(offset, labels.shape, strict=True))
            space = round(np.exp(-np.sum((d * spacing) ** 2) / (2 * mm**2)) * 1024)
            away = np.minimum(np.abs(grey[view] - np.rint(hu).astype(np.int64)), 4096)
            w = np.rint(np.exp(-(away**2.0) / (2 * sigma**2)) * 1024).astype(np.int64) * space // 1024 * live[view]
            total += w
            sums += w * near[(slice(None), *view)]
        score = unary + mf.STRENGTH * sums / (np.maximum(total, 1) * 4096)
        score = np.exp(score - score.max(axis=0))
        q = np.rint(score / score.sum(axis=0) * 4096).astype(np.int64) * np.isin(labels, classes)
        q[0] = (4096 - q[1:].sum(axis=0)) * np.isin(labels, classes)
    own = np.max(np.where(given, q, 0), axis=0)
    best = np.where(own == q.max(axis=0), labels, np.asarray(classes)[q.argmax(axis=0)])
    return np.where(np.isin(labels, classes), best, labels)


@settings(max_examples=20, deadline=None)
@given(volumes(), st.sampled_from([("liver",), ("liver", "lesion")]), st.integers(0, 2**32 - 1),
       st.sampled_from([4, 128]))
def test_the_crf_by_slab_is_the_mean_field_of_the_whole_volume(volume, names, seed, tile):
    labels, cuts, grid = volume
    values = [{"liver": LIVER, "lesion": LESION}[name] for name in names]
    hu = (np.random.default_rng(seed).normal(40, 40, labels.shape) + 60 * np.isin(labels, values)).astype(np.float32)
    expected = whole_crf(labels, hu, values, 2.0, 30.0, np.asarray(grid.spacing_mm))
    with mock.patch.object(mf, "TILE", tile):
        np.testing.assert_array_equal(by_slab(Crf(names, 2.0, 30.0), labels, cuts, grid, hu), expected)


def test_the_crf_moves_a_wrong_rim_to_the_edge_in_the_hu_and_leaves_a_right_one():
    _, y, x = np.indices((7, 40, 40))
    ball = (y - 20) ** 2 + (x - 20) ** 2 < 12**2
    rng = np.random.default_rng(5)
    hu = np.where(ball, 120, 0) + rng.normal(0, 10, ball.shape)
    wrong = np.where((y - 20) ** 2 + (x - 21) ** 2 < 13**2, LIVER, 0).astype(np.uint8)
    grid = grid_of(ball.shape, (1.5, 1.0, 1.0))
    step = Crf(("liver",), 2.0, 30.0)
    found = by_slab(step, wrong, [0, 3, 7], grid, hu)
    assert ((found == LIVER) != ball).sum() < 0.1 * ((wrong == LIVER) != ball).sum()
    right = np.where(ball, LIVER, 0).astype(np.uint8)
    assert ((by_slab(step, right, [0, 4, 7], grid, hu) == LIVER) != ball).mean() < 1e-3


def test_a_lesion_deep_in_the_organ_stays_however_large_it_is():
    labels = np.zeros((20, 24, 24), np.uint8)
    labels[1:19, 1:23, 1:23] = LIVER
    labels[4:16, 4:20, 4:20] = LESION
    labels[0, 0, 0] = LESION
    found = by_slab(Inside(("lesion",), ("liver",), 1.0), labels, [0, 5, 13, 20], grid_of(labels.shape))
    assert found[0, 0, 0] == 0
    assert (found == LESION).sum() == 12 * 16 * 16


def test_on_a_sheared_grid_volumes_and_distances_are_those_in_the_patient():
    labels = np.zeros((4, 30, 9), np.uint8)
    labels[0, 10, 4], labels[3, 4, 4], labels[3, 16, 4] = LIVER, VESSEL, VESSEL
    grid = grid_of(labels.shape, (2.0, 1.0, 1.0), shear=1.0)  # each plane lies 2 mm further along y
    metric = bind(Fill(("liver",)), CLASSES, grid).metric
    assert metric.voxel_mm3 == pytest.approx(2.0)
    points = grid.to_lps(np.argwhere(labels == VESSEL)) - grid.to_lps(np.argwhere(labels == LIVER))
    assert np.linalg.norm(points, axis=1) == pytest.approx([6.0, np.hypot(6.0, 12.0)])
    found = by_slab(Inside(("vessel",), ("liver",), 6.0), labels, [0, 1, 2, 4], grid)
    assert (found[3, 4, 4], found[3, 16, 4]) == (VESSEL, 0)


TEXT = "largest=liver; fill=liver+lesion; inside=lesion:liver:5; near=lesion:liver:2.5; min-mm3=lesion:30; " \
       "smooth=liver:2; crf=liver+lesion:1.5:30"  # fmt: skip


def test_the_text_of_steps_and_the_steps_are_each_others():
    steps = parse_steps(TEXT)
    assert steps == (Largest(("liver",)), Fill(("liver", "lesion")), Inside(("lesion",), ("liver",), 5.0),
                     Near(("lesion",), ("liver",), 2.5), MinVolume(("lesion",), 30.0), Smooth(("liver",), 2.0),
                     Crf(("liver", "lesion"), 1.5, 30.0))  # fmt: skip
    assert "; ".join(step_text(step) for step in steps) == TEXT
    assert parse_steps(" fill = liver ;; ") == (Fill(("liver",)),)


@pytest.mark.parametrize(("text", "told"), [
    ("", "no steps"), ("shrink=liver", "no step 'shrink'"), ("largest", "names no class"),
    ("largest=liver:3", "write largest=CLASSES"), ("min-mm3=lesion", "write min-mm3=CLASSES:MM3"),
    ("min-mm3=lesion:few", "'few'"), ("min-mm3=lesion:-3", "'-3'"), ("inside=lesion:liver:nan", "'nan'"),
    ("fill=liver+", "names no class"), ("fill=liver+liver", "one twice"),
])  # fmt: skip
def test_a_wrong_step_is_told_with_what_would_be_right(text, told):
    with pytest.raises(UsageError, match=told):
        parse_steps(text)


def test_a_class_that_the_labels_do_not_have_is_named_with_those_they_have():
    with pytest.raises(NotThereError, match=r"class 'spleen'.*cure: choose among: liver, lesion, vessel"):
        bind(parse_steps("inside=lesion:spleen:5")[0], CLASSES, grid_of((2, 2, 2)))
