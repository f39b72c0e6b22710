"""RELIABILITY R1: random edits in a real process that is killed at any moment, opened again, undone to the start."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from edits_made import act, opened
from review_store import phantom

ACTIONS = 10


def states(root: Path, seed: int, n: int) -> list[np.ndarray]:
    """The voxels after 0, 1, … n actions of an undisturbed run."""
    session = opened(root)
    rng = np.random.default_rng(seed)
    found = [session.copy.array.copy()]
    for _ in range(n):
        act(session, rng)
        found.append(session.copy.array.copy())
    session.close()
    return found


class Child:
    """A process that edits; one child runs the scripts of many seeds, each until it is stopped at a random moment.

    A fork of a warm process: napari takes seconds to import, and 200 scripts want 200 deaths.
    """

    def __init__(self) -> None:
        script = (
            "import os, sys\n"
            "import edits_made\n"
            "edits_made.warm()\n"
            "print('warm', flush=True)\n"
            "for line in sys.stdin:\n"
            "    root, seed, n = line.split()\n"
            "    pid = os.fork()\n"
            "    if pid == 0:\n"
            "        edits_made.main(root, int(seed), int(n))\n"
            "    print(f'pid {pid}', flush=True)\n"
            "    os.waitpid(pid, 0)\n"
            "    print('dead', flush=True)\n"
        )
        # numba's OpenMP ends a process that forks
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "NUMBA_THREADING_LAYER": "workqueue"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env,
        )  # fmt: skip
        assert self._line() == "warm"

    def _line(self) -> str:
        return self.process.stdout.readline().strip()

    def run_and_kill(self, root: Path, seed: int, at: int, inside: bool, wait_s: float) -> None:
        """Start script `seed`, and SIGKILL it when action `at` has begun (inside) or ended, and `wait_s` later."""
        self.process.stdin.write(f"{root} {seed} {ACTIONS}\n")
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


def check(child: Child, made_store: Path, tmp_path: Path, seed: int) -> int:
    """Kill one script; returns how many actions it had ended by then."""
    rng = np.random.default_rng(10_000 + seed)
    straight = states(shutil.copytree(made_store, tmp_path / f"straight-{seed}"), seed, ACTIONS)
    root = shutil.copytree(made_store, tmp_path / f"killed-{seed}")
    at, inside = int(rng.integers(0, ACTIONS)), bool(rng.integers(0, 2))
    child.run_and_kill(root, seed, at, inside, wait_s=float(rng.uniform(0, 0.02)) if inside else 0.0)

    session = opened(root)
    ended = at if inside else at + 1
    lost = [n for n, state in enumerate(straight) if np.array_equal(session.copy.array, state)]
    assert lost, f"seed {seed}: not the state after any action"
    assert max(lost) >= ended, f"seed {seed}: {ended} actions had ended, the state is that after {max(lost)}"
    for _ in range(len(session.copy.journal.stack.done)):
        assert session.editing.undo().startswith("undo ")
    assert session.editing.undo() == "nothing to undo"
    assert np.array_equal(session.copy.array, phantom()[1]), f"seed {seed}: undone to the start"
    session.close()
    shutil.rmtree(root)
    shutil.rmtree(tmp_path / f"straight-{seed}")
    return ended


@pytest.mark.parametrize("seeds", [range(12)], ids=["12 scripts"])
def test_scripts_of_edits_killed_at_random_lose_at_most_the_action_in_hand(child, made_store, tmp_path, seeds):
    """RELIABILITY R1, R2."""
    assert len({check(child, made_store, tmp_path, seed) for seed in seeds}) > 4


@pytest.mark.slow
def test_two_hundred_scripts_of_edits_killed_at_random(child, made_store, tmp_path):
    """RELIABILITY R1, R2."""
    ended = [check(child, made_store, tmp_path, seed) for seed in range(20, 220)]
    assert set(ended) == set(range(ACTIONS + 1))
