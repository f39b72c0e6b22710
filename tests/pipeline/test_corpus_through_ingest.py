"""The adversarial corpus through `ctpipe ingest`: verdict, every voxel, affine, limits, nothing planted kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CORPUS = Path(os.environ.get("CTPIPE_TEST_CORPUS", Path(__file__).parents[3] / "shared" / "corpus"))

# one of each kind: plain, mended, refused for geometry, HU and identity, phases, encodings, set aside, hostile
BY_COMMAND = (
    "oblique_three_axes", "duplicate_file", "missing_slice_middle", "gantry_tilt_untagged", "rescale_missing_one",
    "series_under_two_patients", "two_acquisitions_interleaved", "jpegls_lossless", "localizer_in_series", "zip_bomb",
)  # fmt: skip


@pytest.fixture(scope="session")
def entries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the corpus, made once; skipped where its generator is absent."""
    if not (CORPUS / "make_corpus.py").is_file():
        pytest.skip(f"no corpus at {CORPUS}: set CTPIPE_TEST_CORPUS")
    out = tmp_path_factory.mktemp("corpus")
    subprocess.run([sys.executable, CORPUS / "make_corpus.py", out], check=True, capture_output=True, timeout=300)
    return out


def run(entries: Path, adapter: str, tmp_path: Path, *words: str) -> tuple[int, dict[str, list[str]]]:
    """(entries run, {entry: what is wrong}): the checker in a process of its own, which forks one for each entry."""
    report = tmp_path / "report.json"
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, CORPUS / "check_store.py", entries / "expected.json", "--adapter",
               f"corpus_adapter:{adapter}", "--json", report, *words]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280, check=False)
    assert done.returncode in (0, 1), done.stderr[-2000:]
    results = json.loads(report.read_text())
    return len(results), {result["entry"]: result["problems"] for result in results if not result["ok"]}


def test_every_entry_comes_out_of_ingest_as_it_must_and_check_says_the_same(entries: Path, tmp_path: Path) -> None:
    """RELIABILITY V1-V7, V9, X3-X11, P1, P4: each in a process of its own, with its limits of time and memory."""
    number, wrong = run(entries, "adapter", tmp_path)
    assert wrong == {}
    assert number == len(json.loads((entries / "expected.json").read_text())["entries"])


def test_ten_entries_come_out_of_the_command_line_too(entries: Path, tmp_path: Path) -> None:
    """RELIABILITY V1: with the exit code of what came out."""
    number, wrong = run(entries, "command_adapter", tmp_path, *(w for name in BY_COMMAND for w in ("--only", name)))
    assert wrong == {}
    assert number >= len(BY_COMMAND)


def test_tilted_entries_come_out_straight_where_that_is_asked_for(entries: Path, tmp_path: Path) -> None:
    """--on-tilt resample, against the phantom's own values."""
    number, wrong = run(entries, "straightening_adapter", tmp_path, "--option", "tilt=resample")
    assert wrong == {}
    assert number >= 2
