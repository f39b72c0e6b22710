"""A page for one predicted volume: pictures, scores, provenance."""

from __future__ import annotations

from pathlib import Path

from ctpipe import report
from ctpipe.errors import NotThereError
from ctpipe.pipeline.reports import EvaluateReport
from ctpipe.store import Store, open_store


def write_case_page(
    store: str | Path | Store, scores: EvaluateReport, html: str | Path, *, curve: str | Path | None = None
) -> Path:
    """Write the page `html` of the first volume of `scores`, and its picture beside it (.png); returns the picture.

    Raises NotThereError where nothing was scored.
    """
    if not scores.series:
        raise NotThereError("no volume was scored", "name a run that the store holds")
    target = store if isinstance(store, Store) else open_store(store)
    series_id, volume_scores = next(iter(scores.series.items()))
    series = target[series_id]
    run, truth = scores.runs[series_id], series.labels[scores.truth]
    prediction = series.labels[run]
    page = Path(html)
    picture = page.with_suffix(".png")
    title = f"Volume {series_id}"
    report.case_png(picture, series, truth, prediction, title, volume_scores)
    provenance = {
        "volume": series_id,
        "patient": series.patient,
        "run": run,
        "truth": truth.name,
        "grid": series.grid.grid_id,
        **{key: value for key, value in prediction.provenance.items() if value is not None},
    }
    report.case_html(page, title=title, png=picture, scores=volume_scores, provenance=provenance, curve=curve,
                     napari_line=f"ctpipe review {target.root} {series_id}")  # fmt: skip
    return picture
