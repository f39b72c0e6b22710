"""Flows without a server: stages run as plain functions, artifacts are collected in a list."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest
from prefect.logging import disable_run_logger


@pytest.fixture
def artifacts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What the flows showed, in order; their tasks are called as the functions they wrap."""
    shown: list[dict[str, Any]] = []

    def show(**given: Any) -> str:
        shown.append(given)
        return "artifact-id"

    for name in ("ingest", "train", "infer", "post", "evaluate", "patches"):
        module = importlib.import_module(f"flows.{name}")
        for stage in ("ingest_stage", "train_stage", "infer_stage", "post_stage", "evaluate_stage", "patches_stage",
                      "picture_stage"):  # fmt: skip
            if hasattr(module, stage):
                monkeypatch.setattr(module, stage, getattr(module, stage).fn)
        monkeypatch.setattr(module, "create_table_artifact", show)
        monkeypatch.setattr(module, "create_markdown_artifact", show)
    import flows.stage

    monkeypatch.setattr(flows.stage, "create_progress_artifact", show)
    monkeypatch.setattr(flows.stage, "update_progress_artifact", lambda _id, **given: show(**given))
    with disable_run_logger():
        yield shown
