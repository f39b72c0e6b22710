"""From a volume of the store to its row in the worklist: labels, runs, figures, decisions. Reads, and keeps figures."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ctpipe.errors import StoreFaultError, UsageError
from ctpipe.review.case_scores import ScoreBook, mean_of
from ctpipe.review.case_status import Status, read_status
from ctpipe.review.cases import Case
from ctpipe.review.layers import age_rank, preferred_of
from ctpipe.review.working_copy import copies_of
from ctpipe.words import LabelKind

if TYPE_CHECKING:
    from ctpipe.store import Labels, Series, Store


class CaseMaker:
    """Rows as `reviewer` may see them. blinded: no truth, no Dice, nothing of other reviewers."""

    def __init__(self, store: Store, reviewer: str, blinded: bool) -> None:
        self.root, self.reviewer, self.blinded = store.root, reviewer, blinded
        self._uncertainty = store.uncertainty()

    def case(self, series: Series) -> Case:
        """The row of a volume; figures that nobody computed yet are None. Raises StoreFaultError for a rotten one."""
        groups, on_show = self.groups(series), self.on_show(series)
        history = read_status(self.root, series.id)
        decision = history.newest(self.reviewer if self.blinded else None)
        spent = [one.seconds for one in history.decisions if not self.blinded or one.reviewer == self.reviewer]
        z, y, x = series.grid.shape
        return Case(
            series=series.id,
            patient=series.patient,
            shape=(z, y, x),
            spacing_mm=series.grid.spacing_mm,
            labels=tuple(group.name for group in groups),
            runs=tuple(group.name for group in groups if group.kind is LabelKind.PREDICTION),
            on_show=None if on_show is None else on_show.name,
            copy_under_way=any(record.reviewer == self.reviewer for _, record in copies_of(self.root, series.id)),
            status=Status.TODO if decision is None else decision.status,
            comment="" if decision is None else decision.comment,
            reviewer=None if decision is None else decision.reviewer,
            seconds=sum(spent),
            in_conflict=history.in_conflict and not self.blinded,
            uncertainty=self._uncertainty.get(series.id),
            notes=history.notes,
            **self.figures(series, compute=False),
        )

    def figures(self, series: Series, compute: bool) -> dict[str, Any]:
        """`dice`, `disagreement` and `volumes_ml` of a row: what is known, or with `compute` all that can be."""
        book, groups, on_show = ScoreBook(series.root, series.id), self.groups(series), self.on_show(series)
        stages = {group.provenance.get("before") for group in groups}  # the first half of a model is no second opinion
        runs = [group for group in groups if group.kind is LabelKind.PREDICTION and group.name not in stages][-2:]
        truth: Labels | None = None if self.blinded else series.labels.get("truth")
        dice = differ = None
        if truth is not None and on_show is not None and on_show.name != truth.name:
            dice = book.dice(truth, on_show, compute)
        if len(runs) == 2 and (differ := book.dice(runs[0], runs[1], compute)) is not None:
            mean = mean_of(differ)
        return {
            "dice": dice,
            "disagreement": None if differ is None else round(1 - (1.0 if mean is None else mean), 6),
            "volumes_ml": None if on_show is None else book.volumes_ml(on_show, compute),
        }

    def groups(self, series: Series) -> list[Labels]:
        """The label groups that this reviewer may see, from old to new."""
        groups = sorted(series.labels.values(), key=age_rank)
        return [group for group in groups if not self.blinded or self._own_or_run(group)]

    def on_show(self, series: Series) -> Labels | None:
        """The labels to judge: the newest review, else the newest prediction, else the truth, of those to be seen."""
        return preferred_of(self.groups(series))

    def _own_or_run(self, group: Labels) -> bool:
        own = group.kind is LabelKind.REVIEW and group.provenance.get("reviewer") == self.reviewer
        return own or group.kind is LabelKind.PREDICTION


def all_cases(store: Store, maker: CaseMaker) -> tuple[dict[str, Case], list[str]]:
    """(rows by series, what could not be read): a rotten volume is told, and the others are listed."""
    rows: dict[str, Case] = {}
    notes: list[str] = []
    for series in store:
        try:
            rows[series] = maker.case(store[series])
        except StoreFaultError as error:
            notes.append(str(error))
    return rows, notes + [note for case in rows.values() for note in case.notes]


def checked_reviewer(name: str) -> str:
    """A reviewer's pseudonym. UsageError for what could be a person's name, or no name of a file."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}", name):
        raise UsageError("the reviewer's pseudonym is empty, too long or holds other signs than letters, digits . _ -",
                         "give one as reader-1: it is stored with every decision")  # fmt: skip
    return name
