"""nnU-Net's network as one of ours: its class and options by closed lists, its weights by their names.

nnU-Net stores every convolution and norm twice (`.conv` and `.all_modules.0`), the encoder twice (`decoder.encoder`)
and a head for each resolution, of which inference uses the last. What is stored twice is compared, and kept once.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ctpipe.errors import UsageError
from ctpipe.models.guests.wishes import Faults

if TYPE_CHECKING:
    import torch

Values = dict[str, Any]

_ARCHITECTURES = "dynamic_network_architectures.architectures"
NETWORKS = {
    f"{_ARCHITECTURES}.unet.PlainConvUNet": "plain-conv-unet",
    f"{_ARCHITECTURES}.unet.ResidualEncoderUNet": "residual-encoder-unet",
    f"{_ARCHITECTURES}.residual_unet.ResidualEncoderUNet": "residual-encoder-unet",
}
_OLD_NETWORKS = {"PlainConvUNet": "plain-conv-unet", "ResidualEncoderUNet": "residual-encoder-unet"}
_NORMS = {"InstanceNorm2d": "instance", "InstanceNorm3d": "instance", "BatchNorm2d": "batch", "BatchNorm3d": "batch"}
_NONLINEAR = {"LeakyReLU": "leaky-relu", "ReLU": "relu", "ELU": "elu", "GELU": "gelu", "SiLU": "silu"}
_DROPOUTS = frozenset({"Dropout2d", "Dropout3d", "Dropout"})  # does nothing when a network is evaluated
_TORCH = re.compile(r"torch\.nn\.(?:modules\.[a-z]+\.)?([A-Za-z0-9]+)")
_KNOWN = "train with nnU-Net's own network classes and options"

# Plans before nnU-Net 2.4 say these instead of `architecture` (plans_handler.py).
_OLD_KEYS = ("UNet_base_num_features", "unet_max_num_features", "n_conv_per_stage_encoder",
             "n_conv_per_stage_decoder", "conv_kernel_sizes", "pool_op_kernel_sizes")  # fmt: skip


def network_values(settings: Values, patch: tuple[int, int, int], faults: Faults) -> Values:
    """`network` and `options` of the spec."""
    dims = 2 if len(settings.get("patch_size") or ()) == 2 else 3
    stated = settings.get("architecture")
    if stated is None:
        network, options = _of_old_plans(settings, dims, faults)
    elif isinstance(stated, dict) and isinstance(stated.get("arch_kwargs"), dict):
        name = str(stated.get("network_class_name"))
        network = NETWORKS.get(name, "")
        if not network:
            faults.add(f"its network is {name!r}, which is not known here", f"known are {', '.join(NETWORKS)}")
        options = _options(dict(stated["arch_kwargs"]), dims, faults)
    else:
        faults.add("its plans.json states no architecture", "copy the whole model again")
        network, options = "", {}
    return {"network": network, "options": options}


def _options(stated: Values, dims: int, faults: Faults) -> Values:
    """Options of `UNetOptions` from the arguments of nnU-Net's class; {} where they are none."""
    _check_convolution(stated.pop("conv_op", None), dims, faults)
    norm, norm_options = _named(stated.pop("norm_op", None), _NORMS, "norm", faults), stated.pop("norm_op_kwargs", None)
    nonlinear = _named(stated.pop("nonlin", None), _NONLINEAR, "nonlinearity", faults)
    nonlinear_options = dict(stated.pop("nonlin_kwargs", None) or {})
    dropout = stated.pop("dropout_op", None)
    if dropout is not None and _class_of(dropout) not in _DROPOUTS:
        faults.add(f"its dropout {str(dropout)!r} is not known here", _KNOWN)
    stages = stated.pop("n_stages", None)
    blocks = stated.pop("n_conv_per_stage", stated.pop("n_blocks_per_stage", None))
    features, kernels, strides = (stated.pop(key, None) for key in ("features_per_stage", "kernel_sizes", "strides"))
    decoder, first = stated.pop("n_conv_per_stage_decoder", None), bool(stated.pop("nonlin_first", False))
    bias, stem = bool(stated.pop("conv_bias", False)), stated.pop("stem_channels", None)
    block = str(stated.pop("block", None) or "BasicBlockD")
    if not block.endswith("BasicBlockD") or stated.pop("bottleneck_channels", None) is not None:
        faults.add("its blocks are no BasicBlockD", _KNOWN)
    for key in ("dropout_op_kwargs", "deep_supervision", "input_channels", "num_classes"):
        stated.pop(key, None)
    norm_options = dict(norm_options or {})
    eps, affine = norm_options.pop("eps", 1e-5), norm_options.pop("affine", norm == "batch")
    norm_options.pop("momentum", None)
    slope = nonlinear_options.pop("negative_slope", 0.01)
    nonlinear_options.pop("inplace", None)
    left = sorted(map(str, (*stated, *norm_options, *nonlinear_options)))
    if left:
        faults.add(f"its network has options that are not known here ({', '.join(left)})", _KNOWN)
    if not isinstance(stages, int) or not 2 <= stages <= 16:
        faults.add("its network states no number of stages", "copy the whole model again")
        return {}
    options = {
        "dims": dims,
        "features": _each(features, stages),
        "kernels": [_each(size, dims) for size in _each(kernels, stages)],
        "strides": [_each(size, dims) for size in _each(strides, stages)],
        "blocks": _each(blocks, stages),
        "decoder": _each(decoder, stages - 1),
        "bias": bias, "norm": norm or "none", "eps": eps, "affine": bool(affine),
        "nonlinear": nonlinear or "leaky-relu", "slope": slope, "nonlinear_first": first, "stem": stem,
    }  # fmt: skip
    if nonlinear is None:
        faults.add("its network has no nonlinearity", _KNOWN)
    if {len(options[key]) for key in ("features", "kernels", "strides", "blocks")} != {stages}:
        faults.add(f"its network states {stages} stages and lists of different lengths", "copy the whole model again")
    return options


def _of_old_plans(settings: Values, dims: int, faults: Faults) -> tuple[str, Values]:
    """Network and options of plans that state no architecture."""
    name = str(settings.get("UNet_class_name"))
    values: list[Any] = [settings.get(key) for key in _OLD_KEYS]
    if name not in _OLD_NETWORKS or any(value is None for value in values):
        faults.add("its plans.json states no architecture that is known here",
                   "let a newer nnU-Net write the plans again, or copy the whole model again")
        return "", {}
    base, most, encoder, decoder, kernels, strides = values
    features = [min(int(base) * 2**stage, int(most)) for stage in range(len(encoder))]
    return _OLD_NETWORKS[name], {
        "dims": dims, "features": features, "kernels": kernels, "strides": strides, "blocks": encoder,
        "decoder": decoder, "bias": True, "norm": "instance", "eps": 1e-5, "affine": True, "nonlinear": "leaky-relu",
        "slope": 0.01, "nonlinear_first": False, "stem": None,
    }  # fmt: skip


def _each(value: Any, count: int) -> list[Any]:
    """A value for each of `count`: nnU-Net takes one number for all."""
    return [value] * count if isinstance(value, int) else list(value) if isinstance(value, list | tuple) else []


def _class_of(path: Any) -> str:
    """The class that a dotted path into torch.nn names; empty for any other path."""
    match = _TORCH.fullmatch(path) if isinstance(path, str) else None
    return match[1] if match else ""


def _named(path: Any, known: dict[str, str], what: str, faults: Faults) -> str | None:
    if path is None:
        return None
    found = known.get(_class_of(path))
    if found is None:
        faults.add(f"its {what} {str(path)!r} is not known here", f"known are {', '.join(known)} of torch.nn")
    return found


def _check_convolution(path: Any, dims: int, faults: Faults) -> None:
    if _class_of(path) != f"Conv{dims}d":
        faults.add(f"its convolution {str(path)!r} does not fit a patch of {dims} sides", "copy the whole model again")


# ------------------------------------------------------------------------------------------------------ weights
_PREFIX = re.compile(r"^(?:module\.|_orig_mod\.)+")
_TWICE = re.compile(r"\.all_modules\.(\d+)\.")
# (a pattern of nnU-Net's names, ours)
_RENAMED = (
    (re.compile(r"encoder\.stages\.(\d+)\.0\.convs\.(\d+)\.(conv|norm)\.(\w+)"), r"down.\1.\2.\3.\4"),
    (re.compile(r"encoder\.stages\.(\d+)\.convs\.(\d+)\.(conv|norm)\.(\w+)"), r"down.\1.\2.\3.\4"),
    (re.compile(r"encoder\.stem\.convs\.0\.(conv|norm)\.(\w+)"), r"stem.\1.\2"),
    (re.compile(r"encoder\.stages\.(\d+)\.blocks\.(\d+)\.conv1\.(conv|norm)\.(\w+)"), r"down.\1.\2.first.\3.\4"),
    (re.compile(r"encoder\.stages\.(\d+)\.blocks\.(\d+)\.conv2\.(conv|norm)\.(\w+)"), r"down.\1.\2.second.\3.\4"),
    (re.compile(r"encoder\.stages\.(\d+)\.blocks\.(\d+)\.skip\.[01]\.(conv|norm)\.(\w+)"), r"down.\1.\2.project.\3.\4"),
    (re.compile(r"decoder\.transpconvs\.(\d+)\.(\w+)"), r"widen.\1.\2"),
    (re.compile(r"decoder\.stages\.(\d+)\.convs\.(\d+)\.(conv|norm)\.(\w+)"), r"up.\1.\2.\3.\4"),
)
_HEAD = re.compile(r"decoder\.seg_layers\.(\d+)\.(\w+)")
TOLD = 3


def weights_of(state: Any, name: str, faults: Faults) -> dict[str, torch.Tensor]:
    """A checkpoint's `network_weights` under our names; faults for what is no weight, or stored twice and differs."""
    import torch

    if not isinstance(state, dict) or not state or not all(
            isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items()):  # fmt: skip
        faults.add(f"{name} holds no weights by name", "copy the whole model again")
        return {}
    plain = {_PREFIX.sub("", key): value for key, value in state.items()}
    once, twice = _split(plain)
    differing = [key for key, original in twice.items()
                 if original not in once or not torch.equal(plain[key], once[original])]  # fmt: skip
    if differing:
        faults.add(f"{name} stores {len(differing)} weights twice with different values ({_some(differing)})",
                   "save the checkpoint again with nnU-Net")
    heads = [int(match[1]) for key in once if (match := _HEAD.fullmatch(key))]
    made: dict[str, torch.Tensor] = {}
    strange = []
    for key, value in once.items():
        ours = _ours(key, max(heads, default=-1))
        if ours is None:
            strange.append(key)
        elif ours:
            made[ours] = value.float() if value.is_floating_point() else value
    if strange:
        faults.add(f"{name} has {len(strange)} weights that no such network has ({_some(strange)})",
                   "give a model of nnU-Net's own network classes")
    broken = [key for key, value in made.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if broken:
        faults.add(f"{name} has weights that are NaN or infinite ({_some(broken)})", "take another checkpoint or fold")
    return made


def _split(plain: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Weights under their own names, and {second name: own name} of those stored twice."""
    once: dict[str, torch.Tensor] = {}
    twice: dict[str, str] = {}
    for key, value in plain.items():
        inner = key.removeprefix("decoder.") if key.startswith("decoder.encoder.") else key
        # norm and convolution by their place: a norm has one dimension, and comes last where it has running values
        match = _TWICE.search(inner)
        if match:
            part = "conv" if match[1] == "0" else "norm"
            inner = f"{inner[: match.start()]}.{part}.{inner[match.end() :]}"
        if inner == key:
            once[key] = value
        else:
            twice[key] = inner
    return once, twice


def _ours(key: str, last_head: int) -> str | None:
    """Our name of a weight; empty for heads that inference does not use, None for one we have no place for."""
    head = _HEAD.fullmatch(key)
    if head:
        return f"head.{head[2]}" if int(head[1]) == last_head else ""
    for pattern, name in _RENAMED:
        match = pattern.fullmatch(key)
        if match:
            return match.expand(name)
    return None


def fit(weights: dict[str, torch.Tensor], spec_values: Values, name: str, faults: Faults) -> Any:
    """The network of the spec's values with these weights, or None and faults where they do not fit it exactly."""
    from ctpipe.models.unets import UNet, UNetOptions

    outputs = spec_values["outputs"]
    head = weights.get("head.weight")
    if head is not None and len(head) != outputs:
        faults.add(f"{name} scores {len(head)} heads where dataset.json has {outputs} (background counted)",
                   "give the dataset.json that the model was trained with")
        return None
    try:
        options = UNetOptions.of(spec_values["options"], outputs)
    except UsageError as error:
        faults.add(error.problem, "copy the whole model again")
        return None
    odd = options.odd_sides(spec_values["patch"])
    if odd:
        faults.add(f"its patch cannot be halved as often as its network does ({', '.join(odd)})",
                   "copy the whole model again")
        return None
    network = UNet(options, residual=spec_values["network"] == "residual-encoder-unet")
    wanted = network.state_dict()
    lacking, extra = sorted(wanted.keys() - weights.keys()), sorted(weights.keys() - wanted.keys())
    shapes = sorted(key for key in wanted.keys() & weights.keys() if wanted[key].shape != weights[key].shape)
    for keys, what in ((lacking, "lacks"), (extra, "has beyond the network's"), (shapes, "has in another shape")):
        if keys:
            faults.add(f"{name} {what} {len(keys)} weights ({_some(keys)})",
                       "give plans.json and checkpoint of one training; trainers that change the network are not known")
    if lacking or extra or shapes:
        return None
    network.load_state_dict(weights)
    return network


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - TOLD} more" if len(keys) > TOLD else ""
    return ", ".join(ascii(key)[1:-1][:80] for key in keys[:TOLD]) + more
