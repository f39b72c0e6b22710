"""The dock of a comparison: two sets to choose, what differs, lesion by lesion. All logic is in `comparing`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QComboBox, QLabel, QPushButton, QTabWidget, QVBoxLayout, QWidget

from ctpipe.errors import CtpipeError
from ctpipe.review.lesions_widget import fill, table
from ctpipe.scoring import number

if TYPE_CHECKING:
    from collections.abc import Callable

    from ctpipe.review.comparing import Comparison

_ALL = "all classes"


class ComparisonWidget(QWidget):
    """What is held to be right, what is compared with it, in which class; two tables to step through."""

    def __init__(self, part: Comparison) -> None:
        super().__init__()
        self.part = part
        self.right_box, self.other_box, self.class_box = QComboBox(), QComboBox(), QComboBox()
        self.places = table(("what", "mL", "plane"))
        self.lesions = table(("class", "became", "mL before", "mL after", "change mL", "long axis mm"))
        self.button = QPushButton("Compare")
        self.status = QLabel()
        self.status.setWordWrap(True)
        layout = QVBoxLayout(self)
        for title, box in (("right:", self.right_box), ("compared:", self.other_box), ("in:", self.class_box)):
            layout.addWidget(QLabel(title))
            layout.addWidget(box)
        layout.addWidget(self.button)
        tabs = QTabWidget()
        tabs.addTab(self.places, "Disagreements")
        tabs.addTab(self.lesions, "Lesions")
        layout.addWidget(tabs)
        layout.addWidget(self.status)
        self.button.clicked.connect(lambda: self.do(self.compare))
        self.places.cellClicked.connect(lambda row, _: self.do(lambda: part.go(part.places()[row])))
        self.lesions.cellClicked.connect(lambda row, _: self.do(lambda: part.go_to_change(part.matched()[row])))
        for signal in (part.session.shown, part.session.copy_opened, part.session.copy_closed):
            signal.connect(self.refresh)
        self.destroyed.connect(lambda: self._let_go(part))
        self.refresh()

    def _let_go(self, part: Comparison) -> None:
        for signal in (part.session.shown, part.session.copy_opened, part.session.copy_closed):
            signal.disconnect(self.refresh, missing_ok=True)

    def refresh(self) -> None:
        """Offer the sets that are there, the usual pair first."""
        choices, usual = self.part.choices, self.part.usual_pair()
        for box, chosen in zip((self.right_box, self.other_box), usual or ("", ""), strict=True):
            box.clear()
            box.addItems(choices)
            box.setCurrentText(chosen)
        self.class_box.clear()
        self.class_box.addItem(_ALL)
        series = self.part.session.series
        names = [name for labels in series.labels.values() for name in labels.classes.values()] if series else []
        self.class_box.addItems(list(dict.fromkeys(names)))
        self.button.setEnabled(usual is not None)
        for each in (self.places, self.lesions):
            fill(each, [])

    def compare(self) -> str:
        """Compare what is chosen and fill the tables."""
        part, only = self.part, self.class_box.currentText()
        told = part.compare(self.right_box.currentText(), self.other_box.currentText(), None if only == _ALL else only)
        fill(self.places, [[one.code.title, f"{one.volume_ml:.2f}", str(one.at[0])] for one in part.places()])
        fill(self.lesions, [
            [one.name, str(one.fate), f"{one.before_ml:.2f}", f"{one.after_ml:.2f}", f"{one.change_ml:+.2f}",
             "" if one.change_long_mm is None else f"{one.change_long_mm:+.1f}"]
            for one in part.matched()
        ])  # fmt: skip
        dice = ", ".join(f"{name} {number(value)}" for name, value in part.dice().items())
        return f"{told}; Dice: {dice}; {len(part.places())} disagreements"

    def do(self, step: Callable[[], str]) -> None:
        """One step; an error of ours becomes the line below the tables."""
        try:
            self.status.setText(step())
        except CtpipeError as error:
            self.status.setText(str(error))
