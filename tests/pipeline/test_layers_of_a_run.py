"""Layers of a run: equal to the whole volume at once, the same bytes whoever made them, known to every verb."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from line_made import same_bytes, small_patient, small_recipe
from scipy.stats import entropy
from segmenters_made import NNUNET, segmenter, whole

import ctpipe
from ctpipe import cli, pipeline
from ctpipe.errors import NotThereError, RunError, UsageError
from ctpipe.models import Model, Segmenter, build_network
from ctpipe.models.segmenter import Scored
from ctpipe.store import GroupWriter, Series, collect_garbage, open_store, verify

ALL = ["probabilities", "entropy", "spread"]
NAMES = ["entropy", "probability-1", "probability-2", "spread"]
STEP = 1 / 255


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Segmenter]:
    """(store of a volume of three slabs, model folder, the model): two folds, resampled."""
    folder = tmp_path_factory.mktemp("made")
    ct, _ = small_patient(folder / "dicom", 1)
    assert pipeline.ingest([str(ct)], folder / "S").exit_code == 0
    model = segmenter((12, 24, 32), ("liver", "livertumor"), folds=2, spacing_mm=(2.6, 2.1, 2.0), **NNUNET)
    model.save(folder / "M")
    return folder / "S", folder / "M", model


@pytest.fixture(scope="module")
def layered(made: tuple[Path, Path, Segmenter], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store after a run with all layers in this process; nobody writes into it."""
    store = shutil.copytree(made[0], tmp_path_factory.mktemp("layered") / "S")
    report = ctpipe.infer(store, made[1], layers=ALL)
    assert (report.exit_code, report.runs[0].layers) == (0, tuple(NAMES))
    return store


def only(store: Path) -> tuple[Series, str]:
    [series] = open_store(store).values()
    return series, next(iter(series.labels))


class SpreadAlone:
    """The variance over folds of a segmenter, as the scores of a model of one head."""

    def __init__(self, model: Segmenter) -> None:
        self.model = model
        self.spec = replace(model.spec, outputs=1, classes=("spread",), regions=(1,))

    def scores(self, windows: np.ndarray) -> Scored:
        found = self.model.scores(windows)
        assert found.spread is not None
        return Scored(found.spread[:, None], None, False)


def test_values_are_those_of_the_whole_volume_at_once(made, layered) -> None:
    series, run = only(layered)
    hu = series.read_planes(0, series.grid.shape.z)
    scores = whole(made[2], hu, series.grid)
    likely = np.exp(scores - scores.max(0))
    likely /= likely.sum(0)
    spread = np.sqrt(whole(SpreadAlone(made[2]), hu, series.grid)[0])
    expected = {"entropy": entropy(likely, axis=0) / np.log(3), "probability-1": likely[1],
                "probability-2": likely[2], "spread": spread}  # fmt: skip
    layers = series.labels[run].layers
    assert list(layers) == NAMES
    for name, values in expected.items():
        layer = layers[name]
        assert layer.array.dtype == np.uint8
        assert layer.array.attrs["scale"] == layer.scale == (STEP / 2 if name == "spread" else STEP)
        assert np.abs(layer.array.to_numpy() * layer.scale - values).max() < layer.scale / 2 + 1e-4
        assert values.std() > layer.scale
    assert [(layer.label, layer.class_name) for layer in layers.values()] == [
        (None, None), (1, "liver"), (2, "livertumor"), (None, None)]  # fmt: skip
    assert layers["entropy"].provenance["model"] == made[2].digest
    assert layers["entropy"].grid == series.grid


def test_regions_have_a_probability_each(made, tmp_path) -> None:
    store = shutil.copytree(made[0], tmp_path / "S")
    model = segmenter((12, 24, 32), ("liver", "livertumor"), outputs=2, regions=(2, 1), **NNUNET)
    ctpipe.infer(store, model, layers=["probabilities", "entropy"])
    series, run = only(store)
    scores = whole(model, series.read_planes(0, series.grid.shape.z), series.grid)
    likely = 1 / (1 + np.exp(-scores))
    layers = series.labels[run].layers
    for name, values in {"probability-2": likely[0], "probability-1": likely[1],
                         "entropy": np.mean([entropy([p, 1 - p]) for p in likely], axis=0) / np.log(2)}.items():
        assert np.abs(layers[name].array.to_numpy() * STEP - values).max() < STEP / 2 + 1e-4


def test_spans_of_a_volume_give_the_bytes_of_one(made, layered, tmp_path, monkeypatch) -> None:
    """I4: each slab a task of its own; windows over their borders are scored in both."""
    from ctpipe.pipeline import predicting

    store = shutil.copytree(made[0], tmp_path / "S")
    monkeypatch.setattr(predicting, "shares_for", lambda *_: 3)
    report = ctpipe.infer(store, made[1], layers=ALL)
    assert report.runs[0].windows > open_store(layered).run(report.runs[0].run)["windows"]
    assert same_bytes(store) == same_bytes(layered)


@pytest.mark.slow
def test_two_workers_give_the_bytes_of_one(made, layered, tmp_path) -> None:
    """I4: two processes, a span of the volume each."""
    from distributed import Client, LocalCluster

    store = shutil.copytree(made[0], tmp_path / "S")
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", memory_limit=0, silence_logs=50,
                     dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        report = ctpipe.infer(store, made[1], client=client, layers=ALL)
    assert report.runs[0].windows > open_store(layered).run(report.runs[0].run)["windows"]
    assert same_bytes(store) == same_bytes(layered)


def test_layers_of_a_run_that_is_there_are_made_without_its_labels(made, layered, tmp_path, monkeypatch) -> None:
    store = shutil.copytree(made[0], tmp_path / "S")
    [first] = ctpipe.infer(store, made[1]).runs
    labels = same_bytes(store)
    record = open_store(store).run(first.run)
    [run] = ctpipe.infer(store, made[1], layers="entropy").runs
    assert (run.run, run.known, run.windows, run.layers) == (first.run, True, first.windows, ("entropy",))
    assert {name: digest for name, digest in same_bytes(store).items() if "/layers/" not in name} == labels
    written: list[str] = []
    write_slab = GroupWriter.write_slab
    monkeypatch.setattr(GroupWriter, "write_slab",
                        lambda self, *args: written.append(self.target) or write_slab(self, *args))  # fmt: skip
    ctpipe.infer(store, made[1], layers=ALL)
    assert {target.rpartition("/")[2] for target in written} == {"probability-1", "probability-2", "spread"}
    assert same_bytes(store) == same_bytes(layered)
    assert open_store(store).run(first.run) == record
    monkeypatch.setattr(pipeline.segmenting, "predict_span", None)  # nothing is left to do
    assert ctpipe.infer(store, made[1], layers=ALL).runs[0].layers == tuple(NAMES)


RUN = "import sys, ctpipe; ctpipe.infer(sys.argv[1], sys.argv[2], layers=['probabilities', 'entropy', 'spread'])"


def test_a_run_that_is_killed_goes_on_to_the_same_bytes(made, layered, tmp_path) -> None:
    """S10: SIGKILL while layers of a slab are written; slabs that have all of theirs are not scored again."""
    store = shutil.copytree(made[0], tmp_path / "S")
    process = subprocess.Popen([sys.executable, "-c", RUN, str(store), str(made[1])], stdout=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not list(store.glob("*.ome.zarr/layers/*/probability-2/0/c/1/0/0")):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    series = next(iter(open_store(store).values()))
    assert not list(series.labels)
    [run] = ctpipe.infer(store, made[1], layers=ALL).runs
    assert run.resumed >= 1
    assert run.windows < open_store(layered).run(run.run)["windows"]
    assert same_bytes(store) == same_bytes(layered)
    assert verify(open_store(store))["faults"] == []


def test_a_kill_between_the_commits_costs_no_scores(made, layered, tmp_path, monkeypatch) -> None:
    """Labels are committed first; what lies there of layers is committed by the next call."""
    from ctpipe.pipeline import segmenter_span, segmenting

    store = shutil.copytree(made[0], tmp_path / "S")
    with monkeypatch.context() as patched:
        patched.setattr(segmenting, "commit_layers", lambda *_: (_ for _ in ()).throw(RunError("the plug", "none")))
        assert ctpipe.infer(store, made[1], layers=ALL).exit_code == 3
    series, run = only(store)
    assert list(series.labels[run].layers) == []
    monkeypatch.setattr(segmenter_span, "SlabStream", None)
    assert ctpipe.infer(store, made[1], layers=ALL).exit_code == 0
    assert same_bytes(store) == same_bytes(layered)


def test_slabs_outside_the_box_that_the_model_looks_at_are_zero(made, tmp_path) -> None:
    """Where HU are 0 all around, nnU-Net's models look at the rest only; labels there are background."""
    from ctpipe.pipeline.layering import SlabLayers, layer_writers
    from ctpipe.pipeline.segmenting import labels_meta

    store = open_store(shutil.copytree(made[0], tmp_path / "S"), mode="a")
    [series] = store.values()
    writers = layer_writers(store, series, labels_meta("abcd", series, made[2]), made[2], ("entropy",))
    [writer] = writers
    writer.prepare()
    with SlabLayers(writers, made[2]) as layers:
        layers.begin(writer.slabs[0])
        third = np.full((3, 4, 5), 1 / 3, np.float32)
        layers.put_made(writer.slabs[0], 2, 3, layers.planes(third, None), (slice(10, 14), slice(20, 25)))
        layers.write(writer.slabs[0])
    planes = writer.read_planes(0, writer.slabs[0].stop)
    assert (planes[2, 10:14, 20:25] == 255).all()
    assert planes.sum() == 255 * 20


def test_the_verbs_know_layers(made, layered, tmp_path, capsys) -> None:
    store = shutil.copytree(layered, tmp_path / "S")
    series, run = only(store)
    assert cli.main(["ls", str(store), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["labels"][run]["layers"] == NAMES
    slabs = len(series.arrays[0].slabs)
    arrays = 2 + len(NAMES)  # the volume, its labels, its layers
    assert verify(open_store(store))["checked"] == slabs * len(series.levels) * arrays
    assert collect_garbage(open_store(store, mode="a")) == []
    shard = series.labels[run].layers["spread"].path / "0/c/1/0/0"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    [fault] = verify(open_store(store))["faults"]
    assert (fault["array"], fault["shard"]) == (f"layers/{run}/spread/0", 1)
    assert cli.main(["rm", str(store), f"{run[:8]}/spread"]) == 0
    assert verify(open_store(store))["faults"] == []
    assert list(series.labels[run].layers) == NAMES[:-1]
    with pytest.raises(NotThereError, match="entropy, probability-1"):
        series.labels[run].layers["spread"]
    assert cli.main(["rm", str(store), run]) == 0
    assert not (series.path / "layers" / run).exists()


def test_layers_that_were_never_committed_are_garbage_and_those_without_labels_a_fault(layered, tmp_path) -> None:
    store = shutil.copytree(layered, tmp_path / "S")
    series, run = only(store)
    folder = series.path / "layers" / run
    (folder / "entropy" / "zarr.json").unlink()
    assert collect_garbage(open_store(store, mode="a"), dry_run=True) == [str(folder.relative_to(store) / "entropy")]
    collect_garbage(open_store(store, mode="a"))
    assert sorted(os.listdir(folder)) == NAMES[1:]
    shutil.rmtree(series.labels[run].path)
    assert "labels of their run are gone" in str(verify(open_store(store))["faults"])
    for name in NAMES[1:]:
        (folder / name / "zarr.json").unlink()
    collect_garbage(open_store(store, mode="a"))
    assert not folder.exists()


def test_what_was_committed_after_garbage_was_looked_for_stays(layered, tmp_path) -> None:
    """The look is taken before the lease: a writer may end in between. Of a volume the table of planes stays too."""
    from ctpipe.store import gc

    store = shutil.copytree(layered, tmp_path / "S")
    series, run = only(store)
    before = same_bytes(store)
    volume = str(series.path.relative_to(store))
    assert gc._sweep(store, f"{volume}/layers/{run}", [series.path / "layers" / run], False, 60.0) == []
    planes = store / "planes" / f"{series.id}.parquet"
    assert gc._sweep(store, volume, [series.path, planes], False, 60.0) == []
    assert same_bytes(store) == before


def test_what_cannot_be_had_is_refused_before_any_work(made, tmp_path) -> None:
    store = shutil.copytree(made[0], tmp_path / "S")
    before = same_bytes(store)
    with pytest.raises(UsageError, match="no folds"):
        ctpipe.infer(store, segmenter(), layers=ALL)
    with pytest.raises(UsageError, match="no layer 'doubt'"):
        ctpipe.infer(store, segmenter(), layers=["doubt"])
    assert same_bytes(store) == before


def test_other_readers_open_a_layer(layered) -> None:
    import ngff_zarr
    import yaozarrs

    series, run = only(layered)
    for layer in series.labels[run].layers.values():
        yaozarrs.validate_zarr_store(str(layer.path))
        image = ngff_zarr.from_ngff_zarr(str(layer.path), validate=True).images[0]
        assert np.array_equal(np.asarray(image.data), layer.array)
        assert len(layer.levels) == len(series.levels)
        assert image.scale == pytest.approx(dict(zip("zyx", series.grid.spacing_mm, strict=True)))
    yaozarrs.validate_zarr_store(str(series.path))


def test_napari_gets_layers_hidden_between_the_ct_and_the_labels(layered) -> None:
    from ctpipe.review.reader import read

    series, run = only(layered)
    found = read(str(series.path))
    assert [kind for _, _, kind in found] == ["image"] * (1 + len(NAMES)) + ["labels"]
    told = {options["metadata"]["ctpipe"].get("layer"): (levels, options) for levels, options, _ in found}
    for name in NAMES:
        levels, options = told[name]
        assert (options["visible"], options["contrast_limits"]) == (False, (0, 255))
        assert np.array_equal(np.asarray(levels[0]), series.labels[run].layers[name].array)
    assert told["probability-2"][1]["name"] == f"probability-2 livertumor {run[:8]}"


@pytest.mark.parametrize("fill", ["linear", "nearest"])
def test_a_classifiers_layers_lie_on_the_grid_of_its_labels(made, tmp_path, fill) -> None:
    """By the fill of the labels: where the highest probability is clear, it is the label's."""
    import torch

    store = shutil.copytree(made[0], tmp_path / "S")
    recipe = small_recipe(fill=fill)
    torch.manual_seed(1)
    model = Model.of(recipe, recipe.classes, build_network(recipe.network, 1, 3, recipe.windows.window, recipe.options))
    [run] = ctpipe.infer(store, model, layers=["entropy", "probabilities"]).runs
    series, key = only(store)
    labels = series.labels[key]
    likely = np.stack([labels.layers[f"probability-{n}"].array.to_numpy() * STEP for n in (1, 2)])
    likely = np.concatenate([1 - likely.sum(0, keepdims=True), likely])
    ordered = np.sort(likely, axis=0)
    clear = ordered[-1] - ordered[-2] > 2 * STEP
    assert clear.mean() > 0.5
    assert (likely.argmax(0) == labels.array.to_numpy())[clear].all()
    told = entropy(likely.clip(0, 1), axis=0) / np.log(3)
    assert np.abs(labels.layers["entropy"].array.to_numpy() * STEP - told).max() < 0.06  # of quantised probabilities
    assert len(np.unique(labels.layers["entropy"].array)) > 3
    bytes_of_one_pass = same_bytes(store)
    again = shutil.copytree(made[0], tmp_path / "again")
    ctpipe.infer(again, model)
    [later] = ctpipe.infer(again, model, layers=["probabilities", "entropy"]).runs
    assert (later.known, later.windows) == (True, run.windows)
    assert same_bytes(again) == bytes_of_one_pass
