"""Flow `evaluate`: a run against truth, and a picture of each case."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.states import State

from flows.parameters import AbsolutePath, Digest
from flows.stage import outcome, run_stage


@flow(name="evaluate")
def evaluate(store: AbsolutePath, run: Digest, pictures: AbsolutePath | None = None) -> State[None]:
    """Dice, IoU, precision and recall of `run` against the truth labels of its series.

    run: a run key, or the digest of a model for all of its runs.
    pictures: folder for a PNG of each case (CT, truth and prediction in three planes); none are drawn without it.
    """
    scores = evaluate_stage(store, run)
    runs = {series_id: entry["run"] for series_id, entry in scores.items()}
    drawn = picture_stage(store, runs, pictures) if pictures else []
    show(scores, drawn)
    return outcome(len(scores), 0, f"{len(scores)} series evaluated")


@task(name="evaluate", persist_result=False)
def evaluate_stage(store: str, run: str) -> dict[str, Any]:
    """One call of the pipeline; run key and scores of each series as plain data."""
    from ctpipe import pipeline  # heavy: deploying a flow needs only its signature

    return run_stage("evaluate", lambda _progress: pipeline.evaluate(store, run).as_json()["series"])


@task(name="picture", persist_result=False)
def picture_stage(store: str, runs: dict[str, str], folder: str) -> list[str]:
    """Paths of the pictures, one per series."""
    return run_stage("evaluate", lambda progress: draw(store, runs, Path(folder), progress))


def draw(store: str, runs: dict[str, str], folder: Path, progress: Callable[[str, int, int], None]) -> list[str]:
    """CT, truth and prediction in three planes; one PNG per series and its run; the paths."""
    from ctpipe.report import case_png
    from ctpipe.store import open_store

    folder.mkdir(parents=True, exist_ok=True)
    opened = open_store(store)
    drawn = []
    for number, (series_id, key) in enumerate(runs.items(), start=1):
        labels = opened[series_id].labels
        path = folder / f"{series_id}-{key}.png"
        case_png(path, opened[series_id], labels["truth"], labels[key], f"{series_id}, run {key}")
        drawn.append(str(path))
        progress("pictures", number, len(runs))
    return drawn


def show(scores: dict[str, Any], drawn: list[str]) -> None:
    """A row per series and class; where the pictures are."""
    rows = [
        {"series": series_id, "class": name, **numbers}
        for series_id, entry in scores.items()
        for name, numbers in entry["classes"].items()
    ]
    create_table_artifact(key="evaluate-scores", table=rows, description="Dice and IoU of each class")
    if drawn:
        create_markdown_artifact(key="evaluate-pictures", markdown="\n\n".join(f"Picture: `{path}`" for path in drawn))
