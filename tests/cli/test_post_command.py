"""`ctpipe post`: what it prints, how it refuses, and the lines of its guide."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "patches"))

from stores_made import add_labels, store_of
from volumes import labelled

from ctpipe.cli import main
from ctpipe.store import open_store
from ctpipe.words import LabelKind

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "post-processing.md"
RUN = "4be1aa"


@pytest.fixture
def store(tmp_path) -> str:
    one = labelled((6, 40, 36), 1, 32, id="ab1")
    root = store_of(tmp_path / "S", [one]).root
    raw = np.zeros(one.hu.shape, np.uint8)
    raw[1:5, 5:25, 5:25] = 1
    raw[2:4, 9:12, 9:12] = 2
    raw[3, 15, 15] = 0  # a hole
    raw[0, 38, 30] = 1  # an island
    raw[5, 38, 33] = 2  # far from the liver
    add_labels(open_store(root, "a"), one.id, one.grid, raw, RUN, LabelKind.PREDICTION)
    return str(root)


STEPS = "largest=liver; fill=liver; inside=lesion:liver:5"


def test_post_tells_the_new_run_what_it_was_made_of_and_what_changed(store, capsys):
    assert main(["post", store, "--run", "4be1", "--steps", STEPS, "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert run["parent"] == RUN
    assert run["changed"] == {"largest=liver": 1, "fill=liver": 1, "inside=lesion:liver:5": 1}
    assert main(["post", store, "--run", RUN, "--steps", STEPS]) == 0
    assert "was there" in capsys.readouterr().out
    assert RUN in open_store(store)["ab1"].labels


def test_the_raw_labels_go_only_when_asked_for(store, capsys):
    assert main(["post", store, "--run", RUN, "--steps", STEPS, "--drop-raw", "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert sorted(open_store(store)["ab1"].labels) == sorted([run["run"], "truth-ab1"])
    assert open_store(store)["ab1"].labels[run["run"]].provenance["parent"] == RUN


@pytest.mark.parametrize(("words", "told"), [
    (["--run", RUN, "--steps", "fill=spleen"], "spleen"), (["--run", RUN, "--steps", "shrink=liver"], "shrink"),
    (["--run", "truth-ab1", "--steps", "fill=liver"], "no run"),
])  # fmt: skip
def test_what_is_not_there_is_told_in_one_line_with_exit_code_2(store, capsys, words, told):
    assert main(["post", store, *words]) == 2
    printed = capsys.readouterr()
    assert told in printed.err
    assert "cure:" in printed.err
    assert printed.err.count("\n") == 1
    assert not printed.out


def test_the_lines_of_the_guide_run_as_they_stand(store):
    blocks = re.findall(r"```(bash|python)\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    assert [language for language, _ in blocks] == ["bash", "bash", "python"]
    environment = os.environ | {"S": store, "RUN": RUN}
    shell = f'ctpipe() {{ "{sys.executable}" -m ctpipe.cli "$@"; }}\nset -e\n{blocks[0][1]}{blocks[1][1]}'
    done = subprocess.run(["bash", "-c", shell], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("ctpipe evaluate") == 2
    code = f"S, RUN = {store!r}, {RUN!r}\n{blocks[2][1]}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(open_store(store)["ab1"].labels) == 5
