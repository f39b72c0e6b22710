"""A model on a part of a volume gives the labels of a whole run there, voxel by voxel."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from line_made import AFFINE, CLASSES, small_patient, small_recipe
from segmenters_made import NNUNET, segmenter

from ctpipe import pipeline
from ctpipe.config import recipe_from_dict
from ctpipe.dicom import write_ct_series
from ctpipe.errors import UsageError
from ctpipe.models import Model, build_network
from ctpipe.store import open_store
from ctpipe.volume import Grid

BOX = slice(11, 30), slice(7, 41), slice(13, 55)
THIN = slice(66, 67), slice(0, 56), slice(20, 21)


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("region")
    ct, masks = small_patient(folder / "dicom", 1)
    assert pipeline.ingest([ct], folder / "S", classes=CLASSES, labels=[masks]).exit_code == 0
    return folder / "S"


def classifier(before: Model | None = None, classes=("liver", "livertumor"), seed: int = 1, **changes) -> Model:
    """Random weights whose scores lie between 0 and 1: every class occurs."""
    parts = {**small_recipe().as_dict(), "classes": list(classes)}
    for part, values in changes.items():
        parts[part] = {**parts[part], **values}
    recipe = recipe_from_dict(parts)
    torch.manual_seed(seed)
    network = build_network(recipe.network, 1, 1 + len(classes), recipe.windows.window, recipe.options)
    with torch.no_grad():
        network.head[-1].weight *= 0.1
    return Model.of(recipe, classes, network, before)


def two_levels(folder: Path) -> Path:
    """A volume large enough for a second level, which has half as many planes."""
    thin = AFFINE.copy()
    thin[2, 0] = 1.0
    grid = Grid.from_affine((24, 150, 144), thin)
    z, y, x = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    hu = np.where(np.hypot(y - 70, x - 72) < 40, 110, -200).astype(np.int16) + (z * 2).astype(np.int16)
    write_ct_series(folder / "CT", hu, grid, patient="SYN", study_key="s")
    pipeline.ingest([folder / "CT"], folder / "S")
    return folder / "S"


MODELS = {
    "linear between planes": lambda: classifier(),
    "nearest centre": lambda: classifier(predict={"fill": "nearest", "stride": [1, 5, 4], "region": "all"}),
    "a segmenter that resamples": lambda: segmenter(
        (16, 48, 64), ("liver", "livertumor"), spacing_mm=(1.9, 1.3, 1.4), threads=2, **NNUNET
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_labels_of_a_region_are_those_of_a_run(ingested, tmp_path, name) -> None:
    store = shutil.copytree(ingested, tmp_path / "S")
    model = MODELS[name]()
    [series] = open_store(store)
    region = pipeline.RegionModel(store, series, model)
    found = [region.labels(box) for box in (BOX, THIN)]
    assert list(open_store(store)[series].labels) == list(open_store(ingested)[series].labels), "nothing is committed"
    report = pipeline.infer(store, model)
    whole = open_store(store)[series].labels[report.runs[0].run].read_planes(0, 70)
    assert len(np.unique(whole[BOX])) > 1
    for box, labels in zip((BOX, THIN), found, strict=True):
        assert np.array_equal(labels.labels, whole[box])
        assert labels.labels.dtype == whole.dtype
        assert labels.run == report.runs[0].run
    assert found[0].classes == {1: "liver", 2: "livertumor"}


def test_on_a_coarse_level_after_a_model_that_runs_before(tmp_path) -> None:
    """The model before runs over the whole volume, once, and is committed: a full run finds it."""
    store = two_levels(tmp_path)
    first = classifier(classes=("liver",))
    model = classifier(first, input={"relative_to": "liver", "level": 1},
                       predict={"region": "organ", "margin_mm": 6.0})  # fmt: skip
    [series] = open_store(store)
    assert open_store(store)[series].levels[1].factors.z == 2
    box = slice(3, 12), slice(31, 140), slice(20, 111)
    found = pipeline.RegionModel(store, series, model).labels(box)
    before = list(open_store(store)[series].labels)
    [run] = pipeline.infer(store, model).runs
    labels = open_store(store)[series].labels[run.run]
    assert before == [labels.provenance["before"]]
    assert np.array_equal(found.labels, labels.read_planes(0, 24)[box])
    assert (found.run, len(np.unique(found.labels)) > 1) == (labels.name, True)


def test_parts_tell_how_far_they_are_and_can_be_given_up(ingested) -> None:
    [series] = open_store(ingested)
    parts = pipeline.RegionModel(ingested, series, classifier()).parts(BOX)
    assert [next(parts)[:2], next(parts)[:2]] == [(8, 19), (16, 19)]
    parts.close()


@pytest.mark.parametrize("box", [(slice(0, 71), slice(0, 5), slice(0, 5)), (slice(3, 3), slice(0, 5), slice(0, 5)),
                                 (slice(0, 4), slice(-1, 5), slice(0, 5))])  # fmt: skip
def test_a_region_outside_the_volume_is_refused(ingested, box) -> None:
    [series] = open_store(ingested)
    with pytest.raises(UsageError, match="is empty or leaves the volume"):
        pipeline.RegionModel(ingested, series, classifier()).labels(box)
