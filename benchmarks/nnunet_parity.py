"""One nnU-Net v2 checkpoint predicted by nnU-Net itself and by ctpipe: labels that differ, wall time, memory.

python benchmarks/nnunet_parity.py FOLDER [--nnunet build/nnunet-venv/bin/python] [--sts 2] [--only TEXT] [--json]

FOLDER is that of benchmarks/train_nnunet.py; its `parity` takes the store and both programs' labels. Real CT: the first
--sts patients of `sts` under $CTPIPE_TEST_DATA; and a synthetic one whose planes lie 3 mm apart, twice as far as its
pixels, so that no axis is resampled by itself. Each program runs in processes of its own, whole: nnU-Net
(predict_from_files_sequential, its defaults, CPU) from a NIfTI file of the volume to one of labels, ctpipe from the
store to labels in the store (`ctpipe infer`). Volumes are turned for nnU-Net by SimpleITK, not by ctpipe. Memory is the
highest sum over each program's processes, what they share counted once. Exit 1 where more than 0.01 % of the voxels of
a volume differ.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LIMIT = 1e-4
THREADS = 2
# of the phantom: the liver and what lies beside it
SYNTHETIC = np.s_[8:40, 40:168, 40:180]


def main() -> int:
    args = arguments()
    if args.predict:
        predict(*args.predict, wide=args.float32)
        return 0
    folder = Path(args.folder).resolve()
    work = folder / "parity"
    work.mkdir(exist_ok=True)
    os.environ.setdefault("CTPIPE_KEY", str(work / "key"))
    volumes = take_volumes(work, args.sts)
    print(f"{'model':44} {'volume':10} {'shape':>14} {'spacing mm':>16} {'differ':>8} {'of them fg':>10} "
          f"{'nnU-Net s':>9} {'MiB':>6} {'ours s':>7} {'MiB':>6}")  # fmt: skip
    found: list[dict[str, Any]] = []
    for results in sorted(path.parent for path in folder.glob("results/*/*/plans.json")):
        name = f"{results.parent.name.partition('_')[2]} {results.name.rpartition('__')[2]}"
        if args.only and args.only not in name:
            continue
        for volume in volumes:
            row = compare(name, results, volume, work, args.nnunet, wide=args.float32)
            found.append(row)
            shape, spacing = (" x ".join(f"{n:g}" for n in row[key]) for key in ("shape", "spacing"))
            print(f"{name:44} {row['volume'][:10]:10} {shape:>14} {spacing:>16} {row['differ_percent']:7.4f}% "
                  f"{row['foreground_percent']:9.3f}% {row['nnunet_s']:9.1f} {row['nnunet_mib']:6.0f} "
                  f"{row['ours_s']:7.1f} {row['ours_mib']:6.0f}", flush=True)  # fmt: skip
    worst = max((row["differ_percent"] for row in found), default=100.0)
    if args.json:
        print(json.dumps({"nnunet_differ_percent": worst, "volumes": found}))
    return 0 if worst < 100 * LIMIT else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default="build/nnunet")
    parser.add_argument("--nnunet", default="build/nnunet-venv/bin/python", help="Python that has nnunetv2")
    parser.add_argument("--sts", type=int, default=2, help="patients of sts (default: 2)")
    parser.add_argument("--only", help="only models whose name has this in it")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--float32", action="store_true",
                        help="let nnU-Net add up in float32: what then differs is no rounding to float16")  # fmt: skip
    parser.add_argument("--predict", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


def take_volumes(work: Path, patients: int) -> list[str]:
    """Ids of the volumes in work/S: the synthetic one and those of sts."""
    import ctpipe
    from ctpipe.demo.phantom import phantom
    from ctpipe.dicom import write_ct_series
    from ctpipe.volume import Grid

    made = phantom(11)
    hu = np.ascontiguousarray(made.hu[SYNTHETIC])
    write_ct_series(work / "dicom", hu, Grid.from_affine(hu.shape, made.grid.affine), patient="phantom",
                    study_key="parity")  # fmt: skip
    data = Path(os.environ.get("CTPIPE_TEST_DATA", "../shared/data")) / "sts"
    real = sorted(data.glob("*/CT.zip"))[:patients]
    if len(real) < patients:
        print(f"{len(real)} of {patients} patients of sts under {data}", file=sys.stderr)
    ids = []
    for path in (work / "dicom", *real):
        report = ctpipe.ingest([path], work / "S")
        ids += [volume.id for volume in report.volumes]
    return ids


def take_model(results: Path, work: Path) -> Path:
    """The model as `ctpipe models import` takes it."""
    model = work / "models" / f"{results.parent.name}-{results.name}"
    if not model.exists():
        subprocess.run([sys.executable, "-m", "ctpipe.cli", "models", "import", str(results), "--out", str(model),
                        "--threads", str(THREADS)], check=True, stdout=subprocess.DEVNULL)  # fmt: skip
    return model


def compare(name: str, results: Path, volume: str, work: Path, nnunet: str, *, wide: bool) -> dict[str, Any]:
    """One volume by both programs."""
    import ctpipe

    model = take_model(results, work)

    store = work / "S"
    series = ctpipe.open_store(store)[volume]
    given = work / "nifti" / volume
    code = write_nifti(series, given / "case_0000.nii.gz")
    out = work / "predicted" / f"{model.name}-{volume}{'-float32' if wide else ''}"
    out.mkdir(parents=True, exist_ok=True)
    theirs_s, theirs_mib, _ = measured([nnunet, __file__, "--predict", str(results), str(given), str(out),
                                          *(["--float32"] if wide else [])])  # fmt: skip
    theirs = read_nifti(out / "case.nii.gz", code)
    ours_s, ours_mib, said = measured([sys.executable, "-m", "ctpipe.cli", "infer", str(store), "--model", str(model),
                                       "--series", volume, "--json"])  # fmt: skip
    run = json.loads(said)["runs"][0]["run"]
    ours = np.asarray(ctpipe.open_store(store)[volume].labels[run].array)
    differing = theirs != ours
    return {
        "model": name, "volume": volume, "shape": list(ours.shape),
        "spacing": [round(float(mm), 3) for mm in np.linalg.norm(series.grid.affine[:3, :3], axis=0)],
        "differ_percent": 100 * float(differing.mean()), "differ": int(differing.sum()),
        "foreground_percent": 100 * float((theirs > 0).mean()),
        "nnunet_s": theirs_s, "nnunet_mib": theirs_mib, "ours_s": ours_s, "ours_mib": ours_mib,
    }  # fmt: skip


# ------------------------------------------------------------------------------- NIfTI in nnU-Net's order of training
def write_nifti(series: Any, path: Path) -> str:
    """The volume with axes to L, P, S, as the training files have them; the orientation that it has in the store."""
    import SimpleITK

    affine = series.grid.affine  # index (z, y, x) to LPS
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    image = SimpleITK.GetImageFromArray(np.asarray(series.hu).astype(np.int16))
    image.SetSpacing([float(mm) for mm in steps[::-1]])
    image.SetOrigin([float(mm) for mm in affine[:3, 3]])
    image.SetDirection((affine[:3, :3] / steps)[:, ::-1].ravel().tolist())
    code = SimpleITK.DICOMOrientImageFilter_GetOrientationFromDirectionCosines(image.GetDirection())
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(SimpleITK.DICOMOrient(image, "LPS"), path)
    return code


def read_nifti(path: Path, code: str) -> NDArray[np.integer]:
    """Labels in the store's order."""
    import SimpleITK

    return SimpleITK.GetArrayFromImage(SimpleITK.DICOMOrient(SimpleITK.ReadImage(path), code))


# ------------------------------------------------------------------------------------------ in nnU-Net's environment
def predict(results: str, given: str, out: str, *, wide: bool) -> None:
    """nnU-Net's own prediction of every file in `given`; wide: with sums in float32 instead of float16."""
    import torch
    from nnunetv2.inference import predict_from_raw_data as inference

    torch.set_num_threads(THREADS)
    if wide:
        torch.half = torch.float32  # what its sums are allocated as
        inference.compute_gaussian = lru_cache(partial(inference.compute_gaussian, dtype=torch.float32))
    cpu = torch.device("cpu")
    predictor = inference.nnUNetPredictor(device=cpu, perform_everything_on_device=False, allow_tqdm=False)
    folds = sorted(path.parent.name.removeprefix("fold_") for path in Path(results).glob("fold_*/checkpoint_final.pth"))
    predictor.initialize_from_trained_model_folder(results, tuple(folds), "checkpoint_final.pth")
    predictor.predict_from_files_sequential(given, out, save_probabilities=False, overwrite=True)


# ------------------------------------------------------------------------------------------ time and memory
def measured(command: list[str]) -> tuple[float, float, str]:
    """Seconds, MiB and stdout of a command and its children; RuntimeError with its last words where it fails."""
    import psutil

    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env=os.environ | {"nnUNet_compile": "f", "OMP_NUM_THREADS": str(THREADS)})  # fmt: skip
    peak, done = [0], threading.Event()

    def watch() -> None:
        top = psutil.Process(process.pid)
        while not done.wait(0.1):
            size = 0
            try:
                for one in (top, *top.children(recursive=True)):
                    size += one.memory_full_info().pss  # what forks share counts once
            except psutil.Error:
                continue
            peak[0] = max(peak[0], size)

    watcher = threading.Thread(target=watch)
    watcher.start()
    said, errors = process.communicate()
    done.set()
    watcher.join()
    if process.returncode:
        raise RuntimeError(f"{command[1:4]} ended with {process.returncode}: {errors[-2000:]}")
    return time.perf_counter() - began, peak[0] / 2**20, said


if __name__ == "__main__":
    sys.exit(main())
