"""Networks: the same function window by window and over larger inputs."""

from __future__ import annotations

import pytest
import torch

from ctpipe.errors import NotThereError, UsageError
from ctpipe.models import build_network, network_names
from ctpipe.models.networks import VGG16_BODY, for_inference, left_of
from ctpipe.words import ZYX


def _built(name: str, channels: int = 1, side: int = 44, **options: object) -> torch.nn.Module:
    torch.manual_seed(3)
    network = build_network(name, channels, 3, ZYX(1, side, side), dict(options))
    for module in network.modules():  # statistics as after training, not 0 and 1
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 2.0)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return network.eval()


def _window_by_window(network: torch.nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    (wy, wx), step = network.window, network.step
    ny, nx = ((pixels.shape[2] - wy) // step + 1, (pixels.shape[3] - wx) // step + 1)
    rows = [
        [network(pixels[:, :, y * step : y * step + wy, x * step : x * step + wx])[:, :, 0, 0] for x in range(nx)]
        for y in range(ny)
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


@pytest.mark.parametrize("extra", [(0, 0), (12, 4), (11, 7)])
@pytest.mark.parametrize(("name", "side", "options"), [
    ("vgg-small", 44, {}),
    ("vgg-small", 37, {"batch_norm": False, "widths": [4, 6, 8, 10]}),
])  # fmt: skip
def test_a_larger_input_gives_every_window_its_own_logits(
    name: str, side: int, options: dict[str, object], extra: tuple[int, int]
) -> None:
    """extra 11 and 7: pixels that make up no whole step must not let another window through."""
    network = _built(name, channels=2, side=side, **options)
    pixels = torch.randn(2, 2, side + extra[0], side + extra[1])
    with torch.inference_mode():
        whole, single = network(pixels), _window_by_window(network, pixels)
    assert whole.shape == single.shape
    assert torch.allclose(whole, single, rtol=1e-5, atol=1e-5)


def test_vgg16_over_a_larger_input_gives_every_window_its_own_logits() -> None:
    network = _built("vgg16", side=213, units=16)  # 257 would take seconds more
    pixels = torch.randn(1, 1, 213 + 32, 213 + 31)
    with torch.inference_mode():
        whole, single = network(pixels), _window_by_window(network, pixels)
    assert whole.shape == (1, 3, 2, 1)
    assert torch.allclose(whole, single, rtol=1e-5, atol=1e-5 * float(whole.abs().max()))


def test_vgg16_leaves_two_by_two_of_its_window() -> None:
    assert left_of(257, VGG16_BODY) == 2
    network = _built("vgg16", side=257, units=64)
    convolutions = [module for module in network.body if isinstance(module, torch.nn.Conv2d)]
    assert [module.out_channels for module in convolutions] == [width for width in VGG16_BODY if width != "P"]
    assert network.head[0].weight.shape == (64, 512, 2, 2)
    assert [module.p for module in network.head if isinstance(module, torch.nn.Dropout)] == [0.5, 0.5]


def test_folding_batch_norm_keeps_the_function() -> None:
    network = _built("vgg-small", channels=3)
    pixels = torch.randn(4, 3, 48, 44)
    with torch.inference_mode():
        expected, found = network(pixels), for_inference(network)(pixels)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in for_inference(network).modules())


def test_a_window_too_small_for_the_network_is_named_with_the_smallest_that_fits() -> None:
    with pytest.raises(UsageError, match=r"31 x 44 is too small.*at least 32"):
        build_network("vgg-small", 1, 2, ZYX(1, 31, 44), {})
    build_network("vgg-small", 1, 2, ZYX(1, 32, 44), {})


def test_unknown_networks_and_options_are_named() -> None:
    assert {"vgg16", "vgg-small"} <= set(network_names())
    with pytest.raises(NotThereError, match=r"'vgg19'.*vgg-small, vgg16"):
        build_network("vgg19", 1, 2, ZYX(1, 257, 257), {})
    with pytest.raises(UsageError, match="depth"):
        build_network("vgg-small", 1, 2, ZYX(1, 44, 44), {"depth": 3})
