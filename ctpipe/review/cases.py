"""The cases of a worklist as plain rows: what is known of each, in which order they come, which of them are asked for.

Arithmetic only. What is not known (no truth, one run, no figure computed yet) is None, and sorts last.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ctpipe.errors import UsageError
from ctpipe.review.case_scores import Figures, mean_of
from ctpipe.review.case_status import Status


class Order(StrEnum):
    """What comes first."""

    DUE = "due"  # what is still to do, the least certain first
    UNCERTAINTY = "uncertainty"  # the least certain first
    DISAGREEMENT = "disagreement"  # where two runs differ most
    DICE = "dice"  # the worst first
    VOLUME = "volume"  # the most of a class first
    STATUS = "status"  # flagged, to do, rejected, corrected, accepted
    PATIENT = "patient"


# differ: of two runs. s: seconds on show, of all decisions.
COLUMNS = ("case", "status", "unsure", "differ", "Dice", "mL", "grid", "mm", "labels", "patient", "by", "s", "comment")
_STATUS_RANK = {Status.FLAGGED: 0, Status.TODO: 1, Status.REJECTED: 2, Status.CORRECTED: 3, Status.ACCEPTED: 4}


@dataclass(frozen=True)
class Case:
    """One volume. labels: names of its label groups, the oldest first; runs: those of them that a model made.

    on_show: the labels that a reviewer sees first. dice: of those against the truth; volumes_ml: of those.
    disagreement: 1 - mean Dice of the two newest runs. in_conflict: reviewers came to different ends.
    """

    series: str
    patient: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    labels: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    on_show: str | None = None
    copy_under_way: bool = False
    status: Status = Status.TODO
    comment: str = ""
    reviewer: str | None = None
    seconds: float = 0.0
    in_conflict: bool = False
    dice: Figures | None = None
    disagreement: float | None = None
    volumes_ml: Figures | None = None
    uncertainty: float | None = None
    notes: tuple[str, ...] = field(default=(), compare=False)

    def dice_of(self, class_name: str | None = None) -> float | None:
        """Dice of a class, or the mean over all."""
        return mean_of(self.dice) if class_name is None else (self.dice or {}).get(class_name)

    def volume_of(self, class_name: str | None = None) -> float | None:
        """Volume of a class, or of all together, in mL."""
        if class_name is not None or self.volumes_ml is None:
            return (self.volumes_ml or {}).get(class_name or "")
        return sum(value for value in self.volumes_ml.values() if value is not None)

    def cells(self, class_name: str | None = None) -> tuple[str, ...]:
        """The case as text, in the order of COLUMNS; "" for what is not known."""
        return (
            self.series[:8],
            str(self.status) + (" (conflict)" if self.in_conflict else ""),
            number(self.uncertainty, 3),
            number(self.disagreement, 3),
            number(self.dice_of(class_name), 3),
            number(self.volume_of(class_name), 1),
            "x".join(map(str, self.shape)),
            " ".join(f"{mm:.3g}" for mm in self.spacing_mm),
            str(len(self.labels)),
            self.patient[:12],
            self.reviewer or "",
            f"{self.seconds:.0f}" if self.seconds else "",
            self.comment,
        )

    def as_json(self) -> dict[str, Any]:
        """A row of `ctpipe review S --list --json`."""
        return {
            "id": self.series,
            "patient": self.patient,
            "shape": list(self.shape),
            "spacing": [round(mm, 6) for mm in self.spacing_mm],
            "labels": list(self.labels),
            "runs": list(self.runs),
            "on_show": self.on_show,
            "status": str(self.status),
            "comment": self.comment,
            "reviewer": self.reviewer,
            "seconds": round(self.seconds, 1),
            "in_conflict": self.in_conflict,
            "dice": self.dice,
            "disagreement": self.disagreement,
            "volumes_ml": self.volumes_ml,
            "uncertainty": self.uncertainty,
        }


def arranged(cases: Iterable[Case], order: Order, class_name: str | None = None) -> list[Case]:
    """All cases in `order`; equals by id. class_name: whose Dice or volume counts, None: of all classes."""
    return sorted(cases, key=lambda case: (*_rank(case, order, class_name), case.series))


def passing(cases: Sequence[Case], status: Status | None = None, words: str = "") -> list[Case]:
    """Those of a status whose id, patient, comment or label names hold all `words`, whatever their case."""
    wanted = words.casefold().split()
    return [case for case in cases if status in (None, case.status) and all(word in _text(case) for word in wanted)]


def class_names(cases: Iterable[Case]) -> list[str]:
    """Every class that has a figure somewhere, in order of first appearance."""
    return list(dict.fromkeys(name for case in cases for name in (*(case.volumes_ml or {}), *(case.dice or {}))))


def checked_class(cases: Iterable[Case], class_name: str | None) -> None:
    """UsageError for a class that no labels hold, where any figures are known."""
    known = class_names(cases)
    if class_name is not None and known and class_name not in known:
        raise UsageError(f"no labels hold a class {class_name!r}", f"choose among: {', '.join(known)}")


def order_named(word: Order | str) -> Order:
    """The order of that name. UsageError where there is none."""
    try:
        return Order(word)
    except ValueError as error:
        raise UsageError(f"order {word!r} is unknown", f"choose one of: {', '.join(Order)}") from error


def status_named(word: Status | str) -> Status:
    """The status of that name. UsageError where there is none."""
    try:
        return Status(word)
    except ValueError as error:
        raise UsageError(f"status {word!r} is unknown", f"choose one of: {', '.join(Status)}") from error


def _rank(case: Case, order: Order, class_name: str | None) -> tuple[Any, ...]:
    if order is Order.DUE:
        open_still = case.status in (Status.TODO, Status.FLAGGED)
        return (not open_still, *_most(case.uncertainty), not case.copy_under_way, not case.runs, not case.labels)
    if order is Order.STATUS:
        return (_STATUS_RANK[case.status],)
    if order is Order.PATIENT:
        return (case.patient,)
    if order is Order.DICE:
        dice = case.dice_of(class_name)
        return dice is None, dice
    figure = {
        Order.UNCERTAINTY: case.uncertainty,
        Order.DISAGREEMENT: case.disagreement,
        Order.VOLUME: case.volume_of(class_name),
    }[order]
    return _most(figure)


def _most(figure: float | None) -> tuple[bool, float]:
    return figure is None, -(figure or 0.0)


def _text(case: Case) -> str:
    return " ".join((case.series, case.patient, case.comment, *case.labels)).casefold()


def number(value: float | None, digits: int) -> str:
    """A figure with so many digits; "" for none."""
    return "" if value is None else f"{value:.{digits}f}"
