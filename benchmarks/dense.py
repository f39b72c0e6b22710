"""Classifiers over one plane: every window by itself beside the exact dense form, for several networks and strides.

python benchmarks/dense.py [--networks 44 block3 block4 257] [--strides 1 4 7 8 16] [--side 512] [--threads 2] [--json]

Networks: `vgg-small` (44), VGG16 without padding cut after block 3 (block3, window 44) and block 4 (block4, window
100), and the shipped `vgg16` (257). Both ways are the product's own: `Model.scores` in fixed micro-batches and
`Model.dense_scores` in bands. The windows are those that lie inside the plane. Seconds of the windows are extrapolated
from one micro-batch of them; the dense pass is timed whole. Memory is the highest resident size of the row's own
process after the dense pass: imports and weights are in it. `cpu faster` compares CPU seconds, which others on the
machine disturb less. `differ` is the highest difference of a probability between
both ways over that micro-batch.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

NETWORKS = {"44": ("vgg-small", 44), "block3": ("vgg16-block3", 44), "block4": ("vgg16-block4", 100),
            "257": ("vgg16", 257)}  # fmt: skip
STRIDES = (1, 4, 7, 8, 16)
BATCH = 16
# seconds of a pass that is not repeated
LONG = 20.0


def main() -> int:
    args = arguments()
    if args.row:
        print(json.dumps(row(*args.row.split(":"), args.side, args.threads)))
        return 0
    found: dict[str, float] = {}
    print(f"a plane of {args.side} x {args.side}, {args.threads} thread(s), float32; windows one by one extrapolated "
          f"from {BATCH}")  # fmt: skip
    print(f"{'network':8} {'stride':>6} {'windows':>8} {'one by one s':>12} {'dense s':>8} {'faster':>7} "
          f"{'cpu faster':>10} {'work ratio':>10} {'GFLOP/s':>8} {'MiB':>6} {'differ':>8}")  # fmt: skip
    for name in args.networks:
        for stride in args.strides:
            got = child(name, stride, args)
            print(f"{name:8} {stride:6} {got['windows']:8} {got['one_by_one']:12.1f} {got['dense']:8.2f} "
                  f"{got['faster']:7.1f} {got['cpu']:10.1f} {got['work']:10.1f} {got['gflops']:8.0f} {got['mib']:6.0f} "
                  f"{got['differ']:8.1e}", flush=True)  # fmt: skip
            found[f"dense_speedup_{name}_{stride}"] = round(got["faster"], 2)
            found[f"dense_cpu_speedup_{name}_{stride}"] = round(got["cpu"], 2)
            found[f"dense_work_ratio_{name}_{stride}"] = round(got["work"], 2)
            found[f"dense_mib_{name}_{stride}"] = round(got["mib"])
    if args.json:
        print(json.dumps(found))
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--strides", nargs="+", type=int, default=list(STRIDES))
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="all figures as one JSON document on the last line")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    return parser.parse_args()


def child(name: str, stride: int, args: argparse.Namespace) -> dict[str, Any]:
    """One row in a process of its own, so that its memory is its own."""
    command = [sys.executable, __file__, "--row", f"{name}:{stride}", "--side", str(args.side), "--threads",
               str(args.threads)]  # fmt: skip
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def row(name: str, stride_word: str, side: int, threads: int) -> dict[str, Any]:
    stride = int(stride_word)
    model = made(name, stride, threads)
    form = model.dense((stride, stride))
    pixels = np.random.default_rng(1).normal(size=(1, side, side)).astype(np.float32)
    ny, nx = form.windows((side, side))
    height, width = form.space((ny, nx))
    dense, dense_cpu, scores = timed(lambda: model.dense_scores(form, pixels[:, :height, :width]))
    mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    at = np.random.default_rng(2).integers(0, (ny, nx), (BATCH, 2))
    window = model.spec.window.y
    batch = np.stack([pixels[:, y : y + window, x : x + window] for y, x in (at * stride).tolist()])
    model.scores(batch)  # the first pass chooses kernels
    once, once_cpu, expected = timed(lambda: model.scores(batch))
    if dense < LONG:  # in turn with the other way: what else the machine does meets both
        again, again_cpu, _ = timed(lambda: model.dense_scores(form, pixels[:, :height, :width]))
        dense, dense_cpu = min(dense, again), min(dense_cpu, again_cpu)
        again, again_cpu, _ = timed(lambda: model.scores(batch))
        once, once_cpu = min(once, again), min(once_cpu, again_cpu)
    one_by_one = once / BATCH * ny * nx
    return {
        "windows": ny * nx, "one_by_one": one_by_one, "dense": dense, "faster": one_by_one / dense,
        "cpu": once_cpu / BATCH * ny * nx / dense_cpu,
        "work": form.window_work * ny * nx / form.work((ny, nx)), "gflops": 2e-9 * form.work((ny, nx)) / dense,
        "mib": mib, "differ": float(np.abs(scores[at[:, 0], at[:, 1]] - expected).max()),
    }  # fmt: skip


def timed(work: Callable[[], Any], short: float = 3.0) -> tuple[float, float, Any]:
    """Seconds, CPU seconds and result; the better of two where one takes less than `short` seconds."""
    began, cpu = time.perf_counter(), time.process_time()
    result = work()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    if seconds < short:
        again, _, _ = timed(work, 0.0)
        seconds = min(seconds, again)
    return seconds, cpu, result


def made(name: str, stride: int, threads: int) -> Any:
    """A Model with random weights."""
    import torch

    from ctpipe.config import recipe_from_dict
    from ctpipe.models import Model, build_network

    network, window = NETWORKS[name]
    register_cuts()
    recipe = recipe_from_dict({
        "name": name, "network": network, "windows": {"window": [1, window, window], "stride": [1, stride, stride]},
        "train": {"steps": 1, "epochs": 1, "batch": 1},
        "predict": {"stride": [1, stride, stride], "micro_batch": BATCH, "threads": threads},
    })  # fmt: skip
    torch.manual_seed(0)
    return Model.of(recipe, ("liver", "lesion"), build_network(network, 1, 3, recipe.windows.window, {}))


def register_cuts() -> None:
    """VGG16 after blocks 3 and 4, with a head like the shipped one's."""
    from torch import nn

    from ctpipe.models import register
    from ctpipe.models.networks import VGG16_BODY, left_of

    def cut(blocks: int) -> Callable[..., nn.Module]:
        ends = [i for i, layer in enumerate(VGG16_BODY) if layer == "P"]
        plan = VGG16_BODY[: ends[blocks - 1] + 1]

        def build(channels: int, n_classes: int, window: Any, options: dict[str, Any]) -> nn.Module:
            layers: list[nn.Module] = []
            for layer in plan:
                if isinstance(layer, int):
                    convolution = nn.Conv2d(channels, layer, 3)
                    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
                    layers += [convolution, nn.ReLU()]
                    channels = layer
                else:
                    layers.append(nn.MaxPool2d(2))
            left = left_of(window.y, plan), left_of(window.x, plan)
            return nn.Sequential(*layers, nn.Conv2d(channels, 512, left), nn.ReLU(), nn.Conv2d(512, n_classes, 1))

        return build

    register("vgg16-block3")(cut(3))
    register("vgg16-block4")(cut(4))


if __name__ == "__main__":
    raise SystemExit(main())
