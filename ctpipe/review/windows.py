"""Windows: which HU are shown as black and white. Presets, the series' own, and the arithmetic of a drag.

Presets (width/centre in HU): abdomen, lung and brain as in AMI and Slicer, bone as in Slicer; liver, mediastinum and
angiography are customary values. A window's width is at least 1 (PS3.3 C.11.2.1.2): a series that states 0, or no
number, gets soft tissue, and a drag stops there.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class Window(NamedTuple):
    """centre and width in HU."""

    centre: float
    width: float

    @property
    def limits(self) -> tuple[float, float]:
        """Lowest and highest HU shown."""
        return self.centre - self.width / 2, self.centre + self.width / 2

    def __str__(self) -> str:
        return f"W {self.width:.0f} L {self.centre:.0f}"


PRESETS = {
    "abdomen": Window(40, 350),
    "liver": Window(30, 150),
    "lung": Window(-500, 1400),
    "bone": Window(400, 1000),
    "brain": Window(50, 100),
    "mediastinum": Window(50, 350),
    "angio": Window(300, 600),
}
SOFT_TISSUE = Window(40, 400)  # where a series brings no window of its own
_PIXELS_A_WIDTH = 200  # a drag of so many pixels changes by the width that it began with
_WIDEST = 8192.0


def own_window(voi: tuple[float, float] | None) -> Window:
    """The window of a series from its (centre, width), soft tissue where that is none, not finite or below 1."""
    if voi is not None and all(map(math.isfinite, voi)) and voi[1] >= 1:
        return Window(*voi)
    return SOFT_TISSUE


def window_of(limits: tuple[float, float]) -> Window:
    """The window between two HU."""
    low, high = limits
    return Window((low + high) / 2, max(high - low, 1.0))


def dragged(begun: Window, right_px: float, down_px: float) -> Window:
    """The window after a drag: to the right is wider, down is brighter (a lower centre)."""
    step = max(begun.width, 1.0) / _PIXELS_A_WIDTH
    return Window(begun.centre - down_px * step, min(max(begun.width + right_px * step, 1.0), _WIDEST))
