"""The dense form of a classifier is the classifier, window by window; what has none is named."""

from __future__ import annotations

import itertools
from dataclasses import replace
from io import BytesIO
from zipfile import ZipFile

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from torch import nn

from ctpipe.errors import BudgetError
from ctpipe.models import build_network
from ctpipe.models.bands import in_bands, peak_bytes, plan_bands
from ctpipe.models.dense import DenseForm, NotExact, Why, dense_form
from ctpipe.models.networks import for_inference
from ctpipe.words import ZYX

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
MAX = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
MEAN = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
ADAPTIVE = {2: (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d), 3: (nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d)}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def window_by_window(network, pixels, window, stride):
    """(n, classes, *windows) of the network itself, one window at a time."""
    counts = [(n - w) // s + 1 for n, w, s in zip(pixels.shape[2:], window, stride, strict=True)]
    found = []
    for at in itertools.product(*(range(n) for n in counts)):
        cut = tuple(slice(i * s, i * s + w) for i, s, w in zip(at, stride, window, strict=True))
        found.append(network(pixels[(..., *cut)].clone()).reshape(len(pixels), -1))
    return torch.stack(found, -1).reshape(len(pixels), -1, *counts)


def settled(network):
    """Statistics as after training, not 0 and 1."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return network.eval().requires_grad_(False)


@st.composite
def classifiers(draw, axes):
    """(layers, window): a random chain of the kinds that are exact, over a window it fits."""
    window = tuple(draw(st.integers(6, 30 if axes == 2 else 12)) for _ in range(axes))
    left, channels = list(window), 2
    layers = []
    for _ in range(draw(st.integers(0, 6))):
        kind = draw(st.sampled_from(["conv", "conv", "conv", "max", "mean", "relu", "norm", "dropout", "elu"]))
        taps = tuple(draw(st.integers(1, min(4, n))) for n in left)
        step = tuple(draw(st.integers(1, 3)) for _ in left)
        wide = tuple(draw(st.integers(1, 2)) if 2 * (k - 1) < n else 1 for k, n in zip(taps, left, strict=True))
        if kind == "conv":
            step = step if draw(st.booleans()) else (1,) * axes
            after = draw(st.sampled_from([2, 4]))
            groups = draw(st.sampled_from([1, 2]))
            layers.append(CONV[axes](channels, after, taps, step, 0, wide, groups, bias=draw(st.booleans())))
            channels = after
        elif kind in ("max", "mean"):
            wide = wide if kind == "max" else (1,) * axes
            layers.append(MAX[axes](taps, step, 0, wide) if kind == "max" else MEAN[axes](taps, step))
        else:
            layers.append({"relu": nn.ReLU, "elu": nn.ELU, "dropout": nn.Dropout}[kind]() if kind != "norm"
                          else NORM[axes](channels))  # fmt: skip
            continue
        left = [(n - q * (k - 1) - 1) // p + 1 for n, k, p, q in zip(left, taps, step, wide, strict=True)]
    if draw(st.booleans()):
        wanted = [draw(st.sampled_from([w for w in range(1, n + 1) if n % w == 0])) for n in left]
        layers.append(draw(st.sampled_from(ADAPTIVE[axes]))(tuple(wanted)))
        left = wanted
    if draw(st.booleans()):
        layers += [nn.Flatten(), nn.Linear(channels * int(np.prod(left)), 5), nn.ReLU(inplace=True), nn.Linear(5, 3)]
    else:
        layers += [CONV[axes](channels, 5, tuple(left)), nn.ReLU(), CONV[axes](5, 3, 1)]
    return layers, window


def check_equal(data, axes, dtype, tolerance):
    layers, window = data.draw(classifiers(axes))
    torch.manual_seed(data.draw(st.integers(0, 999)))
    for layer in layers:
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    network = settled(nn.Sequential(*layers)).to(dtype)
    stride = tuple(data.draw(st.integers(1, 9)) for _ in window)
    extra = [data.draw(st.integers(0, 2 * s + 1)) for s in stride]
    pixels = torch.randn(1, 2, *(w + e for w, e in zip(window, extra, strict=True)), dtype=dtype)
    form = dense_form(network, 2, window, stride)
    assert isinstance(form, DenseForm), form
    expected = window_by_window(network, pixels, window, stride)
    scale = max(1e-3, float(expected.abs().max()))
    before = pixels.clone()
    assert form(pixels).shape == expected.shape
    assert float((form(pixels) - expected).abs().max()) <= tolerance * scale
    rows = data.draw(st.integers(1, pixels.shape[2]))
    banded = in_bands(form, pixels, rows)
    assert banded.shape == expected.shape
    assert float((banded - expected).abs().max()) <= tolerance * scale
    assert torch.equal(pixels, before)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_dense_equals_window_by_window_for_any_chain_kernel_pooling_and_stride(data):
    """DESIGN 3: equal to float rounding; in double precision that is 1e-12."""
    check_equal(data, 2, torch.float64, 1e-12)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_dense_equals_window_by_window_in_single_precision_to_1e_5(data):
    check_equal(data, 2, torch.float32, 1e-5)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_dense_equals_window_by_window_in_three_dimensions(data):
    check_equal(data, 3, torch.float64, 1e-12)


@pytest.mark.parametrize("first", [nn.ReLU(inplace=True), nn.ELU(inplace=True), nn.MaxPool2d(1)])
def test_the_input_is_not_written_over(first):
    form = dense_form(nn.Sequential(first, nn.ReLU(inplace=True), nn.Conv2d(1, 2, 5)).eval(), 1, (5, 5), (2, 2))
    pixels = torch.randn(1, 1, 9, 9)
    before = pixels.clone()
    form(pixels)
    in_bands(form, pixels, 2)
    assert torch.equal(pixels, before)


class Written(nn.Module):
    """As people write them: functions in the forward."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
        self.last = nn.Linear(4 * 2 * 2, 3)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.features(x), inplace=True), 2)
        x = F.adaptive_avg_pool2d(F.avg_pool2d(x, 2), 2).flatten(1)
        return torch.softmax(self.last(F.dropout(x, training=self.training)), 1) if self.training else self.last(x)


def test_functions_in_a_forward_are_followed():
    torch.manual_seed(1)
    network = settled(Written())
    form = dense_form(network, 1, (18, 19), (3, 4))
    assert isinstance(form, DenseForm), form
    pixels = torch.randn(1, 1, 30, 33)
    assert torch.allclose(form(pixels), window_by_window(network, pixels, (18, 19), (3, 4)), atol=1e-5)


def test_steps_are_kept_as_far_as_the_stride_allows():
    """Stride 8 through five pools of 2 keeps three; stride 7 keeps none and the head takes all of it (DESIGN 3)."""
    network = settled(build_network("vgg16", 1, 3, ZYX(1, 257, 257), {"units": 8}))
    pools = [f"body.{i}" for i in (4, 9, 16, 23, 30)]
    for stride, kept in ((16, [2, 2, 2, 2, 1]), (8, [2, 2, 2, 1, 1]), (7, [1] * 5), (12, [2, 2, 1, 1, 1])):
        form = dense_form(network, 1, (257, 257), (stride, stride))
        by_name = {step.name: step for step in form.steps}
        assert [by_name[name].stride[0] for name in pools] == kept
        assert by_name["head.0"].stride[0] == stride // int(np.prod(kept))
        assert by_name["head.0"].extent == (1, 1)


@pytest.mark.parametrize("stride", [pytest.param(7, marks=pytest.mark.slow), 8])
@pytest.mark.parametrize("where", [pytest.param(0, id="made"), pytest.param(1, id="real", marks=pytest.mark.real)])
def test_the_shipped_vgg16_at_its_own_window(stride, where, request):
    """257 / 7 and 257 / 8 on a plane, channels last and batch norm folded as a model runs it."""
    torch.manual_seed(2)
    network = for_inference(settled(build_network("vgg16", 1, 3, ZYX(1, 257, 257), {"units": 64})))
    if where:
        plane = real_plane(request.getfixturevalue("real_data"))[40 : 297 + 2 * stride, 60 : 317 + 2 * stride]
    else:
        plane = np.random.default_rng(3).normal(size=(257 + 2 * stride,) * 2).astype(np.float32)
    pixels = torch.from_numpy(np.ascontiguousarray(plane))[None, None]
    pixels = pixels[:, :, : 257 + stride] if stride == 7 else pixels
    form = dense_form(network, 1, (257, 257), (stride, stride))
    with torch.inference_mode():
        expected = window_by_window(network, pixels, (257, 257), (stride, stride))
        found = in_bands(form, pixels, 96)
    assert found.shape == expected.shape
    assert len(torch.unique(expected)) == expected.numel()
    assert float((found - expected).abs().max() / expected.abs().max()) <= 1e-5


def real_plane(folder):
    """A plane in the middle of the lung CT, -1 .. 1."""
    with ZipFile(folder / "ibsi1_lung" / "CT.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".dcm"))
        pixels = dcmread(BytesIO(archive.read(names[len(names) // 2]))).pixel_array
    plane = pixels.astype(np.float32)
    return np.pad(2 * (plane - plane.min()) / (plane.max() - plane.min()) - 1, 128, mode="edge")  # as the lattice pads


# ------------------------------------------------------------------------------------------------ what is not exact
def vgg_with(*layers):
    return nn.Sequential(nn.Conv2d(1, 4, 3), *layers).eval()


@pytest.mark.parametrize(("network", "layer", "why", "word"), [
    (vgg_with(nn.Conv2d(4, 2, 3, padding=1), nn.Conv2d(2, 2, 8)), "1", Why.PADDING, "1 x 1"),
    (vgg_with(nn.Conv2d(4, 2, 3, padding="same"), nn.Conv2d(2, 2, 8)), "1", Why.PADDING, "padded"),
    (vgg_with(nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 2, 4)), "1", Why.PADDING, "pooling"),
    (vgg_with(nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(4, 2, 4)), "1", Why.PADDING, "ceil_mode"),
    (vgg_with(nn.ZeroPad2d(1), nn.Conv2d(4, 2, 10)), "1", Why.PADDING, "ZeroPad2d"),
    (vgg_with(nn.InstanceNorm2d(4), nn.Conv2d(4, 2, 8)), "1", Why.STATISTICS, "InstanceNorm2d"),
    (vgg_with(nn.GroupNorm(2, 4), nn.Conv2d(4, 2, 8)), "1", Why.STATISTICS, "GroupNorm"),
    (vgg_with(nn.BatchNorm2d(4, track_running_stats=False), nn.Conv2d(4, 2, 8)), "1", Why.STATISTICS, "statistics"),
    (vgg_with(nn.Sequential(nn.ReLU(), nn.Upsample(scale_factor=2))), "1.1", Why.UNKNOWN, "Upsample"),
    (vgg_with(nn.ConvTranspose2d(4, 2, 3)), "1", Why.UNKNOWN, "ConvTranspose2d"),
    (vgg_with(nn.AdaptiveAvgPool2d(5), nn.Conv2d(4, 2, 5)), "1", Why.BINS, "8 to 5"),
    (vgg_with(nn.Flatten(), nn.Linear(4 * 49, 2)), "2", Why.SHAPE, "256"),
    (vgg_with(nn.Conv2d(4, 2, 9)), "1", Why.SHAPE, "8 are left"),
    (vgg_with(nn.Conv2d(4, 2, 7)), "1", Why.SHAPE, "2 x 2 results"),
    (vgg_with(nn.Softmax(3), nn.Conv2d(4, 2, 8)), "1", Why.STATISTICS, "Softmax"),
])  # fmt: skip
def test_a_layer_that_cannot_be_exact_is_named(network, layer, why, word):
    found = dense_form(network, 1, (10, 10), (4, 4))
    assert isinstance(found, NotExact)
    assert [(reason.layer, reason.why) for reason in found.reasons] == [(layer, why)]
    assert word in str(found)


def test_every_padded_layer_is_named_not_only_the_first():
    body = [nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3)]
    found = dense_form(nn.Sequential(*body, nn.Flatten(), nn.Linear(36, 2)).eval(), 1, (10, 10), (2, 2))
    assert [reason.layer for reason in found.reasons] == ["0", "2"]


def test_batch_norm_and_dropout_in_training_are_named():
    for layer in (nn.BatchNorm2d(4), nn.Dropout(0.5)):
        found = dense_form(vgg_with(layer, nn.Conv2d(4, 2, 8)).train(), 1, (10, 10), (2, 2))
        assert found.reasons[0].why is Why.STATISTICS


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 1, 1)

    def forward(self, x):
        return x + self.first(x)


class Deciding(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Crossed(nn.Module):
    def forward(self, x):
        return x.transpose(2, 3)


def test_branches_decisions_and_unknown_functions_are_named():
    found = {kind: dense_form(kind().eval(), 1, (1, 1), (1, 1)) for kind in (Residual, Deciding, Crossed)}
    assert [found[kind].reasons[0].why for kind in found] == [Why.BRANCH, Why.UNKNOWN, Why.UNKNOWN]
    assert found[Residual].reasons[0].layer == "add"
    assert "TraceError" in str(found[Deciding])
    assert "transpose" in str(found[Crossed])


# ------------------------------------------------------------------------------------------------------- bands
def test_bands_fit_the_budget_and_no_row_is_computed_twice():
    network = settled(build_network("vgg-small", 1, 3, ZYX(1, 44, 44), {}))
    form = dense_form(network, 1, (44, 44), (4, 4))
    windows = (60, 20)
    whole = peak_bytes(form, windows, form.space(windows)[0])
    low = plan_bands(form, windows, whole // 3)
    assert low.bytes <= whole // 3
    assert low.rows % 4 == 0
    assert plan_bands(form, windows, whole).rows >= form.space(windows)[0]
    with pytest.raises(BudgetError, match="one band of 4 row"):
        plan_bands(form, windows, 10_000)
    rows = {}
    steps = [replace(step, run=counted(step, rows)) for step in form.steps]
    watched = DenseForm(form.window, form.stride, form.channels, tuple(steps))
    pixels = torch.randn(1, 1, *form.space(windows))
    with torch.inference_mode():
        watched(pixels)
        at_once = dict(rows)
        rows.clear()
        in_bands(watched, pixels, low.rows)
    assert rows == at_once


def counted(step, rows):
    def run(pixels):
        found = step.run(pixels)
        rows[step.name] = rows.get(step.name, 0) + found.shape[2]
        return found

    return run


def test_work_counts_what_a_pass_multiplies():
    form = dense_form(nn.Sequential(nn.Conv2d(2, 3, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 5)).eval(), 2,
                      (6, 6), (2, 2))  # fmt: skip
    assert form.window_work == 4 * 4 * (2 * 3 * 9) + 12 * 5
    assert form.work((1, 1)) == form.window_work
    assert form.work((3, 2)) == 8 * 6 * (2 * 3 * 9) + 3 * 2 * 12 * 5
