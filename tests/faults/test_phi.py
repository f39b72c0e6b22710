"""Nothing that names a patient leaves the source files: planted everywhere, searched in every byte that is left
behind (P1 to P4, X13, X14). The user's own parameters are the two folders given, whose names name nobody; a path that
does would stand in the shell's history and in Prefect's parameters whatever ctpipe does, and the docs say so.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from phi_planted import Planted, finds, plant_everything

import ctpipe

pytestmark = pytest.mark.server

# A structure that no class takes is named on the user's own screen, so that the class table can be written; never in a
# store, a log, Prefect or Dask.
ON_THE_SCREEN = {"name of a structure"}
SCREENS = {"ingest-labels-json.txt", "ingest-no-class.txt"}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return plant_everything(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def left_behind(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with all that every command and the flow left: stores, output, logs, databases, temporary files."""
    out = tmp_path_factory.mktemp("left")
    stated = tmp_path_factory.mktemp("stated") / "planted.json"
    planted.save(stated)
    for name in ("home", "prefect", "temporary", "dask"):
        (out / name).mkdir()
    dropped = ("PREFECT_", "CTPIPE_", "DASK_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(dropped)} | {
        "CTPIPE_KEY": str(out / "home" / "key"),
        "HOME": str(out / "home"),
        "TMPDIR": str(out / "temporary"),
        "PREFECT_HOME": str(out / "prefect"),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "DEBUG",
        "DASK_TEMPORARY_DIRECTORY": str(out / "dask"),
        "DASK_LOGGING__DISTRIBUTED": "debug",
        "DO_NOT_TRACK": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), str(Path(__file__).parent)]),
    }
    script = Path(__file__).with_name("phi_run.py")
    with (out / "stdout.txt").open("wb") as stdout, (out / "stderr.txt").open("wb") as stderr:
        done = subprocess.run([sys.executable, str(script), str(stated), str(out)], env=environment, stdout=stdout,
                              stderr=stderr, timeout=280, check=False, cwd=out)  # fmt: skip
    said = (out / "stderr.txt").read_text(errors="replace")[-4000:]
    assert done.returncode == 0, said
    return out


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def test_the_search_finds_what_is_planted_in_the_source(planted: Planted) -> None:
    """Else finding nothing would say nothing. Only what lies in a deflated archive member or gzip is out of sight."""
    root = planted.ct.parent
    seen = {find.partition(": ")[0] for find in finds(planted.needles, _files(root), root)}
    assert set(planted.needles) - seen <= {"name of a member", "private gzip"}
    assert len(planted.needles) > 150


def test_what_was_to_happen_happened(left_behind: Path) -> None:
    """Volumes taken, every refusal met, every place to search is there and holds something."""
    from ctpipe.store import open_store

    for name in ("store", "store-of-the-flow"):
        assert [len(series.labels) for series in open_store(left_behind / name).values()].count(0) == 1
    told = (left_behind / "check.txt").read_text()
    for reason in ("gap", "truncated", "missing-rescale", "rescale-units", "burned-in", "patient-conflict", "decode",
                   "bad-number", "bad-pixel-spacing", "bits", "invalid-uid", "nesting", "unreadable",
                   "unsafe-path"):  # fmt: skip
        assert f"rejected ({reason})" in told
    names = {str(path.relative_to(left_behind)) for path in _files(left_behind)}
    assert {"prefect/prefect.db", "case.html", "case.png", "dask.txt", "debug.log"} <= names
    assert any(name.startswith("temporary/ctpipe-bug-") for name in names)
    assert "write_volume_slab" in (left_behind / "dask.txt").read_text()
    assert b"ingest-verdicts" in (left_behind / "prefect/prefect.db").read_bytes()


def test_nothing_that_names_a_patient_is_left_behind(planted: Planted, left_behind: Path) -> None:
    """P1, P2, P3, P4, X14: stores, chunks, tables, terminals, logs, Prefect's database, Dask, pages, tracebacks."""
    found = finds(planted.needles, _files(left_behind), left_behind)
    allowed = {f"{where}: bytes of {screen}" for where in ON_THE_SCREEN for screen in SCREENS}
    assert sorted(set(found) - allowed) == []


def test_the_key_stands_nowhere_but_in_its_file(left_behind: Path) -> None:
    """X13: neither the pseudonym key nor its raw bytes."""
    key = left_behind / "home" / "key"
    text = key.read_text().strip()
    found = finds({"the key": text}, [path for path in _files(left_behind) if path != key], left_behind)
    raw = [path for path in _files(left_behind) if bytes.fromhex(text) in path.read_bytes()]
    assert (found, raw) == ([], [])
    assert ctpipe.open_store(left_behind / "store")  # and the search reads what the key made
