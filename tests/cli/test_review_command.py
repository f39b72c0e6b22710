"""ctpipe review without a window: the list, what is said of wrong arguments, and the lines of the guide."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "pipeline"))

from line_made import CLASSES, small_patient, small_recipe

from ctpipe import open_store, pipeline
from ctpipe.cli import main
from ctpipe.models import Model, build_network
from ctpipe.review.case_status import Decision, Status, add_status

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "review.md"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Path, str]:
    """(store of one volume with a truth and a run, model folder, the volume's id)."""
    root = tmp_path_factory.mktemp("review-command")
    ct, masks = small_patient(root, 1)
    pipeline.ingest([ct], root / "S", [masks], CLASSES)
    recipe = small_recipe()
    torch.manual_seed(1)
    network = build_network(recipe.network, 1, 3, recipe.windows.window, recipe.options)
    Model.of(recipe, recipe.classes, network).save(root / "M")
    assert pipeline.infer(root / "S", root / "M").exit_code == 0
    [series] = open_store(root / "S")
    return root / "S", root / "M", series


def test_the_list_as_json_and_as_a_table(made, capsys):
    store, _, series = made
    add_status(store, Decision(series, Status.FLAGGED, "p-01", comment="arms down\x1b[2J", seconds=31))
    assert main(["review", str(store), "--list", "--json"]) == 0
    [case] = json.loads(capsys.readouterr().out)["cases"]
    assert (case["id"], case["shape"], case["status"], case["seconds"]) == (series, [70, 56, 60], "flagged", 31)
    assert set(case["dice"]) == set(case["volumes_ml"]) == {"liver", "livertumor"}
    assert case["runs"] == [case["on_show"]]
    assert case["spacing"] == [2.0, 1.5, 1.5]
    assert main(["review", str(store), "--list", "--sort", "volume", "--class", "liver"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[2].startswith(f"{series[:8]}  flagged")
    assert "\x1b" not in out, "what was typed is never sent to the terminal as it is"
    assert main(["review", str(store), "--list", "--status", "todo"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert main(["review", str(store), "--list", "--json", "--blinded", "--reviewer", "p-02"]) == 0
    [case] = json.loads(capsys.readouterr().out)["cases"]
    assert (case["status"], case["dice"], case["comment"]) == ("todo", None, "")


def test_an_empty_store_has_an_empty_list(tmp_path, capsys):
    open_store(tmp_path / "E", "a")
    assert main(["review", str(tmp_path / "E"), "--list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"cases": [], "notes": []}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{S}x", "--list"], "is not a store"),
        (["{S}", "--list", "--sort", "size"], "order 'size' is unknown; cure: choose one of: due, "),
        (["{S}", "--status", "done"], "status 'done' is unknown; cure: choose one of: todo, "),
        (["{S}", "--list", "--class", "spleen"], "no labels hold a class 'spleen'"),
        (["{S}", "--reviewer", "Jane Doe"], "pseudonym is empty, too long or holds other signs"),
        (["{S}", "abc", "--list"], "leave SERIES, --labels and --live out"),
        (["{S}", "--json"], "add --list"),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_code_2(made, capsys, words, said):
    assert main(["review", *(word.replace("{S}", str(made[0])) for word in words)]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Jane" not in captured.err
    assert captured.out == ""


def test_labels_that_rot_are_told_the_rest_is_listed_and_the_exit_code_is_3(made, tmp_path, capsys):
    store = shutil.copytree(made[0], tmp_path / "S")
    [series] = open_store(store).values()
    run = next(name for name in series.labels if not name.startswith("truth"))
    shutil.rmtree(store / "reviews", ignore_errors=True)
    for path in (series.labels[run].path / "0").rglob("*"):
        if path.is_file() and path.name != "zarr.json":
            path.write_bytes(b"rotten")
    assert main(["review", str(store), "--list", "--json"]) == 3
    captured = capsys.readouterr()
    [case] = json.loads(captured.out)["cases"]
    assert (case["id"], case["dice"]) == (series.id, None)
    assert f"labels {run} of volume {series.id}" in captured.err


def test_the_lines_of_the_guide_run_as_they_stand(made, tmp_path):
    store, model, series = made
    text = GUIDE.read_text("utf-8")
    for elsewhere in ("Reading", "Correcting"):  # run by tests of their own
        text = re.sub(rf"\n## {elsewhere}\n.*?(?=\n## )", "", text, flags=re.DOTALL)
    blocks = re.findall(r"```(bash|python|toml)\n(.*?)```", text, re.DOTALL)
    assert {language for language, _ in blocks} == {"bash", "python", "toml"}
    names = {"S": str(store), "MODEL": str(model), "SERIES": series[:8], "CTPIPE_REVIEW": str(tmp_path / "review.toml")}
    script = f'ctpipe() {{ "{sys.executable}" -m ctpipe.cli "$@"; }}\nset -e\n'
    path = os.pathsep.join([str(GUIDE.parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | names | {"PYTHONPATH": path}
    for number, (language, text) in enumerate(blocks):
        if language == "toml":
            (tmp_path / "review.toml").write_text(text)
            continue
        named = "".join(f"{name} = {names[name]!r}\n" for name in ("S", "MODEL", "SERIES"))
        line = ["bash", "-c", script + text] if language == "bash" else [sys.executable, "-c", named + text]
        done = subprocess.run(line, env=environment, cwd=tmp_path, text=True, capture_output=True, timeout=300)
        assert done.returncode == 0, f"block {number}: {done.stderr}"
    assert json.loads((tmp_path / "worklist.json").read_text())["cases"][0]["id"] == series
    assert "(8, 40, 40) {1: 'liver', 2: 'livertumor'}" in done.stdout
