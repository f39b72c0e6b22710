"""PatchBatches: an epoch over a query is the same by seed, with or without a cluster, and fits a DataLoader."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from distributed import Client
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parents[1] / "patches"))

from volumes import labelled

from ctpipe.patches import PixelSteps, patch_table
from ctpipe.training import PatchBatches


def table_of(client=None):
    store = {one.id: one for one in (labelled((11, 9, 8), 1, id="a1", slab_planes=4), labelled((5, 8, 12), 2, id="b1"))}
    return patch_table(store, (1, 5, 5), (1, 2, 2), where="fraction_lesion > 0.2", client=client)


def epochs_of(client=None, n=2):
    batches = PatchBatches(table_of(client), 16, 3, PixelSteps(neighbours=1), pool=2)
    return [list(DataLoader(batches, batch_size=None)) for _ in range(n)]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_batches_of_an_epoch_over_a_query_are_the_same_on_any_number_of_workers(workers):
    with Client(n_workers=workers, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as client:
        shared = epochs_of(client)
    for epoch, other in zip(epochs_of(), shared, strict=True):
        for (pixels, labels), (same, also) in zip(epoch, other, strict=True):
            assert torch.equal(pixels, same)
            assert torch.equal(labels, also)


def test_every_epoch_has_every_row_in_another_order():
    first, second = epochs_of()
    assert sum(len(labels) for _, labels in first) == len(table_of())
    assert first[0][0].shape == (16, 3, 1, 5, 5)
    assert first[0][0].dtype == torch.int16
    assert not torch.equal(first[0][0], second[0][0])
    assert sorted(torch.cat([x.flatten(1).sum(1) for x, _ in first]).tolist()) == sorted(
        torch.cat([x.flatten(1).sum(1) for x, _ in second]).tolist())
    again = PatchBatches(table_of(), 16, 3, PixelSteps(neighbours=1), pool=2).at_epoch(1)
    assert torch.equal(next(iter(again))[0], second[0][0])
