"""Scores, picture and page of a case that lies in a real store."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.image import imread
from report_phantom import CLASSES, FakeLabels, abdomen, axial_grid, moved

from ctpipe.errors import StoreFaultError
from ctpipe.report import case_html, case_png
from ctpipe.scoring import evaluate_volume
from ctpipe.store import LabelsMeta, VolumeMeta, open_store
from ctpipe.words import LabelKind

ID = "7f3a9c0d1e2b4a58"


def write(store, writer, voxels):
    with store.lease(writer.target) as lease:
        writer.prepare()
        writer.commit([writer.write_slab(slab, voxels[slab.start : slab.stop]) for slab in writer.slabs], lease)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = open_store(tmp_path_factory.mktemp("store") / "S", "a")
    hu, labels = abdomen(shape=(40, 100, 120))
    grid = axial_grid(hu.shape)
    meta = VolumeMeta(ID, grid, "int16", "p-1", "u-1", "u-2", None, {}, {})
    write(store, store.volume_writer(meta), hu)
    for name, kind, voxels in (
        ("truth-1", LabelKind.TRUTH, labels),
        ("4be19c0aa1f24be1", LabelKind.PREDICTION, moved(labels)),
    ):
        write(store, store.labels_writer(ID, LabelsMeta(name, kind, grid, CLASSES, "uint8", {})), voxels)
    return open_store(store.root)


def test_scores_from_the_store_are_those_of_the_same_labels_in_memory(store):
    series = store[ID]
    _, labels = abdomen(shape=(40, 100, 120))
    sides = [FakeLabels(v, series.grid, CLASSES, "x") for v in (labels, moved(labels))]
    found, expected = evaluate_volume(series.labels["truth"], series.labels["4be1"]), evaluate_volume(*sides)
    np.testing.assert_array_equal(found.confusion.counts, expected.confusion.counts)
    assert found.lesions == expected.lesions
    assert found.series == ID


def test_picture_and_page_are_made_from_the_store(store, tmp_path):
    series = store[ID]
    truth, prediction = series.labels["truth"], series.labels["4be1"]
    scores = evaluate_volume(truth, prediction)
    png = case_png(tmp_path / "case.png", series, truth, prediction, "case", scores)
    assert imread(png).shape[1] == 1650
    page = case_html(tmp_path / "case.html", title="case", png=png, scores=scores, provenance={"run": prediction.name})
    assert "4be19c0aa1f24be1" in page.read_text("utf-8")


def test_a_rotten_shard_is_a_fault_and_no_picture(store, tmp_path):
    series = store[ID]
    shard = next(p for p in sorted((series.path / "0").rglob("*")) if p.is_file() and p.name != "zarr.json")
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 4
    whole = bytes(shard.read_bytes())
    shard.write_bytes(data)
    try:
        with pytest.raises(StoreFaultError):
            case_png(tmp_path / "case.png", open_store(store.root)[ID], None, None, "case")
    finally:
        shard.write_bytes(whole)
    assert not (tmp_path / "case.png").exists()
