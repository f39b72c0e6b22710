"""The copy that is painted on: made whole, locked, resumed, never half; its journal is all that is written."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from review_store import CLASSES, RUN, SERIES, phantom

from ctpipe.errors import BudgetError, StoreFaultError, UsageError
from ctpipe.review import base, working_copy
from ctpipe.review.delta import Delta
from ctpipe.review.working_copy import copies_of, older_copies
from ctpipe.store import open_store, remove


@pytest.fixture
def root(store_path):
    return store_path


@pytest.fixture
def series(root):
    return open_store(root)[SERIES]


@pytest.fixture
def labels(series):
    return series.labels[RUN]


@pytest.fixture
def open_copy(root, series):
    """`working_copy.open_copy`; what a test leaves open is closed at its end."""
    with contextlib.ExitStack() as stack:

        def opened(parent, **options):
            return stack.enter_context(contextlib.closing(working_copy.open_copy(root, series, parent, **options)))

        yield opened


def paint(copy, at=(3, 5, 7), label=2) -> None:
    """One voxel, journalled."""
    box = tuple(slice(n, n + 1) for n in at)
    delta = Delta.between(box, copy.array[box], np.full((1, 1, 1), label, np.uint8))
    delta.put(copy.array)
    copy.journal.append("brush", delta)


def test_a_copy_is_the_parent_in_memory_and_an_empty_journal(root, labels, open_copy):
    copy = open_copy(labels)
    assert np.array_equal(copy.array, phantom()[1])
    assert copy.array.dtype == np.uint8
    assert not copy.resumed
    assert copy.folder.parent == root / "reviews"
    assert copy.folder.name.startswith(SERIES + "-")
    assert sorted(path.name for path in copy.folder.iterdir()) == ["base", "journal", "lock", "working.json"]
    assert (copy.folder / "journal").stat().st_size < 100, "no voxel is written at opening"
    stated = json.loads((copy.folder / "working.json").read_text())
    assert (stated["parent"], stated["parent_content"], stated["reviewer"]) == (labels.name, labels.content, "reader")


def test_the_parents_shards_are_linked_and_not_copied(labels, open_copy):
    copy = open_copy(labels)
    kept = sorted((copy.folder / "base" / "c").rglob("0"))
    assert [path.stat().st_nlink for path in kept if path.is_file()] == [2, 2]


def test_a_copy_is_resumed_with_its_strokes(labels, open_copy):
    """RELIABILITY R1: a closed or killed viewer loses no finished stroke."""
    copy = open_copy(labels)
    paint(copy)
    copy.close()
    again = open_copy(labels)
    assert again.resumed
    assert again.folder == copy.folder
    assert again.array[3, 5, 7] == 2
    assert np.count_nonzero(again.array != phantom()[1]) == 1


def test_two_viewers_of_the_same_labels_get_two_copies(labels, open_copy):
    """RELIABILITY R3: two reviewers on one case are both kept."""
    one, two = open_copy(labels), open_copy(labels)
    assert one.folder != two.folder
    paint(one)
    assert two.array[3, 5, 7] == 0
    one.close()
    assert open_copy(labels).folder == one.folder


def test_the_copy_of_a_killed_viewer_is_free_at_once(root, series, labels, open_copy):
    copy = open_copy(labels)
    copy.close()
    script = (
        "import sys; from pathlib import Path; from test_working_copy import *;"
        "series = open_store(sys.argv[1])[SERIES];"
        "copy = working_copy.resume_copy(Path(sys.argv[2]), series); paint(copy); print('open', flush=True);"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(root), str(copy.folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as viewer:  # fmt: skip
        assert viewer.stdout.readline() == "open\n"
        assert working_copy.resume_copy(copy.folder, series) is None
        viewer.kill()
    assert open_copy(labels).array[3, 5, 7] == 2


def test_a_reviewer_has_copies_of_their_own(labels, open_copy):
    open_copy(labels, reviewer="p-01").close()
    assert not open_copy(labels, reviewer="p-02").resumed


def test_a_full_disk_leaves_no_half_copy(root, labels, open_copy, monkeypatch):
    """RELIABILITY S5."""

    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(working_copy, "keep", full)
    with pytest.raises(BudgetError, match="disk is full: the working copy"):
        open_copy(labels)
    assert list((root / "reviews").iterdir()) == []


def test_a_copy_without_its_record_does_not_count(root, labels, open_copy):
    copy = open_copy(labels)
    copy.close()
    (copy.folder / "working.json").unlink()
    assert copies_of(root, SERIES) == []
    assert not open_copy(labels).resumed


def test_a_journal_that_is_gone_is_an_error_and_never_an_empty_one(labels, open_copy):
    copy = open_copy(labels)
    paint(copy)
    copy.close()
    (copy.folder / "journal").unlink()
    with pytest.raises(StoreFaultError, match=r"journal of working copy .* cannot be read .*restore"):
        open_copy(labels)


def test_corrections_outlive_a_parent_that_is_removed(root, labels, open_copy):
    """RELIABILITY R4: told with what they were made on."""
    copy = open_copy(labels)
    paint(copy)
    copy.close()
    remove(open_store(root, "a"), RUN)
    again = working_copy.resume_copy(copy.folder, open_store(root)[SERIES])
    with contextlib.closing(again):
        assert again.told == [f"stale: made on {RUN}, which is no longer in the store"]
        assert again.array[3, 5, 7] == 2
        assert np.count_nonzero(again.array != phantom()[1]) == 1


@pytest.mark.parametrize("missing", ["base/c/1/0/0", "base/zarr.json"])
def test_a_base_that_is_gone_with_its_parent_is_an_error_and_never_background(root, labels, open_copy, missing):
    copy = open_copy(labels)
    copy.close()
    remove(open_store(root, "a"), RUN)
    (copy.folder / missing).unlink()
    with pytest.raises(StoreFaultError):
        working_copy.resume_copy(copy.folder, open_store(root)[SERIES])


def test_where_links_are_not_possible_the_base_is_copied(labels, open_copy, monkeypatch):
    def refused(*_args):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(base.os, "link", refused)
    copy = open_copy(labels)
    assert (copy.folder / "base" / "c" / "0" / "0" / "0").read_bytes() == (
        labels.path / "0" / "c" / "0" / "0" / "0"
    ).read_bytes()


def test_a_working_copy_of_an_older_ctpipe_is_told_and_left_alone(root, labels, open_copy):
    old = root / "reviews" / f"{SERIES}-0a0a0a0a"
    shutil.copytree(labels.path / "0", old / "labels")
    (old / "working.json").write_text(json.dumps({"format": 1, "series": SERIES, "parent": RUN, "reviewer": "reader"}))
    before = sorted(path.read_bytes() for path in old.rglob("*") if path.is_file())
    copy = open_copy(labels)
    assert not copy.resumed
    assert copy.story.endswith(f"1 working copy of an older ctpipe is left as it is: {old.name}")
    assert older_copies(root, SERIES) == [old]
    assert sorted(path.read_bytes() for path in old.rglob("*") if path.is_file()) == before


def test_a_working_copy_of_a_newer_ctpipe_is_refused(root, labels, open_copy):
    copy = open_copy(labels)
    copy.close()
    path = copy.folder / "working.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 9}))
    with pytest.raises(StoreFaultError, match="has format 9, known is 2"):
        open_copy(labels)


def test_an_empty_copy_has_the_classes_given_or_one_lesion(open_copy):
    copy = open_copy(None)
    assert copy.record.classes == {1: "lesion"}
    assert not copy.array.any()
    assert open_copy(None, classes=CLASSES, reviewer="p-01").record.classes == CLASSES


def test_a_new_class_takes_the_next_label_and_outlives_the_viewer(labels, open_copy):
    copy = open_copy(labels)
    paint(copy)
    assert copy.add_class("cyst") == 3
    assert copy.add_class("Liver") == 1
    with pytest.raises(UsageError):
        copy.add_class("  ")
    copy.close()
    again = open_copy(labels)
    assert again.record.classes == {**CLASSES, 3: "cyst"}
    assert again.array[3, 5, 7] == 2, "the journal still belongs to the copy"


def test_voxels_come_from_the_labels_given_which_may_have_them_in_memory(root, series, labels, open_copy):
    class InMemory:
        """Labels whose planes were read ahead, as the preloader gives them."""

        asked = 0

        def __getattr__(self, name):
            return getattr(labels, name)

        def read_planes(self, start, stop, level=0):
            self.asked += stop - start
            return np.full((stop - start, 160, 144), 2, np.uint8)

    ahead = InMemory()
    for _ in range(2):
        copy = open_copy(ahead)
        assert (copy.array == 2).all()
        copy.close()
    assert ahead.asked == 80
