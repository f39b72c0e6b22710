"""A small store made by the store's own writers, and a napari that keeps its settings to itself."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

# before napari is imported: it reads this once, and it must name a file
os.environ["NAPARI_CONFIG"] = str(Path(tempfile.mkdtemp(prefix="ctpipe-napari-")) / "settings.yaml")

import pytest
from review_store import SERIES, write_volume


@pytest.fixture(scope="session")
def _made_store(tmp_path_factory, _own_key) -> Path:
    from ctpipe.store import open_store

    root = tmp_path_factory.mktemp("review") / "S"
    write_volume(open_store(root, "a"), SERIES)
    return root


@pytest.fixture
def store_path(_made_store, tmp_path) -> Path:
    """A store of one volume with a prediction; each test has its own copy."""
    return Path(shutil.copytree(_made_store, tmp_path / "S"))


@pytest.fixture(scope="module")
def display() -> None:
    """Skips where no window can be opened."""
    from ctpipe.errors import UsageError
    from ctpipe.review import require_viewer

    try:
        require_viewer()
    except UsageError as error:
        if os.environ.get("CI") and sys.platform == "linux":
            raise  # `make test` brings Xvfb: there a missing display is a fault
        pytest.skip(str(error))


@pytest.fixture
def close_viewers(display):
    """Collects viewers to close at the end, with the windows that they left."""
    opened = []
    yield opened
    from ctpipe.review.view import settle

    for viewer in opened:
        viewer.close()
    settle(3)


@pytest.fixture(scope="session")
def _made_cases(tmp_path_factory, _own_key) -> Path:
    from worklist_store import four_cases

    return four_cases(tmp_path_factory.mktemp("worklist") / "S")


@pytest.fixture
def cases_path(_made_cases, tmp_path) -> Path:
    """A store of four cases; each test has its own copy."""
    return Path(shutil.copytree(_made_cases, tmp_path / "cases"))


@pytest.fixture(scope="module")
def one_window(display):
    """napari's window for all tests of a file."""
    import gc

    import napari

    from ctpipe.review.view import settle

    viewer = napari.Viewer(show=True)
    gc.freeze()  # as the review room does
    yield viewer
    viewer.close()
    settle(3)


@pytest.fixture(scope="module")
def shared_cases_room(display, _made_cases, tmp_path_factory):
    """One window of `ctpipe review` on the store of four cases for all tests of a file: opening one takes longest."""
    from shared_room import SharedRoom

    room = SharedRoom(_made_cases, tmp_path_factory.mktemp("room") / "S")
    yield room
    room.close()


@pytest.fixture(scope="module")
def shared_room(display, _made_store, tmp_path_factory):
    """The same on the store of one volume."""
    from shared_room import SharedRoom

    room = SharedRoom(_made_store, tmp_path_factory.mktemp("room") / "S")
    yield room
    room.close()
