"""Named networks: a recipe names one, `register` adds one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ctpipe.errors import NotThereError, UsageError
from ctpipe.words import ZYX

if TYPE_CHECKING:
    from torch import nn

# (channels, classes with background, window, options) -> network; see networks.WindowNetwork for what it must be
Builder = Callable[[int, int, ZYX, dict[str, Any]], "nn.Module"]

_BUILDERS: dict[str, Builder] = {}


def register(name: str) -> Callable[[Builder], Builder]:
    """Decorator that makes a builder known under `name`."""

    def add(builder: Builder) -> Builder:
        if _BUILDERS.setdefault(name, builder) is not builder:
            raise UsageError(f"two networks are named {name!r}", "register yours under another name")
        return builder

    return add


def network_names() -> list[str]:
    """Names that a recipe may give as `network`."""
    _load_own()
    return sorted(_BUILDERS)


def build_network(name: str, channels: int, n_classes: int, window: ZYX, options: dict[str, Any]) -> nn.Module:
    """The network `name` with fresh weights (drawn from torch's generator).

    channels: of its input, all planes of a window counted. n_classes: with background. The network maps float32
    (n, channels, h, w), h and w at least the window's, to logits (n, n_classes, ny, nx) of the windows that start at
    0, step, 2 step, …; `.step` and `.window` (y, x) are its attributes.
    """
    _load_own()
    if name not in _BUILDERS:
        raise NotThereError(f"no network {name!r}", f"choose one of: {', '.join(network_names())}")
    if channels < 1 or n_classes < 2:
        raise UsageError(f"a network of {channels} channels and {n_classes} classes classifies nothing",
                         "give at least 1 channel and 1 class beside the background")
    return _BUILDERS[name](channels, n_classes, ZYX(*window), dict(options))


def _load_own() -> None:
    """Networks register themselves when imported; that takes torch, so it waits until one is wanted."""
    import ctpipe.models.networks  # noqa: F401
