"""A MONAI bundle over a volume: labels are those of MONAI's own transforms, windows and inversion."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

pytest.importorskip("monai", reason="monai is not installed (ctpipe[monai])")

from test_monai_import import bundle, changed, network

import ctpipe
from ctpipe.demo.phantom import phantom
from ctpipe.dicom import write_ct_series
from ctpipe.models.guests import Wishes, import_model
from ctpipe.volume import Grid


def by_monai(hu: np.ndarray, affine_lps: np.ndarray, config: dict) -> np.ndarray:
    """Labels (z, y, x) by MONAI; scores are brought back before any softmax, as ctpipe does it."""
    from monai import transforms as t
    from monai.data import MetaTensor
    from monai.inferers import sliding_window_inference

    ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine_lps[:, [2, 1, 0, 3]]  # (x, y, z) index to RAS
    image = MetaTensor(hu.transpose(2, 1, 0)[None].astype(np.float32), affine=ras)
    before = t.Compose([
        t.Orientationd("image", axcodes="RAS", labels=None),
        t.Spacingd("image", pixdim=config["spacing"], mode="bilinear"),
        t.ScaleIntensityRanged("image", a_min=-57, a_max=164, b_min=0, b_max=1, clip=True), t.EnsureTyped("image"),
    ])  # fmt: skip
    case = before({"image": image})
    roi, overlap, mode = (config["inferer"][key] for key in ("roi_size", "overlap", "mode"))
    with torch.inference_mode():
        case["pred"] = sliding_window_inference(
            case["image"][None], roi, 1, network(), overlap, mode
        )[0]  # fmt: skip
    back = t.Invertd("pred", transform=before, orig_keys="image", nearest_interp=False, to_tensor=True)
    return back(case)["pred"].argmax(0).numpy().astype(np.uint8).transpose(2, 1, 0)


@pytest.mark.parametrize("mode", ["gaussian", pytest.param("constant", marks=pytest.mark.slow)])
def test_labels_are_those_of_monais_own_pipeline(mode: str, tmp_path: Path) -> None:
    made = phantom(4)
    hu = np.ascontiguousarray(made.hu[10:34, 60:140, 50:146])
    grid = Grid.from_affine(hu.shape, made.grid.affine)
    write_ct_series(tmp_path / "dicom", hu, grid, patient="phantom", study_key="monai")
    report = ctpipe.ingest([tmp_path / "dicom"], tmp_path / "S")
    config = changed("inferer.mode", mode) | {"spacing": [2.0, 2.0, 4.0]}
    model = import_model(bundle(tmp_path / "b", config), Wishes(threads=1)).segmenter
    model.save(tmp_path / "m")
    done = ctpipe.infer(tmp_path / "S", tmp_path / "m")
    series = ctpipe.open_store(tmp_path / "S")[report.volumes[0].id]
    ours = np.asarray(series.labels[done.runs[0].run].array)
    wanted = by_monai(hu, grid.affine, config)
    shares = np.bincount(wanted.ravel(), minlength=3) / wanted.size
    assert (np.sort(shares)[1:] > 0.01).all(), json.dumps(shares.tolist())  # something to agree on
    assert (ours != wanted).mean() < 1e-4
