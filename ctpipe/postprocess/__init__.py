"""What is done to label volumes after the prediction: connected components across slabs."""

from ctpipe.postprocess.components import Components, ComponentTally, label_components

__all__ = ["ComponentTally", "Components", "label_components"]
