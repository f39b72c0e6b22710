"""Random edit scripts, and a child process that runs one until it is killed. Run as: edits_made.py STORE SEED N."""

from __future__ import annotations

import os
import sys

import numpy as np
from review_store import RUN, SHAPE

KINDS = ("brush", "brush", "brush-3d", "erase", "polygon", "napari", "apply", "undo", "undo", "redo")


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


def act(session, rng) -> None:
    """One random action; some change nothing."""
    editing, tools = session.editing, session.editing.tools
    kind = KINDS[int(rng.integers(len(KINDS)))]
    at = np.array([rng.integers(0, n) for n in SHAPE], float)
    to = at + rng.uniform(-8, 8, 3)
    label = int(rng.integers(0, 4))
    tools.radius_mm = float(rng.uniform(0.5, 6))
    tools.three_d = kind == "brush-3d"
    if kind.startswith("brush"):
        tools.brush([at, to], label)
    elif kind == "erase":
        tools.erase([at, to])
    elif kind == "polygon":
        tools.polygon([at, at + [0, 12, 1], at + [0, 6, 14]] if at[1] < 140 else [at, at - [0, 9, 0], at - [0, 0, 9]])
    elif kind == "napari":
        with session.layer.block_history():
            for step in np.linspace(at, np.clip(to, 0, np.array(SHAPE) - 1), 3):
                session.layer.paint(step, label)
    elif kind == "apply":
        start = np.minimum(at.astype(int), np.array(SHAPE) - 4)
        box = tuple(slice(int(n), int(n) + 4) for n in start)
        editing.apply("predict", box, rng.integers(0, 4, (4, 4, 4)).astype(np.uint8))
    else:
        getattr(editing, kind)()


def main(root: str, seed: int, n: int) -> None:
    """Do n actions; before and after each, say so on a line, so that the parent knows the moment."""
    session = opened(root)
    rng = np.random.default_rng(seed)
    for number in range(n):
        os.write(1, b"<%d\n" % number)
        act(session, rng)
        os.write(1, b">%d\n" % number)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
