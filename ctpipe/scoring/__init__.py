"""How good a prediction is: voxels counted once, overlap scores from the counts, lesions as components, measured."""

from ctpipe.scoring.boxes import Box, box_of, boxes_of_labels, grown, joined, mask_of, measure_box, remeasured
from ctpipe.scoring.confusion import Confusion
from ctpipe.scoring.disagreement import Code, Difference, Disagreement, disagreements
from ctpipe.scoring.lesions import RULE, LesionScores, SizeBin, equivalent_diameter_mm
from ctpipe.scoring.matching import LEAST_SHARE, Fate, LesionChange, match_lesions
from ctpipe.scoring.measures import Axes, Measured, ReadPlanes, measure, measured_with_planes
from ctpipe.scoring.scores import LabelsLike, VolumeScores, evaluate_volume, pool, union_of_classes
from ctpipe.scoring.tables import number, summary_lines

__all__ = [
    "LEAST_SHARE",
    "RULE",
    "Axes",
    "Box",
    "Code",
    "Confusion",
    "Difference",
    "Disagreement",
    "Fate",
    "LabelsLike",
    "LesionChange",
    "LesionScores",
    "Measured",
    "ReadPlanes",
    "SizeBin",
    "VolumeScores",
    "box_of",
    "boxes_of_labels",
    "disagreements",
    "equivalent_diameter_mm",
    "evaluate_volume",
    "grown",
    "joined",
    "mask_of",
    "match_lesions",
    "measure",
    "measure_box",
    "measured_with_planes",
    "number",
    "pool",
    "remeasured",
    "summary_lines",
    "union_of_classes",
]
