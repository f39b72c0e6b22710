"""`ctpipe patches`: each action on a small store, what it prints, how it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "patches"))

from stores_made import store_of
from volumes import labelled

from ctpipe.cli import main


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    series = [labelled((6, 40, 36), number, 32, id=f"ab{number}", patient=f"p-{number}") for number in (1, 2)]
    return str(store_of(tmp_path_factory.mktemp("cli") / "S", series).root)


SMALL = ["--window", "1,9,9", "--stride", "1,4,4"]


def document(capsys, *words: str) -> object:
    assert main(["patches", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_build_tells_rows_bytes_and_groups(store, capsys):
    found = document(capsys, "build", store, *SMALL, "--statistics", "--lesions", "lesion")
    assert found["rows"] == 2 * 6 * 10 * 9 == sum(found["labels"].values())
    assert found["row_bytes"] <= 40
    assert found["pixels_if_copied"] == found["rows"] * 81 * 2
    assert main(["patches", "build", store, *SMALL, "--where", "label == 'liver'"]) == 0
    assert "copied patches would take" in capsys.readouterr().out


def test_a_plan_that_fits_exits_0_and_one_that_does_not_4_with_the_cure(store, capsys):
    found = document(capsys, "plan", store, *SMALL, "--workers", "2", "--memory", "2G")
    assert found["fits"]
    assert found["rows"] == 1080
    assert main(["patches", "plan", store, *SMALL, "--workers", "1", "--memory", "100M"]) == 4
    assert "cure:" in capsys.readouterr().err


def test_save_query_and_ls_name_the_table(store, capsys, tmp_path):
    saved = document(capsys, "save", store, *SMALL, "--name", "mine", "--where", "label == 'liver'")
    answer = document(capsys, "query", store, "--table", "mine", "--sql", "SELECT count(*) AS n FROM rows")
    assert answer == [{"n": saved["rows"]}]
    listed = document(capsys, "ls", store)
    assert [one["name"] for one in listed["saved"]] == ["mine"]
    assert main(["patches", "ls", store]) == 0
    assert "as the store" in capsys.readouterr().out
    out = tmp_path / "rows.csv"
    assert main(["patches", "query", store, *SMALL, "--sql", "SELECT * FROM rows LIMIT 5", "--out", str(out)]) == 0
    assert len(out.read_text().splitlines()) == 6


def test_show_writes_a_picture(store, capsys, tmp_path):
    found = document(capsys, "show", store, *SMALL, "--out", str(tmp_path / "sheet.png"), "-n", "4")
    assert Path(found["png"]).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("words", [
    ["show"], ["query"], ["save"], ["query", "--table", "none", "--sql", "SELECT 1 FROM rows"],
    ["build", "--publish", "x"],
    ["build", "--where", "label == 'spleen'"], ["build", "--lesions", "spleen"],
])  # fmt: skip
def test_what_lacks_is_named_in_one_line(store, capsys, words):
    assert main(["patches", words[0], store, *words[1:]]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "cure:" in lines[0]


@pytest.mark.parametrize("wrong", [["--window", "1,9"], ["--window", "a,b,c"], ["--memory", "much"]])
def test_wrong_lengths_and_amounts_end_with_2(store, wrong):
    with pytest.raises(SystemExit) as end:
        main(["patches", "plan", store, *wrong])
    assert end.value.code == 2
