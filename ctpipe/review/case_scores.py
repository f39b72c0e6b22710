"""Figures of a case's labels for the worklist: Dice of two label groups, mL of each class. Slab by slab, computed once.

They are kept in `STORE/reviews/<series id>.scores.json` under a digest of the contents and the class tables that they
were made of, so that they are never stale; the file is a cache, and a damaged one is made again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ctpipe.errors import CtpipeError
from ctpipe.review.working_copy import FOLDER
from ctpipe.store import files
from ctpipe.volume import slabs_of

if TYPE_CHECKING:
    from ctpipe.store import Labels

ALGORITHM = "worklist-1"

# Class name -> figure; None where it has none, as the Dice of a class that neither side holds.
Figures = dict[str, float | None]


class ScoreBook:
    """The figures of one volume's labels: from memory or the file where they are known, computed where asked for."""

    def __init__(self, root: Path, series: str) -> None:
        self.path = root / FOLDER / f"{series}.scores.json"
        self.fault: CtpipeError | None = None  # why figures could not be kept; they count all the same
        self._known = _load(self.path)

    def dice(self, one: Labels, other: Labels, compute: bool = False) -> Figures | None:
        """Dice of every class of either; None where it is not known and not to be computed."""
        return self._figures(["dice", *sorted([_facts(one), _facts(other)])], compute, lambda: _dice(one, other))

    def volumes_ml(self, labels: Labels, compute: bool = False) -> Figures | None:
        """Volume of every class in mL; None where they are not known and not to be computed."""
        return self._figures(["ml", _facts(labels)], compute, lambda: _volumes_ml(labels))

    def _figures(self, facts: list[str], compute: bool, made: Callable[[], Figures]) -> Figures | None:
        key = sha256(json.dumps([ALGORITHM, *facts]).encode()).hexdigest()[:16]
        if key not in self._known and compute:
            self._known[key] = made()
            self._keep()
        return self._known.get(key)

    def _keep(self) -> None:
        merged = {**_load(self.path), **self._known}  # another viewer may have added some
        try:
            files.write_atomic(self.path, json.dumps(merged, sort_keys=True).encode())
        except CtpipeError as error:  # a full disk, or a store that one may only read
            self.fault = error


def mean_of(figures: Figures | None) -> float | None:
    """Mean over the classes that have a figure; None without any."""
    known = [value for value in (figures or {}).values() if value is not None]
    return sum(known) / len(known) if known else None


def _facts(labels: Labels) -> str:
    return json.dumps([labels.content, labels.grid.grid_id, sorted(labels.classes.items())])


def _dice(one: Labels, other: Labels) -> Figures:
    from ctpipe.scoring import evaluate_volume

    scores = evaluate_volume(one, other, lesions=False)
    values = {name: scores.confusion.dice(scores.index(name)) for name in scores.classes}
    return {name: None if np.isnan(value) else round(value, 6) for name, value in values.items()}


def _volumes_ml(labels: Labels) -> Figures:
    counts = np.zeros(max(labels.classes, default=0) + 1, np.int64)
    for slab in slabs_of(labels.grid.shape.z):
        for plane in labels.read_planes(slab.start, slab.stop):
            found = np.bincount(plane.ravel(), minlength=len(counts))
            counts += found[: len(counts)]
    voxel_ml = abs(float(np.linalg.det(labels.grid.affine[:3, :3]))) / 1000
    return {name: round(int(counts[label]) * voxel_ml, 4) for label, name in sorted(labels.classes.items())}


def _load(path: Path) -> dict[str, Figures]:
    try:
        found = json.loads(files.read(path) or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
