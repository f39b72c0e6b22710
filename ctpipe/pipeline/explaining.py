"""Explain: why a voxel has its label. Its windows are scored again, by the code that the run used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ctpipe import reduce
from ctpipe.errors import NotThereError, RunError, UsageError
from ctpipe.models import Model, load_classifier, load_spec
from ctpipe.models.spec import ModelSpec
from ctpipe.patches import PlaneReader
from ctpipe.pipeline.centres import centres_for, input_level
from ctpipe.pipeline.explanations import BeforeRun, Explanation, WindowScores, sop_instance
from ctpipe.pipeline.keys import run_key
from ctpipe.pipeline.segment_explaining import explain_segment
from ctpipe.predict import SCORE_SCALE, score_centres
from ctpipe.store import Labels, Series, Store, open_store
from ctpipe.words import ZYX, Device, LabelKind


def explain(
    store: str | Path | Store, series: str, voxel: Sequence[int], run: str | None = None
) -> Explanation:
    """Why `voxel` (z, y, x) of a series has its label in `run` (a key or its beginning; None: the only run there is).

    Its windows are scored again. Raises UsageError for a voxel outside, several runs or labels that no model made;
    NotThereError where the run or its model is not there; RunError where the label comes out otherwise than stored.
    """
    opened = store if isinstance(store, Store) else open_store(store)
    one = opened[series]
    at = _voxel(voxel, one)
    labels = _labels(one, run)
    folder = _model_folder(opened, labels.provenance["model"])
    if not isinstance(load_spec(folder), ModelSpec):
        return explain_segment(one, at, labels, folder)
    model, device = _made_by(folder, one, labels)
    return _explain(one, at, labels, model, device)


def _explain(series: Series, at: ZYX, labels: Labels, model: Model, device: Device) -> Explanation:
    level = input_level(series, model)
    coarse = ZYX(*(v // f for v, f in zip(at, level.factors, strict=True)))
    reference, before = labels.provenance["reference_hu"], labels.provenance["before"]
    predict, window = model.recipe.predict, model.recipe.windows.window
    planes, mask = centres_for(model, series, before, coarse.z, coarse.z + 1)
    # whole planes, as the run had them: which code scores a plane follows from all its centres
    scores = score_centres(model, PlaneReader(series, model.recipe.input, reference), planes, mask)
    found = int(reduce.label_planes(scores, planes, predict.stride, predict.fill, coarse.z, coarse.z + 1,
                                    level.grid.shape)[0, coarse.y, coarse.x])  # fmt: skip
    stored = int(labels.read_planes(at.z, at.z + 1)[0, at.y, at.x])
    if found != stored:
        raise RunError(f"voxel {tuple(at)} of series {series.id} is labelled {stored} in run {labels.name}, and its "
                       f"windows give {found} here", "explain it with the versions that the run's record names")
    centres = reduce.deciding_centres(coarse, predict.stride, predict.fill, level.grid.shape)
    total = sum(weight for _, weight in centres)
    names = ("background", *model.spec.classes)
    windows = []
    for centre, weight in centres:
        place = planes.index(centre.z), centre.y // predict.stride.y, centre.x // predict.stride.x
        start = ZYX(*(c - w // 2 for c, w in zip(centre, window, strict=True)))
        stop = ZYX(*(s + w for s, w in zip(start, window, strict=True)))
        values = {name: int(score) / SCORE_SCALE for name, score in zip(names, scores[place], strict=True)}
        evaluated = mask is None or bool(mask[place])
        windows.append(WindowScores(centre, start, stop, weight / total, evaluated, values))
    affine = series.grid.affine
    return Explanation(
        series=series.id, voxel=at, lps_mm=tuple(float(mm) for mm in (affine @ (*at, 1))[:3]),
        hu=float(series.read_planes(at.z, at.z + 1)[0, at.y, at.x]), label=stored, label_name=names[stored],
        run=labels.name, model=model.digest, recipe=model.recipe.name, device=str(device),
        sop_instance=sop_instance(series, at.z), level=level.number, factors=level.factors,
        windows=tuple(windows), before=_before(series, at, before, reference),
    )  # fmt: skip


def _voxel(voxel: Sequence[int], series: Series) -> ZYX:
    shape = series.grid.shape
    if len(voxel) != 3 or not all(0 <= v < n for v, n in zip(voxel, shape, strict=True)):
        raise UsageError(f"voxel {tuple(voxel)} does not lie in series {series.id}",
                         f"give z y x below {' '.join(map(str, shape))}")
    return ZYX(*map(int, voxel))


def _labels(series: Series, run: str | None) -> Labels:
    """The labels of `run`, which a model must have made."""
    if run is None:
        made = [name for name, labels in series.labels.items() if labels.kind is LabelKind.PREDICTION]
        if len(made) != 1:
            raise UsageError(f"series {series.id} has {len(made)} runs", f"name one with --run: {', '.join(made)}"
                             if made else "make one with ctpipe infer")  # fmt: skip
        run = made[0]
    labels = series.labels[run]
    parent = labels.provenance.get("parent")
    if parent:
        raise UsageError(f"{labels.name} was made of run {parent} by post-processing, not by windows",
                         f"explain that one: --run {parent}")
    if labels.kind is not LabelKind.PREDICTION or "model" not in labels.provenance:
        raise UsageError(f"{labels.name} of series {series.id} was made by no model", "name a run of ctpipe infer")
    return labels


def _made_by(folder: Path, series: Series, labels: Labels) -> tuple[Model, Device]:
    """The classifier that made the labels, with the sizes it had, and the device it ran on, as the run's key tells."""
    model: Model | None = load_classifier(folder)
    while model is not None:
        for device in Device:
            if run_key(series, model, device, labels.provenance["before"]) == labels.name:
                return model, device
        smaller = model.sizes.half()
        model = model.sized(smaller) if smaller else None
    raise RunError(f"run {labels.name} was made by another version of ctpipe, or on another kind of processor",
                   "explain it there, or run ctpipe infer again here")


def _model_folder(store: Store, digest: str) -> Path:
    """Where the model of that digest lies in the store, by itself or as the one that runs before another."""
    kept = store.root / "models"
    for folder in [kept / digest, *sorted(kept.glob("**/before"))]:
        if (folder / "model.json").is_file() and load_spec(folder).digest() == digest:
            return folder
    raise NotThereError(f"the store has no model {digest}", "run ctpipe infer with it again, which keeps it there")


def _before(series: Series, at: ZYX, run: str | None, reference: float | None) -> BeforeRun | None:
    if run is None:
        return None
    labels = series.labels[run]
    label = int(labels.read_planes(at.z, at.z + 1)[0, at.y, at.x])
    return BeforeRun(run, label, labels.classes.get(label, "background"), reference)

