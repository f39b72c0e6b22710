"""Result folders as nnU-Net v2 writes them, with random weights; and what its networks compute, by their own names.

Written from nnunetv2 2.8.1 and dynamic-network-architectures 0.4.4, without the importer's code: names of weights are
put together here, and `forward` is the network in functions of torch.
"""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

FOREGROUND = {"mean": 95.0, "median": 95.0, "std": 25.0, "min": -60.0, "max": 220.0, "percentile_00_5": 20.0,
              "percentile_99_5": 170.0}  # fmt: skip
FEATURES = (4, 8, 8)
STRIDES = {2: ((1, 1), (2, 2), (2, 1)), 3: ((1, 1, 1), (1, 2, 2), (2, 2, 2))}
KERNELS = {2: ((3, 3), (3, 3), (3, 3)), 3: ((1, 3, 3), (3, 3, 3), (3, 3, 3))}
PATCH = {2: [16, 12], 3: [8, 12, 16]}
SPACING = {2: [1.5, 2.0], 3: [3.0, 2.0, 1.5]}
LABELS = {"background": 0, "liver": 1, "lesion": 2}


def plans(dims: int = 3, residual: bool = False) -> dict[str, Any]:
    """A plans.json of one configuration, 2d or 3d_fullres."""
    resampled = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    network = "ResidualEncoderUNet" if residual else "PlainConvUNet"
    blocks = {"n_blocks_per_stage": [1, 2, 1]} if residual else {"n_conv_per_stage": [2, 1, 2]}
    settings = {
        "data_identifier": "x", "preprocessor_name": "DefaultPreprocessor", "batch_size": 2, "patch_size": PATCH[dims],
        "median_image_size_in_voxels": [48.0, 156.0, 192.0], "spacing": SPACING[dims],
        "normalization_schemes": ["CTNormalization"], "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape", "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampled, "resampling_fn_seg_kwargs": resampled | {"is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": resampled | {"order": 1}, "batch_dice": False,
        "architecture": {
            "network_class_name": f"dynamic_network_architectures.architectures.unet.{network}",
            "arch_kwargs": {
                "n_stages": 3, "features_per_stage": list(FEATURES), "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
                "kernel_sizes": [list(k) for k in KERNELS[dims]], "strides": [list(s) for s in STRIDES[dims]], **blocks,
                "n_conv_per_stage_decoder": [1, 2], "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
                "norm_op_kwargs": {"eps": 1e-5, "affine": True}, "dropout_op": None, "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }  # fmt: skip
    return {
        "dataset_name": "Dataset900_Made", "plans_name": "nnUNetPlans", "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2], "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager", "foreground_intensity_properties_per_channel": {"0": FOREGROUND},
        "configurations": {configuration(dims): settings},
    }  # fmt: skip


def configuration(dims: int) -> str:
    return "2d" if dims == 2 else "3d_fullres"


def dataset(**changes: Any) -> dict[str, Any]:
    """A dataset.json."""
    return {"channel_names": {"0": "CT"}, "labels": LABELS, "numTraining": 4, "file_ending": ".nii.gz",
            "licence": "CC BY 4.0"} | changes  # fmt: skip


def state(dims: int = 3, residual: bool = False, outputs: int = 3, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights under nnU-Net's names, those stored twice and the heads of all resolutions with them."""
    random = torch.Generator().manual_seed(seed)
    made: dict[str, torch.Tensor] = {}

    def unit(name: str, before: int, after: int, kernel: tuple[int, ...], bias: bool = True) -> None:
        fan = before * int(np.prod(kernel))
        parts = {"conv.weight": torch.randn(after, before, *kernel, generator=random) / fan**0.5}
        if bias:
            parts["conv.bias"] = torch.randn(after, generator=random) / 4
        parts |= {"norm.weight": 1 + torch.randn(after, generator=random) / 4,
                  "norm.bias": torch.randn(after, generator=random) / 4}  # fmt: skip
        for part, value in parts.items():
            what, kind = part.split(".")
            made[f"{name}.{part}"] = value
            made[f"{name}.all_modules.{0 if what == 'conv' else 1}.{kind}"] = value

    one = (1,) * dims
    before = 1
    if residual:
        unit("encoder.stem.convs.0", 1, FEATURES[0], KERNELS[dims][0])
        before = FEATURES[0]
    for stage, (after, kernel, count) in enumerate(zip(FEATURES, KERNELS[dims], (1, 2, 1) if residual else (2, 1, 2),
                                                       strict=True)):  # fmt: skip
        for at in range(count):
            if residual:
                name = f"encoder.stages.{stage}.blocks.{at}"
                unit(f"{name}.conv1", before, after, kernel)
                unit(f"{name}.conv2", after, after, kernel)
                if before != after:
                    strided = at == 0 and any(s != 1 for s in STRIDES[dims][stage])
                    unit(f"{name}.skip.{int(strided)}", before, after, one, bias=False)
            else:
                unit(f"encoder.stages.{stage}.0.convs.{at}", before, after, kernel)
            before = after
    made |= {f"decoder.{name}": value for name, value in made.items()}
    for at, count in enumerate((1, 2)):
        below, after = FEATURES[2 - at], FEATURES[1 - at]
        stride = STRIDES[dims][2 - at]
        made[f"decoder.transpconvs.{at}.weight"] = torch.randn(below, after, *stride, generator=random) / 3
        made[f"decoder.transpconvs.{at}.bias"] = torch.randn(after, generator=random) / 4
        for n in range(count):
            unit(f"decoder.stages.{at}.convs.{n}", after if n else 2 * after, after, KERNELS[dims][1 - at])
        made[f"decoder.seg_layers.{at}.weight"] = torch.randn(outputs, after, *one, generator=random)
        made[f"decoder.seg_layers.{at}.bias"] = torch.randn(outputs, generator=random) / 4
    return made


def forward(w: dict[str, torch.Tensor], x: torch.Tensor, residual: bool = False) -> torch.Tensor:
    """What nnU-Net's network of `state` gives for (n, 1, *patch)."""
    dims = x.ndim - 2
    convolve, pool, transposed = ((F.conv2d, F.avg_pool2d, F.conv_transpose2d) if dims == 2
                                  else (F.conv3d, F.avg_pool3d, F.conv_transpose3d))  # fmt: skip
    one = (1,) * dims

    def unit(name: str, x: torch.Tensor, stride: tuple[int, ...] = one, active: bool = True) -> torch.Tensor:
        weight = w[f"{name}.conv.weight"]
        padding = [(k - 1) // 2 for k in weight.shape[2:]]
        x = convolve(x, weight, w.get(f"{name}.conv.bias"), stride, padding)
        x = F.instance_norm(x, weight=w[f"{name}.norm.weight"], bias=w[f"{name}.norm.bias"], eps=1e-5)
        return F.leaky_relu(x, 0.01) if active else x

    def block(name: str, x: torch.Tensor, stride: tuple[int, ...]) -> torch.Tensor:
        around = x if stride == one else pool(x, stride, stride)
        for at in (0, 1):
            if f"{name}.skip.{at}.conv.weight" in w:
                around = unit(f"{name}.skip.{at}", around, active=False)
        inner = unit(f"{name}.conv2", unit(f"{name}.conv1", x, stride), active=False)
        return F.leaky_relu(inner + around, 0.01)

    skips = []
    if residual:
        x = unit("encoder.stem.convs.0", x)
    for stage, stride in enumerate(STRIDES[dims]):
        for at in range(((1, 2, 1) if residual else (2, 1, 2))[stage]):
            step = stride if at == 0 else one
            x = (block(f"encoder.stages.{stage}.blocks.{at}", x, step) if residual
                 else unit(f"encoder.stages.{stage}.0.convs.{at}", x, step))  # fmt: skip
        skips.append(x)
    for at, count in enumerate((1, 2)):
        x = transposed(x, w[f"decoder.transpconvs.{at}.weight"], w[f"decoder.transpconvs.{at}.bias"],
                       STRIDES[dims][2 - at])  # fmt: skip
        x = torch.cat((x, skips[1 - at]), 1)
        for n in range(count):
            x = unit(f"decoder.stages.{at}.convs.{n}", x)
    return convolve(x, w["decoder.seg_layers.1.weight"], w["decoder.seg_layers.1.bias"])


def checkpoint(weights: dict[str, torch.Tensor], dims: int, told: dict[str, Any], data: dict[str, Any],
               mirror: tuple[int, ...] | None, **changes: Any) -> dict[str, Any]:
    """What nnUNetTrainer.save_checkpoint saves; NumPy scalars among it, as its log has them."""
    return {
        "network_weights": weights,
        "optimizer_state": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.01}]},
        "grad_scaler_state": None,
        "logging": {"ema_fg_dice": [np.float64(0.5)], "train_losses": [np.float32(-0.1)], "lrs": [0.01]},
        "_best_ema": np.float64(0.5), "current_epoch": 1,
        "init_args": {"plans": deepcopy(told), "configuration": configuration(dims), "fold": 0, "dataset_json": data,
                      "device": torch.device("cpu")},
        "trainer_name": "nnUNetTrainer", "inference_allowed_mirroring_axes": mirror,
    } | changes  # fmt: skip


def result_folder(top: Path, dims: int = 3, residual: bool = False, folds: tuple[int | str, ...] = (0,), *,
                  told: dict[str, Any] | None = None, data: dict[str, Any] | None = None,
                  mirror: tuple[int, ...] | None = (0, 1), outputs: int = 3, **changes: Any) -> Path:
    """A result folder below `top`; changes: of every checkpoint."""
    told, data = told or plans(dims, residual), data or dataset()
    folder = top / "Dataset900_Made" / f"nnUNetTrainer__nnUNetPlans__{configuration(dims)}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(told))
    (folder / "dataset.json").write_text(json.dumps(data))
    for seed, fold in enumerate(folds):
        (folder / f"fold_{fold}").mkdir(exist_ok=True)
        held = checkpoint(state(dims, residual, outputs, seed), dims, told, data, mirror, **changes)
        torch.save(held, folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder
