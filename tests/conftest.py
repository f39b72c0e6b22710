"""Fixtures of all tests: where real data lies, and a pseudonym key of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


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
