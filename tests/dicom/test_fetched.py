"""The private folder of what was fetched: never beside the data, gone at the end, also after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from builders import ct_series, hu_block, setter
from web_server import SERIES, STUDY, WebServer, serving

from ctpipe.dicom.fetched import fetch

FILES = ct_series(hu_block((4, 6, 8)), edit=setter(StudyInstanceUID=STUDY, SeriesInstanceUID=SERIES))


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def test_without_a_url_nothing_is_made(temporary):
    with fetch(["/data", Path("x")]) as paths:
        assert paths == ["/data", Path("x")]
        assert list(temporary.iterdir()) == []


def test_the_folder_is_private_and_gone_at_the_end(temporary):
    with serving(WebServer(FILES)) as server:
        with fetch([server.url]) as paths:
            found = list(temporary.rglob("*"))
            assert Path(paths[0]) in found
            assert all(path.stat().st_mode & 0o077 == 0 for path in found)
            assert all(name not in str(path) for path in found for name in (STUDY, SERIES))
        assert list(temporary.iterdir()) == []
        with pytest.raises(KeyboardInterrupt), fetch([server.url]):
            raise KeyboardInterrupt
    assert list(temporary.iterdir()) == []


SCRIPT = """
import sys
from ctpipe.dicom.fetched import fetch
with fetch([sys.argv[1]]) as paths:
    print("here", flush=True)
    sys.stdin.readline()
"""


def test_what_a_killed_process_left_is_removed_and_what_another_uses_is_not(temporary):
    """Received files name patients: they must not stay in a temporary folder for good."""
    with serving(WebServer(FILES)) as server:

        def start() -> subprocess.Popen[str]:
            process = subprocess.Popen([sys.executable, "-c", SCRIPT, server.url], text=True, stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, env=os.environ | {"TMPDIR": str(temporary)})  # fmt: skip
            assert process.stdout is not None
            assert process.stdout.readline() == "here\n"
            return process

        first, second = start(), start()
        assert len(list(temporary.iterdir())) == 2
        first.send_signal(signal.SIGKILL)
        first.communicate()
        assert len(list(temporary.iterdir())) == 2
        with fetch([server.url]):
            assert len(list(temporary.iterdir())) == 2  # the second's and our own
        second.communicate("\n")
        assert second.returncode == 0
        assert list(temporary.iterdir()) == []


def test_a_folder_of_another_kind_is_left_alone(temporary):
    """Only a folder that holds our lock is ours to remove, and a link is no folder."""
    (temporary / "ctpipe-fetch-mine").mkdir()
    (temporary / "elsewhere").mkdir()
    (temporary / "elsewhere" / "in-use").write_bytes(b"")
    (temporary / "ctpipe-fetch-link").symlink_to(temporary / "elsewhere")
    with serving(WebServer(FILES)) as server, fetch([server.url]):
        pass
    assert sorted(path.name for path in temporary.iterdir()) == ["ctpipe-fetch-link", "ctpipe-fetch-mine", "elsewhere"]
    assert (temporary / "elsewhere" / "in-use").exists()
