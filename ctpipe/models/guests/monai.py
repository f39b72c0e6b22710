"""MONAI bundles: `configs/inference.json` read as data, `models/model.pt` as tensors.

A bundle's configuration is a program in JSON: `_target_` names any class, and what begins with `$` is evaluated as
Python. Nothing of it is run here. Networks, transforms and inferers are taken from closed lists with plain values
for arguments, `@name` is looked up, and everything else is refused by its name.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Any

from ctpipe.errors import UsageError
from ctpipe.models.guests.checkpoint import read_checkpoint
from ctpipe.models.guests.files import ModelFiles
from ctpipe.models.guests.wishes import Faults, Imported, Wishes
from ctpipe.models.monai_networks import NETWORKS, build_monai
from ctpipe.models.segment_spec import Normalisation, Resampling, SegmenterSpec, WeightFile
from ctpipe.models.segmenter import Segmenter
from ctpipe.models.segmenter_networks import ModuleScorer

Values = dict[str, Any]

CONFIG, METADATA = "configs/inference.json", "configs/metadata.json"
WEIGHTS, SCRIPT = "models/model.pt", "models/model.ts"
_LINK = re.compile(r"@([A-Za-z_]\w*)")
_ON_DEVICE = re.compile(r"\$@(\w+)\.to\(@device\)")
_CLASS = re.compile(r"(?:monai\.[a-z_.]+\.)?([A-Za-z]\w*)")
# Of pre-processing: what moves no voxel and changes no value.
_SILENT = frozenset({"LoadImaged", "EnsureChannelFirstd", "EnsureTyped", "ToTensord", "CastToTyped", "SqueezeDimd"})
_SILENT_AFTER = frozenset({"Activationsd", "AsDiscreted", "SaveImaged", "EnsureTyped", "Invertd"})
WEIGHTS_OF = {"constant": "constant", "gaussian": "gaussian-floor"}  # its modes, and our words
_AGAIN = "give the bundle as it was published"


def is_bundle(files: ModelFiles) -> bool:
    """Whether `files` hold a bundle's configuration for inference."""
    return bool(_tops(files))


def _tops(files: ModelFiles) -> list[str]:
    return sorted(name.removesuffix(CONFIG) for name in files.names if name.endswith(CONFIG))


def import_bundle(files: ModelFiles, wishes: Wishes) -> Imported:
    """The segmenter of a bundle. InputError with all that keeps it from being taken; UsageError: no licence, or one
    of its networks needs MONAI, which is not installed.
    """
    tops = _tops(files)
    if len(tops) > 1:
        raise UsageError(f"{files.path} holds {len(tops)} bundles", "give the folder of one")
    faults = Faults(str(files.path))
    config = files.json(f"{tops[0]}{CONFIG}", faults)
    metadata = files.json(f"{tops[0]}{METADATA}", faults) if f"{tops[0]}{METADATA}" in files.names else {}
    faults.stop()
    values = _before(config, faults) | _windows(config, faults) | _after(config, faults)
    classes = _classes(metadata, faults)
    network = _network(config, faults)
    licence = (wishes.licence or str(metadata.get("license") or metadata.get("licence") or "")).strip()
    if f"{tops[0]}{WEIGHTS}" not in files.names:
        script = " (its TorchScript, models/model.ts, can be imported by itself with --spec)"
        faults.add(f"it has no {WEIGHTS}{script if f'{tops[0]}{SCRIPT}' in files.names else ''}", _AGAIN)
    faults.stop()
    if not licence:
        raise UsageError(f"{files.path} does not say under which licence its weights are",
                         'say it: --licence "Apache-2.0"')
    scorer = _scorer(files.read(f"{tops[0]}{WEIGHTS}"), network, faults, wishes)
    heads = network["arguments"].get("out_channels")
    if heads != 1 + len(classes):
        faults.add(f"its network has {heads} outputs where metadata.json has {1 + len(classes)} (background counted)",
                   _AGAIN)
    faults.stop()
    assert scorer is not None  # else a fault
    spec = SegmenterSpec(
        network="monai", options=network | {"dims": 3}, outputs=1 + len(classes), classes=classes,
        **values | ({"axes": wishes.axes} if wishes.axes else {}),
        folds=(WeightFile(file="fold-0.safetensors", sha256=sha256(scorer.as_bytes()).hexdigest()),),
        threads=wishes.threads, precision=wishes.precision, licence=licence,
        origin={"program": "MONAI bundle", "name": str(metadata.get("name", "")),
                "version": str(metadata.get("version", ""))},
    )  # fmt: skip
    return Imported(Segmenter(spec, [scorer]), "monai", tuple(_notes(spec)))


def _notes(spec: SegmenterSpec) -> list[str]:
    """Where labels may differ from MONAI's own."""
    notes = []
    if spec.resample_out.order:
        notes.append("MONAI turns scores into probabilities before it brings them back to the volume's grid, here that "
                     "comes after: labels at borders between classes may differ")
    return notes


def _scorer(data: bytes, network: Values, faults: Faults, wishes: Wishes) -> ModuleScorer | None:
    """Network and weights; a fault where they do not fit."""
    import torch

    held = read_checkpoint(data, WEIGHTS, faults, trust=wishes.trust)
    for key in ("model", "state_dict"):
        if isinstance(held, dict) and isinstance(held.get(key), dict):
            held = held[key]
    if not isinstance(held, dict) or not held or not all(isinstance(value, torch.Tensor) for value in held.values()):
        faults.add(f"{WEIGHTS} holds no weights by name", _AGAIN)
        return None
    module = build_monai(network)
    try:
        module.load_state_dict({str(name).removeprefix("module."): value for name, value in held.items()})
    except RuntimeError:
        faults.add(f"{WEIGHTS} does not fit {network['class']} with the arguments of inference.json", _AGAIN)
        return None
    if not all(bool(value.isfinite().all()) for value in module.state_dict().values() if value.is_floating_point()):
        faults.add(f"{WEIGHTS} has weights that are NaN or infinite", "take another version of the bundle")
        return None
    return ModuleScorer(module)


# ------------------------------------------------------------------------------------------- values of inference.json
def _plain(value: Any, config: Values, depth: int = 8) -> Any:
    """A value with its links looked up; None where it is an expression, or links lead nowhere."""
    if depth == 0:
        return None
    if isinstance(value, str):
        link = _LINK.fullmatch(value)
        if link:
            return _plain(config.get(link[1]), config, depth - 1)
        return None if value.startswith(("$", "@", "%")) else value
    if isinstance(value, list):
        return [_plain(item, config, depth - 1) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item, config, depth - 1) for key, item in value.items()}
    return value


def _called(value: Any) -> tuple[str, Values]:
    """Class (without its module) and arguments of an object with a `_target_`; an empty name for anything else."""
    if not isinstance(value, dict):
        return "", {}
    match = _CLASS.fullmatch(str(value.get("_target_")))
    return (match[1] if match else str(value.get("_target_")),
            {key: item for key, item in value.items() if not key.startswith("_")})  # fmt: skip


def _network(config: Values, faults: Faults) -> Values:
    """Class and arguments of the network; `network` may send `network_def` to a device, which is no matter here."""
    stated = config.get("network_def", config.get("network"))
    moved = _ON_DEVICE.fullmatch(stated) if isinstance(stated, str) else None
    name, arguments = _called(_plain(config.get(moved[1]) if moved else stated, config))
    if name not in NETWORKS:
        faults.add(f"its network {name!r} is not known here", f"known are {', '.join(sorted(NETWORKS))} of monai")
    if arguments.get("in_channels") != 1 or arguments.get("spatial_dims", 3) != 3:
        faults.add("its network does not take one channel of three axes", "give a bundle for CT volumes")
    if any(value is None for value in arguments.values()):
        faults.add("an argument of its network is an expression", "give a bundle whose network has plain arguments")
    return {"class": name, "arguments": arguments}


def _transforms(config: Values, key: str, faults: Faults) -> list[tuple[str, Values]]:
    stated = config.get(key)
    name, arguments = _called(stated)
    if name != "Compose" or not isinstance(arguments.get("transforms"), list):
        faults.add(f"its {key} is no Compose of transforms", _AGAIN)
        return []
    return [_called(_plain(one, config)) for one in arguments["transforms"] if not (isinstance(one, dict) and one.get(
        "_disabled_") is True)]  # fmt: skip


def _before(config: Values, faults: Faults) -> Values:
    """axes, spacing, normalisation: what its pre-processing says."""
    values: Values = {"axes": None, "spacing_mm": None, "normalise_first": True, "crop": "none"}
    for name, arguments in _transforms(config, "preprocessing", faults):
        if name == "Orientationd":
            values["axes"] = arguments.get("axcodes")
        elif name == "Spacingd":
            values |= _spacing(arguments, faults)
        elif name in ("ScaleIntensityRanged", "NormalizeIntensityd", "ScaleIntensityd"):
            if "normalise" in values:
                faults.add("it normalises twice", "give a bundle with one step of normalisation")
            values["normalise"] = _normalisation(name, arguments, values["spacing_mm"] is not None, faults)
            values["normalise_first"] = values["spacing_mm"] is None
        elif name not in _SILENT:
            faults.add(f"its transform {name!r} is not known here",
                       "known are Orientationd, Spacingd, ScaleIntensityRanged, NormalizeIntensityd, ScaleIntensityd")
    axes = values["axes"]
    if not isinstance(axes, str) or len(axes) != 3:
        faults.add("it turns volumes to no stated orientation", "give a bundle with Orientationd and its axcodes")
    values.setdefault("normalise", Normalisation())
    return values


def _spacing(arguments: Values, faults: Faults) -> Values:
    pixdim, mode = arguments.get("pixdim"), arguments.get("mode", "bilinear")
    mode = mode[0] if isinstance(mode, list) and mode else mode
    if not isinstance(pixdim, list) or len(pixdim) != 3 or not all(
            isinstance(mm, int | float) and 0 < mm <= 50 for mm in pixdim):  # fmt: skip
        faults.add("its pixdim is not three lengths in mm", _AGAIN)
        return {"spacing_mm": (1.0, 1.0, 1.0)}
    odd = sorted(key for key, wanted in (("align_corners", False), ("scale_extent", False), ("diagonal", False),
                                         ("padding_mode", "border"))
                 if arguments.get(key, wanted) not in (wanted, [wanted], None))  # fmt: skip
    if odd or mode not in ("bilinear", "nearest"):
        faults.add(f"its Spacingd is told {', '.join(odd) or f'mode {mode!r}'}, which is not known here",
                   "known are modes bilinear and nearest with MONAI's own defaults")
    return {"spacing_mm": tuple(map(float, pixdim)),
            "resample_in": Resampling(order=1 if mode == "bilinear" else 0, align="first", limit=False)}  # fmt: skip


def _normalisation(name: str, arguments: Values, resampled: bool, faults: Faults) -> Normalisation:
    if name == "ScaleIntensityRanged":
        numbers = [arguments.get(key) for key in ("a_min", "a_max", "b_min", "b_max")]
        if not all(isinstance(n, int | float) for n in numbers) or numbers[0] == numbers[1] or numbers[2] == numbers[3]:
            faults.add("its ScaleIntensityRanged does not say from where to where", _AGAIN)
            return Normalisation()
        a_min, a_max, b_min, b_max = (float(n) for n in numbers if n is not None)
        std = (a_max - a_min) / (b_max - b_min)
        if std < 0:
            faults.add("its ScaleIntensityRanged turns values around", _AGAIN)
            return Normalisation()
        clip = bool(arguments.get("clip", False))
        low, high = (a_min, a_max) if clip else (None, None)
        return Normalisation(low=low, high=high, mean=a_min - b_min * std, std=std)
    less, by = arguments.get("subtrahend"), arguments.get("divisor")
    if name == "NormalizeIntensityd" and isinstance(less, int | float) and isinstance(by, int | float) and by > 0:
        return Normalisation(mean=float(less), std=float(by))
    if resampled or arguments.get("nonzero") or (name == "ScaleIntensityd" and (
            arguments.get("minv", 0) != 0 or arguments.get("maxv", 1) != 1 or arguments.get("factor") is not None)):
        faults.add(f"its {name} takes values of the resampled volume, of voxels other than 0 or to another range",
                   "give a bundle that normalises by stated numbers")
    return Normalisation(scheme="volume" if name == "NormalizeIntensityd" else "range")


def _windows(config: Values, faults: Faults) -> Values:
    """patch, step, weight: what its inferer says."""
    name, arguments = _called(_plain(config.get("inferer"), config))
    values: Values = {"patch": (1, 1, 1), "windows": "cover"}
    if name != "SlidingWindowInferer":
        faults.add(f"its inferer {name!r} is not known here", "known is SlidingWindowInferer")
        return values
    roi, overlap, mode = arguments.get("roi_size"), arguments.get("overlap", 0.25), arguments.get("mode", "constant")
    if isinstance(roi, int):
        roi = [roi] * 3
    if not isinstance(roi, list) or len(roi) != 3 or not all(isinstance(n, int) and n >= 1 for n in roi):
        faults.add("its roi_size is not three numbers of voxels", _AGAIN)
        roi = [1, 1, 1]
    if not isinstance(overlap, int | float) or not 0 <= overlap < 1 or mode not in WEIGHTS_OF:
        faults.add("its inferer has an overlap or mode that is not known here", "known are one overlap below 1, and "
                   "modes constant and gaussian")  # fmt: skip
        overlap = 0.25
    odd = sorted(key for key, wanted in (("sigma_scale", 0.125), ("padding_mode", "constant"), ("cval", 0.0),
                                         ("roi_weight_map", None))
                 if arguments.get(key, wanted) != wanted)  # fmt: skip
    if odd:
        faults.add(f"its inferer is told {', '.join(odd)}, which is not known here", "give a bundle with its defaults")
    return values | {"patch": tuple(roi), "step": 1 - overlap, "weight": WEIGHTS_OF[mode], "blend": "logits"}


def _after(config: Values, faults: Faults) -> Values:
    """How scores come back to the grid: labels by nearest neighbour, or scores by linear interpolation."""
    order = 0
    argmax_first = False
    for name, arguments in _transforms(config, "postprocessing", faults):
        if name not in _SILENT_AFTER:
            faults.add(f"its transform {name!r} after the network is not known here",
                       f"known are {', '.join(sorted(_SILENT_AFTER))}; see ctpipe post for components and holes")
        if name == "Activationsd" and arguments.get("sigmoid"):
            faults.add("its heads are independent (sigmoid)", "give a bundle whose classes exclude each other")
        if name == "AsDiscreted":
            if arguments.get("argmax") is not True and arguments.get("argmax") != [True]:
                faults.add("it takes no argmax over its heads", "give a bundle whose classes exclude each other")
            argmax_first = True
        if name == "Invertd" and not argmax_first and not arguments.get("nearest_interp", True):
            order = 1
    return {"resample_out": Resampling(order=1 if order else 0, align="first", limit=False)}


def _classes(metadata: Values, faults: Faults) -> tuple[str, ...]:
    """Names of labels 1, 2, … from metadata.json; what it says about the input is checked."""
    stated = metadata.get("network_data_format")
    stated = stated if isinstance(stated, dict) else {}
    image, pred = (part.get(name) for part, name in ((stated.get("inputs") or {}, "image"),
                                                     (stated.get("outputs") or {}, "pred")))  # fmt: skip
    if isinstance(image, dict):
        if image.get("num_channels", 1) != 1:
            faults.add(f"it wants {image.get('num_channels')} channels where a CT volume has 1", "give a bundle for CT")
        if str(image.get("modality", "CT")).upper() != "CT":
            faults.add(f"its modality is {str(image.get('modality'))!r}, which is no CT", "give a bundle for CT")
    named = pred.get("channel_def") if isinstance(pred, dict) else None
    if not isinstance(named, dict) or len(named) < 2 or sorted(named) != sorted(map(str, range(len(named)))):
        faults.add("its metadata.json does not name its classes (channel_def of pred)", _AGAIN)
        return ("",)
    return tuple(str(named[str(label)]) for label in range(1, len(named)))

