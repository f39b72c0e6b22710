"""Pseudonyms and the key they hang on (P1-P4)."""

import os
import pickle

import pytest
from builders import ct_series, hu_block, write_files

from ctpipe.dicom import Pseudonyms, check, load_pseudonyms
from ctpipe.errors import NotThereError, UsageError


@pytest.fixture
def key(tmp_path, monkeypatch):
    path = tmp_path / "config" / "key"
    monkeypatch.setenv("CTPIPE_KEY", str(path))
    return path


def test_the_key_is_made_once_for_its_owner_alone(key):
    first = load_pseudonyms()
    assert key.stat().st_mode & 0o777 == 0o600
    assert load_pseudonyms().fingerprint == first.fingerprint
    assert [p.name for p in key.parent.iterdir()] == ["key"]


def test_a_key_that_others_can_read_is_refused_with_its_cure(key):
    load_pseudonyms()
    key.chmod(0o640)
    with pytest.raises(UsageError, match="chmod 600"):
        load_pseudonyms()


def test_a_file_that_is_no_key_is_refused(key):
    key.parent.mkdir()
    key.write_text("not a key")
    key.chmod(0o600)
    with pytest.raises(UsageError, match="no pseudonym key"):
        load_pseudonyms()


def test_without_a_key_nothing_is_made_unless_asked(key, tmp_path):
    with pytest.raises(NotThereError):
        load_pseudonyms(create=False)
    write_files(tmp_path / "in", ct_series(hu_block()))
    assert check(tmp_path / "in")[0].source is not None
    assert not key.exists()


def test_pseudonyms_hang_on_the_key_the_domain_and_the_text():
    a, b = Pseudonyms(b"a" * 32), Pseudonyms(b"b" * 32)
    names = {a.patient("1"), a.uid("1"), b.patient("1"), b.uid("1"), a.patient("2"), a.fingerprint, b.fingerprint}
    assert len(names) == 7
    assert a.patient("1") == Pseudonyms(b"a" * 32).patient("1")
    assert a.patient("1").startswith("p-")
    assert Pseudonyms(b"a" * 32, keep_uids=True).uid("1.2.3") == "1.2.3"


def test_the_key_never_shows_in_a_repr():
    assert "a" * 8 not in repr(Pseudonyms(b"a" * 32))


def test_no_identifier_leaves_check(tmp_path):
    """P1, P2, X14: neither verdict nor source holds a name, a number, a UID or the preamble."""
    planted = {
        "PatientName": "Zqname^X",
        "PatientID": "Zqid",
        "InstitutionName": "Zqplace",
        "StudyDescription": "Zqtext",
    }

    def edit(z, ds):
        for keyword, value in planted.items():
            setattr(ds, keyword, value)
        ds.StudyInstanceUID = "1.2.777001.1"

    files = [b"Zqpreamble".ljust(128, b"\0") + data[128:] for data in ct_series(hu_block(), edit=edit)]
    (verdict,) = check(write_files(tmp_path, files), Pseudonyms(b"k" * 32))
    told = pickle.dumps((verdict.as_json(), verdict.source)).replace(os.fsencode(str(tmp_path)), b"")
    assert verdict.source is not None
    assert b"Zq" not in told
    assert b"777001" not in told
    assert "Zq" not in verdict.source.plane_table().to_csv()
