"""Where files come from: folders, archives, links, special files (X4, X5, X11)."""

import io
import os
import pickle
import tarfile
import zipfile

import pytest
from builders import ct_series, hu_block, write_files
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import uid

from ctpipe.dicom import Pseudonyms, check, iter_items, read_planes
from ctpipe.errors import InputError, NotThereError


def zip_of(members, method=zipfile.ZIP_DEFLATED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def faults(path):
    return [item.fault.reason for item in iter_items(path) if item.fault]


def test_folders_files_and_archives_give_each_file_once_with_its_bytes(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "one").write_bytes(b"1")
    (tmp_path / "a" / "two.zip").write_bytes(zip_of({"x/2": b"22", "in.zip": zip_of({"3": b"333"})}))
    with tarfile.open(tmp_path / "four.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "a" / "b" / "one", "deep/4")
    items = list(iter_items([tmp_path, tmp_path / "a"]))
    assert sorted(item.read() for item in items) == [b"1", b"1", b"22", b"333"]
    assert [item.number for item in items] == [1, 2, 3, 4]
    assert ("a", "two.zip", "in.zip", "3") in [item.parts for item in items]


def test_a_locator_reads_the_same_bytes_after_a_journey_by_pickle(tmp_path):
    (tmp_path / "z.zip").write_bytes(zip_of({"in.zip": zip_of({"m": b"member"})}))
    (item,) = iter_items(tmp_path)
    locator = pickle.loads(pickle.dumps(item.locator))
    assert (locator.read(), locator.head(3), locator.read_range(2, 3)) == (b"member", b"mem", b"mbe")


def test_a_zip_three_deep_is_refused_and_one_two_deep_is_read(tmp_path):
    (tmp_path / "z.zip").write_bytes(zip_of({"a.zip": zip_of({"b.zip": zip_of({"c": b"c"})})}))
    assert faults(tmp_path) == ["archive-depth"]


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "..\\x", "C:\\x"])
def test_an_archive_with_a_name_that_leaves_it_is_refused_whole(tmp_path, name):
    """X4."""
    (tmp_path / "z.zip").write_bytes(zip_of({"good": b"1", name: b"2"}))
    assert faults(tmp_path) == ["unsafe-path"]
    assert len(list(iter_items(tmp_path))) == 1


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_a_tar_with_links_or_devices_is_refused_whole(tmp_path, kind):
    """X4."""
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        info = tarfile.TarInfo("member")
        info.type, info.linkname = kind, "/etc/hostname"
        tar.addfile(info)
    assert faults(tmp_path) == ["unsafe-path"]


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    """X5."""
    (tmp_path / "bomb.zip").write_bytes(zip_of({"zeros": bytes(70 << 20)}))
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *a, **k: pytest.fail("a member was opened"))
    assert faults(tmp_path) == ["bomb"]


def test_links_and_pipes_are_never_opened(tmp_path):
    (tmp_path / "outside").write_bytes(b"secret")
    inside = tmp_path / "in"
    inside.mkdir()
    os.symlink(tmp_path / "outside", inside / "link")
    os.symlink("..", inside / "up")
    os.mkfifo(inside / "pipe")
    assert sorted(faults(inside)) == ["link", "link", "special-file"]


def test_a_gzip_file_that_is_no_archive_is_one_item(tmp_path):
    import gzip

    (tmp_path / "v.nii.gz").write_bytes(gzip.compress(b"n" * 600))
    (item,) = iter_items(tmp_path)
    assert item.fault is None
    assert item.name == "v.nii.gz"


def test_a_file_that_vanished_is_an_input_error_without_its_name(tmp_path):
    """P4."""
    (tmp_path / "Zqname").write_bytes(b"x")
    (item,) = iter_items(tmp_path)
    (tmp_path / "Zqname").unlink()
    with pytest.raises(InputError) as caught:
        item.read()
    assert "Zqname" not in str(caught.value)


@settings(max_examples=40, deadline=None)
@given(
    places=st.lists(st.tuples(st.integers(0, 1400), st.integers(0, 255)), min_size=1, max_size=12),
    cut=st.integers(0, 400),
    syntax=st.sampled_from([uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.RLELossless]),
)
def test_damaged_files_end_in_verdicts_never_in_errors(tmp_path_factory, places, cut, syntax):
    """X7."""
    files = ct_series(hu_block((3, 12, 16)), syntax=syntax)
    damaged = bytearray(files[1])
    for place, value in places:
        damaged[place % len(damaged)] = value
    files[1] = bytes(damaged[: len(damaged) - cut])
    folder = write_files(tmp_path_factory.mktemp("damaged"), files)
    verdicts = check(folder, Pseudonyms(b"k" * 32))
    for verdict in verdicts:
        if verdict.source:
            read_planes(verdict.source, 0, verdict.source.grid.shape[0])
    assert sum(verdict.n_files for verdict in verdicts) == 3


def test_a_path_that_does_not_exist_is_not_there(tmp_path):
    with pytest.raises(NotThereError):
        list(iter_items(tmp_path / "nothing"))


def test_one_flipped_bit_in_an_archive_refuses_the_whole_archive(tmp_path):
    files = ct_series(hu_block())
    data = bytearray(zip_of({str(i): f for i, f in enumerate(files)}, zipfile.ZIP_STORED))
    data[len(data) // 2] ^= 1
    (tmp_path / "z.zip").write_bytes(data)
    write_files(tmp_path / "beside", ct_series(hu_block(), series="good"))
    verdicts = check(tmp_path, Pseudonyms(b"k" * 32))
    assert [(v.kind.value, v.reason, v.n_files) for v in verdicts] == [("accept", "", 8), ("reject", "unreadable", 8)]
