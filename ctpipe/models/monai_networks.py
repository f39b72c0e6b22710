"""Networks of MONAI by a closed list of names; MONAI is an optional dependency."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ctpipe.errors import StoreFaultError, UsageError

if TYPE_CHECKING:
    from torch import nn

# Each takes in_channels and out_channels, and gives scores of the window's own size.
NETWORKS = frozenset({"UNet", "BasicUNet", "DynUNet", "SegResNet", "VNet", "AttentionUnet", "UNETR"})


def build_monai(options: dict[str, Any]) -> nn.Module:
    """The network `options["class"]` with the plain values `options["arguments"]`, in evaluation mode.

    UsageError: MONAI is not installed, or its class does not take these arguments. StoreFaultError: another class.
    """
    name, arguments = options.get("class"), options.get("arguments")
    if name not in NETWORKS or not isinstance(arguments, dict):
        raise StoreFaultError(f"no network {name!r} of MONAI is known here", f"known are {', '.join(sorted(NETWORKS))}")
    try:
        from monai.networks import nets
    except ImportError as error:
        raise UsageError("monai is not installed, which networks of MONAI bundles need",
                         "pip install 'ctpipe[monai]'") from error
    try:
        return getattr(nets, name)(**arguments).eval()
    except (TypeError, ValueError, AssertionError, KeyError) as error:
        raise UsageError(f"{name} of the installed MONAI does not take these arguments", "install the version of MONAI "
                         "that the model was made with") from error  # fmt: skip
