"""One way of segmenting one volume, in a process of its own: python _segment_ways.py WAY CLASSES PLANES

Prints one JSON object on the last line: seconds of the whole (wall), of the net's forward passes (net), and what else
the way can tell; mib: highest resident size, loaded_mib: that before the volume was touched. Ways:

- monai, monai-ours: MONAI's sliding_window_inference, and our stream, with the same MONAI U-Net (8, 16, 32, 64), roi
  96^3, overlap 0.5, Gaussian, one window a pass, over a volume in memory; arg-max of all classes.
- nnunet, nnunet-ours: nnU-Net 2.8.1's preprocessing, prediction and export, and our stream, with the same 4-stage
  PlainConvUNet of random weights; voxels 2.5 x 0.78 x 0.78 mm, the network's 2.5 x 1 x 1, patch 48 x 160 x 160.
- whole-unet, whole-vgg16: `ctpipe infer` over a store, against the plain forward passes of the same batches.
- flat: our stream with a network of two layers, for memory.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _made_series import planes, write_raw

THREADS = 2
SPACING, WANTED, PATCH = (2.5, 0.78, 0.78), (2.5, 1.0, 1.0), (48, 160, 160)
SMALL = {"features": [4, 8, 16, 32], "kernels": [[3, 3, 3]] * 4, "strides": [[1, 1, 1]] + [[2, 2, 2]] * 3,
         "blocks": [2] * 4, "decoder": [2] * 3}  # fmt: skip
# nnU-Net's widths; a patch that leaves minutes, not hours, on two cores
DEFAULT = {"features": [32, 64, 128, 256, 320], "kernels": [[3, 3, 3]] * 5, "strides": [[1, 1, 1]] + [[2, 2, 2]] * 4,
           "blocks": [2] * 5, "decoder": [2] * 4}  # fmt: skip


class Timed:
    """A network that adds up the seconds of its calls; a Scorer for our streams, a callable for others."""

    def __init__(self, module: Callable[[Any], Any]) -> None:
        self.module, self.seconds, self.calls = module, 0.0, 0

    def __call__(self, batch: Any) -> Any:
        began = time.perf_counter()
        out = self.module(batch)
        self.seconds += time.perf_counter() - began
        self.calls += 1
        return out

    def as_bytes(self) -> bytes:
        return b""


class InMemory:
    """HU in memory, read as a store's series is."""

    id = "in memory"

    def __init__(self, hu: Any) -> None:
        self.hu = hu

    def read_planes(self, start: int, stop: int, level: int = 0) -> Any:
        return self.hu[start:stop]


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed_total(cls: Any, name: str, seconds: dict[str, float], generator: bool = False) -> None:
    """Add up the seconds of a method in `seconds[name]`."""
    method = getattr(cls, name)

    def wrapped(*args: Any, **more: Any) -> Any:
        began = time.perf_counter()
        out = list(method(*args, **more)) if generator else method(*args, **more)
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - began
        return out

    setattr(cls, name, wrapped)


def monai_unet(classes: int) -> Timed:
    import torch
    from monai.networks.nets import UNet

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    net = Timed(UNet(3, 1, classes, (8, 16, 32, 64), (2, 2, 2)).eval().requires_grad_(False))
    with torch.inference_mode():
        net(torch.zeros(1, 1, 96, 96, 96))  # the first pass chooses kernels
    net.seconds = 0.0
    return net


def monai(classes: int, depth: int) -> dict[str, Any]:
    import torch
    from monai.inferers import sliding_window_inference

    net = monai_unet(classes)
    loaded, hu = peak_mib(), planes(depth)
    began = time.perf_counter()
    with torch.inference_mode():
        voxels = torch.from_numpy(hu.astype(np.float32)).div_(500)
        scores = sliding_window_inference(voxels[None, None], (96,) * 3, 1, net, overlap=0.5, mode="gaussian")
        labels = scores[0].argmax(0).to(torch.uint8).numpy()
    wall = time.perf_counter() - began
    np.save(Path(os.environ["OUT"]) / f"monai-{classes}.npy", labels)
    return {"wall": wall, "net": net.seconds, "loaded_mib": loaded}


def monai_ours(classes: int, depth: int) -> dict[str, Any]:
    from ctpipe.models import Normalisation

    net = monai_unet(classes)
    model = segmenter(net, classes, (96,) * 3, weight="gaussian-floor", normalise=Normalisation(std=500.0))
    loaded, hu = peak_mib(), planes(depth)
    wall, labels = stream(model, hu, (1.0, 1.0, 1.0))
    kept = Path(os.environ["OUT"]) / f"monai-{classes}.npy"
    differ = float((np.load(kept) != labels).mean()) if kept.exists() else None
    return {"wall": wall, "net": net.seconds, "loaded_mib": loaded, "differ": differ}


def segmenter(net: Timed, classes: int, patch: tuple[int, ...], **values: Any) -> Any:
    from ctpipe.models import Segmenter, SegmenterSpec, WeightFile

    spec = SegmenterSpec(
        network="plain-conv-unet", options={}, outputs=classes, classes=tuple(f"c{n}" for n in range(1, classes)),
        patch=patch, folds=(WeightFile(file="none", sha256="0"),), **{"axes": "zyx", "threads": THREADS} | values,
    )  # fmt: skip
    return Segmenter(spec, [net])


def stream(model: Any, hu: Any, spacing: tuple[float, ...], keep: bool = True) -> tuple[float, Any]:
    """Seconds and labels of our stream over a volume, the kernels compiled before."""
    from ctpipe.models import SegmentPlan
    from ctpipe.pipeline.slab_stream import SlabStream
    from ctpipe.predict import merge_facts, needs_facts, slab_facts
    from ctpipe.volume import Grid, slabs_of

    def run(voxels: Any) -> Any:
        affine = np.diag([0.0, 0.0, 0.0, 1.0])
        for axis, step in enumerate(spacing):
            affine[2 - axis, axis] = step
        grid = Grid.from_affine(voxels.shape, affine)
        slabs = slabs_of(len(voxels))
        facts = None
        if needs_facts(model.spec, grid):
            parts = [slab_facts(voxels[slab.start : slab.stop], slab.start, model.spec) for slab in slabs]
            facts = merge_facts(parts, model.spec, grid)
        plan = SegmentPlan.of(model.spec, grid, facts.box if facts else None)
        found = SlabStream(model, plan, InMemory(voxels), facts).labels(slabs, voxels.shape)
        return np.concatenate([labels if keep else labels[:1].copy() for _, labels in found])

    run(hu[: model.spec.patch[0] + 1, :70, :70])
    for net in model.networks:
        net.seconds = net.calls = 0
    began = time.perf_counter()
    labels = run(hu)
    return time.perf_counter() - began, labels


def unet(classes: int, options: dict[str, Any], patch: tuple[int, ...]) -> Any:
    """A plain U-Net of ours with random weights."""
    import torch

    from ctpipe.models.unets import UNet, UNetOptions

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    return UNet(UNetOptions.of({"dims": 3, **options}, classes), residual=False).eval().requires_grad_(False)


def nnunet_ours(classes: int, depth: int) -> dict[str, Any]:
    from ctpipe.models import Normalisation, Resampling
    from ctpipe.reduce import ScoreBand

    net = Timed(unet(classes, SMALL, PATCH))
    how = {"spacing_mm": WANTED, "windows": "nnunet", "weight": "gaussian-middle",
           "resample_in": Resampling(separate="auto"), "resample_out": Resampling(order=1, separate="auto"),
           "normalise": Normalisation(low=-150, high=250, mean=50, std=40)}  # fmt: skip
    model = segmenter(net, classes, PATCH, **how)
    import scipy.ndimage  # noqa: F401 - nnU-Net's code is loaded whole as well

    import ctpipe.reduce.band_kernels
    import ctpipe.volume.tap_kernels  # noqa: F401

    loaded, hu = peak_mib(), planes(depth)
    seconds: dict[str, float] = {}
    timed_total(ScoreBand, "_labels", seconds)
    stream(model, hu[: PATCH[0], :70, :70], SPACING)
    seconds.clear()
    wall, _ = stream(model, hu, SPACING)
    return {"wall": wall, "net": net.seconds, "export": seconds["_labels"], "loaded_mib": loaded, "windows": net.calls}


def nnunet(classes: int, depth: int) -> dict[str, Any]:
    """In the environment of benchmarks/nnunet-venv.sh."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ.setdefault(name, tempfile.gettempdir())
    import torch

    torch.set_num_threads(THREADS)
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.label_handling.label_handling import LabelManager
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans, dataset = nnunet_plans(classes)
    manager = PlansManager(plans)
    configuration = manager.get_configuration("3d_fullres")
    torch.manual_seed(0)
    net = get_network_from_plans(configuration.network_arch_class_name, configuration.network_arch_init_kwargs,
                                 configuration.network_arch_init_kwargs_req_import, 1, classes, allow_init=True,
                                 deep_supervision=False)  # fmt: skip
    predictor = nnUNetPredictor(tile_step_size=0.5, use_gaussian=True, use_mirroring=False, device=torch.device("cpu"),
                                perform_everything_on_device=False, verbose=False, allow_tqdm=False)  # fmt: skip
    predictor.manual_initialization(net, manager, configuration, [net.state_dict()], dataset, "x", None)
    loaded = peak_mib()
    seconds: dict[str, float] = {}
    timed_total(predictor.network, "forward", seconds)
    hu = planes(depth)
    affine = {"spacing": SPACING[::-1], "origin": (0, 0, 0), "direction": (1, 0, 0, 0, 1, 0, 0, 0, 1)}
    began = time.perf_counter()
    data, _, properties = DefaultPreprocessor(verbose=False).run_case_npy(
        hu.astype(np.float32)[None], None, {"spacing": list(SPACING), "sitk_stuff": affine}, manager, configuration,
        dataset)[:3]  # fmt: skip
    logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(np.ascontiguousarray(data))).cpu()
    exporting = time.perf_counter()
    convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, manager, configuration, LabelManager(dataset["labels"], None), properties, num_threads_torch=THREADS)
    ended = time.perf_counter()
    return {"wall": ended - began, "net": seconds["forward"], "export": ended - exporting, "loaded_mib": loaded}


def nnunet_plans(classes: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """plans.json and dataset.json of the same network and resampling as nnunet_ours."""
    network = {
        "n_stages": 4, "features_per_stage": SMALL["features"], "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": SMALL["kernels"], "strides": SMALL["strides"], "n_conv_per_stage": SMALL["blocks"],
        "n_conv_per_stage_decoder": SMALL["decoder"], "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d", "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None, "dropout_op_kwargs": None, "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }  # fmt: skip
    ways = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    resample = "resample_data_or_seg_to_shape"
    configuration = {
        "data_identifier": "x", "preprocessor_name": "DefaultPreprocessor", "batch_size": 2, "patch_size": list(PATCH),
        "median_image_size_in_voxels": [100, 400, 400], "spacing": list(WANTED),
        "normalization_schemes": ["CTNormalization"], "use_mask_for_norm": [False], "batch_dice": False,
        "resampling_fn_data": resample, "resampling_fn_data_kwargs": ways, "resampling_fn_seg": resample,
        "resampling_fn_seg_kwargs": {**ways, "is_seg": True, "order": 1}, "resampling_fn_probabilities": resample,
        "resampling_fn_probabilities_kwargs": {**ways, "order": 1},
        "architecture": {"network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                         "arch_kwargs": network,
                         "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"]},
    }  # fmt: skip
    intensity = {"mean": 50.0, "std": 40.0, "percentile_00_5": -150.0, "percentile_99_5": 250.0, "min": -1024.0,
                 "max": 3000.0, "median": 50.0}  # fmt: skip
    plans = {
        "dataset_name": "Dataset001_x", "plans_name": "nnUNetPlans", "image_reader_writer": "SimpleITKIO",
        "original_median_spacing_after_transp": list(SPACING), "transpose_forward": [0, 1, 2],
        "original_median_shape_after_transp": [100, 512, 512], "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration}, "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager", "foreground_intensity_properties_per_channel": {"0": intensity},
    }  # fmt: skip
    labels = {"background": 0, **{f"c{n}": n for n in range(1, classes)}}
    return plans, {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}


def store_of(folder: Path, depth: int) -> str:
    from ctpipe import pipeline

    write_raw(folder / "dicom", depth)
    pipeline.ingest([str(folder / "dicom")], folder / "S")
    return str(folder / "S")


def whole_unet(classes: int, depth: int) -> dict[str, Any]:
    """An nnU-Net of default width over `depth` planes, from the store to committed labels."""
    import torch

    import ctpipe
    from ctpipe.models import Segmenter, SegmenterSpec, WeightFile
    from ctpipe.models.segmenter_networks import ModuleScorer

    patch = (64, 128, 128)
    net = unet(classes, DEFAULT, patch)
    scorer = ModuleScorer(net)
    spec = SegmenterSpec(network="plain-conv-unet", options={"dims": 3, **DEFAULT}, outputs=classes, patch=patch,
                         classes=tuple(f"c{n}" for n in range(1, classes)), axes="SPL", threads=THREADS,
                         spacing_mm=(1.0, 2.0, 2.0), windows="nnunet", weight="gaussian-middle",
                         folds=(WeightFile(file="fold-0.safetensors", sha256=digest(scorer.as_bytes())),))  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        store = store_of(Path(folder), depth)
        Segmenter(spec, [scorer]).save(Path(folder) / "M")
        batch = torch.randn(1, 1, *patch)
        with torch.inference_mode():
            net(batch)
            began = time.perf_counter()
            report = ctpipe.infer(store, Path(folder) / "M")
            wall = time.perf_counter() - began
            began = time.perf_counter()
            for _ in range(report.runs[0].windows):
                net(batch)
            plain = time.perf_counter() - began
    return {"wall": wall, "net": plain, "windows": report.runs[0].windows}


def digest(data: bytes) -> str:
    from hashlib import sha256

    return sha256(data).hexdigest()


def whole_vgg16(classes: int, depth: int) -> dict[str, Any]:
    """`vgg16` at 257/8 over `depth` planes, dense, against the same dense passes over pixels in memory."""
    import ctpipe
    from ctpipe.config import recipe_from_dict
    from ctpipe.models import Model, build_network

    recipe = recipe_from_dict({
        "name": "b", "network": "vgg16", "windows": {"window": [1, 257, 257], "stride": [1, 8, 8]},
        "train": {"steps": 1, "epochs": 1, "batch": 1},
        "predict": {"stride": [1, 8, 8], "micro_batch": 16, "threads": 1},
    })  # fmt: skip
    names = tuple(f"c{n}" for n in range(1, classes))
    model = Model.of(recipe, names, build_network("vgg16", 1, classes, recipe.windows.window, {}))
    form = model.dense((8, 8))
    side = form.space((64, 64))
    with tempfile.TemporaryDirectory() as folder:
        store = store_of(Path(folder), depth)
        model.save(Path(folder) / "M")
        pixels = np.random.default_rng(0).normal(size=(1, *side)).astype(np.float32)
        began = time.perf_counter()
        ctpipe.infer(store, Path(folder) / "M")
        wall = time.perf_counter() - began
        plain = plain_passes(Path(folder) / "M", pixels, depth)
    return {"wall": wall, "net": plain, "windows": 64 * 64 * depth}


def plain_passes(folder: Path, pixels: Any, depth: int) -> float:
    """Seconds of `depth` dense passes, shared between as many processes of one thread as `ctpipe infer` takes."""
    import subprocess

    np.save(folder / "pixels.npy", pixels)
    workers = len(os.sched_getaffinity(0))
    shares = [depth // workers + (n < depth % workers) for n in range(workers)]
    code = ("import sys, time, numpy as np; from ctpipe.models import load_model\n"
            "m = load_model(sys.argv[1]); p = np.load(sys.argv[1] + '/pixels.npy'); f = m.dense((8, 8))\n"
            "m.dense_scores(f, p); print('ready', flush=True); sys.stdin.readline(); t = time.perf_counter()\n"
            "for _ in range(int(sys.argv[2])): m.dense_scores(f, p)\n"
            "print(time.perf_counter() - t)")  # fmt: skip
    made = [subprocess.Popen([sys.executable, "-c", code, str(folder), str(n)], stdin=subprocess.PIPE, text=True,
                             stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})
            for n in shares]  # fmt: skip
    for process in made:
        assert process.stdout is not None
        process.stdout.readline()
    for process in made:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return max(float(process.communicate()[0]) for process in made)


def flat(classes: int, depth: int) -> dict[str, Any]:
    import torch

    torch.set_num_threads(THREADS)
    head = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 1), torch.nn.ReLU(), torch.nn.Conv3d(2, classes, 1))
    model = segmenter(Timed(head.requires_grad_(False)), classes, (32, 256, 256))
    loaded, hu = peak_mib(), planes(60)
    wall, _ = stream(model, Repeated(hu, depth), (1.0, 1.0, 1.0), keep=False)
    return {"wall": wall, "net": 0.0, "loaded_mib": loaded}


class Repeated:
    """`depth` planes of which only some are in memory: what grows is ours."""

    def __init__(self, hu: Any, depth: int) -> None:
        self.hu, self.shape = hu, (depth, *hu.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, tuple):
            return self.hu[at]
        return self.hu[np.arange(at.start, at.stop) % len(self.hu)]


WAYS = {"monai": monai, "monai-ours": monai_ours, "nnunet": nnunet, "nnunet-ours": nnunet_ours,
        "whole-unet": whole_unet, "whole-vgg16": whole_vgg16, "flat": flat}  # fmt: skip

if __name__ == "__main__":
    result = WAYS[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3]))
    print(json.dumps({**result, "mib": peak_mib()}))
