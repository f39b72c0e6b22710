"""Corrections chosen by uncertainty beside as many chosen by lot: what a model learns from either.

python benchmarks/corrections.py [--cohort noisy|sharp|unenhanced|treated|plain] [--seeds 6] [--twin] [--jobs 2]
                                 [--folder DIR] [--png FILE] [--json]

Synthetic patients of the demo, cut to 192 mm around the liver, every second row and column of them: 48 x 64 x 64 voxels
of 3 mm, 3 to 8 lesions. A seed draws 3 patients with truth, 24 without, and 8 on whom nothing is trained or chosen. A
model learns from the 3. Then, twice: it predicts the 24 with `infer --uncertainty`; 2 of them are corrected, and a new
model learns with `train --with-reviews`. The reviewer is a script: a working copy of the prediction is painted over
with the truth and saved as a review, as the viewer does it. Two ways to choose the 2: `unsure`, of whom the last model
is least sure; `lot`, by the seed. All else is equal: recipe, seed of the training, number of steps. Scores are those of
the 8: Dice of the lesion class, mean over patients, and F1 of lesions (26-connected, any overlap) over all of them.
With --twin, how far chance in the training alone carries: the first model again, the same 3 patients, another seed.

3 of the 24 and 4 of the 8 are of a rare kind, none of the 3 with truth, and nothing tells the model which:
`noisy`, a low dose: 80 HU of fine noise more; `sharp`, another reconstruction: 40 HU. `unenhanced`, no contrast medium:
liver and lesions 45 HU darker. `treated`, lesions full of iodised oil: 260 HU brighter. In `plain` all are alike, as
the demo draws them.
Seed 0 was used to choose cohort and steps, and is not run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLASSES = {1: "liver", 2: "livertumor"}
LESION = "livertumor"
TRUTH, POOL, HELD_OUT = 3, 24, 8
PATIENTS = 40
# of the pool and of the held out, of the rare kind: names that begin with "r"
RARE_POOL, RARE_HELD_OUT = 3, 4
ROUNDS, CORRECTED = 2, 2
WAYS = ("unsure", "lot")
NOISE_HU = {"noisy": 80.0, "sharp": 40.0}
COHORTS = (*NOISE_HU, "unenhanced", "treated", "plain")
MEASURES = {"dice": "lesion Dice", "f1": "lesion F1", "dice_rare": "lesion Dice, rare kind",
            "dice_common": "lesion Dice, known kind", "liver": "liver Dice"}  # fmt: skip
SIDE = 128
AFFINE = np.array([[0, 0, 3.0, 0], [0, 3.0, 0, 0], [3.0, 0, 0, 0], [0, 0, 0, 1]])
RECIPE = {
    "name": "corrections", "network": "vgg-small", "options": {"widths": [8, 16, 32, 64]},
    "classes": ["liver", "livertumor"],
    "input": {"channels_mm": [0, 3.0], "window_hu": [-60, 200]},
    "windows": {"window": [1, 44, 44], "stride": [1, 3, 3]},
    "train": {
        "steps": 300, "epochs": 1, "batch": 16, "tile": 8, "learning_rate": 3e-3, "shift": 0.05, "gain": 0.05,
        "noise": 0.04, "flip": True, "threads": 1,
        "strata": [
            {"where": "label == 'livertumor'", "share": 0.35},
            {"where": "label == 'liver'", "share": 0.30},
            {"where": "label == 'background' and fraction_liver > 0", "share": 0.25},
            {"where": "label == 'background' and fraction_liver == 0", "share": 0.10},
        ],
    },
    "predict": {"stride": [1, 2, 2], "fill": "linear", "region": "body", "micro_batch": 64},
}  # fmt: skip


@dataclass(frozen=True)
class Draw:
    """One seed: which patients have which part."""

    folder: Path
    cohort: str
    seed: int
    truth: tuple[str, ...]
    pool: tuple[str, ...]
    held_out: tuple[str, ...]
    twin: bool  # train the first model a second time with another seed


def main() -> int:
    args = arguments()
    os.environ.setdefault("CTPIPE_KEY", str(args.folder / "key"))
    args.folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with ProcessPoolExecutor(args.jobs, get_context("spawn")) as workers:
        names = list(workers.map(made_patient, [(args.folder, number) for number in range(PATIENTS)]))
        print(f"{len(names)} patients after {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        rows = []
        draws = [drawn(args.folder, seed, names, args.cohort, args.twin) for seed in range(1, args.seeds + 1)]
        for found in workers.map(one_seed, draws):
            rows += found
            (args.folder / f"{args.cohort}.json").write_text(json.dumps(rows, indent=1), "utf-8")
            print(f"seed {found[0]['seed']} after {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    figures = summary(rows)
    show(figures)
    if args.png:
        plot(rows, args.png)
    if args.json:
        print(json.dumps(figures))
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cohort", choices=COHORTS, default=COHORTS[0])
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--twin", action="store_true", help="train the first model a second time with another seed")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("build/corrections"))
    parser.add_argument("--png", type=Path, help="where to draw the plot")
    parser.add_argument("--json", action="store_true", help="all figures as one JSON document on the last line")
    return parser.parse_args()


# ------------------------------------------------------------------------------------------------ patients
def made_patient(task: tuple[Path, int]) -> str:
    """HU and truth of one patient as a file, made once."""
    from ctpipe.demo.phantom import phantom

    folder, number = task
    path = folder / "patients" / f"{number:04d}.npz"
    if not path.is_file():
        made = phantom(5000 + number, 30.0)
        truth = made.masks["liver"].astype(np.uint8)
        for name, mask in made.masks.items():
            if name.startswith(LESION):
                truth[mask] = 2
        path.parent.mkdir(exist_ok=True)
        side = path.with_suffix(".part.npz")
        box = around(truth > 0)
        np.savez_compressed(side, hu=made.hu[:, *box], truth=truth[:, *box])
        side.rename(path)
    return f"{number:04d}"


def around(liver: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Every second of SIDE rows and columns with the liver in their middle: many patients in little time."""
    box = []
    for axis, others in ((1, (0, 2)), (2, (0, 1))):
        held = np.flatnonzero(liver.any(axis=others))
        start = int(np.clip((held[0] + held[-1] + 1 - SIDE) // 2, 0, liver.shape[axis] - SIDE))
        box.append(slice(start, start + SIDE, 2))
    return box[0], box[1]


def read_patient(folder: Path, name: str, kind: str) -> dict[str, NDArray[Any]]:
    with np.load(folder / "patients" / f"{name[1:]}.npz") as found:
        made = dict(found)
    if name.startswith("r"):
        made["hu"] = rare(kind, made["hu"], made["truth"], int(name[1:]))
    return made


def rare(kind: str, hu: NDArray[np.int16], truth: NDArray[np.uint8], number: int) -> NDArray[np.int16]:
    """HU of a patient of the rare kind of a cohort."""
    from scipy.ndimage import gaussian_filter

    if kind in NOISE_HU:
        noise = np.random.default_rng(number).standard_normal(hu.shape)
        noise = gaussian_filter(noise, (0.2, 0.5, 0.5)) - gaussian_filter(noise, (0, 1.5, 1.5))
        change = NOISE_HU[kind] / noise.std() * noise
    elif kind == "treated":
        change = 260.0 * gaussian_filter((truth == 2) * 1.0, 0.7)
    else:
        change = -45.0 * gaussian_filter((truth > 0) * 1.0, 0.7)
    return np.clip(np.rint(hu + change), -1024, 3071).astype(np.int16)


def drawn(folder: Path, seed: int, numbers: list[str], cohort: str, twin: bool = False) -> Draw:
    rare = (0, RARE_POOL, RARE_HELD_OUT) if cohort != "plain" else (0, 0, 0)
    order = [numbers[i] for i in np.random.default_rng(2000 + seed).permutation(len(numbers))]
    parts, at = [], 0
    for size, first in zip((TRUTH, POOL, HELD_OUT), rare, strict=True):
        own = order[at : at + size]
        parts.append(tuple(sorted([f"r{one}" for one in own[:first]] + [f"c{one}" for one in own[first:]])))
        at += size
    return Draw(folder, cohort, seed, *parts, twin)


def base_store(draw: Draw, root: Path) -> None:
    """A store of the patients of a seed; the pool's truth is not in it."""
    from ctpipe.store import LabelsMeta, VolumeMeta, open_store
    from ctpipe.volume import Grid
    from ctpipe.words import LabelKind

    store = open_store(root, "a")
    for name in (*draw.truth, *draw.pool, *draw.held_out):
        made = read_patient(draw.folder, name, draw.cohort)
        grid = Grid.from_affine(made["hu"].shape, AFFINE)
        write(store, store.volume_writer(VolumeMeta(name, grid, "int16", f"p-{name}", "u", "v")), made["hu"])
        if name not in draw.pool:
            meta = LabelsMeta(f"truth-{name}", LabelKind.TRUTH, grid, CLASSES)
            write(store, store.labels_writer(name, meta), made["truth"])


def write(store: Any, writer: Any, voxels: NDArray[Any]) -> None:
    with store.lease(writer.target) as lease:
        writer.prepare()
        writer.commit([writer.write_slab(slab, voxels[slab.start : slab.stop]) for slab in writer.slabs], lease)


# ------------------------------------------------------------------------------------------------ one seed
def one_seed(draw: Draw) -> list[dict[str, Any]]:
    """Rows of all ways after each round; round 0 is the same for all."""
    from distributed import Client, LocalCluster

    # one thread of this process: seeds run side by side
    with (LocalCluster(n_workers=1, threads_per_worker=1, processes=False, protocol="inproc", memory_limit=0,
                       dashboard_address="127.0.0.1:0", silence_logs=50) as cluster,
          Client(cluster, set_as_default=False) as client):  # fmt: skip
        return all_ways(draw, client)


def all_ways(draw: Draw, client: Any) -> list[dict[str, Any]]:
    from ctpipe import pipeline

    home = draw.folder / f"seed{draw.seed}"
    shutil.rmtree(home, ignore_errors=True)
    root = home / "base"
    base_store(draw, root)
    pipeline.train_model(root, recipe(draw), home / "m0", patients=patients(draw.truth), validate=[])
    unsure = pipeline.uncertainty_of(root, home / "m0", draw.pool, client)
    first = {"seed": draw.seed, "round": 0, "chosen": [], **scores(root, home / "m0", draw, client)}
    first["agreement"] = agreement(root, home / "m0", draw, unsure)
    if draw.twin:
        pipeline.train_model(root, recipe(draw, 1000), home / "twin", patients=patients(draw.truth), validate=[])
        first["twin"] = scores(root, home / "twin", draw, client)
    rows = []
    for way in WAYS:
        own = home / way
        shutil.copytree(root, own)
        rows += [{**first, "way": way}, *rounds(draw, own, home, way, dict(unsure), client)]
    shutil.rmtree(home)
    return rows


def rounds(draw: Draw, root: Path, home: Path, way: str, unsure: dict[str, float], client: Any
           ) -> list[dict[str, Any]]:
    from ctpipe import pipeline

    model, corrected, rows = home / "m0", [], []
    for number in range(1, ROUNDS + 1):
        left = sorted(set(draw.pool) - set(corrected))
        order = np.random.default_rng([draw.seed, number]).permutation(left).tolist()
        if way == "unsure":
            order = sorted(left, key=lambda name: (-unsure[name], name))
        chosen = order[:CORRECTED]
        runs = {run.series: run.run for run in pipeline.infer(root, model, chosen, client).runs}
        for name in chosen:
            review(root, name, runs[name], read_patient(draw.folder, name, draw.cohort)["truth"])
        corrected += chosen
        model = home / f"{way}{number}"
        pipeline.train_model(root, recipe(draw), model, patients=patients((*draw.truth, *corrected)), validate=[],
                             with_reviews=True)  # fmt: skip
        rows.append({"seed": draw.seed, "round": number, "way": way, "chosen": chosen,
                     **scores(root, model, draw, client)})  # fmt: skip
        if number < ROUNDS and way == "unsure":
            unsure = pipeline.uncertainty_of(root, model, sorted(set(draw.pool) - set(corrected)), client)
    return rows


def review(root: Path, series: str, run: str, truth: NDArray[np.uint8]) -> None:
    """The scripted reviewer: where the prediction is wrong, paint what is true, and save."""
    from ctpipe.review.save import save_review
    from ctpipe.review.working_copy import open_copy
    from ctpipe.store import open_store

    store = open_store(root, "a")
    copy = open_copy(root, store[series], store[series].labels[run])
    for z in range(truth.shape[0]):
        if (copy.array[z] != truth[z]).any():
            copy.array[z] = truth[z]
    save_review(store, store[series], copy)
    copy.close()


def recipe(draw: Draw, other: int = 0) -> Any:
    from ctpipe.config import recipe_from_dict

    train = {**RECIPE["train"], "seed": draw.seed + other}  # type: ignore[dict-item]
    return recipe_from_dict({**RECIPE, "train": train})


def patients(names: tuple[str, ...]) -> list[str]:
    return [f"p-{name}" for name in names]


def scores(root: Path, model: Path, draw: Draw, client: Any) -> dict[str, float]:
    """Of the held-out patients: lesion Dice (mean over patients), F1 of lesions, liver Dice."""
    from ctpipe import pipeline
    from ctpipe.scoring import evaluate_volume
    from ctpipe.store import open_store

    report = pipeline.infer(root, model, draw.held_out, client)
    if report.failed:
        raise SystemExit(f"{len(report.failed)} volume(s) failed: {next(iter(report.failed.values()))}")
    labels = {run.series: (open_store(root)[run.series].labels, run.run) for run in report.runs}
    found = [evaluate_volume(groups["truth"], groups[run]).as_json() for groups, run in labels.values()]
    lesions = [one["lesions"][LESION] for one in found]
    hit, missed = sum(one["found"] for one in lesions), sum(one["count"] - one["found"] for one in lesions)
    wrong = sum(one["false_components"] for one in lesions)
    dice = {name: float(np.mean([one["classes"][name]["dice"] or 0.0 for one in found])) for name in CLASSES.values()}
    rare = np.array([name.startswith("r") for name in labels])
    each = np.array([one["classes"][LESION]["dice"] or 0.0 for one in found])
    by_kind = {f"dice_{kind}": float(each[which].mean()) for kind, which in (("rare", rare), ("common", ~rare))
               if which.any()}  # fmt: skip
    return {"dice": dice[LESION], "f1": 2 * hit / (2 * hit + missed + wrong), "liver": dice["liver"], **by_kind}


def agreement(root: Path, model: Path, draw: Draw, unsure: dict[str, float]) -> dict[str, float]:
    """Rank correlation over the pool of uncertainty with what is wrong: lesion Dice, share of wrong voxels."""
    from scipy.stats import spearmanr

    from ctpipe.models import load_model
    from ctpipe.store import open_store

    store, digest = open_store(root), load_model(model).digest
    dice, wrong = [], []
    for name in unsure:
        truth = read_patient(draw.folder, name, draw.cohort)["truth"]
        labels = next(one for one in store[name].labels.values() if one.provenance.get("model") == digest)
        found = labels.read_planes(0, truth.shape[0])
        both = int(((found == 2) & (truth == 2)).sum())
        dice.append(2 * both / max(1, int((found == 2).sum() + (truth == 2).sum())))
        wrong.append(int((found != truth).sum()))
    values = list(unsure.values())
    return {"dice": float(spearmanr(values, dice)[0]), "wrong": float(spearmanr(values, wrong)[0])}


# ------------------------------------------------------------------------------------------------ figures
def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Means and standard deviations over seeds, and the paired difference of `unsure` and `lot`."""
    out: dict[str, float] = {}
    seeds = sorted({row["seed"] for row in rows})
    measures = [name for name in MEASURES if name in rows[0]]
    for measure in measures:
        by = {(row["way"], row["round"], row["seed"]): row[measure] for row in rows}
        for way in WAYS:
            for number in range(ROUNDS + 1):
                values = [by[way, number, seed] for seed in seeds]
                out[f"{measure}_{way}_{number}"] = round(float(np.mean(values)), 4)
                out[f"{measure}_{way}_{number}_sd"] = round(spread(values), 4)
        for number in range(1, ROUNDS + 1):
            gain = np.array([by["unsure", number, seed] - by["lot", number, seed] for seed in seeds])
            out[f"{measure}_gain_{number}"] = round(float(gain.mean()), 4)
            out[f"{measure}_gain_{number}_sd"] = round(spread(gain), 4)
            out[f"{measure}_better_{number}"] = int((gain > 0).sum())
    for way in WAYS:
        picked = [sum(name.startswith("r") for name in row["chosen"]) for row in rows if row["way"] == way]
        out[f"rare_chosen_{way}"] = round(sum(picked) / len(seeds), 2)
    for measure in measures if "twin" in rows[0] else []:
        apart = [row[measure] - row["twin"][measure] for row in rows if row["round"] == 0 and row["way"] == WAYS[0]]
        out[f"{measure}_twin_sd"] = round(float(np.sqrt(np.mean(np.square(apart)) / 2)), 4)
    for name in ("dice", "wrong"):
        values = [row["agreement"][name] for row in rows if row["round"] == 0 and row["way"] == WAYS[0]]
        out[f"rank_correlation_{name}"] = round(float(np.mean(values)), 3)
    return out


def spread(values: Any) -> float:
    """Standard deviation of a sample; 0 of a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def show(figures: dict[str, float]) -> None:
    for measure, title in MEASURES.items():
        if f"{measure}_lot_0" not in figures:
            continue
        print(f"{title:24} {'round 0':>16} {'round 1':>16} {'round 2':>16}")
        for way in WAYS:
            cells = [f"{figures[f'{measure}_{way}_{n}']:.3f} +- {figures[f'{measure}_{way}_{n}_sd']:.3f}"
                     for n in range(ROUNDS + 1)]  # fmt: skip
            print(f"{way:24} " + " ".join(f"{cell:>16}" for cell in cells))
        gains = [f"{figures[f'{measure}_gain_{n}']:+.3f} +- {figures[f'{measure}_gain_{n}_sd']:.3f}, better in "
                 f"{figures[f'{measure}_better_{n}']:.0f} seeds" for n in range(1, ROUNDS + 1)]  # fmt: skip
        print(f"unsure - lot, paired: {'; '.join(gains)}")
        if f"{measure}_twin_sd" in figures:
            print(f"of the same patients, by the seed of the training alone: +- {figures[f'{measure}_twin_sd']:.3f}")
    rare = [figures[f"rare_chosen_{way}"] for way in WAYS]
    print(f"of {ROUNDS * CORRECTED} corrected, of the rare kind: by uncertainty {rare[0]:.2f}, by lot {rare[1]:.2f}")
    print(f"rank correlation of uncertainty over the {POOL}: with lesion Dice {figures['rank_correlation_dice']:+.2f}, "
          f"with voxels wrong {figures['rank_correlation_wrong']:+.2f}")


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    colours = {"unsure": "C3", "lot": "0.45"}
    words = {"unsure": "those it is least sure of", "lot": "by lot"}
    measures = [name for name in list(MEASURES)[:4] if name in rows[0]]
    for axis, measure in zip(figure.subplots(1, len(measures)), measures, strict=True):
        for shift, way in zip((-0.04, 0.04), WAYS, strict=True):
            values = np.array([[row[measure] for row in rows if (row["way"], row["round"]) == (way, n)]
                               for n in range(ROUNDS + 1)])  # fmt: skip
            at = np.arange(ROUNDS + 1) + shift
            axis.plot(np.repeat(at[:, None], values.shape[1], 1), values, ".", color=colours[way], alpha=0.35)
            axis.plot(at, values.mean(1), "-o", color=colours[way], label=words[way])
        axis.set(xlabel=f"rounds of {CORRECTED} corrected patients", ylabel=MEASURES[measure],
                 title="patients never seen", xticks=range(ROUNDS + 1), ylim=(0, 1))  # fmt: skip
        axis.legend(title="corrected", fontsize="small", title_fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    raise SystemExit(main())
