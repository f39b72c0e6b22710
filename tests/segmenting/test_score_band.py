"""The band of sums: rows leave when they are decided, and what they took is given back."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
from segmenters_made import NNUNET, Volume, facts_of, grid_of, segmenter, volume_of

from ctpipe.models import SegmentPlan
from ctpipe.predict import score_windows
from ctpipe.reduce import ScoreBand, band_rows
from ctpipe.reduce.band_memory import BandMemory
from ctpipe.words import ZYX


def resident(array: np.ndarray) -> int:
    """Bytes of an anonymous mapping that are in memory (smaps of proc(5))."""
    mine, address = False, array.ctypes.data
    with open("/proc/self/smaps") as lines:
        for line in lines:
            words = line.split()
            if "-" in words[0] and not words[0].endswith(":"):
                low, high = (int(word, 16) for word in words[0].split("-"))
                mine = low <= address < high
            elif mine and words[0] == "Rss:":
                return int(words[1]) << 10
    raise LookupError("no such mapping")


@pytest.mark.skipif(sys.platform != "linux", reason="madvise gives zeros on Linux alone")
def test_cleared_rows_are_zero_and_their_memory_is_given_back() -> None:
    memory = BandMemory(3, 4, ZYX(9, 64, 300))
    memory.sums[:] = 7
    whole = resident(memory.sums)
    assert whole >= memory.sums.nbytes
    memory.clear(7, 5, 61)  # slot 1
    assert resident(memory.sums) <= whole - 56 * 4 * 300 * 4 + 2 * os.sysconf("SC_PAGESIZE")
    wanted = np.full_like(memory.sums, 7)
    wanted[1, 5:61] = 0
    assert np.array_equal(memory.sums, wanted)


@pytest.mark.skipif(sys.platform != "linux", reason="madvise gives zeros on Linux alone")
@pytest.mark.parametrize(("shape", "spacing"), [((40, 200, 120), None), ((34, 200, 120), (2.4, 1.3, 1.2)),
                                                ((7, 64, 120), None)])  # fmt: skip
def test_only_undecided_rows_are_in_memory(shape, spacing) -> None:
    """Half a band and a window's rows where windows overlap by half, and never more than the plan says."""
    model = segmenter((8, 16, 40), ("a", "b", "c"), spacing_mm=spacing, **NNUNET)
    hu, grid = volume_of(shape), grid_of(shape)
    facts = facts_of(model, hu, grid)
    plan = SegmentPlan.of(model.spec, grid, facts.box if facts else None)
    band = ScoreBand(model.spec, plan, 0, shape[0])
    row, most, given = 4 * model.spec.outputs * plan.shape.x, 0, np.zeros(shape[:2], int)
    for scored in score_windows(model, plan, Volume(hu), facts, 0, plan.shape.z):
        band.add(scored.window, scored.scores)
        most = max(most, resident(band._memory.sums))
        for decided in band.finish(scored.frontier):
            given[decided.plane, decided.rows] += 1
    assert (given == 1).all()
    edges = 2 * os.sysconf("SC_PAGESIZE") * band._memory.sums.shape[0]
    assert most <= band_rows(plan) * row + edges
    if shape[0] > 8:
        assert most < 0.75 * band._memory.sums.nbytes + edges
