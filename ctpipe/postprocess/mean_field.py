"""A mean-field CRF on labels and HU, ours, in torch, the same bytes whatever the slabs.

The energy is that of Krähenbühl and Koltun (NIPS 2011), with a kernel that is cut to a small window instead of a
lattice over the whole image, so that a slab needs only `ITERATIONS` times the window's half on both sides::

    unary     -log of CONFIDENCE for the label that a voxel has, of the rest in equal parts for the others
    pairwise  Potts, weight STRENGTH times the mean over the window of exp(-d2 / 2 mm2 - dHU2 / 2 hu2)
    update    Q <- softmax(-unary + STRENGTH * mean of the neighbours' Q), ITERATIONS times at once for all voxels

Kernel weights and Q are whole numbers (2^-10 and 2^-12), so their sums are exact in any order; each new Q depends on
sums of its own voxel alone. Voxels of classes that do not take part neither change nor count as neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ctpipe.postprocess.bands import Band, Box, Metric, grown

if TYPE_CHECKING:
    import torch

ITERATIONS = 5
CONFIDENCE = 0.7
STRENGTH = 5.0
HALF_WINDOW = (1, 3, 3)  # voxels z, y, x: a window of 3 x 7 x 7
_WEIGHT_ONE, _Q_ONE = 1 << 10, 1 << 12  # 146 neighbours * 2^22 stays below 2^31
# A slab is refined in columns of so many rows and columns, each with its halo: what is iterated over stays small, and
# columns without any of the classes cost nothing.
TILE = 96
_LARGEST_STEP_HU = 4096  # HU that differ by more count as differing by so much


def halo() -> tuple[int, int, int]:
    """Voxels z, y, x around a voxel that can change its label."""
    z, y, x = (ITERATIONS * n for n in HALF_WINDOW)
    return z, y, x


def refine(band: Band, hu: NDArray, values: Sequence[int], mm: float, hu_sigma: float, metric: Metric) -> NDArray:
    """Labels (own planes, y, x) of the slab after the CRF among `values` and background.

    hu: HU (planes of the band, y, x); fractions are rounded. mm, hu_sigma: standard deviations of the kernel.
    The band must hold `halo()[0]` planes on both sides of the slab.
    """
    out = band.slab.copy()
    concerned = np.isin(band.labels, values)
    classes, kernel, steps = (0, *sorted(set(values))), _kernel(mm, metric), _steps(hu_sigma)
    _, rows, columns = band.labels.shape
    for y in range(0, rows, TILE):
        for x in range(0, columns, TILE):
            tile = (slice(band.below, band.below + band.own), slice(y, min(y + TILE, rows)),
                    slice(x, min(x + TILE, columns)))  # fmt: skip
            source = grown(tile, halo(), band.labels.shape)
            if concerned[source].any():  # elsewhere all is background, and stays so
                inner = tuple(slice(t.start - s.start, t.stop - s.start) for t, s in zip(tile, source, strict=True))
                out[:, tile[1], tile[2]] = _refined(band.labels[source], hu[source], classes, kernel, steps)[inner]
    return out


def _refined(labels: NDArray, hu: NDArray, classes: Sequence[int], kernel: list[tuple[tuple[int, int, int], int]],
             steps: torch.Tensor) -> NDArray:
    """Labels of a tile and its halo; right in the tile itself."""
    import torch

    grey = torch.from_numpy(np.rint(hu).astype(np.int32))
    q = _mean_field(labels, grey, classes, kernel, steps).numpy()
    winner, most = _own_q(q, labels, classes)
    for number, label in enumerate(classes):
        better = q[number] > most
        winner[better] = label
        np.maximum(most, q[number], out=most)
    return np.where(np.isin(labels, classes), winner, labels)


def _mean_field(labels: NDArray, grey: torch.Tensor, classes: Sequence[int],
                kernel: list[tuple[tuple[int, int, int], int]], steps: torch.Tensor) -> torch.Tensor:
    """Q after all iterations, (classes, z, y, x) int32, in 2^-12; 0 where a voxel takes no part.

    The kernel is symmetric: each pair of voxels is weighed once, before the iterations. The background's Q is what the
    other classes leave.
    """
    import torch

    live = torch.from_numpy(np.isin(labels, classes)).to(torch.int32)
    given = torch.from_numpy(np.stack([labels == label for label in classes]))
    sure, rest = np.log(CONFIDENCE), np.log((1 - CONFIDENCE) / (len(classes) - 1))
    total = torch.zeros(labels.shape, dtype=torch.int32)
    pairs = []
    for here, there, weight in _neighbours(labels.shape, kernel):
        away = (grey[here] - grey[there]).abs_().clamp_(max=_LARGEST_STEP_HU)
        pair = (steps * weight // _WEIGHT_ONE).to(torch.int16)[away]
        total[here] += pair * live[there]
        total[there] += pair * live[here]
        pairs.append((here, there, pair))
    q = given.to(torch.int32) * _Q_ONE
    for _ in range(ITERATIONS):
        sums = torch.zeros_like(q)
        for number in range(1, len(classes)):
            for here, there, pair in pairs:
                sums[number][here] += pair * q[number][there]
                sums[number][there] += pair * q[number][here]
        sums[0] = total * _Q_ONE - sums[1:].sum(dim=0, dtype=torch.int32)
        _update(q, sums, total, given, sure, rest)
        q[0] = _Q_ONE - q[1:].sum(dim=0, dtype=torch.int32)
        q *= live
    return q


def _update(q: torch.Tensor, sums: torch.Tensor, total: torch.Tensor, given: torch.Tensor, sure: float,
            rest: float) -> None:
    """The next Q, plane by plane: the only step in floating point, voxel by voxel, rounded to 2^-12 at once."""
    import torch

    for z in range(q.shape[1]):
        mean = sums[:, z].double() / (total[z].double().clamp(min=1) * _Q_ONE)
        score = torch.where(given[:, z], sure, rest) + STRENGTH * mean
        score = (score - score.amax(dim=0)).exp()
        q[:, z] = (score / score.sum(dim=0) * _Q_ONE).round().to(torch.int32)


def _neighbours(shape: Sequence[int], kernel: list[tuple[tuple[int, int, int], int]]) -> Iterator[tuple[Box, Box, int]]:
    """For each offset: the voxels that have such a neighbour, those neighbours, and the weight."""
    for offset, weight in kernel:
        if all(abs(n) < length for n, length in zip(offset, shape, strict=True)):
            here = tuple(slice(max(0, -n), length - max(0, n)) for n, length in zip(offset, shape, strict=True))
            there = tuple(slice(max(0, n), length - max(0, -n)) for n, length in zip(offset, shape, strict=True))
            yield here, there, weight  # type: ignore[misc]


def _kernel(mm: float, metric: Metric) -> list[tuple[tuple[int, int, int], int]]:
    """Offsets of one half of the window, which the other mirrors, and weights, in 2^-10; those without any left out."""
    found = []
    for offset in product(*(range(-n, n + 1) for n in HALF_WINDOW)):
        distance = float(np.linalg.norm(metric.matrix @ np.asarray(offset)))
        weight = round(float(np.exp(-(distance**2) / (2 * mm**2))) * _WEIGHT_ONE)
        if weight and offset > (0, 0, 0):
            found.append(((offset[0], offset[1], offset[2]), weight))
    return found


def _steps(sigma: float) -> torch.Tensor:
    """Weight of each difference in HU, 0 to 4096, in 2^-10."""
    import torch

    weights = np.exp(-(np.arange(_LARGEST_STEP_HU + 1.0) ** 2) / (2 * sigma**2))
    return torch.from_numpy(np.rint(weights * _WEIGHT_ONE).astype(np.int32))


def _own_q(q: NDArray, labels: NDArray, classes: Sequence[int]) -> tuple[NDArray, NDArray]:
    """Each voxel's own label and its Q: of equals the label stays."""
    most = np.zeros(labels.shape, np.int32)
    for number, label in enumerate(classes):
        np.copyto(most, q[number], where=labels == label)
    return labels.copy(), most
