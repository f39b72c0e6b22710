"""`ctpipe models`: what it takes, lists and shows, how it refuses, and the lines of its guide."""

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
sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

from nnunet_made import dataset, result_folder
from stores_made import store_of
from volumes import labelled

from ctpipe.cli import main
from ctpipe.models import Segmenter, load_model
from ctpipe.store import open_store

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "guests.md"


@pytest.fixture
def results(tmp_path: Path) -> str:
    return str(result_folder(tmp_path / "nnunet", mirror=(1,)))


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(store_of(tmp_path / "S", [labelled((10, 24, 28), 1, 32, id="ab1")]).root)


def test_import_writes_a_model_that_is_shown_and_listed_with_its_licence(
    results: str, store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m"
    assert main(["models", "import", results, "--out", str(out), "--licence", "CC0", "--json"]) == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert (document["kind"], document["licence"], document["classes"]) == ("nnunet", "CC0", ["liver", "lesion"])
    assert "SAL" in printed.err  # axes are said, since no file says them
    model = load_model(out)
    assert isinstance(model, Segmenter)
    assert model.digest == document["digest"]
    assert main(["models", "show", str(out), "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert (shown["kind"], shown["axes"], shown["licence"]) == ("segmenter", "SPL", "CC0")
    assert main(["models", "show", str(out)]) == 0
    assert "8 x 12 x 16" in capsys.readouterr().out
    model.save(Path(store) / "models" / model.digest)
    (Path(store) / "models" / "unfinished").mkdir()
    assert main(["models", "ls", store, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["models"] == [{"digest": model.digest, "kind": "segmenter", "network": "plain-conv-unet",
                                 "classes": ["liver", "lesion"], "licence": "CC0"}]  # fmt: skip
    assert "demo" in listed["recipes"]


def test_the_same_import_again_is_no_news_and_another_model_is_not_overwritten(
    results: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["models", "import", results, "--out", str(tmp_path / "m")]
    assert main(line) == 0
    assert main(line) == 0
    assert main([*line, "--axes", "SAR"]) == 2
    assert "another model" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "code", "said"), [
    (["--folds", "7"], 2, "fold 7"), (["--folds", "first"], 2, "0,1"), (["--axes", "XYZ"], 2, "XYZ"),
    (["--configuration", "2d"], 3, "3d_fullres"), (["--threads", "0"], 2, "threads"),
])  # fmt: skip
def test_what_cannot_be_taken_is_told_in_one_line(words: list[str], code: int, said: str, results: str, tmp_path: Path,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "m"
    try:
        got = main(["models", "import", results, "--out", str(out), *words])
    except SystemExit as left:
        got = int(left.code or 0)
    printed = capsys.readouterr()
    assert got == code
    assert said in printed.err
    assert printed.err.count("\n") == 1
    assert not out.exists()


def test_a_refused_folder_tells_all_its_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = dataset(channel_names={"0": "CT", "1": "PET"}, labels={"background": 0, "a": 1})
    folder = result_folder(tmp_path, data=data)
    assert main(["models", "import", str(folder), "--out", str(tmp_path / "m")]) == 3
    said = capsys.readouterr().err
    assert "2 channels" in said
    assert "3 heads" in said
    assert said.count("\n") == 1


def test_the_lines_of_the_guide_run_as_they_stand(results: str, store: str, tmp_path: Path) -> None:
    blocks = re.findall(r"```bash\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 1
    shell = f'ctpipe() {{ "{sys.executable}" -m ctpipe.cli "$@"; }}\nset -e\n{blocks[0]}'
    done = subprocess.run(["bash", "-c", shell], env=os.environ | {"S": store, "RESULTS": results}, cwd=tmp_path,
                          capture_output=True, text=True, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "CC BY 4.0" in done.stdout
    labels = {name: group for name, group in open_store(store)["ab1"].labels.items() if not name.startswith("truth")}
    (run,) = labels.values()
    assert run.classes == {1: "liver", 2: "lesion"}
    assert len(np.unique(np.asarray(run.array))) > 1
