"""Save a patch table: what a flow asks for in one call, on whatever cluster there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from distributed import Client

from ctpipe.cluster import client_for
from ctpipe.patches import patch_table

Progress = Callable[[str, int, int], None] | None


def save_table(store: str | Path, name: str, window: Sequence[int], stride: Sequence[int], *, where: str | None = None,
               statistics: bool = False, client: Client | None = None, progress: Progress = None) -> dict[str, Any]:
    """Build a table over all labelled volumes of `store` and save it as STORE/tables/<name>; its facts."""
    partitions = len(patch_table(store, window, stride, statistics=statistics).parts)
    if progress:
        progress("patches", 0, 2)
    with client_for(partitions, client) as found:
        table = patch_table(store, window, stride, where=where, client=found, statistics=statistics)
        path = table.save(name)
        if progress:
            progress("patches", 1, 2)
        counts = table.count("label")
    if progress:
        progress("patches", 2, 2)
    names, rows = {0: "background"} | table.classes, int(counts.sum())
    return {"name": path.name, "path": str(path), "rows": rows, "row_bytes": table.row_bytes,
            "partitions": partitions, "pixels_if_copied": rows * table.spec.window_voxels * 2,
            "labels": {names.get(int(label), str(label)): int(n) for label, n in counts.items()}}  # fmt: skip
