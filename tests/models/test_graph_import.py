"""ONNX and TorchScript files with a TOML of the rest become segmenters; files that reach outside themselves do not.

Promises: I2 (the model card), X3 (nothing from a file is run unasked).
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ctpipe.errors import InputError, NotThereError, UsageError
from ctpipe.models import Normalisation, Resampling, Segmenter, load_model
from ctpipe.models.guests import Imported, Wishes, import_model
from ctpipe.models.segmenter_networks import ModuleScorer

onnx = pytest.importorskip("onnx", reason="onnx is not installed (ctpipe[onnx])")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (ctpipe[onnx])")

SPEC = """
classes = ["liver", "lesion"]
axes = "RAS"
patch = [8, 12, 16]
spacing_mm = [1.5, 1.5, 2.0]
step = 0.75
[normalise]
low = -57.0
high = 164.0
mean = -57.0
std = 221.0
[resample_in]
order = 1
align = "first"
"""


class Small(nn.Module):
    """A network with a norm over its window, a stride and a skip."""

    def __init__(self, dims: int = 3) -> None:
        super().__init__()
        torch.manual_seed(3)
        convolution, norm = (nn.Conv3d, nn.InstanceNorm3d) if dims == 3 else (nn.Conv2d, nn.InstanceNorm2d)
        transposed = nn.ConvTranspose3d if dims == 3 else nn.ConvTranspose2d
        self.first, self.norm = convolution(1, 4, 3, padding=1), norm(4, affine=True)
        self.down, self.up = convolution(4, 8, 3, 2, 1), transposed(8, 4, 2, 2)
        self.head = convolution(8, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = torch.relu(self.norm(self.first(x)))
        return self.head(torch.cat([skip, self.up(torch.relu(self.down(skip)))], 1))


def write_onnx(path: Path, network: nn.Module, shape: tuple[int, ...]) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network.eval(), (torch.zeros(shape),), path, dynamo=False)
    return path


def write_script(path: Path, network: nn.Module) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(network.eval()), str(path))
    return path


def spec_file(folder: Path, text: str = SPEC) -> Path:
    (folder / "network.toml").write_text(text)
    return folder / "network.toml"


def taken(path: Path, spec: Path | None, **wishes: Any) -> Imported:
    return import_model(path, Wishes(**{"spec": spec, "licence": "CC0", "threads": 1} | wishes))


def scores_as(network: nn.Module, model: Segmenter) -> None:
    """The model scores windows as the network does."""
    windows = np.random.default_rng(0).normal(size=(2, *model.spec.patch)).astype(np.float32)
    wanted = Segmenter(model.spec, [ModuleScorer(network)]).scores(windows).scores
    assert np.abs(model.scores(windows).scores - wanted).max() < 1e-4
    assert wanted.std() > 0.1


def test_an_onnx_file_with_a_toml_scores_as_its_network(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "n.onnx", Small(), (1, 1, 8, 12, 16))
    model = taken(path, spec_file(tmp_path)).segmenter
    spec = model.spec
    assert (spec.axes, spec.patch, spec.spacing_mm, spec.step) == ("RAS", (8, 12, 16), (1.5, 1.5, 2.0), 0.75)
    assert spec.normalise == Normalisation(low=-57.0, high=164.0, mean=-57.0, std=221.0)
    assert spec.resample_in == Resampling(order=1, align="first")
    scores_as(Small(), model)
    model.save(tmp_path / "m")
    again = load_model(tmp_path / "m")
    windows = np.random.default_rng(1).normal(size=(1, 8, 12, 16)).astype(np.float32)
    assert np.array_equal(again.scores(windows).scores, model.scores(windows).scores)


def test_a_2d_network_sees_planes(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "n.onnx", Small(2), (4, 1, 12, 16))
    spec = spec_file(tmp_path, SPEC.replace("[8, 12, 16]", "[1, 12, 16]"))
    model = taken(path, spec).segmenter
    assert (model.spec.dims, model.spec.micro_batch) == (2, 4)
    scores_as(Small(2), model)


def test_torchscript_is_kept_as_onnx_and_needs_trust_only_once(tmp_path: Path) -> None:  # X3
    path = write_script(tmp_path / "n.pt", Small())
    with pytest.raises(UsageError, match="--trust"):
        taken(path, spec_file(tmp_path))
    model = taken(path, spec_file(tmp_path), trust=True).segmenter
    scores_as(Small(), model)
    model.save(tmp_path / "m")
    assert sorted(file.name for file in (tmp_path / "m").iterdir()) == ["fold-0.onnx", "model.json"]
    assert isinstance(load_model(tmp_path / "m"), Segmenter)


class Writes(nn.Module):
    """TorchScript that writes a file, when it is run."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, self.path)
        return torch.cat([x, x, x], 1)


def test_a_torchscript_that_writes_files_makes_none(tmp_path: Path) -> None:  # X3
    canary = tmp_path / "canary"
    path = write_script(tmp_path / "n.pt", Writes(str(canary)))
    with pytest.raises(UsageError, match="--trust"):
        taken(path, spec_file(tmp_path))
    assert not canary.exists()


def test_metadata_of_the_file_says_what_the_toml_does_not(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "n.onnx", Small(), (1, 1, 8, 12, 16))
    graph = onnx.load(path)
    for key, value in (("classes", ["a", "b"]), ("axes", "LPS"), ("patch", [8, 12, 16]), ("author", "unread")):
        graph.metadata_props.add(key=key, value=json.dumps(value))
    onnx.save(graph, path)
    spec = taken(path, None).segmenter.spec
    assert (spec.classes, spec.axes) == (("a", "b"), "LPS")
    (tmp_path / "over.toml").write_text('axes = "SAR"')
    assert taken(path, tmp_path / "over.toml").segmenter.spec.axes == "SAR"
    graph.metadata_props[1].value = "LPS"  # no JSON
    onnx.save(graph, path)
    with pytest.raises(InputError, match="axes"):
        taken(path, None)


@pytest.mark.parametrize(("text", "said"), [
    ("", "classes, axes, patch"), (SPEC.replace("step =", "steps ="), "steps"), ("classes =", "no TOML"),
    (SPEC.replace('"RAS"', '"RAX"'), "RAX"), (SPEC.replace("[1.5, 1.5, 2.0]", "[0.0, 1.5, 2.0]"), "spacing"),
    (SPEC.replace('"first"', '"middle"'), "middle"), (SPEC.replace("low", "lowest"), "wrong kind"),
])  # fmt: skip
def test_a_wrong_toml_is_named(text: str, said: str, tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "n.onnx", Small(), (1, 1, 8, 12, 16))
    with pytest.raises(UsageError, match=said):
        taken(path, spec_file(tmp_path, text))


def test_patch_channels_and_classes_that_do_not_fit_are_refused(tmp_path: Path) -> None:  # I2
    path = write_onnx(tmp_path / "n.onnx", Small(), (1, 1, 8, 12, 16))
    with pytest.raises(InputError, match="windows of"):
        taken(path, spec_file(tmp_path, SPEC.replace("[8, 12, 16]", "[8, 8, 16]")))
    with pytest.raises(InputError, match="scores"):
        taken(path, spec_file(tmp_path, SPEC.replace('"lesion"', '"lesion", "vessel"')))
    wide = Small()
    wide.first = nn.Conv3d(2, 4, 3, padding=1)
    two = write_onnx(tmp_path / "two.onnx", wide, (1, 2, 8, 12, 16))
    with pytest.raises(InputError, match="shape"):
        taken(two, spec_file(tmp_path))
    with pytest.raises(UsageError, match="licence"):
        taken(path, spec_file(tmp_path), licence=None)
    with pytest.raises(NotThereError):
        taken(path, tmp_path / "absent.toml")


def test_graphs_that_reach_outside_themselves_are_refused(tmp_path: Path) -> None:  # X3
    path = write_onnx(tmp_path / "n.onnx", Small(), (1, 1, 8, 12, 16))
    graph = onnx.load(path)
    onnx.save(graph, tmp_path / "out.onnx", save_as_external_data=True, size_threshold=0, location="weights.bin")
    with pytest.raises(InputError, match="other files"):
        taken(tmp_path / "out.onnx", spec_file(tmp_path))
    graph = onnx.load(path)
    graph.graph.node[0].domain = "com.example"
    (tmp_path / "own.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(InputError, match=r"com\.example"):
        taken(tmp_path / "own.onnx", spec_file(tmp_path))
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(InputError, match="no ONNX graph"):
        taken(tmp_path / "text.onnx", spec_file(tmp_path))
