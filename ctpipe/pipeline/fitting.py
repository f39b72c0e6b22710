"""Train: truth labels or reviews -> patch tables -> a model, and before it the model that its recipe names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from distributed import Client

from ctpipe import training
from ctpipe.config import Recipe, load_recipe
from ctpipe.errors import NotThereError, UsageError
from ctpipe.models import Model
from ctpipe.patches import PatchTable, PlaneReader, label_names, patch_table
from ctpipe.pipeline import organ
from ctpipe.pipeline.reports import TrainReport
from ctpipe.store import Labels, Series, Store, open_store
from ctpipe.words import LabelKind, Progress, Source


def train(
    source: PatchTable | str | Path | Store,
    recipe: str | Path | Recipe = "demo",
    *,
    patients: Sequence[str] | None = None,
    validate: Sequence[str] | None = None,
    labels: str = "truth",
    with_reviews: bool = False,
    client: Client | None = None,
    progress: Progress = None,
    curves: str | Path | None = None,
) -> Model:
    """The best model of `recipe` on the labelled volumes of `source`.

    source: a store, or a patch table over one (its series and patients are then used; its windows must be the
        recipe's). patients: pseudonyms to use, all by default. validate: those that choose the best epoch; by default
        one patient, picked by digest so that the choice does not depend on order or number of workers; an empty list:
        nobody, and the last epoch is taken.
    with_reviews: the newest review of a volume counts as its truth, also where it has no other, and rows that a
        reviewer changed are drawn more often (`ctpipe.patches.CORRECTED`). The model names the reviews, so that its
        digest follows from them. Of a table its own rows say so: build it with source="best".
    curves: where to draw the training curve (PNG); the curve of a model that runs before lies beside it.
    Raises NotThereError where labels, classes, patients or, with_reviews, reviews are missing; UsageError with fewer
    than two patients, or where a review does not know a class of the recipe.
    """
    settings = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    if isinstance(source, PatchTable):
        store = _store_of(source)
        wanted = [store[name] for name in source.series]
    else:
        store = source if isinstance(source, Store) else open_store(source)
        wanted = list(store.values())
    if with_reviews and isinstance(source, PatchTable):
        raise UsageError("a table's own rows say whose labels they have", "build it with source='best'")
    whose = Source.BEST if with_reviews or (isinstance(source, PatchTable) and source.spec.reviewed) else Source.TRUTH
    chosen = _labelled(wanted, patients, label_names(whose, labels), least=1 if validate is not None else 2)
    if with_reviews and not any("review" in series.labels for series in chosen):
        raise NotThereError(f"none of the {len(chosen)} volume(s) to train on has a review",
                            "save a correction in ctpipe review, or train without reviews")
    by_default = [_choose_validation([series.patient for series in chosen])]
    validation = by_default if validate is None else sorted(validate)
    table = _fitting(source, settings, chosen) if isinstance(source, PatchTable) else None
    return _train(store, chosen, settings, validation, whose, labels, client, progress, curves, table)


def train_model(
    store: str | Path | Store,
    recipe: str | Path | Recipe,
    out: str | Path,
    *,
    patients: Sequence[str] | None = None,
    validate: Sequence[str] | None = None,
    with_reviews: bool = False,
    client: Client | None = None,
    progress: Progress = None,
) -> TrainReport:
    """`train`, saved into the folder `out` with its curve; what a command or a flow reports of it."""
    folder = Path(out)
    if folder.exists() and not (folder / "model.json").is_file() and (folder.is_file() or any(folder.iterdir())):
        raise UsageError(f"{folder} holds something that is no model", "give a new folder for --out")
    folder.mkdir(parents=True, exist_ok=True)
    opened = store if isinstance(store, Store) else open_store(store)
    model = train(opened, recipe, patients=patients, validate=validate, with_reviews=with_reviews, client=client,
                  progress=progress, curves=folder / "curve.png")  # fmt: skip
    model.save(folder)
    facts = model.spec.training
    return TrainReport(str(folder), model.digest, tuple(facts["train_patients"]), tuple(facts["validation_patients"]),
                       int(facts["best_epoch"]), dict(facts["validation_dice"]),
                       dict(facts.get("reviews", {})))  # fmt: skip


def _store_of(table: PatchTable) -> Store:
    root = table.sources[0].store
    if not isinstance(root, (str, Path)):
        raise UsageError("the table's volumes lie in no store", "build it with ctpipe.patch_table(STORE, ...)")
    return open_store(root)


def _fitting(table: PatchTable, recipe: Recipe, chosen: list[Series]) -> PatchTable:
    """The rows of the chosen series, if the table's windows are the recipe's."""
    if tuple(table.windows.window) != tuple(recipe.windows.window) or table.level != recipe.input.level:
        raise UsageError(
            f"the table has windows {tuple(table.windows.window)} on level {table.level}, recipe {recipe.name!r} wants "
            f"{tuple(recipe.windows.window)} on level {recipe.input.level}",
            "build the table with the recipe's windows, or give the store",
        )
    return table.of_series([series.id for series in chosen])


def _labelled(wanted: list[Series], patients: Sequence[str] | None, labels: Sequence[str], least: int) -> list[Series]:
    """The series to use, in order of id; every patient that was named must be there with any of the labels."""
    told = " or ".join(repr(name) for name in labels)
    chosen = [series for series in wanted if any(name in series.labels for name in labels)]
    if patients is not None:
        known = {series.patient for series in chosen}
        missing = [name for name in patients if name not in known]
        if missing:
            raise NotThereError(f"no volume with labels {told} of patient {', '.join(missing)}",
                                f"patients with labels: {', '.join(sorted(known)) or 'none'}")  # fmt: skip
        chosen = [series for series in chosen if series.patient in set(patients)]
    found = len({series.patient for series in chosen})
    if found < least:
        raise UsageError(
            f"training needs {least} patient(s) with labels {told}, one of two chooses the best epoch; "
            f"there is {found}",
            "ingest more with --labels and --classes, or take the last epoch with --validate none",
        )
    return sorted(chosen, key=lambda series: series.id)


def _choose_validation(patients: Sequence[str]) -> str:
    """The patient whose digest is lowest: the same one whatever the order, and not one picked for its looks."""
    return min(set(patients), key=lambda name: sha256(name.encode()).hexdigest())


def _train(
    store: Store, chosen: list[Series], recipe: Recipe, validation: list[str], whose: Source, labels: str,
    client: Client | None, progress: Progress, curves: str | Path | None, table: PatchTable | None = None,
) -> Model:  # fmt: skip
    before, merged = None, {}
    if recipe.before:
        first = load_recipe(recipe.before)
        path = Path(curves).with_name(f"curve-{first.name}.png") if curves else None
        before = _train(store, chosen, first, validation, whose, labels, client, progress, path)
        merged = _classes(first, chosen, whose, labels)
    classes = _classes(recipe, chosen, whose, labels)
    table = table or patch_table(
        store, recipe.windows.window, recipe.windows.stride, recipe.windows.pad, client=client,
        series=[series.id for series in chosen], level=recipe.input.level, labels=labels, classes=classes, source=whose,
    )  # fmt: skip
    truths = {one.id: store[one.id].labels[one.labels] for one in table.sources}
    _check_reviews(truths.values(), classes)
    parts = table.split(validate=validation)
    judges = parts.get("validate")
    readers = {series.id: _reader(store, series, recipe, truths[series.id], merged, client) for series in chosen}

    def tell(stage: str, done: int, total: int) -> None:
        if progress:
            progress(f"train {recipe.name}", done, total)

    facts: dict[str, Any] = {"train_patients": parts["train"].patients,
                             "validation_patients": judges.patients if judges else []}  # fmt: skip
    reviews = {name: group.name for name, group in truths.items() if group.kind is LabelKind.REVIEW}
    if reviews:
        facts["reviews"] = reviews
    fitted = training.fit(parts["train"], judges, recipe, reader_of=readers.__getitem__, before=before,
                          progress=tell, score=lambda _: facts)  # fmt: skip
    if curves:
        training.curve_png(fitted.curves, curves)
    return fitted.model


def _classes(recipe: Recipe, chosen: list[Series], whose: Source, labels: str) -> dict[str, tuple[str, ...]]:
    """{class of the recipe: names of truth classes that count as it}; without classes, those of the first volume."""
    names: Any = recipe.classes
    if not names:
        there = chosen[0].labels
        first = next(there[name] for name in label_names(whose, labels) if name in there)
        names = [name for _, name in sorted(first.classes.items())]
    return {name: tuple(recipe.merge.get(name, (name,))) for name in names}


def _check_reviews(groups: Iterable[Labels], classes: Mapping[str, Sequence[str]]) -> None:
    """UsageError for a review without a class: its reviewer did not mark it, which is not the same as its absence."""
    for group in groups:
        lacking = [name for name, parts in classes.items() if not set(parts) & set(group.classes.values())]
        if group.kind is LabelKind.REVIEW and lacking:
            raise UsageError(f"{group.name} of volume {group.series_id} knows no class {', '.join(lacking)}",
                             "correct a prediction that has all classes, or name the other --patients")


def _reader(
    store: Store, series: Series, recipe: Recipe, truth: Labels, merged: dict[str, tuple[str, ...]],
    client: Client | None,
) -> PlaneReader:
    """Features as they will be at inference; what the earlier model would tell is taken from the truth."""
    reference = None
    if recipe.input.relative_to:
        names = merged.get(recipe.input.relative_to, (recipe.input.relative_to,))
        reference = organ.median_hu(str(store.root), series, truth, names, client)
    return PlaneReader(series, recipe.input, reference)
