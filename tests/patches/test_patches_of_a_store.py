"""Tables and features over a real store: the faces that the fakes of the other tests stand for."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from volumes import CLASSES, MemorySeries, labelled

from ctpipe.config import InputSpec
from ctpipe.errors import StoreFaultError
from ctpipe.patches import PlaneReader, patch_table
from ctpipe.patches.rows import rows_of
from ctpipe.store import LabelsMeta, Store, VolumeMeta, open_store
from ctpipe.words import LabelKind

SHAPE, SPACING = (70, 140, 132), (1.0, 1.0, 1.0)


def write(store: Store, writer, voxels: np.ndarray) -> None:
    with store.lease(writer.target) as lease:
        writer.prepare()
        writer.commit([writer.write_slab(slab, voxels[slab.start:slab.stop]) for slab in writer.slabs], lease)


@pytest.fixture(scope="module")
def memory() -> MemorySeries:
    return labelled(SHAPE, 5, slab_planes=32, id="ab12", patient="p-1", spacing=SPACING)


@pytest.fixture(scope="module")
def store(tmp_path_factory, memory) -> Store:
    opened = open_store(tmp_path_factory.mktemp("store") / "S", "a")
    meta = VolumeMeta(memory.id, memory.grid, "int16", memory.patient, "u-1", "u-2")
    write(opened, opened.volume_writer(meta), memory.hu)
    truth = LabelsMeta("truth-1", LabelKind.TRUTH, memory.grid, CLASSES)
    write(opened, opened.labels_writer(memory.id, truth), memory.labels["truth"].voxels)
    return open_store(opened.root)


def test_rows_of_a_store_are_those_of_its_label_volume_and_tasks_can_be_sent(store, memory):
    table = patch_table(store.root, (3, 9, 9), (5, 30, 30), where="label == 'lesion'")
    wanted = patch_table({memory.id: memory}, (3, 9, 9), (5, 30, 30), where="label == 'lesion'").compute()
    pd.testing.assert_frame_equal(table.compute(), wanted)
    assert table.store == store.root
    sent = [pickle.dumps((part, table.spec)) for part in table.parts]
    assert max(map(len, sent)) < 2000  # small values only
    pd.testing.assert_frame_equal(pd.concat([rows_of(*pickle.loads(one)) for one in sent], ignore_index=True), wanted)


def test_features_of_a_store_are_those_of_its_voxels(store, memory):
    spec = InputSpec(channels_mm=(0.0, 2.0))
    found = PlaneReader(store[memory.id], spec).features(30, 36)
    assert np.array_equal(found, PlaneReader(memory, spec).features(30, 36))


def test_a_coarse_level_of_a_store_is_read_with_its_own_slabs(store, memory):
    table = patch_table(store, (1, 5, 5), (1, 20, 20), level=1)
    found = table.compute()
    coarse = store[memory.id].labels["truth"].read_planes(0, 35, 1)
    at = found[["z", "y", "x"]].to_numpy()
    assert sorted(set(at[:, 0])) == list(range(35))
    assert found["label"].tolist() == coarse[tuple(at.T)].tolist()
    assert PlaneReader(store[memory.id], InputSpec(level=1)).features(10, 20).shape == (10, 1, 70, 66)


def test_a_flipped_bit_in_a_label_shard_is_an_error_and_never_another_row(store, memory, tmp_path):
    import shutil
    shutil.copytree(store.root, tmp_path / "S")
    [shard, *_] = sorted(path for path in (tmp_path / "S").glob("*/labels/truth-1/0/c/**/*") if path.is_file())
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(StoreFaultError):
        patch_table(tmp_path / "S", (1, 5, 5), (1, 20, 20)).compute()
