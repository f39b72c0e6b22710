"""Checkpoints of the real nnunetv2 package, where there is one (benchmarks/nnunet-venv.sh): its networks, its zips."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from nnunet_made import dataset, plans, result_folder

from ctpipe.models.guests import Wishes, import_model

PYTHON = Path(os.environ.get("CTPIPE_NNUNET_PYTHON", Path(__file__).parents[2] / "build/nnunet-venv/bin/python"))

pytestmark = pytest.mark.skipif(
    not PYTHON.is_file(), reason="nnunetv2 is not there: sh benchmarks/nnunet-venv.sh, or set CTPIPE_NNUNET_PYTHON"
)

# run by nnU-Net's own Python: a network of random weights as its trainer saves one, and its scores of a window
WRITE = """
import json, sys, numpy as np, torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
folder, configuration = sys.argv[1:]
plans = json.load(open(folder + "/plans.json"))
settings = plans["configurations"][configuration]["architecture"]
torch.manual_seed(1)
network = get_network_from_plans(settings["network_class_name"], settings["arch_kwargs"],
                                 settings["_kw_requires_import"], 1, 3, deep_supervision=False).eval()
for value in network.parameters():
    torch.nn.init.normal_(value, 0.02, 0.15)
for name, value in network.named_buffers():
    if name.endswith("running_mean"):
        value.normal_(0, 0.2)
    elif name.endswith("running_var"):
        value.uniform_(0.1, 0.5)
path = folder + "/fold_0/checkpoint_final.pth"
held = torch.load(path, weights_only=False)
held["network_weights"] = network.state_dict()
torch.save(held, path)
window = torch.from_numpy(np.load(folder + "/window.npy"))
with torch.inference_mode():
    np.save(folder + "/scores.npy", network(window).numpy())
"""


@pytest.mark.parametrize(("dims", "residual", "change"), [
    (3, False, ""), (2, False, ""), (3, True, ""), (2, True, ""), (3, False, "batch norm"), (2, True, "batch norm"),
    (3, False, "bias off, dropout, nonlinearity first"), (2, False, "bias off, dropout, nonlinearity first"),
    (3, True, "stem"),
])  # fmt: skip
def test_scores_are_those_of_the_package_itself(dims: int, residual: bool, change: str,
                                                     tmp_path: Path) -> None:
    told = plans(dims, residual)
    configuration = "2d" if dims == 2 else "3d_fullres"
    arguments = told["configurations"][configuration]["architecture"]["arch_kwargs"]
    if change == "batch norm":
        arguments |= {"norm_op": f"torch.nn.BatchNorm{dims}d", "norm_op_kwargs": {"momentum": 0.2}}
    elif change == "stem":
        arguments["stem_channels"] = 5
    elif change:
        arguments |= {"conv_bias": False, "dropout_op": f"torch.nn.Dropout{dims}d", "dropout_op_kwargs": {"p": 0.3},
                      "nonlin_first": True}  # fmt: skip
    folder = result_folder(tmp_path, dims, residual, told=told, data=dataset(), mirror=None)
    patch = told["configurations"][configuration]["patch_size"]
    window = np.random.default_rng(2).normal(size=(1, 1, *patch)).astype(np.float32)
    np.save(folder / "window.npy", window)
    subprocess.run([str(PYTHON), "-c", WRITE, str(folder), configuration], check=True, capture_output=True, timeout=300)
    model = import_model(folder, Wishes(threads=1)).segmenter
    wanted = np.load(folder / "scores.npy")
    found = model.scores(window.reshape(1, *model.spec.patch)).scores.reshape(wanted.shape)
    assert np.abs(wanted).max() < 128  # else scores are clamped
    assert np.abs(found - wanted).max() < 1e-4 * max(1.0, np.abs(wanted).max())
    assert json.loads((folder / "plans.json").read_text()) == told
    assert wanted.std() > 1e-2
