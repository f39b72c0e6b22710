"""score_centres and reduce together: the identity law, and scores that do not depend on slabs, masks or groups."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctpipe import predict, reduce
from ctpipe.config import InputSpec, recipe_from_dict
from ctpipe.errors import RunError, UsageError
from ctpipe.models import Model, Sizes, build_network
from ctpipe.models.dense import NotExact
from ctpipe.patches import PlaneReader, WindowGrid
from ctpipe.predict import SCORE_SCALE, score_centres, windows
from ctpipe.volume import Grid, pyramid_levels
from ctpipe.words import Fill


class Volume:
    """A series in memory: what PlaneReader reads."""

    def __init__(self, hu):
        affine = np.eye(4)
        affine[:3, :3] = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]]) * np.array([3.0, 1.5, 1.5])
        self.id, self.hu = "s0", hu
        self.levels = pyramid_levels(Grid.from_affine(hu.shape, affine))

    def read_planes(self, start, stop, level=0):
        return self.hu[start:stop]


def recipe(window, stride, fill="nearest", pad="edge", channels=(0,), micro_batch=4):
    return recipe_from_dict({
        "name": "test", "network": "vgg-small", "classes": ["liver", "lesion"],
        "input": {"channels_mm": list(channels), "window_hu": [0, 8]},
        "windows": {"window": list(window), "stride": [1, 1, 1], "pad": pad},
        "train": {"steps": 1, "epochs": 1, "batch": 1},
        "predict": {"stride": list(stride), "fill": fill, "micro_batch": micro_batch},
    })  # fmt: skip


class CentreModel:
    """Returns the class of the centre voxel, whose normalised HU says it: HU = 2 x class in a window of 0..8."""

    def __init__(self, rec):
        self.recipe = rec
        self.spec = SimpleNamespace(classes=("liver", "lesion"))
        self.sizes = Sizes(rec.predict.micro_batch)
        self.seen = 0

    def dense(self, stride):
        """It has no layers to rewrite: window by window."""
        return NotExact(())

    def scores(self, batch):
        depth, height, width = self.recipe.windows.window
        assert batch.shape[1:] == (depth, height, width)
        self.seen += len(batch)
        number = np.rint((batch[:, depth // 2, height // 2, width // 2] + 1) * 2).astype(int)
        return np.eye(3, dtype=np.float32)[number]


def labels_of(model, reader, fill, cuts):
    """The whole line of infer: slab by slab."""
    stride, shape = model.recipe.predict.stride, reader.grid.shape
    out = []
    for start, stop in itertools.pairwise(cuts):
        planes = reduce.centre_planes(stride.z, start, stop, shape.z, fill)
        scores = score_centres(model, reader, planes)
        out.append(reduce.label_planes(scores, planes, stride, fill, start, stop, shape))
    return np.concatenate(out)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_identity_law_a_classifier_of_the_centre_voxel_gives_the_labels_back_at_every_centre(data):
    shape = tuple(data.draw(st.integers(1, 10)) for _ in range(3))
    window = tuple(data.draw(st.integers(1, 13)) for _ in range(3))
    stride = tuple(data.draw(st.integers(1, 6)) for _ in range(3))
    fill = data.draw(st.sampled_from(Fill))
    truth = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 3, shape)
    model = CentreModel(recipe(window, stride, fill, data.draw(st.sampled_from(["edge", "constant"]))))
    reader = PlaneReader(Volume((truth * 2).astype(np.int16)), model.recipe.input)
    cuts = sorted({0, shape[0], *data.draw(st.lists(st.integers(0, shape[0]), max_size=3))})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "FEATURE_BYTES", data.draw(st.sampled_from([1, 2000, 1 << 26])))
        patch.setattr(windows, "CUT_BYTES", data.draw(st.sampled_from([1, 5000])))
        by_slab = labels_of(model, reader, fill, cuts)
        whole = labels_of(model, reader, fill, [0, shape[0]])
    at = np.ix_(*WindowGrid(shape, window, stride).axes())
    assert np.array_equal(whole[at], truth[at])
    assert by_slab.tobytes() == whole.tobytes()


@pytest.fixture(scope="module")
def small_net():
    rec = recipe((1, 32, 32), (1, 5, 3), channels=(0, 2.0), micro_batch=8)
    options = {"widths": [2, 3, 4, 5]}
    network = build_network("vgg-small", 2, 3, rec.windows.window, options)
    return Model.of(recipe_from_dict({**rec.as_dict(), "options": options}), ("liver", "lesion"), network)


@pytest.fixture(scope="module")
def volume():
    return Volume(np.random.default_rng(4).integers(-2, 11, (9, 31, 29)).astype(np.int16))


def test_scores_have_the_same_bits_in_any_groups_of_planes_and_windows(small_net, volume, monkeypatch):
    """LINE: labels do not depend on how the work is cut (MODELS 8)."""
    reader = PlaneReader(volume, small_net.recipe.input)
    whole = score_centres(small_net, reader, list(range(9)))
    assert whole.dtype == np.int32
    assert whole.shape == (9, 7, 10, 3)
    assert np.abs(whole.sum(-1) - SCORE_SCALE).max() <= 2
    assert len(np.unique(whole)) > 100
    monkeypatch.setattr(windows, "FEATURE_BYTES", 1)
    monkeypatch.setattr(windows, "CUT_BYTES", 1)
    parts = [score_centres(small_net, reader, planes) for planes in ([0], [1, 2, 3], [4, 5, 6, 7], [8])]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_masked_centres_are_background_and_the_others_have_the_same_bits(small_net, volume):
    reader = PlaneReader(volume, small_net.recipe.input)
    whole = score_centres(small_net, reader, [2, 5, 6])
    mask = np.random.default_rng(0).random(whole.shape[:3]) < 0.3
    mask[1] = False
    found = score_centres(small_net, reader, [2, 5, 6], mask)
    assert np.array_equal(found[mask], whole[mask])
    assert (found[~mask] == (SCORE_SCALE, 0, 0)).all()


def test_a_mask_without_centres_reads_no_planes(small_net, volume, monkeypatch):
    reader = PlaneReader(volume, small_net.recipe.input)
    monkeypatch.setattr(volume, "read_planes", None, raising=False)
    assert (score_centres(small_net, reader, [1], np.zeros((1, 7, 10), bool))[..., 0] == SCORE_SCALE).all()


def test_windows_are_cut_a_few_at_a_time(volume, monkeypatch):
    """Memory is bounded: never all windows of a slab."""
    model = CentreModel(recipe((1, 9, 9), (1, 1, 1), micro_batch=16))
    most = []
    scores = CentreModel.scores
    monkeypatch.setattr(CentreModel, "scores", lambda self, batch: most.append(len(batch)) or scores(self, batch))
    monkeypatch.setattr(windows, "CUT_BYTES", 40 * 9 * 9 * 4)
    volume = Volume(np.abs(volume.hu % 3 * 2).astype(np.int16))
    score_centres(model, PlaneReader(volume, model.recipe.input), list(range(9)))
    assert max(most) == 32  # whole micro-batches within CUT_BYTES
    assert model.seen == volume.hu.size


def test_scores_that_are_not_finite_stop_the_volume_and_name_the_plane(volume):
    model = CentreModel(recipe((1, 9, 9), (2, 4, 4)))
    model.scores = lambda batch: np.full((len(batch), 3), np.nan, np.float32)
    with pytest.raises(RunError, match=r"s0.*plane 4"):
        score_centres(model, PlaneReader(volume, model.recipe.input), [4, 6])


def test_planes_off_the_lattice_and_masks_that_do_not_fit_are_refused(volume):
    model = CentreModel(recipe((1, 9, 9), (2, 4, 4)))
    reader = PlaneReader(volume, InputSpec())
    for planes in ([1], [2, 0], [10]):
        with pytest.raises(UsageError, match="lattice"):
            score_centres(model, reader, planes)
    with pytest.raises(UsageError, match="mask"):
        score_centres(model, reader, [0], np.ones((1, 3, 3), bool))


def test_predict_shows_what_it_offers():
    assert {"SCORE_SCALE", "exact_form", "notes", "require_exact", "score_centres"} <= set(predict.__all__)
    assert all(hasattr(predict, name) for name in predict.__all__)
