"""Infer with a classifier: whole planes in dense form, and the labels that its windows one by one give."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from line_made import small_patient, small_recipe

from ctpipe import open_store, pipeline
from ctpipe.cli import main
from ctpipe.config import recipe_from_dict
from ctpipe.errors import UsageError
from ctpipe.models import Model, build_network, register
from ctpipe.models.dense import NotExact
from ctpipe.words import ZYX


@register("padded-in-infer")
def padded(channels, n_classes, window, options):
    network = torch.nn.Sequential(torch.nn.Conv2d(channels, 4, 3, padding=1), torch.nn.ReLU(),
                                  torch.nn.Conv2d(4, n_classes, window.y))  # fmt: skip
    network.step, network.window = 1, (window.y, window.x)
    return network


def saved_model(folder, network="vgg-small", stride=(2, 4, 4)):
    """A model with random weights: every class occurs."""
    torch.manual_seed(1)
    plain = {**small_recipe(stride=list(stride)).as_dict(), "network": network}
    plain["options"] = plain["options"] if network == "vgg-small" else {}
    recipe = recipe_from_dict(plain)
    built = build_network(network, 1, 3, ZYX(1, 44, 44), recipe.options)
    with torch.no_grad():
        (built.head if hasattr(built, "head") else built)[-1].weight *= 0.1  # scores between 0 and 1
    Model.of(recipe, ("liver", "livertumor"), built).save(folder)
    return folder


@pytest.fixture(scope="module")
def ingested(tmp_path_factory):
    root = tmp_path_factory.mktemp("exact")
    ct, _ = small_patient(root, 1)
    pipeline.ingest([ct], root / "S")
    return root / "S"


def labels_of(store, run):
    [series] = open_store(store).values()
    return np.asarray(series.labels[run].array)


@pytest.mark.parametrize("stride", [(2, 4, 4), (1, 3, 5)])
def test_labels_are_those_of_the_windows_one_by_one(ingested, tmp_path, monkeypatch, capsys, stride):
    model = saved_model(tmp_path / "model", stride=stride)
    for name in ("dense", "windows"):
        shutil.copytree(ingested, tmp_path / name)
    passes = []
    kept = Model.dense_scores
    monkeypatch.setattr(Model, "dense_scores", lambda self, *a: passes.append(1) or kept(self, *a))
    assert main(["infer", str(tmp_path / "dense"), "--model", str(model), "--exact", "required", "--json"]) == 0
    [run] = json.loads(capsys.readouterr().out)["runs"]
    assert len(passes) >= len([z for z in range(0, 70, stride[0]) if not 32 <= z < 64])
    dense = labels_of(tmp_path / "dense", run["run"])
    monkeypatch.setattr(Model, "dense", lambda self, stride: NotExact(()))
    passes.clear()
    pipeline.loaded._load.cache_clear()
    [other] = pipeline.infer(tmp_path / "windows", model).runs
    assert not passes
    assert len(np.unique(dense)) == 3
    assert (other.run, other.windows) == (run["run"], run["windows"])
    assert np.array_equal(labels_of(tmp_path / "windows", other.run), dense)


def test_a_model_without_a_dense_form_runs_by_windows_unless_exact_is_required(ingested, tmp_path, capsys, caplog):
    model = saved_model(tmp_path / "model", "padded-in-infer", (8, 8, 8))
    shutil.copytree(ingested, tmp_path / "S")
    line = ["infer", str(tmp_path / "S"), "--model", str(model), "--json"]
    assert main([*line, "--exact", "required"]) == 2
    assert "small has no exact dense form: 0: convolution padded by 1 x 1; cure: " in capsys.readouterr().err
    assert not open_store(tmp_path / "S").runs()
    assert main(line) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["notes"] == ["small runs window by window: 0: convolution padded by 1 x 1"]
    assert [record.message for record in caplog.records if record.name == "ctpipe"] == told["notes"]
    with pytest.raises(UsageError, match=r"'never'.*auto, required"):
        pipeline.infer(tmp_path / "S", model, exact="never")
