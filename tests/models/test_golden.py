"""RELIABILITY I6: a process that computes wrong scores says so before it computes a volume."""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch.nn import functional as F  # noqa: N812

from ctpipe.errors import RunError
from ctpipe.models import golden
from ctpipe.words import Device


@pytest.fixture(autouse=True)
def _looked_at_anew():
    golden.require_golden.cache_clear()
    yield
    golden.require_golden.cache_clear()


def whole(shape: tuple[int, ...], most: int) -> np.ndarray:
    return golden.pattern(shape, -most, most).astype(np.int64)


def convolved(x: np.ndarray, weights: np.ndarray, step: int = 1, pad: int = 0) -> np.ndarray:
    """Whole numbers (n, channels, *space) by (outputs, channels, *kernel)."""
    axes = weights.ndim - 2
    x = np.pad(x, [(0, 0), (0, 0)] + [(pad, pad)] * axes)
    seen = sliding_window_view(x, weights.shape[2:], axis=tuple(range(2, x.ndim)))
    seen = seen[(slice(None), slice(None), *[slice(None, None, step)] * axes)]
    taps = (1, *range(2 + axes, 2 + 2 * axes))
    return np.moveaxis(np.tensordot(seen, weights, (taps, (1, *range(2, 2 + axes)))), -1, 1)


def oracle() -> np.ndarray:
    """The golden scores in whole numbers, without torch."""
    x = np.maximum(convolved(whole((2, 1, 40, 44), 8), whole((16, 1, 3, 3), 2)), 0)
    x = x.reshape(2, 16, 19, 2, 21, 2).max((3, 5))
    x = np.clip(convolved(x, whole((8, 16, 3, 3), 1)), 0, golden.HIGHEST)
    first = convolved(x, whole((4, 8, 17, 19), 1))
    x = np.maximum(convolved(whole((1, 2, 20, 24, 28), 8), whole((16, 2, 3, 3, 3), 1), pad=1), 0)
    down = np.clip(convolved(x, whole((16, 16, 3, 3, 3), 1), step=2, pad=1), 0, golden.HIGHEST)
    up = np.einsum("nczyx,codfg->nozdyfxg", down, whole((16, 8, 2, 2, 2), 1)).reshape(1, 8, 20, 24, 28)
    second = convolved(np.concatenate([x, up], 1), whole((4, 24, 1, 1, 1), 2))
    return np.concatenate([first.ravel(), second.ravel()])


def test_the_digest_is_that_of_whole_numbers() -> None:
    scores = oracle()
    assert np.abs(scores).max() < 1 << 24
    assert len(np.unique(scores)) > 1000  # not a case that anything would give
    assert sha256(scores.astype("<i4").tobytes()).hexdigest() == golden.DIGEST


@pytest.mark.parametrize("threads", [1, 2])
def test_torch_gives_it_with_any_number_of_threads(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert np.array_equal(golden.golden_scores(Device.CPU), oracle())
        golden.require_golden(Device.CPU)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("layer", ["conv2d", "conv3d", "conv_transpose3d", "max_pool2d"])
def test_one_wrong_value_is_found(monkeypatch: pytest.MonkeyPatch, layer: str) -> None:
    right = getattr(F, layer)

    def wrong(x: torch.Tensor, *rest: object, **more: object) -> torch.Tensor:
        found = right(x, *rest, **more)
        found.view(-1)[len(found.view(-1)) // 2] += 1
        return found

    monkeypatch.setattr(F, layer, wrong)
    with pytest.raises(RunError, match="wrong scores"):
        golden.require_golden(Device.CPU)
