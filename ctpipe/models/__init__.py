"""Models: named networks, and trained ones as folders of JSON and safetensors; no pickle is ever loaded."""

from ctpipe.models.golden import require_golden
from ctpipe.models.model import (
    Model,
    Sizes,
    input_channels,
    load_classifier,
    load_model,
    load_spec,
    network_options,
    retag,
)
from ctpipe.models.process import give_back_large_blocks, use_threads
from ctpipe.models.registry import build_network, network_names, register
from ctpipe.models.segment_plan import SegmentPlan
from ctpipe.models.segment_spec import Normalisation, Resampling, SegmenterSpec, WeightFile
from ctpipe.models.segmenter import Segmenter
from ctpipe.models.spec import ModelSpec
from ctpipe.models.weights import load_vgg16_body

__all__ = [
    "Model", "ModelSpec", "Normalisation", "Resampling", "SegmentPlan", "Segmenter", "SegmenterSpec", "Sizes",
    "WeightFile", "build_network", "give_back_large_blocks", "input_channels", "load_classifier", "load_model",
    "load_spec", "load_vgg16_body", "network_names", "network_options", "register", "require_golden", "retag",
    "use_threads",
]
