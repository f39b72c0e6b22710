"""Scores of a volume: classes by name, grids compared, lesions as pieces."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ctpipe.errors import InputError, StoreFaultError, UsageError
from ctpipe.scoring import evaluate_volume, pool
from ctpipe.volume import SLAB_PLANES, Grid


@dataclass
class FakeLabels:
    """Labels in memory with the face of ctpipe.store.Labels."""

    voxels: np.ndarray
    classes: dict[int, str]
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    name: str = "truth-1"
    series_id: str = "7f3a"
    reads: list[tuple[int, int]] = field(default_factory=list)

    @property
    def grid(self) -> Grid:
        return Grid.from_affine(self.voxels.shape, np.diag([*self.spacing[::-1], 1.0])[:, [2, 1, 0, 3]])

    def read_planes(self, start, stop):
        self.reads.append((start, stop))
        return self.voxels[start:stop]


def scores_of(true, predicted, classes=None, **kw):
    classes = classes or {1: "liver", 2: "lesion"}
    return evaluate_volume(FakeLabels(true, classes, **kw), FakeLabels(predicted, classes, name="run", **kw))


def balls(shape, *centres_radii):
    z, y, x = np.indices(shape)
    out = np.zeros(shape, np.uint8)
    for (a, b, c), r in centres_radii:
        out[(z - a) ** 2 + (y - b) ** 2 + (x - c) ** 2 <= r * r] = 1
    return out


def test_a_perfect_prediction_scores_one_and_finds_every_lesion():
    true = np.zeros((70, 8, 8), np.uint8)
    true[10:50] = 1
    true[30:34, 2:4, 2:4] = true[40, 6, 6] = 2  # the first crosses the face between two slabs
    got = scores_of(true, true).as_json()
    assert all(got["classes"][n][m] == 1 for n in ("liver", "lesion") for m in ("dice", "iou", "precision", "recall"))
    assert got["lesions"]["lesion"]["count"] == got["lesions"]["lesion"]["found"] == 2
    assert got["lesions"]["lesion"]["false_components"] == 0


def test_classes_are_matched_by_name_and_not_by_number():
    true = np.zeros((3, 4, 4), np.uint8)
    true[0], true[1] = 1, 2
    predicted = np.zeros((3, 4, 4), np.uint16)
    predicted[0], predicted[1] = 700, 3
    got = evaluate_volume(
        FakeLabels(true, {1: "liver", 2: "lesion"}), FakeLabels(predicted, {3: "lesion", 700: "liver"})
    )
    assert got.confusion.counts.tolist() == [[16, 0, 0], [0, 16, 0], [0, 0, 16]]
    assert got.only_in_truth == got.only_in_prediction == ()


def test_a_class_that_one_side_lacks_is_named_and_still_counted():
    true = np.zeros((2, 4, 4), np.uint8)
    true[0] = 1
    predicted = np.zeros((2, 4, 4), np.uint8)
    predicted[1] = 1
    got = evaluate_volume(FakeLabels(true, {1: "liver"}), FakeLabels(predicted, {1: "spleen"}))
    assert (got.only_in_truth, got.only_in_prediction) == (("liver",), ("spleen",))
    assert got.classes == ("liver", "spleen")
    assert got.confusion.dice(got.index("liver")) == 0
    assert math.isnan(got.confusion.recall(got.index("spleen")))


def test_grids_that_differ_are_an_error_that_names_both():
    a = FakeLabels(np.zeros((2, 4, 4), np.uint8), {1: "liver"})
    b = FakeLabels(np.zeros((2, 4, 4), np.uint8), {1: "liver"}, spacing=(1, 1, 1.5), name="run")
    with pytest.raises(InputError) as caught:
        evaluate_volume(a, b)
    assert a.grid.grid_id in caught.value.problem
    assert b.grid.grid_id in caught.value.problem


@pytest.mark.parametrize("label", [2, 9, 255])
def test_a_label_without_a_name_is_a_fault_and_not_background(label):
    stray = np.zeros((2, 4, 4), np.uint8)
    stray[1, 2, 2] = label
    with pytest.raises(StoreFaultError, match="does not name"):
        scores_of(np.zeros((2, 4, 4), np.uint8), stray, {1: "liver"})


def test_every_slab_of_either_side_is_read_once():
    true = FakeLabels(np.zeros((70, 2, 2), np.uint8), {1: "liver", 2: "lesion"})
    predicted = FakeLabels(true.voxels, true.classes)
    steps = []
    evaluate_volume(true, predicted, progress=lambda *step: steps.append(step))
    assert true.reads == predicted.reads == [(0, SLAB_PLANES), (SLAB_PLANES, 2 * SLAB_PLANES), (2 * SLAB_PLANES, 70)]
    assert steps[-1] == ("evaluate", 70, 70)


def test_what_has_no_voxels_is_null_in_json():
    empty = np.zeros((2, 3, 3), np.uint8)
    got = json.loads(json.dumps(scores_of(empty, empty).as_json(), allow_nan=False))
    assert got["classes"]["lesion"]["dice"] is None
    assert got["classes"]["lesion"]["true_voxels"] == 0
    assert got["lesions"]["lesion"]["count"] == 0


def test_lesions_are_found_missed_and_false_by_size():
    centres = [((10, 10, 10), 1), ((10, 10, 30), 3), ((10, 30, 10), 7), ((34, 30, 34), 12)]
    shape = (50, 50, 50)
    true = balls(shape, *centres)
    predicted = np.zeros(shape, np.uint8)
    predicted[10, 10, 30] = predicted[34, 30, 34] = 1  # one voxel each: found, whatever the Dice
    predicted[45, 5, 5] = predicted[47, 5, 5] = 1  # two pieces where nothing is
    got = scores_of(true, predicted, {1: "lesion"}).lesions["lesion"].as_json()
    assert (got["count"], got["found"], got["false_components"]) == (4, 2, 2)
    assert got["rule"] == "26-connected, any overlap"
    assert got["by_size"] == {
        "<5 mm": {"count": 1, "found": 0},
        "5-10 mm": {"count": 1, "found": 1},
        "10-20 mm": {"count": 1, "found": 0},
        ">20 mm": {"count": 1, "found": 1},
    }


def test_sizes_are_millimetres_and_not_voxels():
    true = balls((20, 20, 20), ((10, 10, 10), 2))
    by_size = scores_of(true, true, {1: "lesion"}, spacing=(6.0, 6.0, 6.0)).lesions["lesion"].by_size
    assert [b.count for b in by_size] == [0, 0, 0, 1]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.02, 0.5))
def test_lesion_counts_equal_scipy_on_the_whole_volume(seed, share):
    rng = np.random.default_rng(seed)
    true, predicted = (rng.random((2, 40, 6, 6)) < share).astype(np.uint8)
    got = scores_of(true, predicted, {1: "lesion"}).lesions["lesion"]
    lesions, count = ndimage.label(true, np.ones((3, 3, 3)))
    pieces, predicted_count = ndimage.label(predicted, np.ones((3, 3, 3)))
    assert got.count == count == sum(b.count for b in got.by_size)
    assert got.found == len(set(lesions[predicted > 0]) - {0}) == sum(b.found for b in got.by_size)
    assert got.false_components == predicted_count - len(set(pieces[true > 0]) - {0})


def test_pooled_scores_are_over_voxels_and_not_a_mean_of_scores():
    small, large = np.zeros((1, 4, 4), np.uint8), np.zeros((9, 4, 4), np.uint8)
    small[:], large[:] = 1, 1
    a, b = scores_of(small, np.zeros_like(small)), scores_of(large, large)
    both = pool([a, b])
    assert both.confusion.recall(1) == pytest.approx(0.9)
    assert both.lesions["liver"].count == 2
    assert both.lesions["liver"].found == 1
    with pytest.raises(UsageError):
        pool([])
