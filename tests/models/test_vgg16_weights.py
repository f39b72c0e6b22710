"""VGG16 weights in torchvision's layout, from a local file."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from ctpipe.errors import NotThereError, UsageError
from ctpipe.models import build_network, load_vgg16_body
from ctpipe.words import ZYX

# torchvision's vgg16().features: convolutions among ReLUs and pools
NUMBERS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    made: dict[str, torch.Tensor] = {"classifier.6.bias": torch.zeros(3)}
    for number, before, after in zip(NUMBERS, (3, *WIDTHS), WIDTHS, strict=False):
        made[f"features.{number}.weight"] = torch.randn(after, before, 3, 3) * 0.01
        made[f"features.{number}.bias"] = torch.randn(after)
    return made


@cache
def _body(channels: int) -> torch.nn.Module:
    return build_network("vgg16", channels, 2, ZYX(1, 257, 257), {"units": 8})


def test_a_grey_channel_sees_what_it_saw_as_rgb(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    save_file(state, tmp_path / "vgg16.safetensors")
    network = _body(1)
    load_vgg16_body(network, tmp_path / "vgg16.safetensors", 1)
    grey = torch.rand(1, 1, 9, 9)
    expected = torch.nn.functional.conv2d(grey.expand(1, 3, 9, 9), state["features.0.weight"], state["features.0.bias"])
    assert torch.allclose(network.body[0](grey), expected, atol=1e-6)
    convolutions = [module for module in network.body if isinstance(module, torch.nn.Conv2d)]
    for number, convolution in zip(NUMBERS[1:], convolutions[1:], strict=True):
        assert torch.equal(convolution.weight, state[f"features.{number}.weight"])
        assert torch.equal(convolution.bias, state[f"features.{number}.bias"])


def test_three_channels_take_the_weights_as_they_are(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save(state, tmp_path / "vgg16.pth")
    network = _body(3)
    load_vgg16_body(network, tmp_path / "vgg16.pth", 3)
    assert torch.equal(network.body[0].weight, state["features.0.weight"])


def test_weights_that_are_not_vgg16_are_refused_in_one_line(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    short = {key: value for key, value in state.items() if not key.startswith("features.28")}
    save_file(short, tmp_path / "short.safetensors")
    with pytest.raises(UsageError, match="12 convolutions"):
        load_vgg16_body(_body(1), tmp_path / "short.safetensors", 1)
    save_file(state | {"features.5.bias": torch.zeros(7)}, tmp_path / "odd.safetensors")
    with pytest.raises(UsageError, match=r"features\.5 "):
        load_vgg16_body(_body(1), tmp_path / "odd.safetensors", 1)
    with pytest.raises(NotThereError, match="no weights"):
        load_vgg16_body(_body(1), tmp_path / "absent.safetensors", 1)
    with pytest.raises(UsageError, match="2 channels"):
        load_vgg16_body(_body(1), tmp_path / "short.safetensors", 2)


@pytest.mark.parametrize("first", [b"\x80\x05", b"PK"])
def test_a_safetensors_file_whose_length_looks_like_a_pickle_is_taken(
    tmp_path: Path, state: dict[str, torch.Tensor], first: bytes
) -> None:
    path, length = tmp_path / "vgg16.safetensors", int.from_bytes(first, "little")
    plain = save(state)
    header = plain[8 : 8 + int.from_bytes(plain[:8], "little")].ljust(length + (1 << 16))  # spaces may end the JSON
    path.write_bytes(len(header).to_bytes(8, "little") + header + plain[8 + int.from_bytes(plain[:8], "little") :])
    assert path.read_bytes().startswith(first)
    load_vgg16_body(_body(1), path, 1)


class _Trap:
    def __reduce__(self) -> tuple[object, ...]:
        return (exec, ("import pathlib; pathlib.Path(TRAP).write_text('ran')",))


def test_a_pth_file_that_runs_code_is_refused(tmp_path: Path) -> None:
    torch.save({"features.0.weight": _Trap()}, tmp_path / "evil.pth")
    with pytest.raises(UsageError, match="not loaded"):
        load_vgg16_body(_body(1), tmp_path / "evil.pth", 1)
    (tmp_path / "renamed.safetensors").write_bytes((tmp_path / "evil.pth").read_bytes())
    with pytest.raises(UsageError, match="can run code"):
        load_vgg16_body(_body(1), tmp_path / "renamed.safetensors", 1)
