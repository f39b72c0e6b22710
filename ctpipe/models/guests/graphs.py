"""Bare networks in one file: ONNX, and TorchScript, which is turned into ONNX once.

A TorchScript file is a program ("treat it as locally executable code from an unknown source", PyTorch's SECURITY.md),
and reading one has no safe mode. So it is read only where the user says --trust, and what is kept is ONNX: the taken
model can be handed on and run without trusting anybody (docs/decisions/0011).
"""

from __future__ import annotations

import warnings
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ctpipe.errors import InputError, UsageError
from ctpipe.models.guests.stated_spec import spec_of, stated
from ctpipe.models.guests.wishes import Imported, Wishes
from ctpipe.models.onnx_scorer import OnnxScorer, checked_graph
from ctpipe.models.segment_spec import WeightFile
from ctpipe.models.segmenter import Segmenter

# How far scores of a window of noise may lie apart before and after turning TorchScript into ONNX.
CLOSE = 1e-3


def import_onnx(path: Path, wishes: Wishes) -> Imported:
    """A segmenter of an .onnx file and what --spec and its metadata say."""
    data = path.read_bytes()
    graph = checked_graph(data, str(path))
    metadata = {entry.key: entry.value for entry in graph.metadata_props}
    return Imported(_segmenter(data, stated(wishes.spec, metadata, str(path)), path, wishes, "ONNX"), "onnx")


def import_torchscript(path: Path, wishes: Wishes, values: dict[str, Any] | None = None) -> Imported:
    """A segmenter of a TorchScript file, as ONNX; values: the spec's fields where a bundle says them.

    UsageError: it is not trusted. InputError: it cannot be read, turned into ONNX, or scores otherwise there.
    """
    if not wishes.trust:
        raise UsageError(f"{path} is TorchScript, a program that runs when it is read; it was not read",
                         "import it with --trust if you trust who made it, or give the network as ONNX")
    values = values or stated(wishes.spec, {}, str(path))
    patch = tuple(values["patch"])
    data = _as_onnx(path, (values.get("micro_batch", 1), 1, *(patch[1:] if patch[0] == 1 else patch)))
    return Imported(_segmenter(data, values, path, wishes, "TorchScript"), "torchscript",
                    ("it was turned into ONNX: running it needs onnxruntime, and no trust",))  # fmt: skip


def _segmenter(data: bytes, values: dict[str, Any], path: Path, wishes: Wishes, program: str) -> Segmenter:
    licence = (wishes.licence or str(values.get("licence", ""))).strip()
    if not licence:
        raise UsageError(f"{path} does not say under which licence its weights are",
                         'say it: --licence "CC BY 4.0", or licence in the TOML of --spec')
    patch = values["patch"]
    flat = isinstance(patch, list | tuple) and len(patch) == 3 and patch[0] == 1
    shape = _input_shape(data, path)
    if len(shape) != (4 if flat else 5) or shape[1] not in (1, None):
        raise InputError(f"{path} takes an input of shape {tuple(shape)}",
                         "a 3-D network takes (n, 1, *patch); a 2-D one (n, 1, y, x), with 1 first in patch")
    sides = list(patch)[1:] if flat else list(patch)
    if any(known not in (None, side) for known, side in zip(shape[2:], sides, strict=True)):
        raise InputError(f"{path} takes windows of {tuple(shape[2:])}, not of {tuple(sides)}",
                         "give its own patch in the TOML of --spec")
    if "axes" in values and wishes.axes:
        values = values | {"axes": wishes.axes}
    classes = values["classes"]
    heads = len(values.get("regions", ())) or 1 + len(classes)
    batch = shape[0] or values.get("micro_batch", 1)
    spec = spec_of(
        {"windows": "cover", "threads": wishes.threads, "precision": wishes.precision} | values
        | {"licence": licence, "micro_batch": batch},
        network="onnx", options={"dims": 2 if flat else 3}, outputs=heads,
        folds=(WeightFile(file="fold-0.onnx", sha256=sha256(data).hexdigest()),),
        origin={"program": program, "file": path.name},
    )  # fmt: skip
    return Segmenter(spec, [OnnxScorer(data, spec.threads, str(path))])


def _input_shape(data: bytes, path: Path) -> list[int | None]:
    """Sides of the graph's input; None for one that is free."""
    sides = checked_graph(data, str(path)).graph.input[0].type.tensor_type.shape.dim
    return [side.dim_value if side.HasField("dim_value") and side.dim_value > 0 else None for side in sides]


def _as_onnx(path: Path, shape: tuple[int, ...]) -> bytes:
    """The ONNX graph of a TorchScript file for inputs of one shape, checked on noise."""
    import torch

    noise = torch.from_numpy(np.random.default_rng(0).normal(size=shape).astype(np.float32))
    try:
        with TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # both are on their way out of torch; there is no other way in for them
            network = torch.jit.load(str(path), map_location="cpu").eval()
            file = Path(folder) / "network.onnx"
            torch.onnx.export(network, (noise,), file, dynamo=False, input_names=["window"], output_names=["scores"])
            data = file.read_bytes()
            with torch.inference_mode():
                wanted = network(noise)
    except (RuntimeError, ValueError, torch.onnx.errors.OnnxExporterError) as error:
        raise InputError(f"{path} is no TorchScript network for windows of {shape[2:]}, or cannot be turned into ONNX "
                         f"({type(error).__name__})", "give its own patch, or the network as ONNX") from error
    found = OnnxScorer(data, 1, str(path))(noise)
    if not isinstance(wanted, torch.Tensor) or found.shape != wanted.shape or not torch.allclose(
            found, wanted.float(), rtol=CLOSE, atol=CLOSE):  # fmt: skip
        raise InputError(f"{path} scores a window otherwise as ONNX than as TorchScript", "give the network as ONNX")
    return data
