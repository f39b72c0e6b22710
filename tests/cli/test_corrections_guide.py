"""The lines of the guide on corrections, as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "pipeline"))

from line_made import CLASSES, small_patient

from ctpipe import open_store, pipeline
from ctpipe.review.save import save_review
from ctpipe.review.working_copy import open_copy

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "corrections.md"
RECIPE = """
name = "small"
network = "vgg-small"
options = { widths = [4, 8, 8, 16] }
classes = ["liver", "livertumor"]
input = { window_hu = [-100, 200] }
windows = { window = [1, 44, 44], stride = [1, 4, 4] }
train = { steps = 6, epochs = 2, batch = 4, tile = 3 }
predict = { stride = [2, 4, 4], fill = "linear", region = "body", micro_batch = 32 }
"""


@pytest.mark.slow
def test_the_lines_of_the_guide_run_as_they_stand(tmp_path: Path) -> None:
    ct, masks = small_patient(tmp_path, 1)
    pipeline.ingest([ct], tmp_path / "S", [masks], CLASSES)
    store = open_store(tmp_path / "S", "a")
    [series] = store.values()
    copy = open_copy(store.root, series, series.labels["truth"])
    copy.array[4:9, 20:34, 22:36] = 2
    save_review(store, series, copy)
    copy.close()
    (tmp_path / "small.toml").write_text(RECIPE)
    blocks = re.findall(r"```(bash|python)\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    assert [language for language, _ in blocks] == ["bash", "bash", "python", "python"]
    names = {"S": str(tmp_path / "S"), "RECIPE": str(tmp_path / "small.toml")}
    script = f'ctpipe() {{ "{sys.executable}" -m ctpipe.cli "$@"; }}\nset -e\n'
    path = os.pathsep.join([str(GUIDE.parents[2]), os.environ.get("PYTHONPATH", "")])
    python = "".join(text for language, text in blocks if language == "python")
    lines = [["bash", "-c", script + text] for language, text in blocks if language == "bash"]
    for line in (*lines, [sys.executable, "-c", f"S = {names['S']!r}\n{python}"]):
        done = subprocess.run(line, env=os.environ | names | {"PYTHONPATH": path}, cwd=tmp_path, text=True,
                              capture_output=True, timeout=300)  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "corrected.png").read_bytes()[:4] == b"\x89PNG"
    assert len(list((tmp_path / "S" / "reviews").glob("uncertainty-*.json"))) == 1
