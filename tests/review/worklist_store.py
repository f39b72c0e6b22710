"""A store of four cases: two with a truth and two runs, one with a run, one bare; synthetic phantoms."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from review_store import CLASSES, commit, grid_of, phantom, write_volume

from ctpipe.store import LabelsMeta, open_store
from ctpipe.words import LabelKind

A, B, C, D = (f"{digit * 4}0000000000aa" for digit in "abcd")
FIRST, SECOND = "4be1c0ffee000000", "5be1c0ffee000000"


def worse(labels: np.ndarray, planes: int) -> np.ndarray:
    """The labels without what lies on the last `planes` planes of the lesion."""
    less = labels.copy()
    less[22 - planes : 22][less[22 - planes : 22] == 2] = 1
    return less


def add_labels(root: Path, series: str, name: str, kind: LabelKind, voxels: np.ndarray, age: int, **facts) -> None:
    """Commit labels; `age`: the file time, so that the order of runs is known."""
    store = open_store(root, "a")
    meta = LabelsMeta(name, kind, grid_of(), CLASSES, "uint8", facts)
    commit(store, store.labels_writer(series, meta), voxels)
    os.utime(root / f"{series}.ome.zarr" / "labels" / name / "zarr.json", (age, age))


def four_cases(root: Path) -> Path:
    hu, truth = phantom()
    for number, series in enumerate((A, B, C, D)):
        # other voxels in each: a store holds a content once
        write_volume(open_store(root, "a"), series, arrays=(hu + np.int16(number), None))
    for series, planes in ((A, 1), (B, 3)):
        add_labels(root, series, "truth-0123456789abcdef", LabelKind.TRUTH, truth, 1000)
        add_labels(root, series, FIRST, LabelKind.PREDICTION, worse(truth, 2), 2000)
        add_labels(root, series, SECOND, LabelKind.PREDICTION, worse(truth, planes), 3000)
    add_labels(root, C, FIRST, LabelKind.PREDICTION, truth, 2000)
    return root
