"""Flow `train`: a store with truth labels into a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.states import State

from flows.parameters import AbsolutePath, Patient, RecipeName
from flows.stage import outcome, run_stage


@flow(name="train")
def train(
    store: AbsolutePath,
    recipe: RecipeName,
    out: AbsolutePath,
    validation_patients: list[Patient] | None = None,
    patients: list[Patient] | None = None,
    with_reviews: bool = False,
) -> State[None]:
    """Train by `recipe` on the truth labels of `store`; the model goes to the folder `out`.

    validation_patients choose the best epoch and are not trained on; patients limits training to these.
    with_reviews: the newest review of a volume counts as its truth.
    """
    report = train_stage(store, recipe, out, validation_patients, patients, with_reviews)
    show(report)
    return outcome(1, 0, f"model {report['digest']}, best epoch {report['best_epoch']}")


@task(name="train", persist_result=False)
def train_stage(
    store: str, recipe: str, out: str, validation_patients: list[str] | None, patients: list[str] | None,
    with_reviews: bool,
) -> dict[str, Any]:
    """One call of the pipeline; its report as plain data."""
    from ctpipe import pipeline  # heavy: deploying a flow needs only its signature

    return run_stage(
        "train",
        lambda progress: pipeline.train_model(
            store, recipe, out, validate=validation_patients, patients=patients, with_reviews=with_reviews,
            progress=progress,
        ).as_json(),
    )


def show(report: dict[str, Any]) -> None:
    """The digest, the patients and the validation scores; where the model and its curve are."""
    rows = [
        {"what": "model", "value": report["digest"]},
        {"what": "best epoch", "value": report["best_epoch"]},
        {"what": "trained on", "value": ", ".join(report["train_patients"])},
        {"what": "chosen on", "value": ", ".join(report["validation_patients"])},
        {"what": "volumes as reviewed", "value": ", ".join(report["reviews"]) or "none"},
        *({"what": name, "value": str(value)} for name, value in report["scores"].items()),
    ]
    create_table_artifact(key="train-scores", table=rows, description="the model and its scores on validation patients")
    pictures = sorted(Path(report["model"]).glob("*.png"))
    lines = [f"The model is in `{report['model']}`.", *(f"Picture: `{picture}`" for picture in pictures)]
    create_markdown_artifact(key="train-model", markdown="\n\n".join(lines))
