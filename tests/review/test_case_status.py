"""Decisions about cases: appended whole or not at all, by several at once, readable after damage."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest

from ctpipe.errors import BudgetError, UsageError
from ctpipe.review import case_status
from ctpipe.review.case_status import Decision, Status, add_status, read_status

SERIES = "7f3a9c0000000001"


def decide(root, status=Status.ACCEPTED, reviewer="p-01", **facts) -> str | None:
    return add_status(root, Decision(SERIES, status, reviewer, **facts))


def path(root):
    return root / "reviews" / f"{SERIES}.status.jsonl"


def test_decisions_come_back_in_order_with_all_that_they_say(tmp_path):
    assert read_status(tmp_path, SERIES).newest() is None
    decide(tmp_path, Status.FLAGGED, labels="4be1", comment="edge of segment 7?\tsure\n", seconds=12.34)
    decide(tmp_path)
    history = read_status(tmp_path, SERIES)
    assert [one.status for one in history.decisions] == [Status.FLAGGED, Status.ACCEPTED]
    first = history.decisions[0]
    assert (first.labels, first.comment, first.seconds) == ("4be1", "edge of segment 7?\tsure\n", 12.3)
    assert history.newest().status is Status.ACCEPTED
    assert history.notes == ()


def test_two_reviewers_both_stand_and_their_conflict_is_seen(tmp_path):
    """RELIABILITY R3."""
    decide(tmp_path, Status.ACCEPTED, "p-01")
    assert not read_status(tmp_path, SERIES).in_conflict
    decide(tmp_path, Status.REJECTED, "p-02")
    history = read_status(tmp_path, SERIES)
    assert history.in_conflict
    assert history.newest("p-01").status is Status.ACCEPTED
    assert history.newest().status is Status.REJECTED
    decide(tmp_path, Status.TODO, "p-02")  # put back
    assert not read_status(tmp_path, SERIES).in_conflict


def test_many_writers_at_once_lose_nothing(tmp_path):
    """RELIABILITY R3: two processes."""
    script = (
        "import sys; from pathlib import Path; from ctpipe.review.case_status import *\n"
        "for n in range(25): add_status(Path(sys.argv[1]), "
        f"Decision('{SERIES}', Status.FLAGGED, sys.argv[2], comment=str(n)))"
    )
    with_names = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path), name]) for name in ("p-01", "p-02")]
    assert [one.wait() for one in with_names] == [0, 0]
    history = read_status(tmp_path, SERIES)
    assert history.notes == ()
    for name in ("p-01", "p-02"):
        assert [one.comment for one in history.decisions if one.reviewer == name] == [str(n) for n in range(25)]


def test_a_tail_cut_at_any_byte_is_told_and_the_next_writer_cuts_it_off(tmp_path):
    """RELIABILITY R5."""
    decide(tmp_path, comment="first")
    kept = path(tmp_path).stat().st_size
    decide(tmp_path, Status.REJECTED, comment="second")
    whole = path(tmp_path).read_bytes()
    for size in range(kept + 1, len(whole)):
        path(tmp_path).write_bytes(whole[:size])
        history = read_status(tmp_path, SERIES)
        assert [one.comment for one in history.decisions] == ["first"]
        assert "unfinished record" in history.notes[0]
    assert "were cut off" in decide(tmp_path, Status.FLAGGED, comment="third")
    history = read_status(tmp_path, SERIES)
    assert ([one.comment for one in history.decisions], history.notes) == (["first", "third"], ())


def test_a_flipped_byte_anywhere_costs_its_own_record_only(tmp_path):
    """RELIABILITY R5."""
    for n in range(3):
        decide(tmp_path, comment=str(n))
    whole = path(tmp_path).read_bytes()
    ends = [n + 1 for n, byte in enumerate(whole) if byte == ord("\n")]
    for place in range(0, len(whole), 7):
        flipped = bytearray(whole)
        flipped[place] ^= 0x04
        path(tmp_path).write_bytes(flipped)
        history = read_status(tmp_path, SERIES)
        hit = {str(sum(end <= place for end in ends))}
        if place + 1 in ends[:-1]:  # a lost line end joins two records
            hit.add(str(ends.index(place + 1) + 1))
        assert {one.comment for one in history.decisions} == {"0", "1", "2"} - hit
        assert history.notes


def test_a_record_of_a_newer_ctpipe_is_named_and_never_cut_off(tmp_path):
    decide(tmp_path, comment="mine")
    newer = case_status._line(Decision(SERIES, Status.ACCEPTED, "p-02")).partition(b"\t")[0].replace(
        b'"accepted"', b'"countersigned"')  # fmt: skip
    with path(tmp_path).open("ab") as out:
        out.write(newer + f"\t{case_status.crc32c(newer)}\n".encode())
    assert decide(tmp_path, comment="later") is None
    history = read_status(tmp_path, SERIES)
    assert [one.comment for one in history.decisions] == ["mine", "later"]
    assert history.notes == (f"record 2 of reviews/{SERIES}.status.jsonl cannot be understood and was left out",)


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    """RELIABILITY R6."""
    decide(tmp_path)
    before = path(tmp_path).read_bytes()

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(case_status.os, "fsync", full)
        with pytest.raises(BudgetError, match="disk is full"):
            decide(tmp_path, Status.REJECTED)
    assert path(tmp_path).read_bytes() == before
    assert read_status(tmp_path, SERIES).newest().status is Status.ACCEPTED


def test_a_comment_without_end_is_refused(tmp_path):
    with pytest.raises(UsageError, match="2001 characters"):
        decide(tmp_path, comment="x" * 2001)
    assert not path(tmp_path).exists()


def test_removing_a_volume_removes_what_was_said_about_it(store_path):
    from ctpipe.store import open_store
    from ctpipe.store.gc import remove

    decide(store_path, comment="words of a reviewer")
    remove(open_store(store_path, "a"), SERIES)
    assert not path(store_path).exists()
