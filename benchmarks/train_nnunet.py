"""Tiny nnU-Net v2 models by the real package: its fingerprint, planner, preprocessing and trainer on synthetic CT.

python benchmarks/train_nnunet.py [FOLDER] [--nnunet PYTHON] [--sets anisotropic isotropic sagittal]

Runs the trainer in the environment that benchmarks/nnunet-venv.sh makes. FOLDER/results then holds nnU-Net's own result
folders. Planned by nnU-Net for a small memory, then made narrow and trained for a few iterations: the models label
soft tissue and bone coarsely, but every rule of nnU-Net is in them.

    anisotropic   6.0 x 1.5 x 1.5 mm: the coarse axis is resampled by itself; 2d (fold all), 3d_fullres (folds 0 and 1)
    isotropic     3.0 x 3.0 x 3.0 mm: 3d_fullres (fold 0), a residual encoder
    sagittal      3.0 x 1.5 x 6.0 mm: the planner turns the axes; 3d_fullres (fold 0)
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

# number of the data set, step between the phantom's voxels taken along z, y, x, planner, {configuration: folds}
SETS = {
    "anisotropic": (901, (2, 1, 1), "ExperimentPlanner", {"2d": ("all",), "3d_fullres": (0, 1)}),
    "isotropic": (902, (1, 2, 2), "nnUNetPlannerResEncM", {"3d_fullres": (0,)}),
    "sagittal": (903, (1, 1, 4), "ExperimentPlanner", {"3d_fullres": (0,)}),
}
PATIENTS = 5
EPOCHS, ITERATIONS, VALIDATIONS = 5, 24, 2
# What is labelled: whatever a network of some minutes learns, and knows again in other patients' CT
TISSUE_HU, BONE_HU = -30, 170
BASE_FEATURES, MOST_FEATURES = 6, 48
MEMORY_GB = 0.6


def main() -> int:
    args = arguments()
    folder = Path(args.folder).resolve()
    if args.inside:
        train(folder, args.sets)
        return 0
    wanted = [name for name in args.sets if not trained(folder, name)]
    if not wanted:
        return 0
    for name in wanted:
        write_set(folder, name)
    command = [args.nnunet, __file__, str(folder), "--inside", "--sets", *wanted]
    return subprocess.run(command, env=environment(folder), check=False).returncode


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default="build/nnunet")
    parser.add_argument("--nnunet", default="build/nnunet-venv/bin/python", help="Python that has nnunetv2")
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def environment(folder: Path) -> dict[str, str]:
    """What nnU-Net's processes need: its three folders, no worker processes, no compiling, two threads."""
    return os.environ | {
        "nnUNet_raw": str(folder / "raw"), "nnUNet_preprocessed": str(folder / "preprocessed"),
        "nnUNet_results": str(folder / "results"), "nnUNet_n_proc_DA": "1", "nnUNet_compile": "f",
        "OMP_NUM_THREADS": "2", "MPLBACKEND": "Agg",
    }  # fmt: skip


def trained(folder: Path, name: str) -> bool:
    """Whether every fold of a set has its last checkpoint."""
    found = len(list((folder / "results" / set_name(name)).glob("*/fold_*/checkpoint_final.pth")))
    return found == sum(map(len, SETS[name][3].values()))


def set_name(name: str) -> str:
    return f"Dataset{SETS[name][0]}_{name}"


# ------------------------------------------------------------------------------------------ in ctpipe's environment
def write_set(folder: Path, name: str) -> None:
    """Phantoms as NIfTI as nnU-Net wants its raw data; axial, LPS."""
    import numpy as np
    import SimpleITK
    from scipy.ndimage import gaussian_filter

    from ctpipe.demo.phantom import SPACING_MM, phantom

    _, step, _, _ = SETS[name]
    raw = folder / "raw" / set_name(name)
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True, exist_ok=True)
    for seed in range(PATIENTS):
        made = phantom(seed)
        smooth = gaussian_filter(made.hu.astype(np.float32), 1)
        labels = (smooth > TISSUE_HU).astype(np.uint8) + (smooth > BONE_HU)
        for array, path in ((made.hu, raw / "imagesTr" / f"p{seed}_0000.nii.gz"),
                            (labels, raw / "labelsTr" / f"p{seed}.nii.gz")):  # fmt: skip
            image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array[:: step[0], :: step[1], :: step[2]]))
            image.SetSpacing([mm * n for mm, n in zip(SPACING_MM, step, strict=True)][::-1])
            SimpleITK.WriteImage(image, path)
    (raw / "dataset.json").write_text(json.dumps({
        "channel_names": {"0": "CT"}, "labels": {"background": 0, "tissue": 1, "bone": 2},
        "numTraining": PATIENTS, "file_ending": ".nii.gz", "licence": "Apache-2.0",
    }))  # fmt: skip


# ------------------------------------------------------------------------------------------ in nnU-Net's environment
def train(folder: Path, names: list[str]) -> None:
    import torch

    torch.set_num_threads(2)
    torch.manual_seed(0)
    for name in names:
        number, _, planner, configurations = SETS[name]
        plans_name = plan(number, planner, list(configurations))
        for configuration, folds in configurations.items():
            for fold in folds:
                train_fold(folder, name, plans_name, configuration, fold)


def plan(number: int, planner: str, configurations: list[str]) -> str:
    """nnU-Net's own fingerprint and plans, made narrow; then its preprocessing. The name of the plans."""
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api
    from nnunetv2.paths import nnUNet_preprocessed
    from nnunetv2.utilities.dataset_name_id_conversion import convert_id_to_dataset_name

    os.environ.update({"nnUNet_n_proc_DA": "1"})  # taken for the threads of torch here
    api.extract_fingerprints([number], num_processes=1, check_dataset_integrity=True, show_progress_bar=False)
    plans_name = api.plan_experiments([number], planner, gpu_memory_target_in_gb=MEMORY_GB)
    path = Path(str(nnUNet_preprocessed)) / convert_id_to_dataset_name(number) / f"{plans_name}.json"
    plans = json.loads(path.read_text())
    for configuration in configurations:
        settings = plans["configurations"][configuration]
        network = settings["architecture"]["arch_kwargs"]
        stages = range(network["n_stages"])
        network["features_per_stage"] = [min(BASE_FEATURES * 2**s, MOST_FEATURES) for s in stages]
        if "n_blocks_per_stage" in network:
            network["n_blocks_per_stage"] = [min(2, n) for n in network["n_blocks_per_stage"]]
        settings["batch_size"] = 2
    path.write_text(json.dumps(plans, indent=4))
    api.preprocess([number], plans_name, configurations=configurations, num_processes=[1] * len(configurations),
                   show_progress_bar=False)  # fmt: skip
    return plans_name


def train_fold(folder: Path, name: str, plans_name: str, configuration: str, fold: int | str) -> None:
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    done = folder / "results" / set_name(name) / f"nnUNetTrainer__{plans_name}__{configuration}" / f"fold_{fold}"
    if (done / "checkpoint_final.pth").is_file():
        return
    preprocessed = folder / "preprocessed" / set_name(name)
    plans = json.loads((preprocessed / f"{plans_name}.json").read_text())
    plans["continue_training"] = False  # the trainer takes this out again
    dataset = json.loads((preprocessed / "dataset.json").read_text())
    os.environ.update({"nnUNet_n_proc_DA": "0"})  # no worker processes
    trainer = nnUNetTrainer(plans, configuration, fold, dataset, torch.device("cpu"))
    trainer.num_epochs, trainer.num_iterations_per_epoch = EPOCHS, ITERATIONS
    trainer.num_val_iterations_per_epoch = VALIDATIONS
    trainer.run_training()


if __name__ == "__main__":
    sys.exit(main())
