"""The corpus entries marked plain, each through the command: verdict, every voxel, affine, nothing planted kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from corpus_adapter import adapter

CORPUS = Path(os.environ.get("CTPIPE_TEST_CORPUS", Path(__file__).parents[3] / "shared" / "corpus"))


@pytest.fixture(scope="session")
def entries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the corpus, made once; skipped where its generator is absent."""
    if not (CORPUS / "make_corpus.py").is_file():
        pytest.skip(f"no corpus at {CORPUS}: set CTPIPE_TEST_CORPUS")
    out = tmp_path_factory.mktemp("corpus")
    subprocess.run([sys.executable, CORPUS / "make_corpus.py", out], check=True, capture_output=True, timeout=300)
    return out


def test_every_plain_entry_comes_out_of_ingest_exactly(entries: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RELIABILITY V1: accept, every voxel by SHA-256, the affine within 1 micrometre, no planted string anywhere."""
    monkeypatch.syspath_prepend(str(CORPUS))
    import check_store

    expected = json.loads((entries / "expected.json").read_text())["entries"]
    plain = [name for name, entry in expected.items() if entry["plain"]]
    assert len(plain) > 40
    results = []
    for name in plain:
        results += [r for r in check_store.run(entries / "expected.json", adapter, [name], isolate=False,
                                               log=lambda *_: None) if r.entry == name]  # fmt: skip
    assert {r.entry: r.problems for r in results if not r.ok} == {}
    assert len(results) == len(plain)
