"""Batches of a patch table as PyTorch takes them: int16 pixels, so that windowing is left to the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset

from ctpipe.errors import UsageError
from ctpipe.patches import PatchTable, PixelSteps


class PatchBatches(IterableDataset):
    """One epoch after the other over the rows of a table: (pixels (n, …), labels int64 (n,)) tensors.

    The rows of epoch e are shuffled by seed + e: the same batches for a seed on any number of workers. Batches are made
    by the table's cluster, so a DataLoader needs batch_size=None and no worker processes of its own.
    """

    def __init__(self, table: PatchTable, size: int, seed: int = 0, steps: PixelSteps | None = None,
                 labels: Callable[[Any], np.ndarray] | str = "label", pool: int = 16) -> None:
        self.table, self.size, self.seed, self.steps, self.pool = table, size, seed, steps, pool
        self.labels = labels
        self.epoch = 0

    def __len__(self) -> int:
        return -(-len(self.table) // self.size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        if torch.utils.data.get_worker_info() is not None:
            raise UsageError("a table's batches come from its cluster", "give the DataLoader num_workers=0")
        seed, self.epoch = self.seed + self.epoch, self.epoch + 1
        if self.table.client is not None:
            self.table = self.table.persist()
        for pixels, rows in self.table.batches(self.size, seed, self.steps, pool=self.pool):
            truth = self.labels(rows) if callable(self.labels) else rows[self.labels].to_numpy()
            yield torch.from_numpy(pixels), torch.from_numpy(truth.astype(np.int64))

    def at_epoch(self, epoch: int) -> PatchBatches:
        """The same batches from epoch `epoch` on: where a training goes on."""
        made = PatchBatches(replace(self.table), self.size, self.seed, self.steps, self.labels, self.pool)
        made.epoch = epoch
        return made
