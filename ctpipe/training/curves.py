"""The training curve as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def curve_png(curves: pd.DataFrame, path: str | Path) -> None:
    """Write loss and validation Dice over the epochs; the chosen epoch is marked.

    curves: of a FitResult (epoch, loss, dice_<class>, chosen).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)  # draws without a display, whatever backend the process uses
    left = figure.subplots()
    right = left.twinx()
    left.plot(curves["epoch"], curves["loss"], color="0.4", label="training loss")
    for name in (column for column in curves if column.startswith("dice_")):
        right.plot(curves["epoch"], curves[name], marker=".", label=f"validation Dice, {name[5:]}")
    chosen = int(curves.loc[curves["chosen"], "epoch"].iloc[0])
    left.axvline(chosen, color="C3", linestyle="--", label=f"chosen epoch {chosen}")
    left.set(xlabel="epoch", ylabel="loss")
    right.set(ylabel="Dice", ylim=(0, 1))
    handles = [*left.get_legend_handles_labels()[0], *right.get_legend_handles_labels()[0]]
    left.legend(handles=handles, loc="center right", fontsize="small")
    figure.savefig(path, dpi=110)
