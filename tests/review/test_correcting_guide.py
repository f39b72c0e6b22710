"""The guide's lines on correcting are run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "review.md"


def test_the_lines_of_the_guide_correct_and_save_a_case(store_path):
    text = GUIDE.read_text().partition("## Correcting")[2].partition("\n## ")[0]
    (script,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=store_path.parent, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    undone, redone, saved = done.stdout.splitlines()
    assert undone.startswith("undo brush: ")
    assert redone.startswith("redo brush: ")
    assert saved.startswith("saved as review-")
