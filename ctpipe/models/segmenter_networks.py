"""Networks of segmenters by name; each scores every voxel of a window.

A network is a Scorer: called with float32 (n, 1, *patch) it gives (n, outputs, *patch); `as_bytes` is its weight file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from ctpipe.errors import StoreFaultError, UsageError
from ctpipe.models.segment_spec import SegmenterSpec
from ctpipe.models.weights import state_as_bytes, state_into

if TYPE_CHECKING:
    import torch
    from torch import nn


class Scorer(Protocol):
    """A network of a segmenter."""

    def __call__(self, batch: torch.Tensor, /) -> torch.Tensor:
        """float32 (n, 1, *patch), or (n, 1, y, x) for a 2-D network -> the same with `outputs` for 1."""
        ...

    def as_bytes(self) -> bytes:
        """Its weight file."""
        ...

    def move(self, device: torch.device, /) -> None:
        """Take the weights to `device`, where batches will lie. UsageError where it cannot run there."""
        ...


class ModuleScorer:
    """A torch module of one of our builders; its weight file is safetensors."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module.eval().requires_grad_(False)

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        return self.module(batch)

    def as_bytes(self) -> bytes:
        return state_as_bytes(self.module)

    def move(self, device: torch.device) -> None:
        self.module.to(device)


def _unet(weights: bytes, spec: SegmenterSpec, where: str) -> Scorer:
    return of_module(unet_of(spec), weights, where)


def _onnx(weights: bytes, spec: SegmenterSpec, where: str) -> Scorer:
    from ctpipe.models.onnx_scorer import onnx_scorer

    return onnx_scorer(weights, spec, where)


def _monai(weights: bytes, spec: SegmenterSpec, where: str) -> Scorer:
    from ctpipe.models.monai_networks import build_monai

    return of_module(build_monai(spec.options), weights, where)


# (weights, spec, where they came from) -> a network; the name is the spec's `network`
_KINDS: dict[str, Callable[[bytes, SegmenterSpec, str], Scorer]] = {
    "plain-conv-unet": _unet,
    "residual-encoder-unet": _unet,
    "onnx": _onnx,
    "monai": _monai,
}


def unet_of(spec: SegmenterSpec) -> nn.Module:
    """The U-Net of a spec with fresh weights; UsageError where options and patch fit no U-Net."""
    from ctpipe.models.unets import UNet, UNetOptions

    options = UNetOptions.of(spec.options, spec.outputs)
    odd = options.odd_sides(spec.patch)
    if odd:
        raise UsageError(f"patch {spec.patch} cannot be halved as often as the U-Net does ({', '.join(odd)})",
                         "give the patch that the network was trained with")
    return UNet(options, residual=spec.network == "residual-encoder-unet")


def build(spec: SegmenterSpec, weights: bytes, where: str) -> Scorer:
    """The network of `spec` with `weights`; StoreFaultError for a name that this version does not know."""
    if spec.network not in _KINDS:
        raise StoreFaultError(f"{where} belongs to a network {spec.network!r} that this ctpipe does not know",
                              f"known are: {', '.join(sorted(_KINDS))}")
    return _KINDS[spec.network](weights, spec, where)


def of_module(module: nn.Module, weights: bytes, where: str) -> ModuleScorer:
    """A freshly built module with its weights put in; StoreFaultError where they do not fit exactly."""
    state_into(module, weights, where)
    return ModuleScorer(module)
