"""What it costs to score a volume with a classifier, as arithmetic: multiply-adds, and bytes held at once."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ctpipe.errors import BudgetError
from ctpipe.models import Model
from ctpipe.predict.dense import exact_form, worth_it
from ctpipe.predict.windows import CUT_BYTES, FEATURE_BYTES

if TYPE_CHECKING:
    import torch

    from ctpipe.models.dense import DenseForm, Size


def window_work(model: Model) -> int:
    """Multiply-adds of one window by itself."""
    form = exact_form(model)
    return form.window_work if form else _traced(model)[0]


def plane_work(model: Model, asked: NDArray[np.bool_], one: int) -> int:
    """Multiply-adds of one lattice plane whose centres `asked` (ny, nx) are evaluated; one: `window_work`."""
    form = exact_form(model)
    box = worth_it(form, asked) if form else None
    if form and box:
        return form.work(tuple(side.stop - side.start for side in box))
    return int(np.count_nonzero(asked)) * one


def scoring_bytes(model: Model, shape: tuple[int, int, int], planes: int) -> int:
    """Upper estimate of what `score_centres` holds at once over `planes` lattice planes of a level of `shape`.

    The scores of all planes; a group of planes as HU, features, their smoothing and padding; and the larger of a dense
    pass and a group of windows with their activations.
    """
    recipe, (depth, height, width) = model.recipe, shape
    stride, window = recipe.predict.stride, recipe.windows.window
    lattice = -(-height // stride.y), -(-width // stride.x)
    classes, channels = 1 + len(model.spec.classes), len(recipe.input.channels_mm)
    held = planes * prod(lattice) * classes * 4
    plane = height * width
    group = max(1, min(planes * stride.z + window.z - 1, FEATURE_BYTES // (channels * plane * 4), depth))
    padded = (height + window.y - 1) * (width + window.x - 1) * channels * 4
    smoothed = 2 if any(recipe.input.channels_mm) else 0
    features = group * (plane * (2 + 4 * (1 + channels + smoothed)) + padded)
    form = exact_form(model)
    dense = _dense_bytes(model, form, lattice) + 3 * prod(lattice) * classes * 4 + 2 * padded if form else 0
    batch = model.sizes.micro_batch * (model.spec.channels * window.y * window.x * 8 + _traced(model)[1] * 4)
    windows = batch + CUT_BYTES if not form or recipe.predict.region != "all" else batch
    return held + features + max(dense, windows)


def _dense_bytes(model: Model, form: DenseForm, windows: Size) -> int:
    """What the bands of one plane hold, as `Model.dense_scores` cuts them."""
    from ctpipe.models.bands import plan_bands

    try:
        return plan_bands(form, windows, model.sizes.band_bytes).bytes
    except BudgetError:  # in columns, each within the budget
        return model.sizes.band_bytes


def _traced(model: Model) -> tuple[int, int]:
    """(multiply-adds, values of the two largest neighbouring maps) of one window, found by one pass over zeros."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    sizes = [0]
    hooks = [module.register_forward_hook(lambda _, given, output: sizes.append(output.numel()))
             for module in model.network.modules() if not list(module.children())]  # fmt: skip
    shape = (1, model.spec.channels, model.spec.window.y, model.spec.window.x)
    pixels: torch.Tensor = torch.zeros(shape)
    try:
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            model.network(pixels)
    finally:
        for hook in hooks:
            hook.remove()
    return counter.get_total_flops() // 2, max(a + b for a, b in zip([pixels.numel(), *sizes], sizes, strict=False))
