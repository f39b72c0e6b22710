"""The CRF against two that are not ours: the dense mean field in float64 as a matrix, and pydensecrf's lattice.

What is comparable. Krähenbühl and Koltun's model (NIPS 2011) joins all pairs of voxels; ours cuts the kernel to a
window of 3 x 7 x 7. With a window that reaches as far as the kernel the two are one model: same unary, Potts, sums
divided by the sum of weights. Two things stay apart: pydensecrf counts a voxel as its own neighbour and filters on a
permutohedral lattice, an approximation. Its results therefore differ from the exact dense mean field as well, by more
than ours do, and it is held to few labels and a small mean difference only.

pydensecrf2 comes as source that needs a compiler and minutes, so it is no dependency of the tests: where somebody
installed it (`pip install pydensecrf2`) it is asked.
"""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ctpipe.postprocess import mean_field as mf
from ctpipe.postprocess.bands import Metric

CLASSES = (0, 1, 2)
MM, HU = 2.5, 30.0
# 3.2 sigmas to each side: the Gaussian has no more to give beyond, and 288 neighbours still fit into the int32 sums
WHOLE_KERNEL = (0, 8, 8)


@pytest.fixture(scope="module")
def plane() -> tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.uint8]]:
    """(labels, HU, truth) of a plane: a ball with a lesion, labels shifted and with 5 % of them at random."""
    rng = np.random.default_rng(5)
    _, y, x = np.indices((1, 48, 56))
    ball, lesion = (y - 24) ** 2 + (x - 28) ** 2 < 14**2, (y - 20) ** 2 + (x - 30) ** 2 < 5**2
    truth = np.where(lesion, 2, np.where(ball, 1, 0)).astype(np.uint8)
    hu = np.rint(np.array([0, 120, 60])[truth] + rng.normal(0, 12, truth.shape)).astype(np.int32)
    labels = np.roll(truth, (2, -1), (1, 2)).copy()
    wrong = rng.random(labels.shape) < 0.05
    labels[wrong] = rng.integers(0, 3, int(wrong.sum()))
    return labels, hu, truth


def ours(labels: NDArray[np.uint8], hu: NDArray[np.int32], half_window: tuple[int, int, int]) -> NDArray[np.float64]:
    """Q (classes, voxels) after all iterations."""
    metric = Metric(((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)))
    with mock.patch.object(mf, "HALF_WINDOW", half_window):
        kernel = mf._kernel(MM, metric)
        q = mf._mean_field(labels, torch.from_numpy(hu), CLASSES, kernel, mf._steps(HU))
    return q.numpy().reshape(3, -1) / mf._Q_ONE


def unary(labels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """-log of CONFIDENCE for a voxel's label, of the rest in equal parts for the others; (classes, voxels)."""
    own = labels.ravel() == np.array(CLASSES)[:, None]
    return np.where(own, -np.log(mf.CONFIDENCE), -np.log((1 - mf.CONFIDENCE) / 2))


def features(hu: NDArray[np.int32]) -> NDArray[np.float64]:
    """(features, voxels) whose squared distance is twice the exponent of the kernel."""
    return np.concatenate([np.indices(hu.shape).reshape(3, -1)[1:] / MM, hu.reshape(1, -1) / HU])


def dense(labels: NDArray[np.uint8], hu: NDArray[np.int32]) -> NDArray[np.float64]:
    """The mean field with all pairs of voxels in one matrix, float64, no voxel its own neighbour."""
    at = features(hu).T
    kernel = np.exp(-((at[:, None] - at[None]) ** 2).sum(-1) / 2)
    np.fill_diagonal(kernel, 0)
    kernel /= kernel.sum(1, keepdims=True)
    q = (labels.ravel() == np.array(CLASSES)[:, None]).astype(float)
    for _ in range(mf.ITERATIONS):
        score = mf.STRENGTH * q @ kernel.T - unary(labels)
        q = np.exp(score - score.max(0))
        q /= q.sum(0)
    return q


def test_with_a_window_as_wide_as_its_kernel_it_is_the_dense_mean_field(plane) -> None:
    """Whole numbers of 2^-10 and 2^-12 and the cut at 3.2 sigmas cost no label."""
    labels, hu, truth = plane
    expected, found = dense(labels, hu), ours(labels, hu, WHOLE_KERNEL)
    assert np.abs(found - expected).max() < 0.03
    assert np.abs(found - expected).mean() < 5e-4
    assert (found.argmax(0) == expected.argmax(0)).all()
    assert (found.argmax(0) != truth.ravel()).sum() < 0.2 * (labels != truth).sum()  # it had something to do


def test_the_window_that_we_ship_gives_the_dense_labels_but_for_one_in_a_hundred(plane) -> None:
    labels, hu, _ = plane
    found = ours(labels, hu, mf.HALF_WINDOW).argmax(0)
    assert (found != dense(labels, hu).argmax(0)).mean() < 0.015


def test_pydensecrf_gives_nearly_our_labels(plane) -> None:
    crf = pytest.importorskip("pydensecrf.densecrf", reason="pydensecrf2 has no wheel, and takes a compiler to install")
    labels, hu, _ = plane
    model = crf.DenseCRF(labels.size, len(CLASSES))
    model.setUnaryEnergy(np.ascontiguousarray(unary(labels), np.float32))
    model.addPairwiseEnergy(np.ascontiguousarray(features(hu), np.float32), compat=mf.STRENGTH,
                            kernel=crf.CONST_KERNEL, normalization=crf.NORMALIZE_AFTER)  # fmt: skip
    theirs, found = np.array(model.inference(mf.ITERATIONS)), ours(labels, hu, WHOLE_KERNEL)
    assert (theirs.argmax(0) != found.argmax(0)).mean() < 0.003
    assert np.abs(theirs - found).mean() < 0.002
