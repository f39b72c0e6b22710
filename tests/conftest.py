"""Fixtures of all tests: where real data lies, and a pseudonym key of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Files that take longest begin first, so that no worker is left alone with one of them at the end.
LONGEST = (
    "pipeline/test_corpus_through_ingest.py",
    "pipeline/test_kills.py",
    "pipeline/test_kills_cluster.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All else stays in its order; under pytest-xdist this needs --no-loadscope-reorder."""
    begin = {Path(__file__).parent / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: begin.get(item.path, len(begin)))


@pytest.fixture(autouse=True, scope="session")
def _own_key(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests never touch the user's pseudonym key."""
    os.environ["CTPIPE_KEY"] = str(tmp_path_factory.mktemp("key") / "key")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real CT (CTPIPE_TEST_DATA, default ../shared/data); the test is skipped where it is absent."""
    folder = Path(os.environ.get("CTPIPE_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "manifest.json").is_file():
        pytest.skip(f"no real CT at {folder}: set CTPIPE_TEST_DATA")
    return folder
