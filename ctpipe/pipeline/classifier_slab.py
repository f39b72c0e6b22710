"""One slab of a classifier's run, in a worker: planes and halo -> scores at the window centres -> labels -> shards.

Of the last slabs of a heavy classifier (`tail`) only the scores of some lattice planes, which go back and are joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ctpipe import reduce
from ctpipe.models import Model, Sizes
from ctpipe.patches import PlaneReader
from ctpipe.pipeline.centres import input_level, lattice_planes, mask_of
from ctpipe.pipeline.doubting import Doubts
from ctpipe.pipeline.layering import SlabLayers, layers_done
from ctpipe.pipeline.loaded import model_of
from ctpipe.predict import SCORE_SCALE, score_centres
from ctpipe.predict import doubts as doubts_of
from ctpipe.store import GroupWriter, Series, SlabRecord, open_store
from ctpipe.volume import Slab
from ctpipe.words import Device


@dataclass(frozen=True)
class PredictTask:
    """One slab of one run: small values only; a worker reads the store and writes the store."""

    store: str
    series: str
    model: str
    sizes: Sizes
    writer: GroupWriter
    slab: Slab
    reference_hu: float | None
    before: str | None  # label group of the earlier run
    device: Device
    doubt: bool = False  # tell how unsure the model is of its centres
    layers: tuple[GroupWriter, ...] = ()  # of the run, to be written too
    part: tuple[int, int] | None = None  # of its lattice planes, of which `score_part` gives the scores
    given: Scores | None = field(default=None, compare=False)  # of all of them, found before


@dataclass(frozen=True, eq=False)
class Scores:
    """int32 (lattice planes, ny, nx, 1 + classes) of 1 / SCORE_SCALE; windows: centres that were evaluated."""

    values: NDArray[np.int32]
    windows: int


@dataclass(frozen=True)
class SlabOutcome:
    """What a task gives back. windows: centres evaluated; found: the slab lay there whole already.

    doubts: of `predict.doubts`, where they were asked for and the slab was computed. layers: a record of each layer.
    """

    record: SlabRecord
    windows: int
    found: bool
    doubts: NDArray[np.int64] | None = None
    layers: tuple[SlabRecord, ...] = ()


def joined(parts: Sequence[Scores | None]) -> Scores | None:
    """The scores of a slab; None where one part saw that it lies there already."""
    there = [part for part in parts if part is not None]
    if len(there) < len(parts):
        return None
    return Scores(np.concatenate([part.values for part in there]), sum(part.windows for part in there))


def predict_slab(task: PredictTask) -> SlabOutcome:
    """Predict and write one slab and its layers, unless they already lie there whole."""
    done, layered = task.writer.done(task.slab), layers_done(task.layers, task.slab)
    if done is not None and layered is not None:
        return SlabOutcome(done, 0, found=True, layers=layered)
    model = model_of(task.model, task.device).sized(task.sizes)
    series = open_store(task.store)[task.series]
    scored = _scored(model, series, task)
    record = done or task.writer.write_slab(task.slab, _slab_labels(model, series, task.slab, scored))
    layered = _write_layers(model, series, task, scored) if layered is None else layered
    return SlabOutcome(record, scored.windows, done is not None, _doubts(scored) if task.doubt else None, layered)


def slab_or_part(task: PredictTask) -> SlabOutcome | Scores | None:
    """`score_part` for a part, `predict_slab` for a slab: both are tasks of one wave, so that nobody waits between."""
    return predict_slab(task) if task.part is None else score_part(task)


def score_part(task: PredictTask) -> Scores | None:
    """Scores of a part of a slab's lattice planes; None where the slab and its layers lie there whole."""
    assert task.part is not None
    if task.writer.done(task.slab) is not None and layers_done(task.layers, task.slab) is not None:
        return None
    model = model_of(task.model, task.device).sized(task.sizes)
    series = open_store(task.store)[task.series]
    return _scores(model, series, task, lattice_planes(model, series, task.slab)[slice(*task.part)])


def doubt_slab(task: PredictTask) -> Doubts:
    """How unsure the model is of one slab, whose labels lie there already: scored again, nothing written."""
    model = model_of(task.model, task.device).sized(task.sizes)
    return {task.slab.index: _doubts(_scored(model, open_store(task.store)[task.series], task))}


@dataclass(frozen=True, eq=False)
class _Scored:
    """Scores at lattice planes that decide planes band.start..band.stop-1 of the input level; windows: evaluated."""

    scores: NDArray[np.int32]
    windows: int
    planes: list[int]
    band: Slab


def _scored(model: Model, series: Series, task: PredictTask) -> _Scored:
    planes = lattice_planes(model, series, task.slab)
    found = task.given or _scores(model, series, task, planes)
    return _Scored(found.values, found.windows, planes, input_level(series, model).slab(task.slab))


def _scores(model: Model, series: Series, task: PredictTask, planes: list[int]) -> Scores:
    mask = mask_of(model, series, task.before, planes)
    reader = PlaneReader(series, model.recipe.input, task.reference_hu)
    scores = score_centres(model, reader, planes, mask)
    return Scores(scores, int(np.prod(scores.shape[:-1])) if mask is None else int(mask.sum()))


def _slab_labels(model: Model, series: Series, slab: Slab, scored: _Scored) -> NDArray[np.uint8]:
    """Labels (planes, y, x) of one slab of level 0."""
    level, predict = input_level(series, model), model.recipe.predict
    coarse = reduce.label_planes(scored.scores, scored.planes, predict.stride, predict.fill, scored.band.start,
                                 scored.band.stop, level.grid.shape)  # fmt: skip
    return reduce.refine(coarse, level.factors, (slab.planes, series.grid.shape.y, series.grid.shape.x))


def _write_layers(model: Model, series: Series, task: PredictTask, scored: _Scored) -> tuple[SlabRecord, ...]:
    """Write the layers of one slab: its probabilities lie on the labels' grid by the same fill as the labels."""
    level, predict = input_level(series, model), model.recipe.predict
    planes = reduce.share_planes(scored.scores, scored.planes, predict.stride, predict.fill, scored.band.start,
                                 scored.band.stop, level.grid.shape, SCORE_SCALE)  # fmt: skip
    with SlabLayers(task.layers, model) as layers:
        layers.begin(task.slab)
        for n, likely in enumerate(planes):
            start = task.slab.start + n * level.factors.z
            made = [reduce.refine(plane[None], level.factors, (1, *series.grid.shape[1:]))[0]
                    for plane in layers.planes(likely, None)]  # fmt: skip
            layers.put_made(task.slab, start, min(start + level.factors.z, task.slab.stop), made)
        return layers.write(task.slab)


def _doubts(scored: _Scored) -> NDArray[np.int64]:
    """Doubts of the lattice planes inside the slab: those beyond it, which neighbours need too, count there."""
    own = np.array([scored.band.start <= plane < scored.band.stop for plane in scored.planes], bool)
    return doubts_of(scored.scores[own])
