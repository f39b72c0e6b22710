"""How unsure a model is of a volume: counts of its slabs' tasks come to one number, noted in the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ctpipe.pipeline.reports import Run
from ctpipe.pipeline.waves import Wave, Work
from ctpipe.predict import mean_doubt
from ctpipe.store import Store
from ctpipe.volume import Slab

# {number of a slab: counts of `predict.doubts` over it}
Doubts = Mapping[int, NDArray[np.int64]]


def noted(
    store: Store, run: Run, model: str, slabs: Sequence[Slab], doubts: Doubts, wave_of: Callable[[list[Slab]], Wave]
) -> Work[Run]:
    """The run with its uncertainty, which is noted under the model's digest.

    doubts: of the slabs that were computed just now. The others, which lay there already, are scored again by
    `wave_of(slabs)`, whose tasks give Doubts and write nothing; a known run whose uncertainty is known costs nothing.
    """
    known = store.uncertainty(model).get(run.series) if run.known else None
    if known is not None:
        return replace(run, uncertainty=known)
    lacking = [slab for slab in slabs if slab.index not in doubts]
    again: list[Doubts] = (yield wave_of(lacking)) if lacking else []
    value = mean_doubt(np.sum([counts for part in (doubts, *again) for counts in part.values()], axis=0))
    store.note_uncertainty(model, {run.series: value})
    return replace(run, uncertainty=value)
