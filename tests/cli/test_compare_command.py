"""`ctpipe compare`: two label sets of a volume."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "review"))

from lesion_review import OTHER_RUN, drawn_case, write_case
from review_store import RUN, SERIES

from ctpipe.cli import main


@pytest.fixture
def store(tmp_path):
    labels = drawn_case()[1]
    labels[:, :, 23][labels[:, :, 23] == 2] = 1  # the dumbbell is cut in two
    labels[:, :, 47:] = 0
    write_case(tmp_path / "S", labels)
    return str(tmp_path / "S")


def test_it_tells_what_became_of_each_lesion(store, capsys):
    assert main(["compare", store, SERIES[:4], RUN[:4], OTHER_RUN[:4], "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["series"], told["before"], told["after"]) == (SERIES, RUN, OTHER_RUN)
    assert {one["class"]: one["fate"] for one in told["lesions"] if one["class"] == "liver"} == {"liver": "matched"}
    assert {one["fate"] for one in told["lesions"] if one["class"] == "lesion"} == {"split", "lost"}
    assert 0.9 < told["classes"]["liver"]["dice"] < 1
    assert main(["compare", store, SERIES, RUN, OTHER_RUN]) == 0
    printed = capsys.readouterr().out
    assert "split" in printed
    assert "lost" in printed


def test_labels_that_are_not_there_are_one_line_and_code_2(store, capsys):
    assert main(["compare", store, SERIES, RUN, "ffff"]) == 2
    assert "has no labels" in capsys.readouterr().err


def test_the_line_of_the_guide_runs(store, monkeypatch, capsys):
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "review.md").read_text()
    (line,) = [line for line in guide.splitlines() if line.startswith("ctpipe compare ")]
    for name, value in {"S": store, "SERIES": SERIES, "RUN": RUN}.items():
        monkeypatch.setenv(name, value)
    words = shlex.split(os.path.expandvars(line))[1:]
    assert main([OTHER_RUN if word == "truth" else word for word in words]) == 0  # the store has no truth
    assert "merged" in capsys.readouterr().out
