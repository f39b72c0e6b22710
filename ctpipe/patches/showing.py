"""A contact sheet: what rows look like, their labels outlined, as a PNG that needs no viewer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ctpipe.errors import NotThereError, UsageError
from ctpipe.patches.pixel_steps import PixelSteps
from ctpipe.words import LABEL_COLOURS, Pad

if TYPE_CHECKING:
    import pandas as pd

    from ctpipe.patches.table import PatchTable

# Soft tissue: what the recipes clip to.
WINDOW_HU = (-160.0, 240.0)
MOST = 400
_INCHES = 1.7  # of one picture


def contact_sheet(table: PatchTable, path: Path, n: int, seed: int) -> Path:
    """See `PatchTable.show`; rows are drawn in proportion to the groups of `label`, each class at least once."""
    from matplotlib.figure import Figure
    if not 1 <= n <= MOST:
        raise UsageError(f"a sheet of {n} pictures cannot be made", f"ask for 1 to {MOST}")
    if not path.parent.is_dir():
        raise NotThereError(f"there is no folder {path.parent}", "make it first")
    rows = table.sample(n, seed)
    if len(rows) == 0:
        raise NotThereError("no row fits", "loosen the condition")
    rows = rows.drop_duplicates(["series", "z", "y", "x"], ignore_index=True)
    pictures = table.fetch(rows, PixelSteps(window_hu=WINDOW_HU))[:, table.windows.window.z // 2]
    across = int(np.ceil(np.sqrt(len(rows))))
    down = -(-len(rows) // across)
    figure = Figure((across * _INCHES, down * (_INCHES + 0.25)), dpi=110)
    names = {0: "background"} | table.classes
    for number, (picture, row) in enumerate(zip(pictures, rows.itertuples(), strict=True)):
        axes = figure.add_subplot(down, across, number + 1)
        axes.imshow(outlined(picture, label_window(table, row)), interpolation="nearest")
        axes.set_title(f"{names.get(int(row.label), row.label)}\n{str(row.series)[:8]} z{row.z} y{row.y} x{row.x}",
                       fontsize=6, pad=2)
        axes.set_axis_off()
    figure.tight_layout(pad=0.3)
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise UsageError(f"{path} cannot be written", "give a file in a folder of yours") from error
    return path


def label_window(table: PatchTable, row: pd.Series) -> NDArray[np.uint8]:
    """(h, w) labels of the window of a row in its centre plane, padded as the pixels are."""
    labels = table.source(str(row.series)).label_planes(int(row.z), int(row.z) + 1)[0]
    at, inside = [], []
    for centre, size, length in zip((row.y, row.x), table.windows.window[1:], labels.shape, strict=True):
        along = int(centre) - size // 2 + np.arange(size)
        at.append(np.clip(along, 0, length - 1))
        inside.append((along >= 0) & (along < length))
    found = labels[np.ix_(*at)]
    return found if table.windows.pad is Pad.EDGE else np.where(np.outer(*inside), found, np.uint8(0))


def outlined(picture: NDArray[np.float32], labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(h, w, 3) uint8: grey of -1 .. 1, with the inner border of each label in its colour."""
    grey = ((np.clip(picture, -1, 1) + 1) * 127.5).astype(np.uint8)
    out = np.repeat(grey[..., None], 3, axis=2)
    padded = np.pad(labels, 1, mode="edge")
    same = np.ones(labels.shape, bool)
    for dy, dx in ((0, 1), (2, 1), (1, 0), (1, 2)):
        same &= padded[dy : dy + labels.shape[0], dx : dx + labels.shape[1]] == labels
    border = ~same & (labels > 0)
    colours = np.array(LABEL_COLOURS, np.uint8)
    out[border] = colours[(labels[border].astype(int) - 1) % len(colours)]
    return out
