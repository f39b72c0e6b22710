"""Measurements of every component as CSV, quoted so that no spreadsheet runs them (RELIABILITY X10)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from ctpipe.export.case import Case
from ctpipe.export.files import whole_file
from ctpipe.scoring import Measured

COLUMNS = (
    "volume", "labels", "class", "label", "component", "voxels", "volume_ml", "long_axis_mm", "short_axis_mm", "plane",
    "mean_hu", "sd_hu", "min_hu", "max_hu", "first_z", "first_y", "first_x", "last_z", "last_y", "last_x",
    "centre_l_mm", "centre_p_mm", "centre_s_mm",
)  # fmt: skip
# What makes a spreadsheet take a cell for a formula, or loses its first character on the way to one.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def write_csv(case: Case, measured: Iterable[Measured], path: Path) -> None:
    """A row for each component, UTF-8, numbers plain; every component of a volume on one line of its own."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")  # RFC 4180
    writer.writerow(COLUMNS)
    writer.writerows([_cell(value) for value in row_of(case, one)] for one in measured)
    with whole_file(path) as file:
        file.write(text.getvalue().encode("utf-8"))


def row_of(case: Case, one: Measured) -> Sequence[str | int | float]:
    """The cells of one component, in the order of COLUMNS; "" for HU that are not known."""
    mean, spread, low, high = (round(v, 3) for v in one.hu) if one.hu else ("", "", "", "")
    return (
        case.series.id, case.labels.name, one.name, one.label, one.number, one.voxels, round(one.volume_ml, 6),
        round(one.axes.long_mm, 4), round(one.axes.short_mm, 4), one.axes.plane, mean, spread, low, high,
        *one.box[0], *one.box[1], *(round(v, 4) for v in one.centre_mm),
    )  # fmt: skip


def _cell(value: str | int | float) -> str | int | float:
    """Text that a spreadsheet would run gets an apostrophe in front, which it takes for "this is text"."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
