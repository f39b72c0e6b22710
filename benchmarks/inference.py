"""Inference beside its peers: exact dense evaluation, MONAI's sliding windows, nnU-Net's predictor and export.

python benchmarks/inference.py [--parts dense monai nnunet whole flat] [--nnunet build/nnunet-venv/bin/python] [--json]

(a) dense: classifiers in their exact dense form against window by window (benchmarks/dense.py, whose rows are taken;
    window by window is extrapolated from one micro-batch). speed-up >= 0.9 x the ratio of multiply-adds is asked for.
(b) monai: the same U-Net, roi, overlap and volume (512 x 512 x 300), 3 and 20 classes; both hold the volume in memory.
(c) nnunet: the same network, plans and volume (512 x 512 x 100), 3 and 10 classes; its environment is made by
    benchmarks/nnunet-venv.sh. rest: all but the forward passes; export: logits to labels.
(d) whole: `ctpipe infer` from store to committed labels against the plain forward passes of the same batches.
(e) flat: peak memory of our stream over 100 to 800 planes, 3 and 30 classes, the median of --repeats runs, since
    reading, passes and reducing run beside each other and meet at other moments each time; --plot FILE draws it.

Each way runs in a process of its own, peers and ours in turn. MiB: highest resident size. Ratios are ours over theirs,
speed-ups theirs over ours; `efficiency` is forward passes over the whole run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from dense import NETWORKS
from dense import child as dense_row

PARTS = ("dense", "monai", "nnunet", "whole", "flat")
# rows that stand under a name of their own
KEYS = {("block3", 1): "speedup_block3_1", ("block4", 8): "speedup_block4_8", ("257", 8): "speedup_257_8",
        ("257", 7): "speedup_257_7"}  # fmt: skip
FLAT_PLANES, FLAT_CLASSES = (100, 200, 400, 800), (3, 30)


def main() -> int:
    args = arguments()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as out:
        os.environ["OUT"] = out
        for part in args.parts:
            figures |= {"dense": dense, "monai": monai, "nnunet": nnunet, "whole": whole, "flat": flat}[part](args)
    if args.json:
        print(json.dumps({name: round(value, 4) for name, value in figures.items()}))
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS), help="of dense")
    parser.add_argument("--strides", nargs="+", type=int, default=[1, 4, 7, 8, 16], help="of dense")
    parser.add_argument("--side", type=int, default=512, help="of dense: pixels of the plane")
    parser.add_argument("--threads", type=int, default=2, help="of dense")
    parser.add_argument("--planes", type=int, default=300, help="of monai")
    parser.add_argument("--nnunet", default="build/nnunet-venv/bin/python", help="Python that has nnunetv2")
    parser.add_argument("--repeats", type=int, default=3, help="of flat")
    parser.add_argument("--plot", metavar="FILE", help="of flat")
    parser.add_argument("--json", action="store_true", help="all figures as one JSON document on the last line")
    return parser.parse_args()


def way(name: str, classes: int, planes: int, python: str = sys.executable) -> dict[str, Any]:
    """One way in a process of its own."""
    here = Path(__file__).parent
    found = os.pathsep.join([str(here.parent), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    done = subprocess.run([python, str(here / "_segment_ways.py"), name, str(classes), str(planes)], text=True,
                          capture_output=True, env={**os.environ, "PYTHONPATH": found}, check=False)  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{name} with {classes} classes ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def dense(args: argparse.Namespace) -> dict[str, float]:
    """(a)."""
    print(f"\n(a) a plane of {args.side} x {args.side}, windows one by one extrapolated from one micro-batch\n"
          f"{'network':8} {'stride':>6} {'windows':>8} {'one by one s':>12} {'dense s':>8} {'speed-up':>8} "
          f"{'work ratio':>10} {'of it':>6} {'MiB':>6}")  # fmt: skip
    figures = {}
    for name in args.networks:
        for stride in args.strides:
            got = dense_row(name, stride, args)
            print(f"{name:8} {stride:6} {got['windows']:8} {got['one_by_one']:12.1f} {got['dense']:8.2f} "
                  f"{got['faster']:8.1f} {got['work']:10.1f} {got['faster'] / got['work']:6.2f} {got['mib']:6.0f}",
                  flush=True)  # fmt: skip
            key = KEYS.get((name, stride), f"dense_{name}_{stride}")
            figures |= {key: got["faster"], f"work_{name}_{stride}": got["work"], f"mib_{name}_{stride}": got["mib"]}
    return figures


def monai(args: argparse.Namespace) -> dict[str, float]:
    """(b)."""
    print(f"\n(b) MONAI's sliding_window_inference, 512 x 512 x {args.planes}, roi 96^3, overlap 0.5, Gaussian, "
          f"U-Net (8, 16, 32, 64)\n{'classes':>7} {'':6} {'all s':>7} {'net s':>7} {'around s':>8} {'MiB':>6} "
          f"{'labels that differ':>18}")  # fmt: skip
    figures = {}
    for classes in (3, 20):
        theirs, ours = way("monai", classes, args.planes), way("monai-ours", classes, args.planes)
        for name, got in (("MONAI", theirs), ("ctpipe", ours)):
            print(f"{classes:7} {name:6} {got['wall']:7.1f} {got['net']:7.1f} {got['wall'] - got['net']:8.2f} "
                  f"{got['mib']:6.0f} {got.get('differ', 0):18.1e}", flush=True)  # fmt: skip
        around = (ours["wall"] - ours["net"]) / (theirs["wall"] - theirs["net"])
        figures |= {f"monai_time_{classes}": ours["wall"] / theirs["wall"], f"monai_stitch_{classes}": around,
                    f"monai_rss_{classes}": ours["mib"] / theirs["mib"], f"monai_differ_{classes}": ours["differ"]}
    return {**figures, "monai_time": max(figures["monai_time_3"], figures["monai_time_20"])}


def nnunet(args: argparse.Namespace) -> dict[str, float]:
    """(c)."""
    if not Path(args.nnunet).exists():
        print(f"\n(c) left out: no {args.nnunet}; make it with benchmarks/nnunet-venv.sh")
        return {}
    print(f"\n(c) nnU-Net 2.8.1, 512 x 512 x 100 at 2.5 x 0.78 x 0.78 mm, network at 2.5 x 1 x 1 mm\n{'classes':>7} "
          f"{'':7} {'all s':>7} {'net s':>7} {'rest s':>7} {'export s':>8} {'MiB':>6} {'grown MiB':>9}")  # fmt: skip
    figures = {}
    for classes in (3, 10):
        theirs, ours = way("nnunet", classes, 100, args.nnunet), way("nnunet-ours", classes, 100)
        for name, got in (("nnU-Net", theirs), ("ctpipe", ours)):
            print(f"{classes:7} {name:7} {got['wall']:7.1f} {got['net']:7.1f} {got['wall'] - got['net']:7.2f} "
                  f"{got['export']:8.2f} {got['mib']:6.0f} {got['mib'] - got['loaded_mib']:9.0f}",
                  flush=True)  # fmt: skip
        grown = [got["mib"] - got["loaded_mib"] for got in (ours, theirs)]
        figures |= {
            f"nnunet_rest_{classes}": (ours["wall"] - ours["net"]) / (theirs["wall"] - theirs["net"]),
            f"nnunet_export_{classes}": ours["export"] / theirs["export"],
            f"nnunet_rss_{classes}": grown[0] / grown[1],
            f"nnunet_time_{classes}": ours["wall"] / theirs["wall"],
        }
    return {**figures, "nnunet_rest": figures["nnunet_rest_10"], "nnunet_export": figures["nnunet_export_10"]}


def whole(args: argparse.Namespace) -> dict[str, float]:
    """(d)."""
    print(f"\n(d) `ctpipe infer` over 100 planes, store to labels, against plain forward passes\n{'network':24} "
          f"{'windows':>8} {'passes s':>8} {'all s':>7} {'passes / all':>12}")  # fmt: skip
    figures = {}
    for name in ("whole-unet", "whole-vgg16"):
        got = way(name, 3, 100)
        figures[name.replace("whole-", "efficiency_")] = got["net"] / got["wall"]
        print(f"{name:24} {got['windows']:8} {got['net']:8.1f} {got['wall']:7.1f} {got['net'] / got['wall']:12.2f}",
              flush=True)  # fmt: skip
    return {**figures, "efficiency": min(figures.values())}


def flat(args: argparse.Namespace) -> dict[str, float]:
    """(e)."""
    print(f"\n(e) our stream, planes of 512 x 512, windows 32 x 256 x 256: peak MiB, the median of {args.repeats}\n"
          f"{'classes':>7} " + " ".join(f"{n:>7}" for n in FLAT_PLANES) + " planes, lowest and highest")
    found = {}
    for classes in FLAT_CLASSES:
        each = [[way("flat", classes, n)["mib"] for n in FLAT_PLANES] for _ in range(args.repeats)]
        found[classes] = [median(mibs) for mibs in zip(*each, strict=True)]
        ends = " ".join(f"{min(mibs):.0f}-{max(mibs):.0f}" for mibs in zip(*each, strict=True))
        print(f"{classes:7} " + " ".join(f"{mib:7.0f}" for mib in found[classes]) + f"   {ends}", flush=True)
    if args.plot:
        draw(found, args.plot)
    return {f"flat_{classes}": mibs[-1] / mibs[0] for classes, mibs in found.items()}


def draw(found: dict[int, list[float]], path: str) -> None:
    """Peak memory over planes, a line for each number of classes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.add_subplot()
    for classes, mibs in found.items():
        axes.plot(FLAT_PLANES, mibs, marker="o", label=f"{classes} classes")
    axes.set(xlabel="planes of 512 x 512", ylabel="peak resident MiB", ylim=(0, None))
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    raise SystemExit(main())
