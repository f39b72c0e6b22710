"""A store of one volume with drawn lesions, and the least that can apply an edit."""

from __future__ import annotations

import numpy as np
from review_store import CLASSES, SERIES, commit, grid_of, write_volume

from ctpipe.review.editing import Editing
from ctpipe.store import LabelsMeta, open_store
from ctpipe.words import LabelKind

SHAPE = (40, 64, 72)  # two slabs
SPACING = (2.0, 0.8, 1.0)
OTHER_RUN = "02bd11000000000"


class Applies(Editing):
    """Editing that keeps a list of what was done."""

    def __init__(self, session) -> None:
        super().__init__(session)
        self.actions: list[tuple[str, dict]] = []

    def apply(self, kind, box, new, **facts) -> None:
        self.actions.append((kind, facts))
        super().apply(kind, box, new, **facts)


def ball(labels, centre, radius, label=2) -> None:
    radii = np.broadcast_to(radius, 3)
    away = sum(((i - c) / r) ** 2 for i, c, r in zip(np.indices(labels.shape), centre, radii, strict=True))
    labels[away <= 1] = label


def drawn_case() -> tuple[np.ndarray, np.ndarray]:
    """(hu, labels): a liver with a dumbbell of two lesions in it, a ball of lesion outside that crosses the slabs."""
    labels = np.zeros(SHAPE, np.uint8)
    ball(labels, (14, 30, 24), (12, 26, 22), 1)
    ball(labels, (14, 24, 18), (4, 6, 6))
    ball(labels, (14, 24, 28), (4, 6, 6))
    ball(labels, (32, 40, 58), (4, 7, 7))
    rng = np.random.default_rng(2)
    hu = np.full(SHAPE, -60.0) + 160 * (labels == 1) + 110 * (labels == 2) + rng.normal(0, 4, SHAPE)
    return np.rint(hu).astype(np.int16), labels


def write_case(root, other=None) -> None:
    """A store with the case's labels as a run; `other`: labels of a second run."""
    hu, labels = drawn_case()
    store = open_store(root, "a")
    grid = grid_of(SHAPE, SPACING)
    write_volume(store, SERIES, grid=grid, arrays=(hu, labels))
    if other is not None:
        meta = LabelsMeta(OTHER_RUN, LabelKind.PREDICTION, grid, CLASSES, "uint8", {"model": "none"})
        commit(store, store.labels_writer(SERIES, meta), other)
