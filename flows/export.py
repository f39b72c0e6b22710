"""Flow `export`: labels of a store as files for other programs, and into a PACS."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.states import State
from pydantic import Field

from flows.parameters import LABELS, AbsolutePath, Digest, Source, Target
from flows.stage import outcome, run_stage


@flow(name="export")
def export(
    store: AbsolutePath,
    labels: Annotated[str, Field(pattern=LABELS, description="run key, model digest, truth or the name of labels")],
    out: AbsolutePath,
    to: Literal["seg", "rtstruct", "nifti", "stl", "glb", "csv", "sr", "report"] = "seg",
    series: list[Digest] | None = None,
    source: Source | list[Source] | None = None,
    send_to: Target | None = None,
    really_send: bool = False,
) -> State[None]:
    """Write `labels` of every volume that has them (or only `series`) into the folder `out`, and send them.

    source: the files that were ingested, so that DICOM objects name the true patient; without it they name pseudonyms.
    send_to: a PACS or DICOMweb server; without `really_send` nothing leaves the machine, the table says what would.
    Completed: all is written, and stored where it was sent. Partial: something failed or was refused. Failed: nothing.
    """
    paths = [source] if isinstance(source, str) else source
    report = export_stage(store, labels, to, out, series, paths)
    sent = send_stage([path for one in report["exports"] for path in one["files"]], send_to, really_send)
    show(report, sent)
    done, failed = len(report["exports"]), len(report["failed"])
    message = f"{done} exported" + (f", {failed} failed" if failed else "")
    refused = [file for file in sent if file["state"] != "stored"] if really_send else []
    if sent:
        files = f"{len(sent)} file" + ("s" if len(sent) > 1 else "")
        message += f", {files} sent" if really_send else f", {files} to send: a dry run"
        message += f", {len(refused)} refused" if refused else ""
    return outcome(done, failed + len(refused), message)


@task(name="export", persist_result=False)
def export_stage(
    store: str, labels: str, to: str, out: str, series: list[str] | None, source: list[str] | None
) -> dict[str, Any]:
    """One call of the pipeline; its report as plain data."""
    from ctpipe import pipeline  # heavy: deploying a flow needs only its signature

    return run_stage(
        "export",
        lambda progress: pipeline.export_all(
            store, labels, to, out, series=series, source=source, progress=progress
        ).as_json(),
    )


@task(name="send", persist_result=False)
def send_stage(files: list[str], to: str | None, really: bool) -> list[dict[str, Any]]:
    """What became of each file; nothing where nothing is to be sent."""
    from ctpipe import dicom

    if to is None or not files:
        return []
    return run_stage("send", lambda progress: dicom.send(files, to, yes=really, progress=progress).as_json()["files"])


def show(report: dict[str, Any], sent: list[dict[str, Any]]) -> None:
    """A row per volume, and one per file that was or would be sent. No names, no UIDs: files are named by digests."""
    rows: list[dict[str, Any]] = [
        {"series": one["series"], "labels": one["labels"], "files": ", ".join(one["files"]),
         "references": one["references"] or "", "notes": "; ".join(one["notes"]), "failed": ""}
        for one in report["exports"]
    ]  # fmt: skip
    rows += [{"series": series, "labels": "", "files": "", "references": "", "notes": "", "failed": line}
             for series, line in report["failed"].items()]  # fmt: skip
    create_table_artifact(key="export-files", table=rows, description="what was written for each volume")
    if sent:
        create_table_artifact(key="export-sent", table=sent, description="what was sent, by number of the file")
