"""nnU-Net v2's plans.json and dataset.json as the values of a SegmenterSpec; nothing in them is imported by its name.

Rules and names are those of nnunetv2 2.8.1 (plans_handler.py, label_handling.py, default_resampling.py,
default_normalization_schemes.py) and dynamic-network-architectures 0.4.4. Lists of names are closed: what is not in
them is refused by name.
"""

from __future__ import annotations

import re
from typing import Any, TypeGuard

from ctpipe.models.guests.nnunet_network import network_values
from ctpipe.models.guests.wishes import Faults
from ctpipe.models.segment_spec import Normalisation, Resampling

Values = dict[str, Any]

# Where array axes grow to, by the class that read the training files. Those of file order depend on the files: made of
# axial DICOM without flipping they are S, P, L.
READERS = {
    "SimpleITKIO": "SPL",
    "NibabelIO": "SPL",
    "SimpleITKIOWithReorient": "SAR",
    "NibabelIOWithReorient": "SAR",
}
# TotalSegmentator turns every volume to RAS before nnU-Net sees it, and takes wider steps for its `total` models.
TOTAL_SEGMENTATOR = re.compile(r"totalsegmentator", re.IGNORECASE)
TOTAL_TASKS = range(291, 299)
MAX_SPACING_MM = 50.0
# Channel names that say nothing but how to normalise (map_channel_name_to_normalization.py).
_CHANNELS_OF_CT = frozenset({"ct", "nonorm", "zscore", "rescale_to_0_1"})
_ORDERS = (0, 1, 3)
_AGAIN = "copy the whole model again"


def spec_values(plans: Values, dataset: Values, configuration: str, axes: str | None, faults: Faults) -> Values:
    """Fields of the spec that plans and data set decide; what they cannot say is in `faults`.

    Without: weights, mirroring, licence, threads.
    """
    settings = resolved(plans, configuration, faults)
    if not settings:
        return {}
    if settings.get("previous_stage") is not None:
        faults.add(f"{configuration} is the second stage of a cascade",
                   "import 3d_fullres or 3d_lowres of the same data set; cascades are not supported yet")
    _check_channels(dataset, settings, faults)
    values = _labels(dataset, faults)
    spacing, patch = _grid(settings, faults)
    values |= {
        "axes": _axes(plans, axes, faults),
        "patch": patch,
        "spacing_mm": spacing,
        "normalise": _normalisation(plans, settings, faults),
        "normalise_first": True,
        "crop": "nonzero",
        "windows": "nnunet",
        "weight": "gaussian-middle",
        "blend": "logits",
        "step": 0.8 if _is_total(plans) else 0.5,
        "micro_batch": 4 if patch[0] == 1 else 1,
    }
    values["resample_in"], values["resample_out"], none = _resamplings(settings, faults)
    if none:
        values["spacing_mm"] = None
    return values | network_values(settings, patch, faults)


def resolved(plans: Values, configuration: str, faults: Faults) -> Values:
    """A configuration with all that it inherits; a fault and {} where there is none of that name."""
    known = plans.get("configurations")
    known = known if isinstance(known, dict) else {}
    chain: list[Values] = []
    name: Any = configuration
    while name is not None:
        if not isinstance(known.get(name), dict) or len(chain) > len(known):
            names = ", ".join(sorted(known)) or "none"
            faults.add(f"plans.json has no configuration {str(name)!r}", f"choose one of: {names}")
            return {}
        chain.append(known[name])
        name = known[name].get("inherits_from")
    merged: Values = {}
    for settings in reversed(chain):
        merged |= settings
    return merged


def _check_channels(dataset: Values, settings: Values, faults: Faults) -> None:
    channels = dataset.get("channel_names", dataset.get("modality"))  # the second: nnU-Net v1's word
    if not isinstance(channels, dict) or not channels:
        faults.add("its dataset.json names no channel", _AGAIN)
        return
    if len(channels) != 1:
        faults.add(f"it wants {len(channels)} channels where a CT volume has 1", "train a model on CT alone")
        return
    name, schemes = str(*channels.values()), settings.get("normalization_schemes")
    if name.casefold() not in _CHANNELS_OF_CT and schemes != ["CTNormalization"]:
        faults.add(f"its channel is {name!r}, which is no CT", "give a model trained on CT in HU")


def _labels(dataset: Values, faults: Faults) -> Values:
    """classes, regions, outputs."""
    labels, order = dataset.get("labels"), dataset.get("regions_class_order")
    values: Values = {"classes": ("",), "regions": (), "outputs": 2}
    if not isinstance(labels, dict) or labels.get("background") != 0:
        faults.add("its dataset.json names no labels, or no background of 0", _AGAIN)
        return values
    heads = {str(name): label for name, label in labels.items() if name not in ("background", "ignore")}
    if any(isinstance(label, list) and len(label) > 1 for label in heads.values()):
        if not isinstance(order, list) or len(order) != len(heads):
            faults.add("its labels are regions without an order for each of them (regions_class_order)", _AGAIN)
            return values
        numbers = order
        values |= {"regions": tuple(order), "outputs": len(order)}
    else:
        numbers = [label[0] if isinstance(label, list) and label else label for label in heads.values()]
        values["outputs"] = 1 + len(heads)
    named = {number: name for number, name in zip(numbers, heads, strict=True) if isinstance(number, int)}
    whole = set(named) == set(range(1, len(named) + 1)) and (values["regions"] or len(named) == len(heads))
    if not named or not whole:
        faults.add("its labels are not 1, 2, … without a gap", "number the labels without gaps and train again")
        return values | {"regions": (), "outputs": 2}
    # where several regions paint one label, the last of them names it
    return values | {"classes": tuple(named[label] for label in range(1, len(named) + 1))}


def _grid(settings: Values, faults: Faults) -> tuple[Any, tuple[int, int, int]]:
    """Spacing and patch along the network's axes, both of three."""
    spacing: Any = settings.get("spacing")
    patch: Any = settings.get("patch_size")
    if not _numbers(patch) or len(patch) not in (2, 3) or not all(int(n) == n and n >= 1 for n in patch):
        faults.add("its patch is not 2 or 3 numbers of voxels", _AGAIN)
        return None, (1, 1, 1)
    sides = [int(n) for n in patch]
    if not _numbers(spacing) or len(spacing) not in (len(sides), 3) or not all(
            0 < mm <= MAX_SPACING_MM for mm in spacing):  # fmt: skip
        faults.add(f"its spacing is not {len(sides)} numbers of more than 0 and at most {MAX_SPACING_MM:g} mm", _AGAIN)
        spacing = [1.0] * len(sides)
    if len(sides) == 2:
        # a 2-D network keeps the distance of planes as it finds it
        return (None if len(spacing) == 2 else float(spacing[0]), *map(float, spacing[-2:])), (1, sides[0], sides[1])
    return tuple(map(float, spacing)), (sides[0], sides[1], sides[2])


def _numbers(values: Any) -> TypeGuard[list[float]]:
    return isinstance(values, list) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def _axes(plans: Values, stated: str | None, faults: Faults) -> str:
    reader, turn = plans.get("image_reader_writer"), plans.get("transpose_forward", [0, 1, 2])
    if stated is None and reader not in READERS:
        faults.add(f"its images were read by {reader!r}, whose axes are not known here",
                   "say where they grow to, as in --axes SPL")
    if not isinstance(turn, list) or sorted(turn, key=str) != [0, 1, 2]:
        faults.add("its transpose_forward is no order of three axes", _AGAIN)
        return "SPL"
    total = TOTAL_SEGMENTATOR.search(str(plans.get("dataset_name")))
    axes = stated or ("SAR" if total else READERS.get(str(reader), "SPL"))
    if len(axes) != 3:
        faults.add(f"axes {axes!r} are not three letters", "say where array axes grow to, as in --axes SPL")
        return "SPL"
    return "".join(axes[axis] for axis in turn)


def _is_total(plans: Values) -> bool:
    name = str(plans.get("dataset_name"))
    number = re.match(r"Dataset(\d+)_", name)
    return bool(TOTAL_SEGMENTATOR.search(name)) and number is not None and int(number[1]) in TOTAL_TASKS


def _normalisation(plans: Values, settings: Values, faults: Faults) -> Normalisation:
    schemes, masks = settings.get("normalization_schemes"), settings.get("use_mask_for_norm")
    scheme = schemes[0] if isinstance(schemes, list) and len(schemes) == 1 else None
    if scheme == "CTNormalization":
        return _ct_normalisation(plans, faults)
    if scheme == "ZScoreNormalization":
        if masks != [False]:
            faults.add("it normalises inside a mask of voxels other than 0", "train with use_mask_for_norm false")
        return Normalisation(scheme="volume")
    if scheme == "RescaleTo01Normalization":
        return Normalisation(scheme="range")
    if scheme != "NoNormalization":
        faults.add(f"its normalisation {str(schemes)!r} is not known here",
                   "known are CTNormalization, ZScoreNormalization, RescaleTo01Normalization, NoNormalization")
    return Normalisation()


def _ct_normalisation(plans: Values, faults: Faults) -> Normalisation:
    by_channel = plans.get("foreground_intensity_properties_per_channel",
                           plans.get("foreground_intensity_properties_by_modality"))  # the second: older plans
    stated = by_channel.get("0") if isinstance(by_channel, dict) else None
    names = ("percentile_00_5", "percentile_99_5", "mean", "std")
    numbers: Any = [stated.get(name) for name in names] if isinstance(stated, dict) else []
    if len(numbers) != 4 or not _numbers(numbers) or not numbers[0] <= numbers[1] or numbers[3] < 0:
        faults.add("its plans.json lacks the intensities of the foreground that CT is normalised by", _AGAIN)
        return Normalisation()
    low, high, mean, std = map(float, numbers)
    return Normalisation(low=low, high=high, mean=mean, std=max(std, 1e-8))


def _resamplings(settings: Values, faults: Faults) -> tuple[Resampling, Resampling, bool]:
    """Of the image and of scores, and whether neither is resampled at all."""
    names = [str(settings.get(f"resampling_fn_{what}")) for what in ("data", "probabilities")]
    if names == ["no_resampling_hack"] * 2:
        return Resampling(), Resampling(order=1), True
    found = [_resampling(name, settings.get(f"resampling_fn_{what}_kwargs"), 3 if what == "data" else 1, what, faults)
             for name, what in zip(names, ("data", "probabilities"), strict=True)]  # fmt: skip
    return found[0], found[1], False


def _resampling(name: str, options: Any, order: int, what: str, faults: Faults) -> Resampling:
    options = dict(options) if isinstance(options, dict) else {}
    options.pop("is_seg", None)
    separate = {None: "auto", True: "always", False: "never"}.get(options.pop("force_separate_z", None))
    by_torch = {"num_threads", "device", "memefficient_seg_resampling"}  # none changes what is wanted here
    if name == "resample_data_or_seg_to_shape":
        orders = options.pop("order", order), options.pop("order_z", 0)
    elif name == "resample_torch_fornnunet":
        orders = (1 if options.pop("mode", "linear") == "linear" else None,
                  0 if options.pop("aniso_axis_mode", "nearest-exact") == "nearest-exact" else None)  # fmt: skip
        options = {key: value for key, value in options.items() if key not in by_torch}
    elif name == "resample_torch_simple":
        orders, separate = (1 if options.pop("mode", "linear") == "linear" else None, 0), "never"
        options = {key: value for key, value in options.items() if key not in by_torch}
    else:
        faults.add(f"its {what} is resampled by {name!r}, which is not known here",
                   "known are resample_data_or_seg_to_shape, resample_torch_fornnunet, resample_torch_simple, "
                   "no_resampling_hack for both")  # fmt: skip
        return Resampling()
    if options.pop("separate_z_anisotropy_threshold", 3) != 3 or options or separate is None or not all(
            order in _ORDERS for order in orders):  # fmt: skip
        left = f" ({', '.join(sorted(map(str, options)))})" if options else ""
        faults.add(f"its {what} is resampled with options that are not known here{left}",
                   "known are orders 0, 1 and 3, and force_separate_z with a threshold of 3")  # fmt: skip
        return Resampling()
    return Resampling(order=orders[0], separate=separate, order_separate=orders[1])  # type: ignore[arg-type]
