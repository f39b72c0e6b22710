"""Flow `infer`: a model over the volumes of a store; each run is a label group in it."""

from __future__ import annotations

from typing import Any, Literal

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.states import State

from flows.parameters import AbsolutePath, Digest
from flows.stage import outcome, run_stage


@flow(name="infer")
def infer(
    store: AbsolutePath,
    model: AbsolutePath,
    series: list[Digest] | None = None,
    exact: Literal["auto", "required"] = "auto",
    device: Literal["cpu", "cuda"] = "cpu",
    uncertainty: bool = False,
    layers: list[Literal["probabilities", "entropy", "spread"]] | None = None,
) -> State[None]:
    """Label the volumes of `store` (or only `series`) with the model in the folder `model`.

    Completed: every volume has its run. Partial: some failed, the table says which. Failed: none has one.
    exact: `required` fails for a classifier that would have to run window by window, at hundreds of times the cost.
    device: `cuda` runs on workers that were started with the resource GPU, or on the GPU of the machine.
    uncertainty: also note how unsure the model is of each volume, which orders the next worklist.
    layers: what is kept of each voxel beside the labels; of runs that are there, only the layers that lack are made.
    A run that was interrupted goes on where it stopped; one that is there is not computed again.
    """
    report = infer_stage(store, model, series, exact, device, uncertainty, list(layers or []))
    show(report, store)
    done, failed = len(report["runs"]), len(report["failed"])
    return outcome(done, failed, f"{done} volumes labelled" + (f", {failed} failed" if failed else ""))


@task(name="infer", persist_result=False)
def infer_stage(
    store: str, model: str, series: list[str] | None, exact: str, device: str, uncertainty: bool, layers: list[str]
) -> dict[str, Any]:
    """One call of the pipeline; its report as plain data."""
    from ctpipe import pipeline  # heavy: deploying a flow needs only its signature

    return run_stage(
        "infer",
        lambda progress: pipeline.infer(
            store, model, series, exact=exact, device=device, uncertainty=uncertainty, layers=layers, progress=progress
        ).as_json(),
    )


def show(report: dict[str, Any], store: str) -> None:
    """A row per series: its run, or why it has none."""
    rows: list[dict[str, Any]] = [{**run, "failed": ""} for run in report["runs"]]
    rows += [{"series": series, "run": "", "failed": line} for series, line in report["failed"].items()]
    create_table_artifact(key="infer-runs", table=rows, description="one run per series")
    create_markdown_artifact(
        key="infer-store",
        markdown=f"Predictions are label groups in `{store}`.\n\n- look at them: `ctpipe review {store}`\n"
        f"- compare with truth: `ctpipe evaluate {store} --run RUN`",
    )
