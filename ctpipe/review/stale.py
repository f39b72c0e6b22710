"""Whether the labels that a correction was made on are still what they were (RELIABILITY R4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctpipe.words import LabelKind

if TYPE_CHECKING:
    from ctpipe.store import Labels, Series


def staleness(series: Series, parent: str | None, content: str | None) -> str | None:
    """One line that says why a correction of `parent` (a label group, as it was with `content`) is stale, or None.

    Stale: the parent is gone, or holds other voxels, or another run over the volume was committed after it. "After"
    goes by file time: it decides only what is told, never what is kept.
    """
    if parent is None:
        return None
    if parent not in series.labels:
        return f"stale: made on {parent}, which is no longer in the store"
    found = series.labels[parent]
    if found.content != content:
        return f"stale: made on {parent} as it was before it was replaced"
    if found.kind is not LabelKind.PREDICTION:
        return None
    newer = [other for other in _runs(series) if _committed_ns(other) > _committed_ns(found)]
    if newer:
        last = max(newer, key=lambda run: (_committed_ns(run), run.name))
        return f"stale: made on run {parent[:8]}, a newer run is {last.name[:8]}"
    return None


def stale_reviews(series: Series) -> dict[str, str]:
    """{name of a review: why it is stale}, of all committed reviews of a series."""
    found = {}
    for name, labels in series.labels.items():
        if labels.kind is LabelKind.REVIEW:
            line = staleness(series, labels.provenance.get("parent"), labels.provenance.get("parent_content"))
            if line is not None:
                found[name] = line
    return found


def _runs(series: Series) -> list[Labels]:
    return [labels for labels in series.labels.values() if labels.kind is LabelKind.PREDICTION]


def _committed_ns(labels: Labels) -> int:
    return (labels.path / "zarr.json").stat().st_mtime_ns
