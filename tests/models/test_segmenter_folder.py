"""A segmenter survives its folder: same bytes of scores, same digest; what was changed on the way is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

import ctpipe
from ctpipe.errors import StoreFaultError, UsageError
from ctpipe.models import Segmenter, SegmenterSpec, WeightFile, load_classifier, load_model, load_spec
from ctpipe.models.segmenter_networks import ModuleScorer, unet_of

FLAT = {
    "dims": 2, "features": [4, 6, 8], "kernels": [[3, 3]] * 3, "strides": [[1, 1], [2, 2], [2, 1]],
    "blocks": [2, 1, 2], "decoder": [1, 2],
}  # fmt: skip
SOLID = {
    "dims": 3, "features": [4, 6, 8], "kernels": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]], "blocks": [1, 2, 2], "decoder": [2, 1],
}  # fmt: skip


def made(network: str, options: dict, folds: int = 1, **values) -> Segmenter:
    """A segmenter of random weights."""
    patch = (1, 16, 12) if options["dims"] == 2 else (6, 12, 16)
    spec = SegmenterSpec(
        network=network, options=options, outputs=3, classes=("liver", "lesion"), axes="SPL",
        folds=tuple(WeightFile(file=f"fold-{n}.safetensors", sha256="0" * 64) for n in range(folds)),
        **{"patch": patch, "micro_batch": 2, "threads": 1} | values,
    )  # fmt: skip
    torch.manual_seed(7)
    networks = [ModuleScorer(unet_of(spec)) for _ in range(folds)]
    files = tuple(replace(file, sha256=sha256(network.as_bytes()).hexdigest())
                  for file, network in zip(spec.folds, networks, strict=True))  # fmt: skip
    return Segmenter(replace(spec, folds=files), networks)


CASES = {
    "plain 2-D": ("plain-conv-unet", FLAT, {"mirror": (1, 2)}),
    "plain 3-D": ("plain-conv-unet", SOLID, {"mirror": (0, 2)}),
    "two folds": ("plain-conv-unet", SOLID, {"folds": 2}),
    "residual 3-D": ("residual-encoder-unet", SOLID, {}),
    "batch norm, nonlinearity first": ("plain-conv-unet", FLAT | {"norm": "batch", "nonlinear_first": True}, {}),
    "regions": ("residual-encoder-unet", FLAT, {"regions": (1, 2, 1)}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_saved_segmenter_scores_the_same_bytes(case: str, tmp_path: Path) -> None:
    network, options, values = CASES[case]
    model = made(network, options, **values)
    model.save(tmp_path / "m")
    again = load_model(tmp_path / "m")
    assert isinstance(again, Segmenter)
    assert again.spec == model.spec
    assert again.digest == model.digest
    windows = np.random.default_rng(1).normal(size=(3, *model.spec.patch)).astype(np.float32)
    ours, theirs = model.scores(windows), again.scores(windows)
    assert np.array_equal(ours.scores, theirs.scores)
    assert (ours.spread is None) == (theirs.spread is None) == (len(model.networks) == 1)
    if ours.spread is not None:
        assert np.array_equal(ours.spread, theirs.spread)
    assert ours.scores.std() > 0.01  # not all one number


def test_scores_do_not_depend_on_which_windows_come_together() -> None:
    model = made("plain-conv-unet", SOLID, mirror=(1,))
    windows = np.random.default_rng(2).normal(size=(5, *model.spec.patch)).astype(np.float32)
    together = model.scores(windows).scores
    alone = np.concatenate([model.scores(windows[n : n + 1]).scores for n in range(5)])
    assert np.array_equal(together, alone)


def test_mirroring_and_folds_are_means_of_scores() -> None:
    model = made("plain-conv-unet", SOLID, folds=2, mirror=(1, 2))
    window = np.random.default_rng(3).normal(size=(1, *model.spec.patch)).astype(np.float32)
    singles = []
    for file, network in zip(model.spec.folds, model.networks, strict=True):
        one = Segmenter(replace(model.spec, folds=(file,), mirror=(), micro_batch=1), [network])
        for axes in ((), (1,), (2,), (1, 2)):
            at = [axis + 1 for axis in axes]
            found = one.scores(np.ascontiguousarray(np.flip(window, at))).scores
            singles.append(np.flip(found, [axis + 1 for axis in at]))
    found = model.scores(window)
    mean, spread = found.scores, found.spread
    assert np.allclose(mean, np.mean(singles, 0), atol=1e-5)
    likely = []
    for fold in (singles[:4], singles[4:]):
        raised = np.exp(np.mean(fold, 0))
        likely.append(raised / raised.sum(1, keepdims=True))
    assert spread is not None
    assert np.allclose(spread, np.var(likely, 0).mean(1), atol=1e-6)


def test_model_json_says_which_kind_a_folder_holds(tmp_path: Path) -> None:
    made("plain-conv-unet", FLAT).save(tmp_path / "m")
    assert isinstance(ctpipe.load_model(tmp_path / "m"), Segmenter)
    assert isinstance(load_spec(tmp_path / "m"), SegmenterSpec)
    with pytest.raises(UsageError, match="classifier"):
        load_classifier(tmp_path / "m")


def test_changed_weights_or_spec_are_refused(tmp_path: Path) -> None:
    model = made("plain-conv-unet", FLAT, folds=2)
    model.save(tmp_path / "m")
    path = tmp_path / "m" / "fold-1.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreFaultError, match="digest"):
        load_model(tmp_path / "m")
    path.unlink()
    with pytest.raises(StoreFaultError, match="missing"):
        load_model(tmp_path / "m")
    spec = json.loads((tmp_path / "m" / "model.json").read_text())
    spec["step"] = 0.25
    (tmp_path / "m" / "model.json").write_text(json.dumps(spec))
    with pytest.raises(StoreFaultError, match="digest"):
        load_model(tmp_path / "m")


def test_a_weight_file_outside_the_folder_is_never_read(tmp_path: Path) -> None:
    model = made("plain-conv-unet", FLAT)
    data = model.networks[0].as_bytes()
    (tmp_path / "out.safetensors").write_bytes(data)
    spec = replace(model.spec, folds=(WeightFile(file="../out.safetensors", sha256=sha256(data).hexdigest()),))
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.json").write_text(json.dumps(spec.as_json() | {"digest": spec.digest()}))
    with pytest.raises(StoreFaultError, match="missing"):
        load_model(tmp_path / "m")


@pytest.mark.parametrize(("change", "said"), [
    ({"features": [4, 6]}, "lengths"), ({"kernels": [[3, 3], [3, 3], [2, 3]]}, "kernel"), ({"norm": "group"}, "norm"),
    ({"dims": 4}, "dims"), ({"depth": 3}, "options"), ({"strides": [[1, 1], [4, 2], [8, 2]]}, "halved"),
])  # fmt: skip
def test_options_that_make_no_u_net_are_named(change: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        made("plain-conv-unet", FLAT | change)


def test_logits_between_0_and_1_are_still_logits() -> None:
    """Whether a network gives probabilities is the spec's word, never a guess from the values."""
    model = made("plain-conv-unet", SOLID, blend="probabilities")
    head = model.networks[0].module.head
    head.weight.zero_()
    head.bias.copy_(torch.tensor([0.2, 0.5, 0.9]))
    found = model.scores(np.zeros((1, *model.spec.patch), np.float32)).scores[0, :, 0, 0, 0]
    assert np.allclose(found, torch.softmax(torch.tensor([0.2, 0.5, 0.9]), 0).numpy(), atol=1e-6)
