"""Evaluate: predictions held against truth, volume by volume."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ctpipe import scoring
from ctpipe.errors import NotThereError, UsageError
from ctpipe.pipeline.reports import EvaluateReport
from ctpipe.store import Series, Store, open_store
from ctpipe.words import LabelKind


def evaluate(
    store: str | Path | Store,
    run: str | Sequence[str],
    truth: str = "truth",
) -> EvaluateReport:
    """Scores of every prediction that `run` names, against the labels `truth` of its series.

    run: a run key, or the digest of a model for all its runs; unambiguous prefixes will do.
    truth: a label group; "truth" is the newest one of each series.
    Raises NotThereError where no run matches, or a series of it has no such truth.
    """
    target = store if isinstance(store, Store) else open_store(store)
    wanted = [run] if isinstance(run, str) else list(run)
    pairs = [pair for name in wanted for pair in runs_named(target, name)]
    scores: dict[str, scoring.VolumeScores] = {}
    runs: dict[str, str] = {}
    for series, key in dict.fromkeys(pairs):
        if truth not in series.labels:
            raise NotThereError(f"series {series.id} has no labels {truth!r}",
                                f"it has: {', '.join(sorted(series.labels)) or 'none'}; ingest it again with --labels")
        if series.id in runs:
            raise UsageError(f"{series.id} has several runs of that name: {runs[series.id]}, {key}",
                             "give one run key for each volume")  # fmt: skip
        runs[series.id] = key
        scores[series.id] = scoring.evaluate_volume(series.labels[truth], series.labels[key])
    return EvaluateReport(scores, runs, truth)


def runs_named(store: Store, name: str) -> list[tuple[Series, str]]:
    """(series, run key) of every committed prediction whose key or model digest begins with `name`."""
    runs = [(series, labels) for series in store.values() for labels in series.labels.values()
            if labels.kind is LabelKind.PREDICTION]  # fmt: skip
    found = [(series, labels.name) for series, labels in runs
             if labels.name.startswith(name) or str(labels.provenance.get("model", "")).startswith(name)]  # fmt: skip
    if not found or not name:
        known = [labels.name for _, labels in runs]
        raise NotThereError(f"no run {name!r} in this store",
                            f"runs: {', '.join(known[:8]) or 'none yet; make one with ctpipe infer'}")  # fmt: skip
    return found
