"""Saved tables: the same rows again, faults found, and a store that changed is told apart from one that grew."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from stores_made import add_labels, store_of
from volumes import labelled

from ctpipe.errors import NotThereError, StoreFaultError, UsageError
from ctpipe.patches import load_table, patch_table, rows, saved_tables
from ctpipe.patches.saving import look
from ctpipe.store import open_store
from ctpipe.store.gc import remove


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    series = [labelled((70, 20, 18), number, 32, id=f"ab{number}", patient=f"p-{number}") for number in (1, 2)]
    return store_of(tmp_path_factory.mktemp("made") / "S", series).root


@pytest.fixture
def root(made, tmp_path) -> Path:
    shutil.copytree(made, tmp_path / "S")
    return tmp_path / "S"


def table_of(root: Path, **more):
    return patch_table(root, (1, 9, 9), (5, 4, 4), **more).assign(mix="fraction_liver * 2").where("mix > 0.1")


@pytest.mark.usefixtures("small_parts")
def test_a_saved_table_gives_the_same_rows_columns_and_pixels(root):
    table = table_of(root, statistics=True, lesions=["lesion"])
    folder = table.save("mine")
    assert folder == root / "tables" / "mine"
    again = load_table(folder)
    pd.testing.assert_frame_equal(again.compute(), table.compute())
    assert len(again) == len(table.compute())
    assert again.columns == table.columns
    assert again.row_bytes == table.row_bytes
    assert again.windows == table.windows
    some = again.sample(20, 1)
    pd.testing.assert_frame_equal(some, table.sample(20, 1))
    assert np.array_equal(again.fetch(some), table.fetch(some))
    pd.testing.assert_frame_equal(again.where("label == 'liver' and s_mm > 9").compute(),
                                  table.where("label == 'liver' and s_mm > 9").compute())
    pd.testing.assert_frame_equal(again.frame.compute(scheduler="synchronous").reset_index(drop=True), table.compute())
    assert again.sql("SELECT count(*) AS n FROM rows")["n"].tolist() == [len(again)]


def test_saving_twice_writes_the_same_bytes_and_leaves_no_file_of_the_one_before(root):
    first = table_of(root).save("t")
    before = {path.name: path.read_bytes() for path in first.iterdir()}
    assert {path.name: path.read_bytes() for path in table_of(root).save("t").iterdir()} == before
    table_of(root).where("label == 2").save("t")
    after = {path.name for path in first.iterdir()}
    assert len(after) == len(before)
    assert after & set(before) == {"table.json"}


def test_a_store_that_changed_is_said_and_one_that_grew_is_not_a_fault(root, made):
    table = table_of(root)
    wanted = table.compute()
    folder = table.save("t")
    store = open_store(root, "a")
    grid = store["ab1"].grid
    add_labels(store, "ab1", grid, np.ones((70, 20, 18), np.uint8), "truth-later")
    assert load_table(folder).compute().equals(wanted)  # the table keeps to its own labels
    assert look(folder).newer == ("series ab1 has newer labels truth-later",)
    [listed] = saved_tables(root)
    assert (listed["name"], listed["rows"], listed["changed"]) == ("t", len(wanted), [])
    shutil.rmtree(root / "ab2.ome.zarr")
    with pytest.raises(StoreFaultError, match="series ab2 is gone"):
        load_table(folder)
    assert len(load_table(folder, keep_changed=True)) == len(wanted)
    assert saved_tables(root)[0]["changed"] == ["series ab2 is gone"]
    assert "tables/t" in remove(store, "ab1")  # whoever asks for a volume to be removed means its rows too
    assert saved_tables(root) == []


def test_a_rotten_or_missing_file_is_an_error_and_never_another_row(root):
    folder = table_of(root).save("t")
    [file, *_] = sorted(folder.glob("*.parquet"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(StoreFaultError, match="changed after it was saved"):
        load_table(folder).compute()
    file.unlink()
    with pytest.raises(StoreFaultError, match="missing"):
        load_table(folder).compute()
    document = folder / "table.json"
    changed = re.sub(rb'("level": ?)0', rb"\g<1>1", document.read_bytes())
    assert changed != document.read_bytes()
    document.write_bytes(changed)
    with pytest.raises(StoreFaultError):
        load_table(folder)


def test_names_that_are_no_tables_are_refused(root, tmp_path):
    with pytest.raises(NotThereError, match="no saved table"):
        load_table(root / "tables" / "nothing")
    with pytest.raises(UsageError, match="no name"):
        table_of(root).save("a b")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    with pytest.raises(UsageError, match="no table"):
        table_of(root).save(tmp_path / "full")
    outside = table_of(root).save(tmp_path / "elsewhere" / "t")
    assert len(load_table(outside)) == len(table_of(root).compute())


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "PART_VOXELS", 1)
