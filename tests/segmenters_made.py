"""Small segmenters of random weights, volumes in memory, and the whole-volume evaluation that streams must equal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from ctpipe.models import Normalisation, Segmenter, SegmenterSpec, SegmentPlan, WeightFile
from ctpipe.models.segmenter_networks import ModuleScorer, unet_of
from ctpipe.pipeline.slab_stream import SlabStream
from ctpipe.predict import Facts, merge_facts, needs_facts, slab_facts
from ctpipe.volume import Grid, Slab, slabs_of

NNUNET: dict[str, Any] = {"windows": "nnunet", "weight": "gaussian-middle"}
TURNS = {"as in DICOM": (1, 1, 1), "feet first": (-1, 1, -1), "rows reversed": (1, -1, 1)}


class Volume:
    """HU in memory, read as a store's series is."""

    id = "in memory"

    def __init__(self, hu: NDArray[Any]) -> None:
        self.hu = hu

    def read_planes(self, start: int, stop: int, level: int = 0) -> NDArray[Any]:
        return self.hu[start:stop]


def volume_of(shape: Sequence[int], seed: int = 0) -> NDArray[np.int16]:
    """Noise over a gradient: no plane is like another, no HU range is missed."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices(shape)
    return (rng.integers(-250, 350, shape) + 2 * z + 3 * y - x).astype(np.int16)


def grid_of(shape: Sequence[int], spacing: Sequence[float] = (2.0, 1.0, 1.0), signs: Sequence[int] = (1, 1, 1)) -> Grid:
    """z to S, y to P, x to L where the signs are 1."""
    affine = np.eye(4)
    for axis, (step, sign) in enumerate(zip(spacing, signs, strict=True)):
        affine[:3, axis] = 0
        affine[2 - axis, axis] = step * sign
    return Grid.from_affine(shape, affine)


def segmenter(patch: Sequence[int] = (6, 12, 16), classes: Sequence[str] = ("liver", "lesion"), folds: int = 1,
              **values: Any) -> Segmenter:
    """A U-Net of random weights; a patch of one plane makes it 2-D."""
    flat = patch[0] == 1
    deep = {"dims": 3, "kernels": [[1, 3, 3], [3, 3, 3]], "strides": [[1, 1, 1], [1, 2, 2]]}
    options = {"dims": 2, "kernels": [[3, 3]] * 2, "strides": [[1, 1], [2, 2]]} if flat else deep
    spec = SegmenterSpec(
        network="plain-conv-unet", options={**options, "features": [4, 6], "blocks": [1, 1], "decoder": [1]},
        **{"outputs": 1 + len(classes), "classes": tuple(classes), "axes": "SPL", "patch": tuple(patch), "threads": 1,
           "normalise": Normalisation(low=-200, high=300, mean=20, std=90), "micro_batch": 1,
           "folds": tuple(WeightFile(file=f"fold-{n}.safetensors", sha256="0" * 64) for n in range(folds))} | values,
    )  # fmt: skip
    torch.manual_seed(7)
    networks = [ModuleScorer(unet_of(spec)) for _ in range(folds)]
    files = tuple(replace(file, sha256=sha256(network.as_bytes()).hexdigest())
                  for file, network in zip(spec.folds, networks, strict=True))  # fmt: skip
    return Segmenter(replace(spec, folds=files), networks)


def facts_of(model: Segmenter, hu: NDArray[Any], grid: Grid) -> Facts | None:
    if not needs_facts(model.spec, grid):
        return None
    parts = [slab_facts(hu[slab.start : slab.stop], slab.start, model.spec) for slab in slabs_of(len(hu))]
    return merge_facts(parts, model.spec, grid)


def streamed(model: Segmenter, hu: NDArray[Any], grid: Grid, groups: Sequence[Sequence[Slab]] = ()) -> NDArray[Any]:
    """Labels of a volume; groups: slabs that are one stream each, all of them in one unless told."""
    facts = facts_of(model, hu, grid)
    plan = SegmentPlan.of(model.spec, grid, facts.box if facts else None)
    out = []
    for group in groups or [slabs_of(len(hu))]:
        stream = SlabStream(model, plan, Volume(hu), facts)
        out += [labels for _, labels in stream.labels(group, hu.shape)]
    return np.concatenate(out)


def whole(model: Segmenter, hu: NDArray[Any], grid: Grid, axes: tuple[int, ...] = (0, 1, 2),
          flips: tuple[int, ...] = ()) -> NDArray[np.float64]:
    """Mean scores (heads, z, y, x) as nnU-Net has them: whole arrays, float64, scipy's zoom, no slabs.

    axes, flips: how (z, y, x) becomes the network's array, written out by the test.
    """
    spec = model.spec
    how = spec.normalise
    values = np.clip(hu.astype(np.float32), how.low, how.high)
    values = (values - np.float32(how.mean)) / np.float32(how.std)
    values = np.flip(values.transpose(axes), flips)
    spacing = [grid.spacing_mm[axis] for axis in axes]
    wanted = [mm or here for mm, here in zip(spec.spacing_mm or spacing, spacing, strict=True)]
    shape = [round(old / new * n) for old, new, n in zip(spacing, wanted, values.shape, strict=True)]
    grown = zoomed(values.astype(np.float64), shape, spec.resample_in.order)
    if shape != list(values.shape) and spec.resample_in.order == 3:
        grown = grown.clip(values.min(), values.max())
    room = [max(0, side - n) for side, n in zip(spec.patch, shape, strict=True)]
    padded = np.pad(grown.astype(np.float32), [(r // 2, r - r // 2) for r in room])
    scores = np.zeros((spec.outputs, *padded.shape))
    total = np.zeros(padded.shape)
    weight = gaussian(model)
    for corner in np.ndindex(*(len(starts_along(n, p, model)) for n, p in zip(padded.shape, spec.patch, strict=True))):
        first = [starts_along(n, p, model)[i] for n, p, i in zip(padded.shape, spec.patch, corner, strict=True)]
        cut = tuple(slice(at, at + side) for at, side in zip(first, spec.patch, strict=True))
        scores[(slice(None), *cut)] += model.scores(padded[cut][None]).scores[0] * weight
        total[cut] += weight
    scores /= total
    inside = tuple(slice(r // 2, r // 2 + n) for r, n in zip(room, shape, strict=True))
    scores = np.stack([zoomed(head[inside], values.shape, 1) for head in scores])
    unflipped = np.flip(scores, [axis + 1 for axis in flips])
    return unflipped.transpose(0, *(1 + axes.index(axis) for axis in range(3)))


def zoomed(values: NDArray[np.float64], shape: Sequence[int], order: int) -> NDArray[np.float64]:
    if list(values.shape) == list(shape):
        return values
    factors = [m / n for n, m in zip(values.shape, shape, strict=True)]
    return ndimage.zoom(values, factors, order=order, mode="nearest", grid_mode=True)


def gaussian(model: Segmenter) -> NDArray[np.float64]:
    """A window's weights; MODELS 3: sigma patch / 8."""
    weight = np.ones(model.spec.patch)
    for axis, side in enumerate(model.spec.patch):
        if side == 1 or model.spec.weight == "constant":
            continue
        middle = side // 2 if model.spec.weight == "gaussian-middle" else (side - 1) / 2
        along = np.exp(-0.5 * ((np.arange(side) - middle) / (side / 8)) ** 2)
        weight = weight * along.reshape([-1 if a == axis else 1 for a in range(3)])
    return np.maximum(weight, 0.001) if model.spec.weight == "gaussian-floor" else weight


def starts_along(n: int, side: int, model: Segmenter) -> list[int]:
    if side == 1:
        return list(range(n))
    if model.spec.windows == "nnunet":
        count = int(np.ceil((n - side) / (side * model.spec.step))) + 1
        return [int(np.round((n - side) / max(1, count - 1) * i)) for i in range(count)]
    step = max(1, int(side * model.spec.step))
    return sorted({min(at, n - side) for at in range(0, n, step)})


def differing(labels: NDArray[Any], scores: NDArray[np.float64], margin: float = 1e-4) -> int:
    """Voxels whose label is not that of the highest score, where the second is further than `margin` away."""
    ordered = np.sort(scores, axis=0)
    return int(((labels != scores.argmax(0)) & (ordered[-1] - ordered[-2] > margin)).sum())
