"""The copy that is painted on: made whole, locked, resumed, never half."""

from __future__ import annotations

import contextlib
import errno
import json
import subprocess
import sys

import numpy as np
import pytest
import zarr
from review_store import CLASSES, FakeVolume, grid_of, phantom

from ctpipe.errors import BudgetError, StoreFaultError, UsageError
from ctpipe.review import working_copy
from ctpipe.review.working_copy import copies_of


@pytest.fixture
def open_copy():
    """`working_copy.open_copy`; what a test leaves open is closed at its end."""
    with contextlib.ExitStack() as stack:

        def opened(*args, **options):
            return stack.enter_context(contextlib.closing(working_copy.open_copy(*args, **options)))

        yield opened


@pytest.fixture
def series() -> FakeVolume:
    return FakeVolume(phantom()[0], grid_of())


@pytest.fixture
def labels() -> FakeVolume:
    return FakeVolume(phantom()[1], grid_of())


def test_a_copy_is_a_plain_zarr_array_with_one_plane_a_chunk(tmp_path, series, labels, open_copy):
    copy = open_copy(tmp_path, series, labels)
    assert isinstance(copy.array, zarr.Array)
    assert copy.array.chunks == (1, 160, 144)
    assert copy.array.dtype == np.uint8
    assert np.array_equal(copy.array[:], labels.voxels)
    assert max(stop - start for start, stop, _ in labels.asked) <= 32, "copied slab by slab"
    assert not copy.resumed
    stated = json.loads((copy.folder / "working.json").read_text())
    assert copy.folder.parent == tmp_path / "reviews"
    assert copy.folder.name.startswith(series.id + "-")
    assert (stated["parent"], stated["parent_content"], stated["reviewer"]) == (labels.name, labels.content, "reader")


def test_a_copy_is_resumed_with_its_strokes(tmp_path, series, labels, open_copy):
    """RELIABILITY R1: a closed or killed viewer loses no finished stroke."""
    copy = open_copy(tmp_path, series, labels)
    copy.array[3, 5, 7] = 2
    copy.close()
    again = open_copy(tmp_path, series, labels)
    assert again.resumed
    assert again.folder == copy.folder
    assert again.array[3, 5, 7] == 2


def test_two_viewers_of_the_same_labels_get_two_copies(tmp_path, series, labels, open_copy):
    """RELIABILITY R3: two reviewers on one case are both kept."""
    one = open_copy(tmp_path, series, labels)
    two = open_copy(tmp_path, series, labels)
    assert one.folder != two.folder
    one.array[0, 0, 0] = 1
    assert two.array[0, 0, 0] == 0
    one.close()
    assert open_copy(tmp_path, series, labels).folder == one.folder


def test_the_copy_of_a_killed_viewer_is_free_at_once(tmp_path, series, labels, open_copy):
    copy = open_copy(tmp_path, series, labels)
    copy.close()
    script = (
        "import sys; from pathlib import Path; from ctpipe.review.working_copy import resume_copy;"
        "copy = resume_copy(Path(sys.argv[1])); copy.array[1, 2, 3] = 1; print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(copy.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as viewer:
        assert viewer.stdout.readline() == "open\n"
        assert working_copy.resume_copy(copy.folder) is None
        viewer.kill()
    again = working_copy.resume_copy(copy.folder)
    assert again is not None
    with contextlib.closing(again):
        assert again.array[1, 2, 3] == 1


def test_a_reviewer_has_copies_of_their_own(tmp_path, series, labels, open_copy):
    open_copy(tmp_path, series, labels, reviewer="p-01").close()
    assert not open_copy(tmp_path, series, labels, reviewer="p-02").resumed


def test_a_full_disk_leaves_no_half_copy(tmp_path, series, labels, open_copy, monkeypatch):
    """RELIABILITY S5."""

    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(labels, "read_planes", full)
    with pytest.raises(BudgetError, match=r"disk is full: the working copy wants up to 0\.9 MiB"):
        open_copy(tmp_path, series, labels)
    assert list((tmp_path / "reviews").iterdir()) == []


def test_a_copy_without_its_record_does_not_count(tmp_path, series, labels, open_copy):
    copy = open_copy(tmp_path, series, labels)
    copy.close()
    (copy.folder / "working.json").unlink()
    assert copies_of(tmp_path, series.id) == []
    assert not open_copy(tmp_path, series, labels).resumed


def test_a_lost_plane_is_an_error_and_never_background(tmp_path, series, labels, open_copy):
    copy = open_copy(tmp_path, series, labels)
    copy.close()
    (copy.folder / "labels" / "17.0.0").unlink()
    with pytest.raises(StoreFaultError, match="lacks 1 of 40 planes"):
        open_copy(tmp_path, series, labels)


def test_a_flipped_bit_in_a_plane_is_an_error(tmp_path, series, labels, open_copy):
    copy = open_copy(tmp_path, series, labels)
    plane = copy.folder / "labels" / "17.0.0"
    data = bytearray(plane.read_bytes())
    data[-6] ^= 1
    plane.write_bytes(data)
    with pytest.raises(ValueError, match="checksum"):
        copy.array[17]


def test_an_empty_copy_has_the_classes_given_or_one_lesion(tmp_path, series, open_copy):
    assert open_copy(tmp_path, series, None).record.classes == {1: "lesion"}
    assert open_copy(tmp_path, series, None, classes=CLASSES, reviewer="p-01").record.classes == CLASSES


def test_a_new_class_takes_the_next_label_and_outlives_the_viewer(tmp_path, series, labels, open_copy):
    copy = open_copy(tmp_path, series, labels)
    assert copy.add_class("cyst") == 3
    assert copy.add_class("Liver") == 1
    with pytest.raises(UsageError):
        copy.add_class("  ")
    copy.close()
    assert open_copy(tmp_path, series, labels).record.classes == {**CLASSES, 3: "cyst"}
