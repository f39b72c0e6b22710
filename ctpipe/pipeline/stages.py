"""What every stage over a store's volumes begins and counts with."""

from __future__ import annotations

from pathlib import Path

from ctpipe.store import Store, open_store
from ctpipe.words import Progress


def store_for_writing(path: str | Path) -> Store:
    """The store, which must be there: only ingest makes new ones. Raises NotThereError."""
    open_store(path)
    return open_store(path, mode="a")


class SlabCounter:
    """Slabs done over all volumes and steps of one call of a stage, for the progress line."""

    def __init__(self, stage: str, progress: Progress, total: int) -> None:
        self.stage, self.progress, self.total, self.done = stage, progress, total, 0

    def add(self, n: int = 1) -> None:
        self.done += n
        if self.progress:
            self.progress(self.stage, self.done, self.total)
