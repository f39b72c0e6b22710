"""Whole planes in dense form: the scores and labels of the windows one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_centre_scores import Volume, recipe

from ctpipe import reduce
from ctpipe.config import recipe_from_dict
from ctpipe.errors import RunError, UsageError
from ctpipe.models import Model, build_network, register
from ctpipe.models import model as model_module
from ctpipe.models.dense import NotExact
from ctpipe.models.strides import advise
from ctpipe.patches import PlaneReader
from ctpipe.predict import SCORE_SCALE, exact_form, notes, require_exact, score_centres
from ctpipe.words import ZYX


@register("padded-for-tests")
def padded(channels, n_classes, window, options):
    """What torchvision's VGG does: every convolution padded."""
    from torch import nn

    class Padded(nn.Sequential):
        step, window = 1, (9, 9)

    return Padded(nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, n_classes, 9))


def model_of(window, stride, channels=(0,), network="vgg-small", pad="edge", micro_batch=16):
    import torch

    torch.manual_seed(5)
    options = {"widths": [4, 6, 8, 12]} if network == "vgg-small" else {}
    plain = recipe(window, stride, channels=channels, pad=pad, micro_batch=micro_batch).as_dict()
    rec = recipe_from_dict({**plain, "network": network, "options": options})
    built = build_network(network, len(channels) * window[0], 3, ZYX(*window), options)
    spread(built, torch.rand(16, len(channels) * window[0], *window[1:]) * 2 - 1)
    return Model.of(rec, ("liver", "lesion"), built)


def spread(network, windows):
    """Make the classes of such windows uncertain: scores of 0 and 1 would be equal whatever the pixels."""
    import torch

    last = (network.head if hasattr(network, "head") else network)[-1]
    with torch.no_grad():
        deviation, mean = torch.std_mean(network.eval()(windows)[:, :, 0, 0], 0)
        last.weight /= deviation[:, None, None, None]
        last.bias.copy_((last.bias - mean) / deviation)


def windows_only(model, monkeypatch):
    monkeypatch.setattr(model, "dense", lambda stride: NotExact(()))


def volume_of(shape, seed=4):
    return Volume(np.random.default_rng(seed).integers(-2, 11, shape).astype(np.int16))


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_planes_in_dense_form_have_the_scores_of_their_windows(data):
    """Any window, stride, padding, channels and mask; several planes in a window too."""
    window = (data.draw(st.sampled_from([1, 3])), *(data.draw(st.integers(32, 45)) for _ in "yx"))
    stride = tuple(data.draw(st.integers(1, 9)) for _ in range(3))
    model = model_of(window, stride, data.draw(st.sampled_from([(0,), (0, 2.0)])), pad=data.draw(
        st.sampled_from(["edge", "constant"])))  # fmt: skip
    shape = (4, *(data.draw(st.integers(1, 40)) for _ in "yx"))
    reader = PlaneReader(volume_of(shape), model.recipe.input)
    planes = list(range(0, 4, stride[0]))
    counts = (len(planes), *(-(-n // s) for n, s in zip(shape[1:], stride[1:], strict=True)))
    share = data.draw(st.sampled_from([None, 0.0, 0.2, 0.9]))
    mask = None if share is None else np.random.default_rng(1).random(counts) < share
    found = score_centres(model, reader, planes, mask)
    with pytest.MonkeyPatch.context() as patch:
        windows_only(model, patch)
        expected = score_centres(model, reader, planes, mask)
    assert np.abs(found - expected).max() <= 1e-5 * SCORE_SCALE
    if mask is not None:
        assert (found[~mask] == (SCORE_SCALE, 0, 0)).all()


def test_label_volumes_are_those_of_the_windows_one_by_one(monkeypatch):
    model = model_of((1, 36, 36), (1, 3, 3), (0, 2.0))
    reader = PlaneReader(volume_of((5, 50, 47)), model.recipe.input)

    def labels():
        scores = score_centres(model, reader, list(range(5)))
        return reduce.label_planes(scores, list(range(5)), model.recipe.predict.stride, "nearest", 0, 5, (5, 50, 47))

    whole = labels()
    windows_only(model, monkeypatch)
    assert len(np.unique(whole)) == 3
    assert np.array_equal(labels(), whole)


def test_whole_planes_take_no_window_and_a_few_centres_no_plane(monkeypatch):
    model = model_of((1, 36, 36), (1, 4, 4))
    reader = PlaneReader(volume_of((2, 60, 60)), model.recipe.input)
    calls = []
    for name in ("scores", "dense_scores"):
        kept = getattr(model, name)
        monkeypatch.setattr(model, name, lambda *a, _kept=kept, _name=name: calls.append(_name) or _kept(*a))
    score_centres(model, reader, [0, 1])
    assert calls == ["dense_scores"] * 2
    mask = np.zeros((2, 15, 15), bool)
    mask[0, 0, 0] = mask[0, 14, 14] = True
    mask[1] = True
    calls.clear()
    score_centres(model, reader, [0, 1], mask)
    assert calls == ["dense_scores", "scores"]


def test_only_the_box_of_the_asked_centres_is_computed(monkeypatch):
    model = model_of((1, 36, 36), (1, 4, 4))
    reader = PlaneReader(volume_of((1, 60, 60)), model.recipe.input)
    shapes = []
    kept = model.dense_scores
    monkeypatch.setattr(model, "dense_scores", lambda form, pixels: shapes.append(pixels.shape) or kept(form, pixels))
    mask = np.zeros((1, 15, 15), bool)
    mask[0, 3:7, 5:12] = True
    found = score_centres(model, reader, [0], mask)
    assert len(np.unique(found[mask])) > 50
    assert shapes == [(1, 36 + 3 * 4, 36 + 6 * 4)]
    assert np.abs(found[mask] - score_centres(model, reader, [0])[mask]).max() <= 1e-5 * SCORE_SCALE


def test_dense_scores_have_the_same_bits_in_any_groups_of_planes(monkeypatch):
    """LINE: labels do not depend on how the work is cut (MODELS 8)."""
    from ctpipe.predict import windows

    model = model_of((3, 36, 36), (1, 5, 3), (0, 2.0))
    reader = PlaneReader(volume_of((9, 31, 29)), model.recipe.input)
    mask = np.random.default_rng(0).random((9, 7, 10)) < np.linspace(0, 1, 9)[:, None, None]
    whole = score_centres(model, reader, list(range(9)), mask)
    monkeypatch.setattr(windows, "FEATURE_BYTES", 1)
    parts = [score_centres(model, reader, p, mask[p]) for p in ([0], [1, 2, 3], [4, 5, 6, 7], [8])]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_small_budgets_cut_rows_and_then_columns(monkeypatch):
    from ctpipe.models import bands

    model = model_of((1, 36, 36), (1, 2, 2))
    form = exact_form(model)
    pixels = np.random.default_rng(0).normal(size=(1, 120, 200)).astype(np.float32)
    whole = model.dense_scores(form, pixels)
    widths = set()
    kept = bands.in_bands
    monkeypatch.setattr(bands, "in_bands", lambda form, x, rows: widths.add((x.shape[3], rows)) or kept(form, x, rows))
    for budget in (400_000, 60_000):
        widths.clear()
        found = model.dense_scores(form, pixels, budget)
        assert found.shape == whole.shape
        assert np.abs(found - whole).max() <= 1e-5
        assert max(rows for _, rows in widths) < 120
    assert max(width for width, _ in widths) < 200


def test_what_has_no_dense_form_runs_window_by_window_and_is_named(monkeypatch):
    model = model_of((1, 9, 9), (1, 4, 4), network="padded-for-tests")
    assert exact_form(model) is None
    reader = PlaneReader(volume_of((1, 20, 20)), model.recipe.input)
    monkeypatch.setattr(model, "dense_scores", None)
    assert len(np.unique(score_centres(model, reader, [0]))) > 20
    with pytest.raises(UsageError, match=r"test has no exact dense form: 0: convolution padded by 1 x 1"):
        require_exact(model)
    assert notes(model) == ["test runs window by window: 0: convolution padded by 1 x 1"]
    require_exact(model_of((1, 36, 36), (1, 4, 4)))


def test_a_wasteful_stride_says_what_it_costs_and_names_its_neighbours():
    (note,) = notes(model_of((1, 44, 44), (1, 7, 7)))
    assert "stride 7 x 7" in note
    assert "4 x 4" in note
    assert "8 x 8" in note
    network = build_network("vgg16", 1, 3, ZYX(1, 257, 257), {"units": 8}).eval()
    told = advise(network, 1, (257, 257), (7, 7))
    assert [stride for stride, _ in told.others] == [(4, 4), (8, 8)]
    assert 14 <= told.work / told.others[1][1] <= 40  # DESIGN 3
    assert [advise(network, 1, (257, 257), (s, s)) for s in (1, 2, 4, 8, 16)] == [None] * 5


@pytest.mark.parametrize("where", ["weights", "pixels"])
def test_nan_stops_the_volume_and_names_it(where, monkeypatch):
    """A score that is no number never becomes a label."""
    model = model_of((1, 36, 36), (1, 4, 4))
    volume = volume_of((2, 60, 60))
    if where == "weights":
        model._runner.head[-1].bias[1] = np.nan
        with pytest.raises(RunError, match=r"s0.*plane 1"):
            score_centres(model, PlaneReader(volume, model.recipe.input), [1])
        return
    with pytest.raises(RunError, match="NaN"):
        model.dense_scores(exact_form(model), np.full((1, 60, 60), np.nan, np.float32))


def test_bits_follow_from_one_budget():
    """Its change is a new algorithm in the run key."""
    assert model_module.BAND_BYTES == 256 << 20
