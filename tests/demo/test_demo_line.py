"""`ctpipe demo` as a user runs it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ctpipe.cli import main
from ctpipe.store import open_store, verify


@pytest.mark.slow
def test_the_demo_finds_the_lesions_of_an_unseen_patient(tmp_path: Path) -> None:
    """Lesion Dice of 0.75 or more; picture, offline page, a store that verifies; JSON on stdout and nothing else."""
    done = subprocess.run(
        [sys.executable, "-m", "ctpipe.cli", "demo", str(tmp_path / "demo"), "--json"], check=True,
        capture_output=True, text=True, env={**os.environ, "CTPIPE_KEY": str(tmp_path / "key")}, timeout=1500,
    )  # fmt: skip
    result = json.loads(done.stdout)
    assert set(result) == {"seconds", "dice", "iou", "lesions_found", "lesions", "store", "png", "html"}
    assert result["dice"] >= 0.75
    assert result["iou"] == pytest.approx(result["dice"] / (2 - result["dice"]), abs=1e-3)
    assert 1 <= result["lesions_found"] <= result["lesions"]
    assert Path(result["png"]).read_bytes().startswith(b"\x89PNG")
    page = Path(result["html"]).read_text("utf-8")
    assert not re.search(r"<script|(?:src|href)\s*=\s*[\"']?(?:https?:)?//", page)
    store = open_store(result["store"])
    assert len(store) == 6
    assert verify(store)["faults"] == []
    for stage in ("patients", "ingest", "train demo", "infer"):
        assert f"{stage}: " in done.stderr


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["demo", str(tmp_path)]) == 2
    assert "no demo" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
