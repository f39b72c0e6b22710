"""How good a prediction is: voxels counted once, overlap scores from the counts, lesions as components, measured."""

from ctpipe.scoring.confusion import Confusion
from ctpipe.scoring.lesions import RULE, LesionScores, SizeBin, equivalent_diameter_mm
from ctpipe.scoring.measures import Axes, Measured, measure, measured_with_planes
from ctpipe.scoring.scores import LabelsLike, VolumeScores, evaluate_volume, pool, union_of_classes
from ctpipe.scoring.tables import number, summary_lines

__all__ = [
    "RULE",
    "Axes",
    "Confusion",
    "LabelsLike",
    "LesionScores",
    "Measured",
    "SizeBin",
    "VolumeScores",
    "equivalent_diameter_mm",
    "evaluate_volume",
    "measure",
    "measured_with_planes",
    "number",
    "pool",
    "summary_lines",
    "union_of_classes",
]
