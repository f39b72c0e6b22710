"""What `ctpipe check` prints of a volume that it accepts."""

from __future__ import annotations

import json

import builders
import pytest

from ctpipe.cli import main


@pytest.fixture
def series(tmp_path):
    def exposure(z, ds):
        ds.Exposure = 100 + 10 * z
        ds.RescaleIntercept = -1024 - (z == 2)

    return builders.write_files(tmp_path / "in", builders.ct_series(builders.hu_block((4, 8, 9)), edit=exposure))


def test_the_ledger_is_a_line_a_volume_and_with_planes_a_line_a_plane(series, capsys):
    assert main(["check", str(series)]) == 0
    short = capsys.readouterr().out
    assert "ledger of series" in short
    assert "100 to 130" in short
    assert "-1025, -1024" in short
    assert "SHA-256" not in short
    assert main(["check", str(series), "--planes"]) == 0
    rows = capsys.readouterr().out.partition("SHA-256")[2].partition("verdict")[0].split("\n")
    assert len([row for row in rows if row[:1].isdigit()]) == 4


def test_the_document_holds_the_same(series, capsys):
    assert main(["check", str(series), "--json"]) == 0
    (volume,) = json.loads(capsys.readouterr().out)["volumes"]
    assert volume["ledger"]["exposure_mas"] == [100, 130]
    assert volume["ledger"]["intercept"] == [-1025, -1024]
    assert volume["ledger"]["step_mm"] == [2.5, 2.5]
    assert "rows" not in volume["ledger"]
    assert main(["check", str(series), "--json", "--planes"]) == 0
    (volume,) = json.loads(capsys.readouterr().out)["volumes"]
    assert [row["plane"] for row in volume["ledger"]["rows"]] == [0, 1, 2, 3]
    assert len({row["source_digest"] for row in volume["ledger"]["rows"]}) == 4


def test_what_is_refused_has_no_ledger(tmp_path, capsys):
    files = builders.ct_series(builders.hu_block((6, 8, 9)), drop=[3])
    assert main(["check", str(builders.write_files(tmp_path / "in", files)), "--json"]) == 3
    (volume,) = json.loads(capsys.readouterr().out)["volumes"]
    assert (volume["verdict"], volume["ledger"]) == ("reject", None)


def test_an_empty_folder_is_told(tmp_path, capsys):
    assert main(["check", str(tmp_path)]) == 3
    assert "there are no files under the given paths; cure:" in capsys.readouterr().err
