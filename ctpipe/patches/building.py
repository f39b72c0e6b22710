"""`patch_table`: from a store to a table, by group metadata alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ctpipe.config import WindowSpec
from ctpipe.errors import NotThereError, RunError, UsageError
from ctpipe.patches.rows import RowSpec, translate
from ctpipe.patches.sources import SeriesSource
from ctpipe.patches.table import PatchTable
from ctpipe.words import ZYX, Pad

if TYPE_CHECKING:
    from distributed import Client

    from ctpipe.store import Store


def patch_table(
    store: Store | Mapping[str, Any] | str | Path, window: Sequence[int] = (1, 257, 257),
    stride: Sequence[int] = (1, 7, 7), pad: str | Pad = "edge", where: str | None = None,
    client: Client | None = None, *, series: Sequence[str] | str | None = None, level: int = 0, labels: str = "truth",
    classes: Sequence[str] | Mapping[str, Sequence[str]] | None = None, statistics: bool = False,
    lesions: Sequence[str] = (), organ: Sequence[str] = (),
) -> PatchTable:  # fmt: skip
    """Table with a row for every window (z, y, x) at every `stride` voxels of the store's labelled volumes.

    pad: what a window sees beyond its volume, "edge" or "constant"; labels are padded as pixels are (edge: the
        nearest voxel's label, constant: background and air).
    where: keep only rows for which a pandas query expression holds, e.g. `label == "liver" and fraction_lesion > 0`.
    client: a Dask client that computes; None computes in this process.
    series: ids or unambiguous prefixes; by default every volume that has `labels`.
    level: the pyramid level on which window, stride, z, y and x count.
    classes: names in the order of their integers from 1, or {name: names that count as it}; by default the classes of
        the label volumes with their own integers. Voxels of a class that is not named are background.
    statistics: also hu_mean and hu_std of every window and in_body of its centre; HU is then read as well.
    lesions: classes whose connected components (26 neighbours) are numbered in column `lesion`; they are found now.
    organ: classes whose voxels count as `in_organ`; by default all.

    Raises NotThereError for a series, label group, level, class or column that is not there; UsageError for a condition
    that is none. Nothing else is computed yet, only group metadata is read.
    """
    if isinstance(store, (str, Path)):
        from ctpipe.store import open_store  # zarr is wanted only where a store is opened
        store = open_store(store)
    if pad not in list(Pad):
        raise UsageError(f"pad {str(pad)!r} is unknown", f"choose {' or '.join(Pad)}")
    windows = WindowSpec(window=_lengths(window), stride=_lengths(stride), pad=Pad(pad))
    chosen = _chosen(store, series, labels)
    groups = [one.labels[labels] for one in chosen]  # once: "truth" is the newest, whichever that is at each look
    _check_classes(groups, classes)
    names, translations = translate([group.classes for group in groups], classes)
    sources = tuple(source_of(store, one, group, level, mapping)
                    for one, group, mapping in zip(chosen, groups, translations, strict=True))
    largest = max(max(source.shape) for source in sources)
    spec = RowSpec(windows, tuple(names.items()), tuple(source.id for source in sources),
                   tuple(sorted({source.patient for source in sources})),
                   index_dtype="int16" if largest <= np.iinfo(np.int16).max else "int32",
                   statistics=statistics, organ=_integers(names, organ))  # fmt: skip
    table = PatchTable(spec, sources, level, client)
    if lesions:
        table = replace(table, spec=_numbered(spec, sources, _integers(names, lesions), client))
    return table.where(where) if where else table


def source_of(store: Mapping[str, Any], series: Any, group: Any, level: int, mapping: Mapping[int, int]
              ) -> SeriesSource:
    """One series and its labels as a table keeps them; NotThereError for a level, RunError where grids differ."""
    if not 0 <= level < len(series.levels):
        raise NotThereError(f"series {series.id} has no pyramid level {level}",
                            f"choose one of 0..{len(series.levels) - 1}")
    if group.grid.grid_id != series.grid.grid_id:
        raise RunError(f"labels on grid {group.grid.grid_id} do not fit series {series.id} on {series.grid.grid_id}",
                       "ingest the labels again")
    at = series.levels[level]
    root = getattr(store, "root", None)
    factors = tuple(getattr(at, "factors", (1, 1, 1)))
    return SeriesSource(Path(root) if root else store, series.id, series.patient, series.content, group.name, level,
                        tuple(at.grid.shape), at.slab_planes, tuple(sorted(mapping.items())),
                        str(getattr(group, "kind", "truth")), getattr(group, "content", ""), at.grid.rows,
                        factors)  # type: ignore[arg-type]  # fmt: skip





def _numbered(spec: RowSpec, sources: Sequence[SeriesSource], classes: tuple[int, ...], client: Client | None
              ) -> RowSpec:
    from ctpipe.patches.lesions import lesion_numbers
    tasks = [(source, classes) for source in sources]
    if client is None:
        found = [lesion_numbers(task) for task in tasks]
    else:
        from ctpipe.patches.running import PlainCall
        found = client.gather([client.submit(PlainCall(lesion_numbers, task), pure=False) for task in tasks])
    return replace(spec, lesions=classes, lesion_numbers=tuple(found))


def _integers(classes: Mapping[int, str], wanted: Sequence[str]) -> tuple[int, ...]:
    integers = {name: number for number, name in classes.items()}
    lacking = [name for name in wanted if name not in integers]
    if lacking:
        raise NotThereError(f"the table has no class {', '.join(lacking)}", f"its classes are {', '.join(integers)}")
    return tuple(integers[name] for name in wanted)


def _lengths(values: Sequence[int]) -> ZYX:
    if len(values) != 3 or any(int(v) != v for v in values):
        raise UsageError(f"{tuple(values)} is not three lengths in voxels", "give whole numbers z, y, x")
    return ZYX(*(int(v) for v in values))


def _chosen(store: Mapping[str, Any], series: Sequence[str] | str | None, labels: str) -> list[Any]:
    """The series of the table by id; without a choice, all that have the labels."""
    if series is None:
        chosen = [store[name] for name in sorted(store) if labels in store[name].labels]
    else:
        wanted = [series] if isinstance(series, str) else series
        unique = {one.id: one for one in (store[name] for name in wanted)}
        chosen = [unique[name] for name in sorted(unique)]
        for one in chosen:
            if labels not in one.labels:
                raise NotThereError(f"series {one.id} has no labels {labels!r}", "ingest it with --labels")
    if not chosen:
        raise NotThereError(f"no series of the store has labels {labels!r}", "ingest it with --labels")
    return chosen


def _check_classes(groups: list[Any], classes: Sequence[str] | Mapping[str, Sequence[str]] | None) -> None:
    """NotThereError for a wanted class that no label volume has; of a merged one, one part must be there."""
    existing = sorted({name for group in groups for name in group.classes.values()})
    lacking = [name for name in classes or ()
               if not set(classes[name] if isinstance(classes, Mapping) else (name,)) & set(existing)]
    if lacking:
        raise NotThereError(f"the label volumes have no class {', '.join(lacking)}",
                            f"their classes are {', '.join(existing)}")
