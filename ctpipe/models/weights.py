"""Weights in and out: safetensors only; nothing that can run code is ever loaded."""

from __future__ import annotations

import pickle
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from ctpipe.errors import NotThereError, StoreFaultError, UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn

_CONVERT = "give a model folder written by ctpipe, or convert the weights to .safetensors"


def refuse_pickle(path: Path) -> None:
    """UsageError for a file that is a pickle or an archive (torch's .pt, .pth): loading one can run code in it."""
    with path.open("rb") as file:
        head = file.read(9)
    # safetensors begins with the length of its JSON, any number: it may look like the first bytes of a pickle
    if head[8:] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size:
        return
    if head.startswith(b"PK") or head[:1] == b"\x80" or path.suffix in (".pkl", ".pickle", ".pt", ".pth"):
        raise UsageError(f"{path} is a pickle or an archive, which can run code when loaded; it was not loaded",
                         _CONVERT)


def state_as_bytes(network: nn.Module) -> bytes:
    """Weights and buffers of `network` as a safetensors file; the same state gives the same bytes."""
    from safetensors.torch import save

    return save({key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()})


def state_into(network: nn.Module, data: bytes, where: str) -> None:
    """Put safetensors bytes into `network`; StoreFaultError where they do not fit it exactly."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        network.load_state_dict(load(data), strict=True)
    except (SafetensorError, RuntimeError) as error:
        raise StoreFaultError(f"{where} does not fit the network of its model.json", "copy the model again") from error


def load_vgg16_body(network: nn.Module, path: str | Path, channels: int) -> str:
    """Put the 13 convolutions of a VGG16 file in torchvision's layout into the body of a `vgg16` network.

    path: .safetensors, or .pth (read with weights_only=True: tensors, no code). Keys are features.N.weight and
    features.N.bias; its classifier is not used, since it belongs to another window. One input channel takes the sum
    over the file's three, so that grey pixels see what they saw as RGB; three take them as they are. Returns 16 hex
    digits of SHA-256 over the file.
    """
    import torch
    from torch import nn

    if channels not in (1, 3):
        raise UsageError(f"VGG16 weights cannot start {channels} channels", "give the recipe 1 or 3 channels")
    state = _read_state(Path(path))
    convolutions = [module for module in network.body if isinstance(module, nn.Conv2d)]  # type: ignore[union-attr]
    numbers = sorted(int(key.split(".")[1]) for key in state if key.startswith("features.") and key.endswith(".weight"))
    if len(numbers) != len(convolutions):
        raise UsageError(f"{path} has {len(numbers)} convolutions where VGG16 has {len(convolutions)}",
                         "give VGG16 without batch normalisation, in torchvision's layout")
    with torch.no_grad():
        for number, convolution in zip(numbers, convolutions, strict=True):
            weight, bias = state[f"features.{number}.weight"], state.get(f"features.{number}.bias")
            if convolution.in_channels == 1 and weight.ndim == 4 and weight.shape[1] == 3:
                weight = weight.sum(1, keepdim=True)
            if weight.shape != convolution.weight.shape or bias is None or bias.shape != (len(weight),):
                raise UsageError(f"features.{number} of {path} does not fit VGG16",
                                 "give VGG16 without batch normalisation, in torchvision's layout")
            convolution.weight.copy_(weight)
            convolution.bias.copy_(bias)  # type: ignore[union-attr]
    return sha256(Path(path).read_bytes()).hexdigest()[:16]


def _read_state(path: Path) -> dict[str, torch.Tensor]:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    if not path.is_file():
        raise NotThereError(f"no weights at {path}", "give a local .safetensors or .pth file; nothing is downloaded")
    if path.suffix == ".pth":
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise UsageError(f"{path} holds more than tensors, or is no torch file; it was not loaded",
                             _CONVERT) from error
    else:
        refuse_pickle(path)
        try:
            state = load(path.read_bytes())
        except SafetensorError as error:
            raise UsageError(f"{path} is no safetensors file", _CONVERT) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UsageError(f"{path} holds no table of tensors", _CONVERT)
    return state
