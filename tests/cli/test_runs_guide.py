"""The lines of the guide on runs, as they stand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "pipeline"))

from line_made import small_patient, small_recipe

from ctpipe import open_store, pipeline
from ctpipe.models import Model, build_network

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "runs.md"


def test_the_lines_of_the_guide_run_as_they_stand(tmp_path: Path) -> None:
    ct, _ = small_patient(tmp_path, 1)
    pipeline.ingest([ct], tmp_path / "S")
    recipe = small_recipe()
    torch.manual_seed(1)
    network = build_network(recipe.network, 1, 3, recipe.windows.window, recipe.options)
    Model.of(recipe, recipe.classes, network).save(tmp_path / "model")
    [series] = open_store(tmp_path / "S")
    blocks = re.findall(r"```(bash|python)\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    assert [language for language, _ in blocks] == ["bash", "python", "bash", "bash", "python", "bash"]
    names = {"S": str(tmp_path / "S"), "MODEL": str(tmp_path / "model"), "SERIES": series[:8]}
    script = f'ctpipe() {{ "{sys.executable}" -m ctpipe.cli "$@"; }}\nset -e\n'
    path = os.pathsep.join([str(GUIDE.parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | names | {"PYTHONPATH": path}
    for number, (language, text) in enumerate(blocks):
        if language == "bash":
            line = ["bash", "-c", script + text]
        else:
            line = [sys.executable, "-c", f"S, MODEL = {names['S']!r}, {names['MODEL']!r}\n{text}"]
        done = subprocess.run(line, env=environment, cwd=tmp_path, text=True, capture_output=True, timeout=300)
        assert done.returncode == 0, f"block {number}: {done.stderr}"
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["totals"]["tasks"] == 3
    assert json.loads((tmp_path / "voxel.json").read_text())["voxel"] == [6, 28, 30]
