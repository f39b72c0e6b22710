"""What is done to label volumes after the prediction: components across slabs, holes, distances, votes, a CRF."""

from ctpipe.postprocess.bands import Band
from ctpipe.postprocess.components import Components, ComponentTally, label_components
from ctpipe.postprocess.joining import SlabComponents
from ctpipe.postprocess.passes import BoundStep, apply, bind, decide, look
from ctpipe.postprocess.steps import (
    Crf,
    Fill,
    Inside,
    Largest,
    MinVolume,
    Near,
    Smooth,
    Step,
    parse_steps,
    step_text,
)

__all__ = [
    "Band",
    "BoundStep",
    "ComponentTally",
    "Components",
    "Crf",
    "Fill",
    "Inside",
    "Largest",
    "MinVolume",
    "Near",
    "SlabComponents",
    "Smooth",
    "Step",
    "apply",
    "bind",
    "decide",
    "label_components",
    "look",
    "parse_steps",
    "step_text",
]
