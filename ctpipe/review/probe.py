"""What a voxel holds: HU of the series as stored, and the class of each shown label group. Nothing is interpolated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ctpipe.review.lazy import LazyLevel
from ctpipe.review.orientation import place

if TYPE_CHECKING:
    from ctpipe.review.session import ReviewSession


@dataclass(frozen=True)
class Probe:
    """One voxel. hu: the stored value; lps_mm: its centre in the patient; labels: class by name of the layer; values:
    of the run's layers in view, by theirs.
    """

    voxel: tuple[int, int, int]
    lps_mm: tuple[float, float, float]
    hu: float
    labels: dict[str, str] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, session: ReviewSession, voxel: tuple[int, int, int]) -> Probe:
        """The voxel (z, y, x) of the shown series; labels of the layers in view, the full resolution of each."""
        series = session.series
        if series is None:
            raise LookupError("no series is shown")
        hu = float(np.asarray(LazyLevel(series, 0)[voxel]))
        lps = tuple(float(mm) for mm in series.grid.to_lps(voxel))
        found, values = {}, {}
        for layer in session.viewer.layers:
            data = layer.data[0] if layer.multiscale else layer.data
            # a proposal covers a part of the grid
            if layer._type_string == "labels" and layer.visible and data.shape == tuple(series.grid.shape):
                label = int(np.asarray(data[voxel]))
                if label:
                    found[layer.name] = _class_name(layer, label)
            facts = layer.metadata.get("ctpipe", {})
            if "layer" in facts and layer.visible:
                values[layer.name] = float(np.asarray(data[voxel])) * facts["scale"]
        return cls(voxel, lps, hu, found, values)  # type: ignore[arg-type]

    @property
    def lines(self) -> list[str]:
        """The same in short lines, for the corner of a picture."""
        z, y, x = self.voxel
        labels = [f"{layer}: {name}" for layer, name in self.labels.items()]
        values = [f"{layer}: {value:.2f}" for layer, value in self.values.items()]
        return [f"{self.hu:g} HU", f"z {z}, y {y}, x {x}", place(self.lps_mm), *labels, *values]

    def __str__(self) -> str:
        return "; ".join(self.lines)


def _class_name(layer: object, label: int) -> str:
    features = layer.features  # type: ignore[attr-defined]
    if "class" in features and "index" in features:
        named = features.loc[features["index"] == label, "class"]
        if len(named):
            return str(named.iloc[0])
    return f"label {label}"
