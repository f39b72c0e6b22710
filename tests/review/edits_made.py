"""Scripts of edits as hypothesis draws them, and a child process that runs one after the other until each is killed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from review_store import RUN, SHAPE

KINDS = ("brush", "brush", "brush-3d", "erase", "polygon", "napari", "apply", "undo", "undo", "redo")


@dataclass(frozen=True)
class Edit:
    """One action: plain numbers, so that a script can be written down, shrunk and sent.

    at: voxel. reach: from there to the end of a stroke, voxels. fill: seed of the labels that `apply` gives.
    """

    kind: str
    at: tuple[int, int, int]
    reach: tuple[float, float, float]
    label: int
    radius_mm: float
    fill: int


def edits():
    """Strategy: one action; some change nothing."""
    from hypothesis import strategies as st

    off = st.floats(-8, 8)
    return st.builds(Edit, kind=st.sampled_from(KINDS), at=st.tuples(*(st.integers(0, n - 1) for n in SHAPE)),
                     reach=st.tuples(off, off, off), label=st.integers(0, 3), radius_mm=st.floats(0.5, 6),
                     fill=st.integers(0, 99))  # fmt: skip


def opened(root):
    """A session on ViewerModel with the working copy of the prediction open."""
    from napari.components import ViewerModel

    from ctpipe.review.session import ReviewSession

    session = ReviewSession(ViewerModel(), root)
    session.show()
    session.edit(RUN)
    return session


def warm() -> None:
    """Import and compile what a script needs, without starting a thread: those do not live on in a fork."""
    from napari.components import ViewerModel

    from ctpipe.review import session  # noqa: F401
    from ctpipe.review.layers import label_look

    ViewerModel().add_labels(np.ones((2, 8, 8), np.uint8), **label_look({1: "liver"}))


def act(session, edit: Edit) -> None:
    editing, tools, kind = session.editing, session.editing.tools, edit.kind
    at = np.array(edit.at, float)
    to = at + edit.reach
    tools.radius_mm = edit.radius_mm
    tools.three_d = kind == "brush-3d"
    if kind.startswith("brush"):
        tools.brush([at, to], edit.label)
    elif kind == "erase":
        tools.erase([at, to])
    elif kind == "polygon":
        tools.polygon([at, at + [0, 12, 1], at + [0, 6, 14]] if at[1] < 140 else [at, at - [0, 9, 0], at - [0, 0, 9]])
    elif kind == "napari":
        with session.layer.block_history():
            for step in np.linspace(at, np.clip(to, 0, np.array(SHAPE) - 1), 3):
                session.layer.paint(step, edit.label)
    elif kind == "apply":
        start = np.minimum(at.astype(int), np.array(SHAPE) - 4)
        box = tuple(slice(int(n), int(n) + 4) for n in start)
        editing.apply("predict", box, np.random.default_rng(edit.fill).integers(0, 4, (4, 4, 4)).astype(np.uint8))
    else:
        getattr(editing, kind)()


def spelled(root: object, script: Sequence[Edit]) -> str:
    """A script over the working copy in `root` as one line."""
    return json.dumps([str(root), [asdict(edit) for edit in script]])


def run(line: str) -> None:
    """Do what `spelled` says; before and after each action say so on a line, so that the parent knows the moment."""
    root, script = json.loads(line)
    session = opened(root)
    for number, edit in enumerate(script):
        os.write(1, b"<%d\n" % number)
        act(session, Edit(**edit))
        os.write(1, b">%d\n" % number)
    sys.stdin.read()


def serve() -> None:
    """Run each line of stdin in a fork of this warm process: napari takes seconds to import."""
    warm()
    print("warm", flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            run(line)
        print(f"pid {pid}", flush=True)
        os.waitpid(pid, 0)
        print("dead", flush=True)
