"""Flow `post`: steps over the labels of runs, each result a label group of its own."""

from __future__ import annotations

from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.states import State

from flows.parameters import AbsolutePath, Digest, Steps
from flows.stage import outcome, run_stage


@flow(name="post")
def post(store: AbsolutePath, run: Digest | list[Digest], steps: Steps, drop_raw: bool = False) -> State[None]:
    """Do `steps` on the labels of `run`, into labels of their own; those of the run stay as they are.

    run: run keys, or the digest of a model for all of its runs. drop_raw: then remove the labels of the runs.
    Completed: every run has its new labels. Partial: some failed, the table says which. Failed: none has them.
    The same request again computes nothing; one that begins with the same steps goes on from what they left.
    """
    report = post_stage(store, [run] if isinstance(run, str) else run, steps, drop_raw)
    show(report, store)
    done, failed = len(report["runs"]), len(report["failed"])
    return outcome(done, failed, f"{done} runs post-processed" + (f", {failed} failed" if failed else ""))


@task(name="post", persist_result=False)
def post_stage(store: str, runs: list[str], steps: str, drop_raw: bool) -> dict[str, Any]:
    """One call of the pipeline; its report as plain data."""
    from ctpipe import pipeline  # heavy: deploying a flow needs only its signature

    return run_stage(
        "post",
        lambda progress: pipeline.post_process(store, runs, steps, drop_raw=drop_raw, progress=progress).as_json(),
    )


def show(report: dict[str, Any], store: str) -> None:
    """A row per run: its new labels and the voxels that each step changed, or why it has none."""
    rows: list[dict[str, Any]] = [
        {"series": one["series"], "run": one["run"], "made of": one["parent"],
         "changed": "; ".join(f"{step}: {voxels}" for step, voxels in one["changed"].items()), "failed": ""}
        for one in report["runs"]
    ]  # fmt: skip
    rows += [{"series": series, "run": "", "made of": "", "changed": "", "failed": line}
             for series, line in report["failed"].items()]  # fmt: skip
    create_table_artifact(key="post-runs", table=rows, description="post-processed labels of each run")
    create_markdown_artifact(
        key="post-store",
        markdown=f"Post-processed labels are label groups in `{store}`.\n\n- look at them: `ctpipe review {store}`\n"
        f"- compare with truth: `ctpipe evaluate {store} --run RUN`",
    )
