"""ONNX graphs as networks of segmenters, run by onnxruntime (an optional dependency).

A graph is arithmetic over tensors: it names no function of Python, and none of its standard operators reads a file. Two
ways out are closed before a session is made: weights in other files, and operators of other domains (which a library
would have to bring).
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ctpipe.errors import InputError, UsageError
from ctpipe.models.segment_spec import SegmenterSpec

if TYPE_CHECKING:
    import torch

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})


def checked_graph(data: bytes, where: str) -> Any:
    """The parsed ModelProto of an ONNX file; InputError where it is none, or reaches outside itself."""
    onnx = _module("onnx")
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's own kinds of error depend on its build
        raise InputError(f"{where} is no ONNX graph ({type(error).__name__})", "export the network again") from error
    named = {*(opset.domain for opset in model.opset_import), *(node.domain for node in _nodes(model))}
    if named - DOMAINS:
        raise InputError(f"{where} has operators of {', '.join(ascii(name) for name in sorted(named - DOMAINS)[:5])}",
                         "export the network with standard ONNX operators only")
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(model)):
        raise InputError(f"{where} keeps weights in other files", "save it as one file (save_as_external_data=False)")
    if len(model.graph.output) < 1 or not model.graph.input:
        raise InputError(f"{where} has no input or no output", "export the network again")
    return model


class OnnxScorer:
    """A graph of one input and (first) one output; its weight file is the ONNX file."""

    def __init__(self, data: bytes, threads: int, where: str) -> None:
        """threads: of one forward pass. InputError: `checked_graph`, or onnxruntime cannot run it."""
        runtime = _module("onnxruntime")
        checked_graph(data, where)
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.use_deterministic_compute = True
        options.log_severity_level = 3
        try:
            self._session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors share no base class of its own
            raise InputError(f"{where} cannot be run by onnxruntime ({type(error).__name__})",
                             "export the network again with standard operators") from error
        self._data, self._where = data, where
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        import torch

        found = self._session.run([self._output], {self._input: batch.contiguous().numpy()})[0]
        return torch.from_numpy(found).float()

    def as_bytes(self) -> bytes:
        return self._data

    def move(self, device: torch.device) -> None:
        if device.type != "cpu":
            raise UsageError(f"{self._where} is an ONNX graph, which runs on the CPU only", "give --device cpu")


def onnx_scorer(weights: bytes, spec: SegmenterSpec, where: str) -> OnnxScorer:
    """The network of a spec whose weight file is an ONNX graph."""
    return OnnxScorer(weights, spec.threads, where)


def _module(name: str) -> ModuleType:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise UsageError(f"{name} is not installed, which ONNX networks need", "pip install 'ctpipe[onnx]'") from error


def _nodes(model: Any) -> Iterator[Any]:
    """Every node of the graph, of graphs within it, and of its functions."""
    waiting = [model.graph, *model.functions]
    while waiting:
        for node in waiting.pop().node:
            yield node
            for attribute in node.attribute:
                waiting += [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]


def _tensors(model: Any) -> Iterator[Any]:
    """Every tensor that is stored in the file, and the parts of sparse ones."""
    waiting = [model.graph]
    for node in _nodes(model):
        for attribute in node.attribute:
            yield from attribute.tensors
            sparse = [*attribute.sparse_tensors]
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("sparse_tensor"):
                sparse.append(attribute.sparse_tensor)
            for one in sparse:
                yield from (one.values, one.indices)
            waiting += [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
    for graph in waiting:
        yield from graph.initializer
        for one in graph.sparse_initializer:
            yield from (one.values, one.indices)
