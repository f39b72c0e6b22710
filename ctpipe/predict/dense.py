"""Whole planes at once: which of them a model evaluates in its exact dense form, and their scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ctpipe.errors import UsageError
from ctpipe.models import Model
from ctpipe.patches import PaddedPlanes

if TYPE_CHECKING:
    from ctpipe.models.dense import DenseForm

# rows and columns of a lattice plane: the box of the centres that are asked for
Box = tuple[slice, slice]


def exact_form(model: Model) -> DenseForm | None:
    """The dense form of `model` at the stride it predicts with; None where some layer has none."""
    from ctpipe.models.dense import NotExact

    stride = model.recipe.predict.stride
    form = model.dense((stride.y, stride.x))
    return None if isinstance(form, NotExact) else form


def require_exact(model: Model) -> None:
    """UsageError that names every layer of `model`, or of a model before it, that has no exact dense form."""
    for each in _line_of(model):
        stride = each.recipe.predict.stride
        if exact_form(each) is None:
            raise UsageError(f"{each.recipe.name} has no exact dense form: {each.dense((stride.y, stride.x))}",
                             "let it be evaluated window by window (exact = auto)")


def notes(model: Model) -> list[str]:
    """What is worth knowing before a long run: layers without a dense form, strides that cost more than finer ones."""
    from ctpipe.models.strides import advise

    told = []
    for each in _line_of(model):
        stride, window = each.recipe.predict.stride, each.spec.window
        if exact_form(each) is None:
            told.append(f"{each.recipe.name} runs window by window: {each.dense((stride.y, stride.x))}")
        advice = advise(each.network, each.spec.channels, (window.y, window.x), (stride.y, stride.x))
        if advice:
            told.append(f"{each.recipe.name}: {advice}")
    return told


def worth_it(form: DenseForm, asked: NDArray[np.bool_]) -> Box | None:
    """The box of the asked centres (ny, nx) of one plane, where one pass over it costs less than their windows.

    It depends on this plane alone, so that scores do not depend on which planes are evaluated together.
    """
    rows, columns = np.flatnonzero(asked.any(1)), np.flatnonzero(asked.any(0))
    if not len(rows):
        return None
    box = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    size = tuple(side.stop - side.start for side in box)
    return box if form.work(size) <= np.count_nonzero(asked) * form.window_work else None


def score_box(model: Model, form: DenseForm, padded: PaddedPlanes, z: int, box: Box) -> NDArray[np.float32]:
    """Probabilities (ny, nx, 1 + classes) at the centres of `box` on plane `z` of `padded`."""
    size = form.space(tuple(side.stop - side.start for side in box))
    first = [side.start * stride for side, stride in zip(box, form.stride, strict=True)]
    pixels = padded.cut([z], [first[0]], [first[1]], (size[0], size[1]))
    return model.dense_scores(form, pixels[0])


def _line_of(model: Model) -> list[Model]:
    """The model and those that run before it, the first to run first."""
    return [*(_line_of(model.before) if model.before else []), model]
