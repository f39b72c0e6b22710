"""The worklist: the cases of a store in an order, the one on show, and what is decided about each. Needs no Qt.

A case is opened to be read: its CT and the labels to judge. Nothing is copied until somebody edits. A decision is kept
in `case_status`, the figures in `case_scores`; while one case is read, the next one is loaded.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from ctpipe.errors import NotThereError, StoreFaultError, UsageError
from ctpipe.review.case_making import CaseMaker, all_cases
from ctpipe.review.case_status import Decision, Status, add_status
from ctpipe.review.cases import Case, Order, arranged, checked_class, class_names, order_named, passing, status_named
from ctpipe.review.commands import Command, Mode
from ctpipe.review.preload import Preloader
from ctpipe.review.working_copy import copies_of
from ctpipe.store import open_store
from ctpipe.words import LabelKind

if TYPE_CHECKING:
    from ctpipe.review.session import ReviewSession
    from ctpipe.store import Series


class Worklist:
    """The cases of the session's store. blinded: neither truth, nor Dice, nor what other reviewers did is shown.

    Signals: `changed` when rows, order or filter changed; `opened(series)` when another case is on show;
    `comment_wanted` when a case is to be flagged and somebody should type why.
    """

    changed = Signal()
    opened = Signal(str)
    comment_wanted = Signal()

    def __init__(self, session: ReviewSession, *, blinded: bool = False) -> None:
        self.session, self.blinded = session, blinded
        self.order = Order.DUE
        self.class_name: str | None = None
        self.status: Status | None = None
        self.words = ""
        self.current: str | None = None
        self.preloader = Preloader(session.store.root, session.cache)
        self._rows: dict[str, Case] = {}
        self._ids: list[str] = []  # in the order of the last `arrange`: it stands still while one reads
        self._since = time.monotonic()
        self._spent: dict[str, float] = {}  # seconds that a case was on show and no decision holds yet
        self.notes: list[str] = []
        self.refresh()

    # ------------------------------------------------------------------------------------------ rows
    def refresh(self) -> None:
        """Look into the store again, and arrange."""
        self._maker = CaseMaker(self.session.store, self.session.reviewer, self.blinded)
        self._rows, self.notes = all_cases(self.session.store, self._maker)
        self.arrange()

    def arrange(self, order: Order | str | None = None, class_name: str | None = None) -> None:
        """Put all cases in `order` (None: the one before). class_name: whose Dice or volume counts; None: of all."""
        if order is not None:
            self.order, self.class_name = order_named(order), class_name
        checked_class(self._rows.values(), self.class_name)
        self._ids = [case.series for case in arranged(self._rows.values(), self.order, self.class_name)]
        self.changed.emit()

    def ask_for(self, status: Status | str | None = None, words: str = "") -> None:
        """Show only cases of a status (None: any) that hold all `words`."""
        self.status = None if status in (None, "") else status_named(str(status))
        self.words = words
        self.changed.emit()

    @property
    def cases(self) -> list[Case]:
        """The cases asked for, in their order."""
        return passing([self._rows[series] for series in self._ids], self.status, self.words)

    def __getitem__(self, series: str) -> Case:
        return self._rows[series]

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def classes(self) -> list[str]:
        """Classes to sort by."""
        return class_names(self._rows.values())

    # ------------------------------------------------------------------------------------------ reading
    def open(self, series: str | None = None) -> str:
        """Show a case (id or prefix; None: the first of those asked for) with the labels to judge, to be read.

        Where this reviewer has a copy under way, it is taken up again. Raises NotThereError for an empty list.
        """
        if series is None:
            cases = self.cases
            if not cases:
                raise NotThereError(*self._nothing())
            series = cases[0].series
        self._stop_clock()
        self.current = self.session.store[series].id
        wanted = self.session.store[self.current]
        on_show = self._maker.on_show(wanted)
        own = any(record.reviewer == self.session.reviewer for _, record in copies_of(wanted.root, wanted.id))
        self.session.show(self.current, None if own or on_show is None else on_show.name)
        if own:
            self.session.edit_preferred()
        layers = self.session.viewer.layers
        layers.selection.active = layers[0]  # the CT: no stroke by accident
        self._since = time.monotonic()
        self.opened.emit(self.current)
        self._load_next()
        return f"case {self._place()} of {len(self.cases)}: {self._rows[self.current].patient}, {self.current[:8]}"

    def next(self, step: int = 1) -> str:
        """Show the case behind (step 1) or before (step -1) the one on show, among those asked for."""
        following = self._following(step)
        if following is None:
            return "that was the last case" if step > 0 else "this is the first case"
        return self.open(following)

    def previous(self) -> str:
        """Show the case before."""
        return self.next(-1)

    # ------------------------------------------------------------------------------------------ deciding
    def accept(self) -> str:
        """The labels are right as they stand: save what was painted, note the decision, show the next case.

        Noted as `corrected` where the labels are a person's review, saved now or before, else as `accepted`.
        """
        series, copy = self._shown(), self.session.copy
        labels = self._maker.on_show(series)
        name, corrected = (None, False) if labels is None else (labels.name, labels.kind is LabelKind.REVIEW)
        if copy is not None:
            saved = self.session.save()
            name, corrected = (saved.name, True) if saved.name is not None else (copy.record.parent, False)
        return self._decide(Status.CORRECTED if corrected else Status.ACCEPTED, labels=name)

    def reject(self, comment: str = "") -> str:
        """The case is of no use; show the next one."""
        return self._decide(Status.REJECTED, comment)

    def flag(self, comment: str = "") -> str:
        """Somebody else should look at the case, for a reason typed here, which must not name the patient."""
        return self._decide(Status.FLAGGED, comment)

    def put_back(self) -> str:
        """Not decided after all; the case stays on show."""
        return self._decide(Status.TODO, move=False)

    def seconds(self) -> float:
        """How long the case on show has been looked at, in all of this session."""
        if self.current is None:
            return 0.0
        return self._spent.get(self.current, 0.0) + time.monotonic() - self._since

    def commands(self) -> list[Command]:
        """What the worklist offers by key."""
        return [
            Command("next-case", "Next case", "N", Mode.READ, self.next),
            Command("previous-case", "Previous case", "Shift-N", Mode.READ, self.previous),
            Command("accept", "Accept the labels, save what was painted, next case", "A", Mode.READ, self.accept),
            Command("reject", "Reject the case, next case", "X", Mode.READ, self.reject),
            Command("flag", "Flag the case with a comment", "F", Mode.READ, self._flag_by_key),
        ]

    # ------------------------------------------------------------------------------------------ figures
    def score_steps(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(series, figures) of each case that lacks some, in the order of the list; computed as one asks for more.

        Reads through a store of its own, so that it may run in another thread; `take_figures` belongs to the viewer's.
        """
        store = open_store(self.session.store.root)
        for series in list(self._ids):
            try:
                one = store[series]
                yield series, self._maker.figures(one, compute=True)
            except (NotThereError, StoreFaultError):  # removed meanwhile, or rotten: `refresh` tells
                continue

    def take_figures(self, series: str, figures: dict[str, Any]) -> None:
        """Put figures into a row; the order stays until somebody arranges."""
        if series in self._rows and any(getattr(self._rows[series], name) != new for name, new in figures.items()):
            self._rows[series] = replace(self._rows[series], **figures)
            self.changed.emit()

    # ------------------------------------------------------------------------------------------ inside
    def _shown(self) -> Series:
        if self.session.series is None or self.current is None:
            raise UsageError("no case is on show", "open one from the worklist")
        return self.session.series

    def _decide(self, status: Status, comment: str = "", labels: str | None = None, move: bool = True) -> str:
        series = self._shown()
        if labels is None and (on_show := self._maker.on_show(series)) is not None:
            labels = on_show.name
        decision = Decision(series.id, status, self.session.reviewer, labels, comment.strip(), self.seconds())
        told = add_status(series.root, decision)
        self._spent[series.id], self._since = 0.0, time.monotonic()  # what is noted is not noted again
        self._rows[series.id] = self._maker.case(series)
        following = self._following(1) if move else None
        line = f"{series.id[:8]} {status}" + (f" ({told})" if told else "")
        if following is not None:
            line += f"; {self.open(following)}"
        elif move:
            line += "; that was the last case"
        self.changed.emit()
        return line

    def _following(self, step: int) -> str | None:
        """The nearest case asked for behind or before the one on show, which itself may not be asked for any more."""
        if self.current not in self._ids:
            return None
        place = self._ids.index(self.current)
        wanted = {case.series for case in self.cases}
        ahead = self._ids[place + 1 :] if step > 0 else self._ids[:place][::-1]
        return next((series for series in ahead if series in wanted), None)

    def _place(self) -> str:
        places = [n for n, case in enumerate(self.cases, start=1) if case.series == self.current]
        return str(places[0]) if places else "not asked for,"

    def _load_next(self) -> None:
        following = self._following(1)
        if following is not None:
            self.preloader.load(following, self._rows[following].on_show)

    def _stop_clock(self) -> None:
        if self.current is not None:
            self._spent[self.current] = self.seconds()

    def _flag_by_key(self) -> str | None:
        if len(self.comment_wanted):
            self._shown()
            self.comment_wanted.emit()
            return "type why, then press Enter (name no patient)"
        return self.flag()

    def _nothing(self) -> tuple[str, str]:
        if not self._rows:
            return "the store holds no volume", "ctpipe ingest DICOM... --store S"
        asked = " ".join(filter(None, [str(self.status or ""), self.words]))
        return f"none of {len(self._rows)} cases is asked for ({asked})", "ask for others, or for all"
