"""The journal as a file: chained, cut where it is torn, read on where it is rotten, kept where the disk is full."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from ctpipe.errors import BudgetError, StoreFaultError, UsageError
from ctpipe.review import journal as journal_module
from ctpipe.review.delta import Delta
from ctpipe.review.journal import Journal
from ctpipe.review.records import HEADER_BYTES, MARKER
from ctpipe.review.working_copy import replay
from ctpipe.store import files

GENESIS = sha256(b"a copy").digest()
SHAPE = (4, 12, 10)


def act(journal: Journal, array: np.ndarray, seed: int) -> None:
    """One edit of a small box, in the array and in the journal."""
    rng = np.random.default_rng(seed)
    start = [int(rng.integers(0, n - 2)) for n in SHAPE]
    box = tuple(slice(at, at + 2) for at in start)
    delta = Delta.between(box, array[box], (array[box] + rng.integers(1, 5, (2, 2, 2))).astype(np.uint8))
    delta.put(array)
    journal.append("brush", delta, radius_mm=2.0)


@pytest.fixture
def made(tmp_path):
    """(path, states after 0, 1, … actions) of a journal of six actions."""
    path = tmp_path / "journal"
    with contextlib.closing(Journal.create(path, GENESIS)) as journal:
        array = np.zeros(SHAPE, np.uint8)
        states = [array.copy()]
        for seed in range(6):
            act(journal, array, seed)
            states.append(array.copy())
    return path, states


def state(path: Path) -> tuple[np.ndarray, Journal]:
    array = np.zeros(SHAPE, np.uint8)
    with contextlib.closing(Journal(path, GENESIS)) as journal:
        replay(journal, array)
    return array, journal


def ends(path: Path) -> list[int]:
    """Where each record ends, the header's end first."""
    with contextlib.closing(Journal(path, GENESIS)) as journal:
        return [HEADER_BYTES, *(entry.end for entry in journal.entries)]


def test_a_journal_replays_to_what_was_painted(made):
    path, states = made
    array, journal = state(path)
    assert np.array_equal(array, states[-1])
    assert journal.told == []
    assert [entry.n for entry in journal.entries] == [1, 2, 3, 4, 5, 6]
    assert [e.previous for e in journal.entries] == [GENESIS, *(e.digest for e in journal.entries[:-1])]


def test_a_journal_cut_at_any_byte_gives_the_last_whole_action_back(made):
    """RELIABILITY R5."""
    path, states = made
    data, good = path.read_bytes(), ends(path)
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        array, journal = state(path)
        whole = max(0, sum(end <= cut for end in good) - 1)
        assert np.array_equal(array, states[whole]), cut
        told = [] if cut in good else [f"the end of the journal was torn: cut after {whole} action{'s' * (whole != 1)}"]
        assert journal.told == told, cut
        assert path.read_bytes() == data[: good[whole]], cut


def test_after_a_cut_the_next_action_goes_on_with_the_chain(made):
    path, states = made
    path.write_bytes(path.read_bytes()[:-5])
    array = states[5].copy()
    with contextlib.closing(Journal(path, GENESIS)) as journal:
        act(journal, array, 99)
    again, journal = state(path)
    assert journal.told == []
    assert np.array_equal(again, array)


def test_a_byte_flipped_anywhere_costs_its_own_action_and_is_named(made):
    """RELIABILITY R5: a bad record in the middle is named and the rest replayed; at the end it is cut."""
    path, _ = made
    data, good = path.read_bytes(), ends(path)
    deltas = []
    with contextlib.closing(Journal(path, GENESIS)) as journal:
        deltas = [journal.delta(entry) for entry in journal.entries]
    for at in range(len(data)):
        flipped = bytearray(data)
        flipped[at] ^= 1 << (at % 8)
        path.write_bytes(flipped)
        array, journal = state(path)
        hit = sum(end <= at for end in good)  # 0: the header; n: action n
        expected = np.zeros(SHAPE, np.uint8)
        for n, delta in enumerate(deltas, 1):
            if n != hit:
                delta.put(expected)
        assert np.array_equal(array, expected), at
        assert len(journal.told) == 1, (at, journal.told)
        if hit == 0:
            assert "header is rotten" in journal.told[0]
        elif hit == 6:
            assert journal.told == ["the end of the journal was torn: cut after 5 actions"]
        else:
            assert f"action {hit} cannot be read (checksum)" in journal.told[0], at
            assert journal.told[0].endswith("the rest was replayed")
            assert path.read_bytes() == bytes(flipped), "what may be mended by hand is left"


def test_an_action_that_was_taken_out_or_put_in_breaks_the_chain(made):
    path, _ = made
    data, good = path.read_bytes(), ends(path)
    path.write_bytes(data[: good[2]] + data[good[3] :])
    assert "the chain breaks before action 4: action 3 missing" in state(path)[1].told[0]
    path.write_bytes(data[: good[3]] + data[good[2] : good[3]] + data[good[3] :])
    assert any("the chain breaks before action 3" in line for line in state(path)[1].told)


def test_a_journal_of_another_copy_is_named(made):
    path, _ = made
    with contextlib.closing(Journal(path, sha256(b"another").digest())) as journal:
        assert "of another working copy" in journal.told[0]


def test_a_marker_within_a_record_is_no_record(tmp_path):
    path = tmp_path / "journal"
    array = np.zeros(SHAPE, np.uint8)
    with contextlib.closing(Journal.create(path, GENESIS)) as journal:
        journal.append("brush", None, note=MARKER.decode("latin-1") * 3)
        act(journal, array, 1)
    data = bytearray(path.read_bytes())
    data[HEADER_BYTES] ^= 1
    path.write_bytes(data)
    again, journal = state(path)
    assert np.array_equal(again, array)
    assert [entry.n for entry in journal.entries] == [2]


def test_an_action_is_synced_before_it_counts_as_saved(tmp_path, monkeypatch):
    """RELIABILITY R1."""
    synced = []
    monkeypatch.setattr(files, "sync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    with contextlib.closing(Journal.create(tmp_path / "journal", GENESIS)) as journal:
        synced.clear()
        act(journal, np.zeros(SHAPE, np.uint8), 1)
        assert synced == [journal.entries[-1].end]
        assert not journal.waiting


def test_a_record_that_changes_under_an_open_journal_is_refused(made):
    path, _ = made
    with contextlib.closing(Journal(path, GENESIS)) as journal:
        data = bytearray(path.read_bytes())
        data[-40] ^= 1
        path.write_bytes(data)
        with pytest.raises(StoreFaultError, match=r"action 6 .* changed since it was read"):
            journal.delta(journal.entries[-1])


# ------------------------------------------------------------------------------------------- full disks
class Disk:
    """Fails the n-th writing call of a journal and all after it, until `room` is True again."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int, code: int = errno.ENOSPC) -> None:
        self.at, self.calls, self.room = at, 0, False
        write, sync = os.pwrite, files.sync

        def pwrite(descriptor, data, offset):
            self.calls += 1
            if not self.room and self.calls >= self.at:
                if self.calls == self.at:
                    write(descriptor, data[: len(data) // 2], offset)  # a disk fills up in the middle of a record
                raise OSError(code, os.strerror(code))
            return write(descriptor, data, offset)

        def synced(descriptor):
            self.calls += 1
            if not self.room and self.calls >= self.at:
                raise OSError(code, os.strerror(code))
            sync(descriptor)

        patch.setattr(journal_module.os, "pwrite", pwrite)
        patch.setattr(files, "sync", synced)


@pytest.mark.parametrize("at", range(1, 8))
@pytest.mark.parametrize(("code", "error"), [(errno.ENOSPC, BudgetError), (errno.EIO, StoreFaultError)])
def test_a_disk_that_fails_at_any_call_keeps_the_actions_until_there_is_room(tmp_path, monkeypatch, at, code, error):
    """RELIABILITY R6."""
    path, array = tmp_path / "journal", np.zeros(SHAPE, np.uint8)
    journal = Journal.create(path, GENESIS)
    with monkeypatch.context() as patch:
        disk = Disk(patch, at, code)
        for seed in range(4):
            act(journal, array, seed)
        assert isinstance(journal.fault, error)
        assert journal.waiting == 4 - (at - 1) // 2
        with pytest.raises(error):
            journal.close()
        disk.room = True
        act(journal, array, 5)
        assert journal.fault is None
        assert not journal.waiting
    journal.close()
    again, found = state(path)
    assert np.array_equal(again, array)
    assert (found.told, len(found.entries)) == ([], 5)


def test_what_was_on_the_disk_before_it_filled_up_survives_a_kill(tmp_path, monkeypatch):
    path, array = tmp_path / "journal", np.zeros(SHAPE, np.uint8)
    journal = Journal.create(path, GENESIS)
    act(journal, array, 0)
    kept = array.copy()
    with monkeypatch.context() as patch:
        Disk(patch, 1)
        act(journal, array, 1)
        journal.abandon()  # as a kill does
    again, found = state(path)
    assert np.array_equal(again, kept)
    assert found.told == [], "half a record was taken back at once"


@pytest.fixture
def small_disk(tmp_path):
    """A file system in memory of a few pages."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount a tmpfs here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_real_full_disk_is_told_and_another_place_keeps_the_actions(small_disk, tmp_path):
    """RELIABILITY R6: on a file system of 32 KiB, until it is made larger."""
    array = np.zeros((1, 64, 64), np.uint8)
    rng = np.random.default_rng(0)
    box = (slice(0, 1), slice(0, 64), slice(0, 64))
    copy = small_disk / "copy"
    copy.mkdir()
    journal = Journal.create(copy / "journal", GENESIS)
    for _ in range(12):  # some 7 KiB each: noise does not compress
        new = rng.integers(0, 255, array.shape).astype(np.uint8)
        delta = Delta.between(box, array, new)
        delta.put(array)
        journal.append("brush", delta)
    assert isinstance(journal.fault, BudgetError)
    assert 5 < journal.waiting < 12
    assert "the disk is full" in str(journal.fault)
    place = journal.write_elsewhere(tmp_path)
    assert place == tmp_path / "copy.journal"
    journal.close()  # nothing would be lost

    again = np.zeros_like(array)
    with contextlib.closing(Journal(copy / "journal", GENESIS)) as short:
        there = len(short.entries)
        assert 0 < there < 12
        subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True, capture_output=True)
        assert short.take_in(place) == 12 - there
        replay(short, again)
    assert np.array_equal(again, array)
    with contextlib.closing(Journal(copy / "journal", GENESIS)) as whole:
        assert (whole.told, len(whole.entries)) == ([], 12)


def test_actions_kept_elsewhere_go_home_when_there_is_room_and_the_other_file_goes(tmp_path, monkeypatch):
    (tmp_path / "copy").mkdir()
    path, array = tmp_path / "copy" / "journal", np.zeros(SHAPE, np.uint8)
    journal = Journal.create(path, GENESIS)
    act(journal, array, 0)
    with monkeypatch.context() as patch:
        disk = Disk(patch, 1)
        patch.setattr(files, "write_atomic", lambda place, data: place.write_bytes(data))
        act(journal, array, 1)
        place = journal.write_elsewhere(tmp_path)
        act(journal, array, 2)
        assert place.stat().st_size > path.stat().st_size
        disk.room = True
        assert journal.flush()
        assert not place.exists()
    journal.close()
    assert np.array_equal(state(path)[0], array)


def test_a_journal_that_does_not_go_on_is_not_taken_in(made, tmp_path):
    path, _ = made
    (tmp_path / "other").mkdir()
    array = np.zeros(SHAPE, np.uint8)
    with contextlib.closing(Journal.create(tmp_path / "other" / "journal", GENESIS)) as other:
        for seed in range(50, 60):
            act(other, array, seed)
    with contextlib.closing(Journal(path, GENESIS)) as journal:
        with pytest.raises(UsageError, match="does not go on where"):
            journal.take_in(tmp_path / "other" / "journal")
        assert len(journal.entries) == 6
