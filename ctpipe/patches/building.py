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
from ctpipe.words import ZYX, LabelKind, Pad, Source

if TYPE_CHECKING:
    from distributed import Client

    from ctpipe.store import Store


def patch_table(
    store: Store | Mapping[str, Any] | str | Path, window: Sequence[int] = (1, 257, 257),
    stride: Sequence[int] = (1, 7, 7), pad: str | Pad = "edge", where: str | None = None,
    client: Client | None = None, *, series: Sequence[str] | str | None = None, level: int = 0, labels: str = "truth",
    classes: Sequence[str] | Mapping[str, Sequence[str]] | None = None, statistics: bool = False,
    lesions: Sequence[str] = (), organ: Sequence[str] = (), source: str | Source = Source.TRUTH,
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
    source: whose labels. "truth": `labels`. "review": the newest review of each series, by default of every volume that
        has one. "best": the newest review of a series, and `labels` where it has none. With reviews, rows also have
        `corrected` (a reviewer gave the centre another label) and `changed` (exact share of the window's voxels that
        got another one), and column `weight` follows from both. They are held against the labels that the review began
        with, over reviews of reviews back to the run; where those were removed, nothing counts as changed.

    Raises NotThereError for a series, label group, level, class or column that is not there; UsageError for a condition
    that is none. Nothing else is computed yet, only group metadata is read.
    """
    if isinstance(store, (str, Path)):
        from ctpipe.store import open_store  # zarr is wanted only where a store is opened
        store = open_store(store)
    if pad not in list(Pad):
        raise UsageError(f"pad {str(pad)!r} is unknown", f"choose {' or '.join(Pad)}")
    windows = WindowSpec(window=_lengths(window), stride=_lengths(stride), pad=Pad(pad))
    wanted = label_names(source, labels)
    chosen = _chosen(store, series, wanted)
    # once: "truth" is the newest, whichever that is at each look
    groups = [next(one.labels[name] for name in wanted if name in one.labels) for one in chosen]
    befores = [corrected_labels(one, group) for one, group in zip(chosen, groups, strict=True)]
    _check_classes(groups, classes)
    n = len(groups)
    names, translations = translate([*(group.classes for group in groups),
                                     *(before.classes if before else {} for before in befores)], classes)
    sources = tuple(source_of(store, one, group, level, mapping) for one, group, mapping
                    in zip(chosen, groups, translations[:n], strict=True))
    sources = tuple(replace(one, before=_before(group, before, mapping)) for one, group, before, mapping
                    in zip(sources, groups, befores, translations[n:], strict=True))
    largest = max(max(source.shape) for source in sources)
    spec = RowSpec(windows, tuple(names.items()), tuple(source.id for source in sources),
                   tuple(sorted({source.patient for source in sources})),
                   index_dtype="int16" if largest <= np.iinfo(np.int16).max else "int32",
                   statistics=statistics, organ=_integers(names, organ),
                   reviewed=Source(source) is not Source.TRUTH)  # fmt: skip
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


def label_names(source: str | Source, labels: str = "truth") -> tuple[str, ...]:
    """Names of label groups for a `source`, the one to take first; UsageError for what is none."""
    if source not in list(Source):
        raise UsageError(f"source {str(source)!r} is unknown", f"choose one of: {', '.join(Source)}")
    if source == Source.REVIEW and labels != "truth":
        raise UsageError(f"source 'review' takes reviews, not labels {labels!r}",
                         f"give source='best' for {labels!r} where there is no review")
    return {Source.TRUTH: (labels,), Source.REVIEW: ("review",), Source.BEST: ("review", labels)}[Source(source)]


def corrected_labels(series: Any, group: Any) -> Any:
    """The labels that a review corrected, over reviews of reviews; None where it began empty or they are gone."""
    provenance, kind = getattr(group, "provenance", {}), str(getattr(group, "kind", LabelKind.TRUTH))
    name = provenance.get("parent")
    if kind != LabelKind.REVIEW or name is None or name not in series.labels:
        return None
    parent = series.labels[name]
    if parent.name != name or parent.content != provenance.get("parent_content"):
        return None  # others of that name: what was corrected is gone
    return parent if str(parent.kind) != LabelKind.REVIEW else corrected_labels(series, parent)


def _before(group: Any, before: Any, mapping: Mapping[int, int]) -> tuple[str, tuple[tuple[int, int], ...]] | None:
    if before is not None:
        return before.name, tuple(sorted(mapping.items()))
    empty = str(getattr(group, "kind", "")) == LabelKind.REVIEW and group.provenance.get("parent") is None
    return ("", ()) if empty else None


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


def _chosen(store: Mapping[str, Any], series: Sequence[str] | str | None, labels: tuple[str, ...]) -> list[Any]:
    """The series of the table by id; without a choice, all that have any of the labels."""
    told = " or ".join(repr(name) for name in labels)
    cure = "save a correction in ctpipe review" if labels == ("review",) else "ingest it with --labels"
    if series is None:
        chosen = [store[name] for name in sorted(store) if _any(store[name], labels)]
    else:
        wanted = [series] if isinstance(series, str) else series
        unique = {one.id: one for one in (store[name] for name in wanted)}
        chosen = [unique[name] for name in sorted(unique)]
        for one in chosen:
            if not _any(one, labels):
                raise NotThereError(f"series {one.id} has no labels {told}", cure)
    if not chosen:
        raise NotThereError(f"no series of the store has labels {told}", cure)
    return chosen


def _any(series: Any, labels: tuple[str, ...]) -> bool:
    return any(name in series.labels for name in labels)


def _check_classes(groups: list[Any], classes: Sequence[str] | Mapping[str, Sequence[str]] | None) -> None:
    """NotThereError for a wanted class that no label volume has; of a merged one, one part must be there."""
    existing = sorted({name for group in groups for name in group.classes.values()})
    lacking = [name for name in classes or ()
               if not set(classes[name] if isinstance(classes, Mapping) else (name,)) & set(existing)]
    if lacking:
        raise NotThereError(f"the label volumes have no class {', '.join(lacking)}",
                            f"their classes are {', '.join(existing)}")
