"""Explain a segmenter's label: the windows over a voxel are scored again, by the stream that the run used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctpipe.errors import RunError
from ctpipe.models import Segmenter, SegmentPlan
from ctpipe.models.segment_plan import Window
from ctpipe.models.shares import WindowShares
from ctpipe.pipeline.explanations import Explanation, WindowScores, sop_instance
from ctpipe.pipeline.keys import segment_key
from ctpipe.pipeline.loaded import segmenter_of
from ctpipe.predict import Facts, merge_facts, needs_facts, score_windows, slab_facts
from ctpipe.reduce import ScoreBand
from ctpipe.store import Labels, Series
from ctpipe.volume import slabs_of
from ctpipe.words import ZYX, Device


def explain_segment(series: Series, at: ZYX, labels: Labels, folder: Path) -> Explanation:
    """Why voxel `at` has its label in a segmenter's run; RunError where the label comes out otherwise than stored."""
    model = segmenter_of(str(folder))
    if segment_key(series, model.digest, Device.CPU) != labels.name:
        raise RunError(f"run {labels.name} was made by another version of ctpipe, or on another kind of processor",
                       "explain it there, or run ctpipe infer again here")
    facts = _facts(series, model)
    plan = SegmentPlan.of(model.spec, series.grid, facts.box if facts else None)
    stored = int(labels.read_planes(at.z, at.z + 1)[0, at.y, at.x])
    place = [v - first for v, (first, _) in zip(at, plan.box, strict=True)]
    inside = all(0 <= v < n for v, n in zip(place, plan.sizes, strict=True))
    found, windows = _windows(series, model, plan, facts, ZYX(*place)) if inside else (0, ())
    if found != stored:
        raise RunError(f"voxel {tuple(at)} of series {series.id} is labelled {stored} in run {labels.name}, and its "
                       f"windows give {found} here", "explain it with the versions that the run's record names")
    return Explanation(
        series=series.id, voxel=at, lps_mm=tuple(float(mm) for mm in series.grid.to_lps(at)),
        hu=float(series.read_planes(at.z, at.z + 1)[0, at.y, at.x]), label=stored,
        label_name=("background", *model.spec.classes)[stored], run=labels.name, model=model.digest,
        recipe=model.spec.network, device=str(Device.CPU), sop_instance=sop_instance(series, at.z), level=0,
        factors=ZYX(1, 1, 1), windows=windows, before=None,
    )  # fmt: skip


def _facts(series: Series, model: Segmenter) -> Facts | None:
    if not needs_facts(model.spec, series.grid):
        return None
    parts = [slab_facts(series.read_planes(slab.start, slab.stop), slab.start, model.spec)
             for slab in slabs_of(series.grid.shape.z)]  # fmt: skip
    return merge_facts(parts, model.spec, series.grid)


def _windows(series: Series, model: Segmenter, plan: SegmentPlan, facts: Facts | None,
             at: ZYX) -> tuple[int, tuple[WindowScores, ...]]:
    """The label of a voxel of the box, and the windows that touch a network voxel which it is made of."""
    spec = model.spec
    reach = [along.reach(v, v + 1) for along, v in zip(plan.outward, at, strict=True)]
    nearest = [int(along.first[v] + np.argmax(along.weights[v])) for along, v in zip(plan.outward, at, strict=True)]

    def touches(window: Window) -> bool:
        corner = _corner(window, plan)
        return all(c < stop and c + p > first for c, p, (first, stop) in zip(corner, plan.patch, reach, strict=True))

    band = ScoreBand(spec, plan, at.z, at.z + 1)
    shares = WindowShares(spec, plan)
    told, label = [], None
    for scored in score_windows(model, plan, series, facts, *reach[0], touches):
        band.add(scored.window, scored.scores)
        corner = _corner(scored.window, plan)
        offset = [n - c for n, c in zip(nearest, corner, strict=True)]
        if all(0 <= o < p for o, p in zip(offset, plan.patch, strict=True)):
            z, y, x = offset
            share = float(shares.block(scored.window)[z, y, x])
            told.append(_told(model, plan, corner, share, scored.scores[:, z, y, x]))
    for decided in band.finish():
        label = int(decided.labels[at.y, at.x])
    assert label is not None  # all windows of its plane's voxels were added
    return label, tuple(told)


def _told(model: Segmenter, plan: SegmentPlan, corner: ZYX, share: float, scores: NDArray[np.float32]) -> WindowScores:
    spec = model.spec
    if spec.regions:
        names = tuple(f"{spec.classes[label - 1]} (head {head})" for head, label in enumerate(spec.regions))
    else:
        names = ("background", *spec.classes)
    likely = scores.astype(np.float64)
    if spec.blend == "logits" and not spec.softmax_inside:
        raised = np.exp(likely - likely.max())
        likely = 1 / (1 + np.exp(-likely)) if spec.regions else raised / raised.sum()
    stop = ZYX(*(c + p for c, p in zip(corner, plan.patch, strict=True)))
    centre = ZYX(*(c + p // 2 for c, p in zip(corner, plan.patch, strict=True)))
    return WindowScores(centre, corner, stop, share, True, dict(zip(names, likely.tolist(), strict=True)))


def _corner(window: Window, plan: SegmentPlan) -> ZYX:
    """First voxel of a window on the network grid."""
    return ZYX(*(start - below for start, below in zip(window.start, plan.below, strict=True)))
