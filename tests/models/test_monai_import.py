"""MONAI bundles become segmenters where every part is of a closed list; nothing in their configuration is run.

Promises: I2 (the model card), X3 (no import hook, no expression, no pickle).
"""

from __future__ import annotations

import json
import os
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ctpipe.errors import InputError, UsageError
from ctpipe.models import Normalisation, Resampling, Segmenter, load_model
from ctpipe.models.guests import Imported, Wishes, import_model
from ctpipe.models.segmenter_networks import ModuleScorer

nets = pytest.importorskip("monai.networks.nets", reason="monai is not installed (ctpipe[monai])")

UNET = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "channels": [4, 8], "strides": [2], "norm": "batch"}
# As published bundles have it: links, an expression for the device, transforms by name.
CONFIG: dict[str, Any] = {
    "imports": ["$import glob"],
    "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    "spacing": [1.5, 1.5, 2.0],
    "network_def": {"_target_": "UNet", **UNET},
    "network": "$@network_def.to(@device)",
    "preprocessing": {"_target_": "Compose", "transforms": [
        {"_target_": "LoadImaged", "keys": "image"}, {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
        {"_target_": "Spacingd", "keys": "image", "pixdim": "@spacing", "mode": "bilinear"},
        {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": -57, "a_max": 164, "b_min": 0, "b_max": 1,
         "clip": True},
        {"_target_": "EnsureTyped", "keys": "image"},
    ]},
    "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 8], "sw_batch_size": 4, "overlap": 0.5},
    "postprocessing": {"_target_": "Compose", "transforms": [
        {"_target_": "Activationsd", "keys": "pred", "softmax": True},
        {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "nearest_interp": False},
        {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
        {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir"},
    ]},
}  # fmt: skip
METADATA: dict[str, Any] = {
    "name": "Made", "version": "0.1.0", "license": "Apache-2.0",
    "network_data_format": {
        "inputs": {"image": {"type": "image", "modality": "CT", "num_channels": 1}},
        "outputs": {"pred": {"channel_def": {"0": "background", "1": "liver", "2": "lesion"}}},
    },
}  # fmt: skip


def bundle(top: Path, config: dict[str, Any] | None = None, metadata: dict[str, Any] | None = None) -> Path:
    (top / "configs").mkdir(parents=True)
    (top / "models").mkdir()
    (top / "configs" / "inference.json").write_text(json.dumps(config or CONFIG))
    (top / "configs" / "metadata.json").write_text(json.dumps(metadata or METADATA))
    torch.save(network().state_dict(), top / "models" / "model.pt")
    return top


def network() -> torch.nn.Module:
    torch.manual_seed(5)
    made = nets.UNet(**UNET).eval()
    with torch.no_grad():  # heads of one mean, so that every class wins somewhere
        last = list(made.parameters())[-1]
        last -= made(torch.rand(4, 1, 16, 16, 8)).mean((0, 2, 3, 4))
    return made


def taken(path: Path, **wishes: Any) -> Imported:
    return import_model(path, Wishes(**{"threads": 1} | wishes))


def changed(path: str, value: Any) -> dict[str, Any]:
    """The configuration with one value changed: keys and numbers joined by dots."""
    made = deepcopy(CONFIG)
    *way, last = path.split(".")
    at: Any = made
    for step in way:
        at = at[int(step)] if step.isdecimal() else at[step]
    at[int(last) if last.isdecimal() else last] = value
    return made


def test_every_field_of_the_spec_is_what_the_bundle_says(tmp_path: Path) -> None:
    model = taken(bundle(tmp_path / "b")).segmenter
    spec = model.spec
    assert (spec.axes, spec.spacing_mm, spec.patch) == ("RAS", (1.5, 1.5, 2.0), (16, 16, 8))
    assert spec.normalise == Normalisation(low=-57.0, high=164.0, mean=-57.0, std=221.0)
    assert not spec.normalise_first
    assert spec.resample_in == Resampling(order=1, align="first", limit=False)
    assert spec.resample_out == Resampling(order=1, align="first", limit=False)
    assert (spec.windows, spec.step, spec.weight, spec.blend, spec.mirror) == ("cover", 0.5, "constant", "logits", ())
    assert (spec.classes, spec.licence, spec.crop) == (("liver", "lesion"), "Apache-2.0", "none")


def test_scores_are_those_of_monais_network_before_and_after_saving(tmp_path: Path) -> None:
    model = taken(bundle(tmp_path / "b")).segmenter
    windows = np.random.default_rng(0).normal(size=(2, *model.spec.patch)).astype(np.float32)
    wanted = Segmenter(model.spec, [ModuleScorer(network())]).scores(windows).scores
    assert np.array_equal(model.scores(windows).scores, wanted)
    model.save(tmp_path / "m")
    again = load_model(tmp_path / "m")
    assert np.array_equal(again.scores(windows).scores, wanted)


def test_labels_that_monai_brings_back_by_nearest_neighbour_are_brought_back_so(tmp_path: Path) -> None:
    after = CONFIG["postprocessing"]["transforms"]
    config = changed("postprocessing.transforms", [after[0], after[2], after[1], after[3]])
    assert taken(bundle(tmp_path / "b", config)).segmenter.spec.resample_out.order == 0


REFUSED = {
    "an unknown network": (changed("network_def._target_", "os.system"), "'os.system'"),
    "an expression for an argument": (changed("network_def.act", "$__import__('os').mkdir('canary')"), "expression"),
    "two channels": (changed("network_def.in_channels", 2), "one channel"),
    "an unknown transform": (changed("preprocessing.transforms.0", {"_target_": "CropForegroundd"}),
                             "CropForegroundd"),
    "an unknown orientation": (changed("preprocessing.transforms.2", {"_target_": "EnsureTyped"}), "orientation"),
    "spacing nonsense": (changed("spacing", [0.0, 1.0, 1.0]), "pixdim"),
    "an unknown inferer": (changed("inferer._target_", "SliceInferer"), "SliceInferer"),
    "an overlap of one": (changed("inferer.overlap", 1.0), "overlap"),
    "independent heads": (changed("postprocessing.transforms.0", {"_target_": "Activationsd", "sigmoid": True}),
                          "sigmoid"),
    "an unknown step after it": (changed("postprocessing.transforms.0", {"_target_": "KeepLargestConnectedComponentd"}),
                                 "KeepLargestConnectedComponentd"),
    "statistics of the resampled volume": (changed("preprocessing.transforms.4", {"_target_": "NormalizeIntensityd"}),
                                           "NormalizeIntensityd"),
    "a class too many": (changed("network_def.out_channels", 4), "outputs"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_in_the_lists_is_refused_by_name(case: str, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:  # I2, X3
    monkeypatch.chdir(tmp_path)
    config, said = REFUSED[case]
    with pytest.raises(InputError, match=said):
        taken(bundle(tmp_path / "b", config))
    assert not (tmp_path / "canary").exists()


def test_modality_channels_and_classes_of_the_metadata_are_checked(tmp_path: Path) -> None:  # I2
    for number, (part, value, said) in enumerate([
        ("modality", "MR", "'MR'"), ("num_channels", 4, "4 channels"),
    ]):  # fmt: skip
        metadata = deepcopy(METADATA)
        metadata["network_data_format"]["inputs"]["image"][part] = value
        with pytest.raises(InputError, match=said):
            taken(bundle(tmp_path / str(number), metadata=metadata))
    metadata = deepcopy(METADATA)
    del metadata["license"]
    with pytest.raises(UsageError, match="licence"):
        taken(bundle(tmp_path / "free", metadata=metadata))
    del metadata["network_data_format"]["outputs"]
    with pytest.raises(InputError, match="classes"):
        taken(bundle(tmp_path / "unnamed", metadata=metadata))


class _Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_bundle_with_an_import_hook_and_a_pickle_runs_neither(tmp_path: Path) -> None:  # X3
    canary = tmp_path / "canary"
    hook = f"$__import__('os').mkdir({str(canary)!r})"
    config = changed("imports", [hook]) | {"initialize": [hook], "run": [hook], "device": hook}
    path = bundle(tmp_path / "b", config)
    (path / "scripts").mkdir()
    (path / "scripts" / "__init__.py").write_text(f"import os; os.mkdir({str(canary)!r})")
    taken(path)
    assert not canary.exists()
    torch.save({"model": _Canary(canary)}, path / "models" / "model.pt")
    with pytest.raises(InputError, match=r"posix\.mkdir"):
        taken(path)
    assert not canary.exists()
