"""A network as a plain chain of named layers, or the names of what makes it none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import fx, nn

from ctpipe.models.networks import WindowNetwork


class Why(StrEnum):
    """Why the dense form of a layer would not equal the layer window by window."""

    PADDING = "padding"  # a window alone sees an artificial border that it does not see within a plane
    STATISTICS = "per-window statistics"  # a value that depends on all pixels of the window, or on the batch
    UNKNOWN = "unknown layer"  # nothing is known about what it sees
    BRANCH = "branch"  # layers are no chain
    BINS = "uneven bins"  # adaptive pooling whose bins differ in size or distance
    SHAPE = "shape"  # the window does not fit, or leaves more than one result


@dataclass(frozen=True)
class Inexact:
    """One layer that has no exact dense form: its name in the network, the kind of reason, and the words for it."""

    layer: str
    why: Why
    detail: str

    def __str__(self) -> str:
        return f"{self.layer}: {self.detail}"


@dataclass(frozen=True)
class Layer:
    """One layer of a chain; functions called in a forward are told as the module of the same meaning."""

    name: str
    module: nn.Module


class _Plain(nn.Module):
    """body then head of a WindowNetwork, without the crop that only larger inputs need."""

    def __init__(self, network: WindowNetwork) -> None:
        super().__init__()
        self.body, self.head = network.body, network.head

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(batch))


def _flatten(start_dim: int = 0, end_dim: int = -1) -> nn.Module:
    return nn.Flatten(start_dim, end_dim)


def _dropout(p: float = 0.5, training: bool = False, inplace: bool = False) -> nn.Module:
    return nn.Dropout(p).train(training)


def _without_inplace(kind: type[nn.Module]) -> Callable[..., nn.Module]:
    def made(*args: Any, inplace: bool = False, **options: Any) -> nn.Module:
        return kind(*args, **options)

    return made


# Functions and tensor methods (by name) that a forward may call, as the module of the same meaning.
_AS_MODULE: dict[Any, Callable[..., nn.Module]] = {
    F.relu: _without_inplace(nn.ReLU), torch.relu: nn.ReLU, "relu": nn.ReLU, "relu_": nn.ReLU,
    F.leaky_relu: _without_inplace(nn.LeakyReLU), F.elu: _without_inplace(nn.ELU), F.silu: _without_inplace(nn.SiLU),
    F.gelu: nn.GELU, torch.sigmoid: nn.Sigmoid, "sigmoid": nn.Sigmoid, torch.tanh: nn.Tanh, "tanh": nn.Tanh,
    F.max_pool2d: nn.MaxPool2d, torch.max_pool2d: nn.MaxPool2d,
    F.max_pool3d: nn.MaxPool3d, torch.max_pool3d: nn.MaxPool3d,
    F.avg_pool2d: nn.AvgPool2d, F.avg_pool3d: nn.AvgPool3d,
    F.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d, F.adaptive_avg_pool3d: nn.AdaptiveAvgPool3d,
    F.adaptive_max_pool2d: nn.AdaptiveMaxPool2d, F.adaptive_max_pool3d: nn.AdaptiveMaxPool3d,
    torch.flatten: _flatten, "flatten": _flatten, F.dropout: _dropout,
}  # fmt: skip


def chain_of(network: nn.Module) -> tuple[Layer, ...] | Inexact:
    """The layers of `network` in the order of evaluation, or the first place where they are no chain."""
    plain = _Plain(network) if type(network) is WindowNetwork else network
    try:
        graph = fx.Tracer().trace(plain)
    except Exception as error:  # tracing runs the network's own forward: it may raise anything
        return Inexact("network", Why.UNKNOWN, f"its forward cannot be followed ({type(error).__name__})")
    layers: list[Layer] = []
    last: fx.Node | None = None
    for node in graph.nodes:
        if node.op == "placeholder":
            if last is not None:
                return Inexact(str(node.target), Why.BRANCH, "a second input")
        elif node.op == "output":
            if node.args != (last,):
                return Inexact("output", Why.BRANCH, "more than the last layer's result")
        else:
            layer = _layer(plain, node, last)
            if isinstance(layer, Inexact):
                return layer
            layers.append(layer)
        last = node
    return tuple(layers)


def _layer(network: nn.Module, node: fx.Node, last: fx.Node | None) -> Layer | Inexact:
    called = str(node.target) if node.op == "call_module" else node.name
    if node.all_input_nodes != [last] or not node.args or node.args[0] is not last:
        return Inexact(called, Why.BRANCH, "takes something else than the result of the layer before it")
    if node.op == "call_module":
        return Layer(called, network.get_submodule(str(node.target)))
    maker = _AS_MODULE.get(node.target)
    if maker is None:
        return Inexact(called, Why.UNKNOWN, f"{getattr(node.target, '__name__', node.target)} is not known here")
    try:
        return Layer(called, maker(*node.args[1:], **node.kwargs))
    except TypeError:
        return Inexact(called, Why.UNKNOWN, "called with arguments that are not known here")
