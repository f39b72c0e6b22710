"""Flow `ingest`: DICOM under a folder into a store, and truth labels where they are given."""

from __future__ import annotations

from typing import Any, Literal

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.states import State

from flows.parameters import AbsolutePath, Classes, Source
from flows.stage import outcome, run_stage


@flow(name="ingest")
def ingest(
    source: Source | list[Source],
    store: AbsolutePath,
    labels: list[Source] | None = None,
    classes: Classes | None = None,
    keep_uids: bool = False,
    on_gap: Literal["reject", "keep-positions"] = "reject",
    on_tilt: Literal["reject", "resample", "keep"] = "reject",
    on_step_change: Literal["reject", "split"] = "reject",
) -> State[None]:
    """Take every plainly right CT volume under `source` into `store`.

    Completed: all were taken. Partial (of type Completed): some were rejected, the table says which. Failed: none was
    taken, or the store could not be used.
    """
    options: dict[str, Any] = {"on_gap": on_gap, "on_tilt": on_tilt, "on_step_change": on_step_change}
    paths = [source] if isinstance(source, str) else source
    report = ingest_stage(paths, store, labels, classes, options, keep_uids)
    show(report, store, with_series=not keep_uids)
    counts = report["summary"]
    taken = counts["accept"] + counts["repair"]
    faulty = [entry for entry in report["labels"] if entry["verdict"] == "reject"]
    message = ", ".join(f"{number} {verdict}" for verdict, number in counts.items() if number) or "no DICOM found"
    if report["labels"]:
        message += f"; labels: {len(report['labels']) - len(faulty)} taken, {len(faulty)} rejected"
    return outcome(taken, counts["reject"] + len(faulty), message)


@task(name="ingest", persist_result=False)
def ingest_stage(
    paths: list[str],
    store: str,
    labels: list[str] | None,
    classes: str | None,
    options: dict[str, Any],
    keep_uids: bool,
) -> dict[str, Any]:
    """One call of the pipeline; its report as plain data."""
    from ctpipe import pipeline  # heavy: deploying a flow needs only its signature

    return run_stage(
        "ingest",
        lambda progress: pipeline.ingest(
            paths, store, labels, classes, **options, keep_uids=keep_uids, progress=progress
        ).as_json(),
    )


def show(report: dict[str, Any], store: str, *, with_series: bool) -> None:
    """A row per volume and label group. No detail texts: they may hold file names, which may name a patient.

    with_series: not where UIDs are kept, since then `series` is no pseudonym.
    """
    rows = [
        {"verdict": entry["verdict"], "reason": entry.get("reason", ""), "files": entry.get("files", ""),
         "series": (entry.get("series") or "") if with_series else "", "id": entry.get("id") or entry.get("name") or ""}
        for entry in [*report["volumes"], *report["labels"]]
    ]  # fmt: skip
    create_table_artifact(key="ingest-verdicts", table=rows, description="what became of each volume and label group")
    create_markdown_artifact(
        key="ingest-store",
        markdown=f"Volumes are in `{store}`.\n\n"
        f"- what is in it: `ctpipe ls {store}`\n- look at it: `ctpipe review {store}`\n"
        "- why something was rejected: `ctpipe check` on the same source",
    )
