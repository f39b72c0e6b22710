"""The worklist without a viewer: what `ctpipe review S --list` prints. Figures that lack are computed, and kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ctpipe.errors import StoreFaultError
from ctpipe.review.case_making import CaseMaker, all_cases
from ctpipe.review.case_status import Status
from ctpipe.review.cases import Case, Order, arranged, checked_class, passing
from ctpipe.store import open_store
from ctpipe.words import Progress


def list_cases(
    store: str | Path,
    reviewer: str,
    *,
    order: Order = Order.DUE,
    class_name: str | None = None,
    status: Status | None = None,
    blinded: bool = False,
    progress: Progress = None,
) -> tuple[list[Case], list[str]]:
    """(the cases of a status, None: of any, in `order`; what could not be read). Needs neither napari nor Qt.

    Raises NotThereError where there is no store, UsageError for a class that no labels hold.
    """
    opened = open_store(store)
    maker = CaseMaker(opened, reviewer, blinded)
    rows, notes = all_cases(opened, maker)
    for number, series in enumerate(rows, start=1):
        try:
            rows[series] = replace(rows[series], **maker.figures(opened[series], compute=True))
        except StoreFaultError as error:  # rotten labels: the row stands without their figures
            notes.append(str(error))
        if progress is not None:
            progress("cases", number, len(rows))
    checked_class(rows.values(), class_name)
    return passing(arranged(rows.values(), order, class_name), status), notes
