"""verdicts.parquet: the last word on every series, and on the files of the last call."""

from __future__ import annotations

import pytest

from ctpipe.store import open_store
from ctpipe.store.verdicts import read_verdicts


def row(series, verdict, volume=None):
    return {"series": series, "verdict": verdict, "reason": "", "detail": "", "cure": "", "files": 1, "id": volume}


def told(store):
    table = read_verdicts(store.root).astype(object).fillna("-")
    return list(zip(table["series"], table["verdict"], strict=True))


def test_a_series_has_its_last_verdict_and_files_without_one_that_of_the_last_call(tmp_path):
    store = open_store(tmp_path / "S", mode="a")
    store.write_verdicts([row("u-1", "reject"), row("u-2", "accept", "aa"), row(None, "set-aside")])
    store.write_verdicts([row("u-1", "accept", "bb"), row(None, "reject")])
    assert sorted(told(store)) == [("-", "reject"), ("u-1", "accept"), ("u-2", "accept")]


@pytest.mark.parametrize("bad", [b"", b"PAR1", b"PAR1" + bytes(64) + b"PAR1"])
def test_a_table_that_cannot_be_read_is_written_anew(tmp_path, bad):
    store = open_store(tmp_path / "S", mode="a")
    (store.root / "verdicts.parquet").write_bytes(bad)
    assert told(store) == []
    store.write_verdicts([row("u-1", "reject")])
    assert told(store) == [("u-1", "reject")]
