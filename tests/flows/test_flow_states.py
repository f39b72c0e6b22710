"""What a flow says about a run: its state, its artifacts, and what must never stand in them."""

from __future__ import annotations

import logging
import sys
import types
from dataclasses import dataclass
from typing import Any

import pytest
from prefect.exceptions import TerminationSignal
from prefect.logging import disable_run_logger

from ctpipe.errors import BudgetError, CtpipeError, RunError, StoreBusyError
from flows.evaluate import evaluate
from flows.infer import infer
from flows.ingest import ingest
from flows.post import post
from flows.stage import ProgressArtifact, run_stage
from flows.train import train


@dataclass(frozen=True)
class Report:
    """Stands for a report of the pipeline."""

    plain: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        return self.plain


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A `ctpipe.pipeline` whose stages a test sets; the flows import it when they run."""
    import ctpipe

    stand_in = types.ModuleType("ctpipe.pipeline")
    monkeypatch.setitem(sys.modules, "ctpipe.pipeline", stand_in)
    monkeypatch.setattr(ctpipe, "pipeline", stand_in, raising=False)
    return stand_in


def ingest_report(accept: int, reject: int, labels: tuple[str, ...] = ()) -> Report:
    volumes = [
        {"verdict": "accept", "reason": "", "detail": "", "files": 9, "series": "u-0", "id": f"{n:04x}"}
        for n in range(accept)
    ] + [{"verdict": "reject", "reason": "gap", "detail": "DOE^JANE.dcm", "files": 9, "series": "u-1"}] * reject
    summary = {"accept": accept, "repair": 0, "reject": reject, "set-aside": 0}
    return Report({"volumes": volumes, "summary": summary, "labels": [{"verdict": verdict} for verdict in labels]})


@pytest.mark.parametrize(
    ("accept", "reject", "labels", "kind", "name", "message"),
    [
        (2, 0, (), "COMPLETED", "Completed", "2 accept"),
        (2, 1, (), "COMPLETED", "Partial", "2 accept, 1 reject"),
        (1, 0, ("accept", "reject"), "COMPLETED", "Partial", "1 accept; labels: 1 taken, 1 rejected"),
        (0, 3, (), "FAILED", "Failed", "3 reject"),
        (0, 0, (), "FAILED", "Failed", "no DICOM found"),
    ],
)
def test_a_rejected_series_shows_in_the_state_of_the_run(
    artifacts, pipeline, accept, reject, labels, kind, name, message
):
    pipeline.ingest = lambda *_args, **_kwargs: ingest_report(accept, reject, labels)
    state = ingest.fn("/in", "/store")
    assert (state.type.value, state.name, state.message) == (kind, name, message)
    assert len(artifacts[0]["table"]) == accept + reject + len(labels)


def test_the_table_of_verdicts_holds_no_detail_text_and_no_kept_uid(artifacts, pipeline):
    """P3: details may quote file names; with --keep-uids the series is no pseudonym."""
    pipeline.ingest = lambda *_args, **_kwargs: ingest_report(1, 1)
    ingest.fn("/in", "/store")
    assert "DOE" not in str(artifacts)
    assert "u-1" in str(artifacts)
    artifacts.clear()
    ingest.fn("/in", "/store", keep_uids=True)
    assert "u-1" not in str(artifacts)


def test_ingest_hands_its_parameters_to_the_pipeline(artifacts, pipeline):
    calls = []
    pipeline.ingest = lambda *args, **kwargs: calls.append((args, kwargs)) or ingest_report(1, 0)
    ingest.fn("/in", "/store", ["/masks"], "liver=1", True, "keep-positions", "resample", "split")
    ((args, kwargs),) = calls
    assert args == (["/in"], "/store", ["/masks"], "liver=1")
    assert kwargs.pop("progress")
    assert kwargs == {"keep_uids": True, "on_gap": "keep-positions", "on_tilt": "resample", "on_step_change": "split"}


def test_infer_hands_its_parameters_to_the_pipeline(artifacts, pipeline):
    calls = []
    pipeline.infer = lambda *args, **kwargs: calls.append((args, kwargs)) or Report({"runs": [], "failed": {}})
    infer.fn("/store", "/model", ["ab12"], "required", "cuda")
    ((args, kwargs),) = calls
    assert args == ("/store", "/model", ["ab12"])
    assert kwargs.pop("progress")
    assert kwargs == {"exact": "required", "device": "cuda", "uncertainty": False, "layers": []}
    infer.fn("/store", "/model", uncertainty=True)
    assert calls[1][1]["uncertainty"] is True


@pytest.mark.parametrize(("runs", "failed", "name"), [(2, 0, "Completed"), (1, 1, "Partial"), (0, 1, "Failed")])
def test_post_hands_its_parameters_to_the_pipeline_and_names_what_failed(artifacts, pipeline, runs, failed, name):
    run = {"series": "aaaa", "run": "bbbb", "parent": "4be1", "changed": {"fill=liver": 7}, "seconds": 1.0, "slabs": 1,
           "resumed": 0, "known": False}  # fmt: skip
    calls = []
    told = Report({"runs": [run] * runs, "failed": dict.fromkeys(["cccc"][:failed], "no class liver")})
    pipeline.post_process = lambda *args, **kwargs: calls.append((args, kwargs)) or told
    state = post.fn("/store", "4be1", "fill=liver", drop_raw=True)
    ((args, kwargs),) = calls
    assert args == ("/store", ["4be1"], "fill=liver")
    assert kwargs.pop("progress")
    assert kwargs == {"drop_raw": True}
    assert state.name == name
    table = artifacts[0]["table"]
    assert [row["changed"] for row in table] == ["fill=liver: 7"] * runs + [""] * failed
    assert [row["failed"] for row in table] == [""] * runs + ["no class liver"] * failed


def test_train_shows_scores_patients_and_the_picture_of_the_curve(artifacts, pipeline, tmp_path):
    (tmp_path / "curve.png").write_bytes(b"")
    told = {"model": str(tmp_path), "digest": "ab12", "train_patients": ["p-1"], "validation_patients": ["p-2"],
            "best_epoch": 3, "scores": {"dice": 0.8}, "reviews": {"cafe": "review-1"}}  # fmt: skip
    calls = []
    pipeline.train_model = lambda *_args, **kwargs: calls.append(kwargs["with_reviews"]) or Report(told)
    state = train.fn("/store", "demo", str(tmp_path), ["p-0000"])
    train.fn("/store", "demo", str(tmp_path), with_reviews=True)
    assert calls == [False, True]
    assert (state.name, state.message) == ("Completed", "model ab12, best epoch 3")
    assert {"what": "dice", "value": "0.8"} in artifacts[0]["table"]
    assert {"what": "volumes as reviewed", "value": "cafe"} in artifacts[0]["table"]
    assert "curve.png" in artifacts[1]["markdown"]


@pytest.mark.parametrize(
    ("runs", "failed", "name"), [(2, 0, "Completed"), (1, 1, "Partial"), (0, 2, "Failed"), (0, 0, "Failed")]
)
def test_infer_names_what_failed(artifacts, pipeline, runs, failed, name):
    run = {"series": "aaaa", "run": "bbbb", "windows": 1, "seconds": 1.0, "slabs": 1, "resumed": 0}
    pipeline.infer = lambda *_args, **_kwargs: Report(
        {"runs": [run] * runs, "failed": {f"c{n}": "NaN" for n in range(failed)}}
    )
    assert infer.fn("/store", "/model").name == name
    assert [row["failed"] for row in artifacts[0]["table"]] == [""] * runs + ["NaN"] * failed


def test_evaluate_shows_a_row_per_class(artifacts, pipeline):
    scores = {"run": "bbbb", "classes": {"liver": {"dice": 0.9, "iou": 0.8}}}
    pipeline.evaluate = lambda *_args: Report({"series": {"aaaa": scores}})
    assert evaluate.fn("/store", "bbbb").name == "Completed"
    assert artifacts[0]["table"] == [{"series": "aaaa", "class": "liver", "dice": 0.9, "iou": 0.8}]


def raising(error: BaseException) -> Any:
    def call(_progress: ProgressArtifact) -> None:
        try:
            raise ValueError("DOE^JANE")
        except ValueError as cause:
            raise error from cause

    return call


@pytest.mark.parametrize("error", [BudgetError("p", "c"), CtpipeError("p", "c"), StoreBusyError("p", "c")])
def test_a_ctpipe_error_keeps_its_line_and_loses_what_caused_it(error):
    """P3: the cause may quote a file; Prefect would log it with the traceback and keep it."""
    with disable_run_logger(), pytest.raises(type(error)) as caught:
        run_stage("ingest", raising(error))
    assert type(caught.value) is type(error)
    assert caught.value.args == ("p", "c")
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_any_other_error_becomes_a_run_error_without_its_text(caplog, monkeypatch):
    """P3: an unforeseen exception may hold a value from a DICOM file; only code lines and its type are logged."""
    monkeypatch.setattr("flows.stage.get_run_logger", lambda: logging.getLogger("test.flows"))
    with pytest.raises(RunError) as caught:
        run_stage("ingest", raising(KeyError("DOE^JANE")))
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert "KeyError" in str(caught.value)
    assert "DOE" not in str(caught.value) + caplog.text
    assert "test_flow_states.py" in caplog.text


def test_cancellation_passes_through_a_stage_unchanged():
    """C9: TerminationSignal is no Exception; whoever catches it must raise it again."""
    signal = TerminationSignal(15)
    with disable_run_logger(), pytest.raises(TerminationSignal) as caught:
        run_stage("infer", raising(signal))
    assert caught.value is signal


def test_progress_is_sent_rarely_but_its_end_always(artifacts):
    progress = ProgressArtifact("ingest")
    for done in range(1, 1001):
        progress("ingest", done, 1000)
    assert [entry["progress"] for entry in artifacts] == [0.1, 100.0]
    assert artifacts[-1]["description"] == "ingest: 1000 of 1000"


def test_a_server_that_is_gone_never_stops_the_work(monkeypatch):
    import httpx

    def gone(**_given: Any) -> None:
        raise httpx.ConnectError("refused")

    monkeypatch.setattr("flows.stage.create_progress_artifact", gone)
    with disable_run_logger():
        ProgressArtifact("ingest")("ingest", 1, 1)


def test_patches_shows_rows_by_label_and_where_the_table_is(artifacts, pipeline):
    from flows.patches import patches

    pipeline.save_table = lambda *_args, **_kwargs: {
        "name": "liver", "path": "/store/tables/liver", "rows": 7, "row_bytes": 21, "partitions": 1,
        "pixels_if_copied": 7 * 2**30, "labels": {"background": 3, "liver": 4},
    }  # fmt: skip
    state = patches.fn("/store", "liver", [1, 9, 9], [1, 4, 4])
    assert (state.name, state.message) == ("Completed", "7 rows in table liver")
    assert {"label": "liver", "rows": 4} in artifacts[0]["table"]
    assert "copied patches would take 7.0 GiB" in artifacts[1]["markdown"]
