"""Flow `patches`: a table over the labelled volumes of a store, saved in it."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.states import State
from pydantic import Field

from flows.parameters import AbsolutePath
from flows.stage import ProgressArtifact, outcome, run_stage

Lengths = Annotated[list[int], Field(min_length=3, max_length=3, description="voxels z, y, x")]
TableName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="STORE/tables/<name>")]


@flow(name="patches")
def patches(store: AbsolutePath, name: TableName, window: Lengths, stride: Lengths, where: str | None = None,
            statistics: bool = False) -> State[None]:
    """Save the table of all windows of `store` (or those for which `where` holds) as STORE/tables/<name>."""
    report = patches_stage(store, name, window, stride, where, statistics)
    show(report, store)
    return outcome(report["rows"], 0, f"{report['rows']} rows in table {name}")


@task(name="patches", persist_result=False)
def patches_stage(store: str, name: str, window: list[int], stride: list[int], where: str | None, statistics: bool
                  ) -> dict[str, Any]:
    """One table, saved; its facts as plain data."""
    return run_stage("patches", lambda progress: _saved(store, name, window, stride, where, statistics, progress))


def _saved(store: str, name: str, window: list[int], stride: list[int], where: str | None, statistics: bool,
           progress: ProgressArtifact) -> dict[str, Any]:
    from ctpipe import pipeline  # heavy: deploying a flow needs only its signature

    return pipeline.save_table(store, name, window, stride, where=where, statistics=statistics, progress=progress)


def show(report: dict[str, Any], store: str) -> None:
    """The rows of each label, and where the table is."""
    rows = [{"label": label, "rows": n} for label, n in report["labels"].items()]
    create_table_artifact(key="patches-rows", table=rows, description="rows by the label at their centre")
    create_markdown_artifact(
        key="patches-table",
        markdown=f"{report['rows']} rows of {report['row_bytes']} bytes in `{report['path']}`; copied patches would "
        f"take {report['pixels_if_copied'] / 2**30:.1f} GiB.\n\n"
        f"- look at rows: `ctpipe patches show {store} --table {report['name']} --out sheet.png`",
    )
