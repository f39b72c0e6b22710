"""RELIABILITY R1: random edits in a real process that is killed at any moment, opened again, undone to the start.

The scripts are drawn by hypothesis, always the same ones; a script that fails is made shorter and printed. How far a
process comes between an action and its death is up to the machine: a fault that only shows at one moment may be told
as flaky, with its script, and is a fault nevertheless.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from edits_made import Edit, act, edits, opened, spelled
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from review_store import phantom

ACTIONS = 20  # of a script at most


def states(root: Path, script: Sequence[Edit]) -> list[np.ndarray]:
    """The voxels after 0, 1, … actions of an undisturbed run."""
    session = opened(root)
    found = [session.copy.array.copy()]
    for edit in script:
        act(session, edit)
        found.append(session.copy.array.copy())
    session.close()
    return found


class Child:
    """A process that edits (`edits_made.serve`), killed once a script."""

    def __init__(self) -> None:
        # numba's OpenMP ends a process that forks
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "NUMBA_THREADING_LAYER": "workqueue"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", "import edits_made; edits_made.serve()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env,
        )  # fmt: skip
        assert self._line() == "warm"

    def _line(self) -> str:
        return self.process.stdout.readline().strip()

    def run_and_kill(self, root: Path, script: Sequence[Edit], at: int, inside: bool, wait_s: float) -> None:
        """Start a script, and SIGKILL it when action `at` has begun (inside) or ended, and `wait_s` later."""
        self.process.stdin.write(spelled(root, script) + "\n")
        self.process.stdin.flush()
        pid, wanted = None, f"{'<' if inside else '>'}{at}"
        seen = False
        while pid is None or not seen:
            line = self._line()
            if line.startswith("pid "):
                pid = int(line.split()[1])
            seen = seen or line == wanted
            assert line not in ("dead", ""), "the script ended by itself"
        time.sleep(wait_s)
        os.kill(pid, signal.SIGKILL)
        while self._line() != "dead":
            pass

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def child(_own_key):
    made = Child()
    yield made
    made.close()


@pytest.fixture
def made_store(_made_store) -> Path:
    return _made_store


def check(child: Child, made_store: Path, folder: Path, script: Sequence[Edit], at: int, inside: bool,
          wait_s: float) -> int:
    """Kill one script; returns how many actions it had ended by then."""
    shutil.rmtree(folder, ignore_errors=True)  # of a script that failed
    straight = states(shutil.copytree(made_store, folder / "straight"), script)
    root = shutil.copytree(made_store, folder / "killed")
    child.run_and_kill(root, script, at, inside, wait_s)

    session = opened(root)
    ended = at if inside else at + 1
    try:
        lost = [n for n, state in enumerate(straight) if np.array_equal(session.copy.array, state)]
        assert lost, "not the state after any action"
        assert max(lost) >= ended, f"{ended} actions had ended, the state is that after {max(lost)}"
        for _ in range(len(session.copy.journal.stack.done)):
            assert session.editing.undo().startswith("undo ")
        assert session.editing.undo() == "nothing to undo"
        assert np.array_equal(session.copy.array, phantom()[1]), "not undone to the start"
    finally:
        session.close()
    return ended


def killed(child: Child, made_store: Path, folder: Path, scripts: int) -> list[int]:
    """Draw so many scripts and kill each at a drawn moment; how many actions each had ended."""
    ended = []

    @settings(max_examples=scripts, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(edits(), min_size=1, max_size=ACTIONS), st.data(), st.booleans(), st.floats(0, 0.02))
    def one(script: list[Edit], data: st.DataObject, inside: bool, wait_s: float) -> None:
        at = data.draw(st.integers(0, len(script) - 1), label="killed at action")
        ended.append(check(child, made_store, folder, script, at, inside, wait_s if inside else 0.0))

    one()
    assert len(ended) == scripts
    return ended


def test_scripts_of_edits_killed_at_random_lose_at_most_the_action_in_hand(child, made_store, tmp_path):
    """RELIABILITY R1, R2."""
    assert len(set(killed(child, made_store, tmp_path / "S", 12))) > 3


@pytest.mark.slow
def test_two_hundred_scripts_of_edits_killed_at_random(child, made_store, tmp_path):
    """RELIABILITY R1, R2."""
    assert len(set(killed(child, made_store, tmp_path / "S", 200))) > 7
