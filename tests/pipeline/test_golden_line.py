"""One patient after the other through the whole line, in this process: DICOM, truth, table, model, run, scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from line_made import CLASSES, SHAPE, same_bytes, small_patient, small_recipe

import ctpipe
from ctpipe import pipeline
from ctpipe.errors import NotThereError, UsageError


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("dicom")
    return [small_patient(folder, number) for number in range(3)]


@pytest.fixture(scope="module")
def line(patients: list[tuple[Path, Path]], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str, str]:
    """(store, model folder, unseen series, its run) of a line that ran once."""
    root = tmp_path_factory.mktemp("line")
    store = root / "S"
    pipeline.ingest([ct for ct, _ in patients], store, [masks for _, masks in patients], CLASSES)
    opened = ctpipe.open_store(store)
    unseen = sorted(opened)[0]
    others = sorted({series.patient for series in opened.values()} - {opened[unseen].patient})
    pipeline.train_model(store, small_recipe(), root / "model", patients=others, validate=others[:1])
    [run] = pipeline.infer(store, root / "model", [unseen]).runs
    return store, root / "model", unseen, run.run


def test_voxels_and_truth_come_out_as_they_went_in(line: tuple[Path, Path, str, str]) -> None:
    opened = ctpipe.open_store(line[0])
    assert len(opened) == 3
    for series in opened.values():
        truth = series.labels["truth"].read_planes(0, SHAPE[0])
        hu = series.read_planes(0, SHAPE[0])
        assert series.grid.shape == SHAPE
        assert hu[truth == 2].mean() == pytest.approx(40, abs=2)
        assert hu[truth == 1].mean() == pytest.approx(110, abs=2)
        assert not truth[32:64].any()
        assert (hu[32:64] == -1024).all()


def test_the_run_is_a_label_volume_of_its_own(line: tuple[Path, Path, str, str]) -> None:
    store, _, unseen, run = line
    series = ctpipe.open_store(store)[unseen]
    labels = series.labels[run]
    assert labels.classes == {1: "liver", 2: "livertumor"}
    assert labels.grid.grid_id == series.grid.grid_id
    assert labels.array.shape == SHAPE
    assert not labels.read_planes(32, 64).any()
    scores = ctpipe.evaluate(store, run).as_json()["series"][unseen]
    assert scores["classes"]["liver"]["dice"] > 0.5


def test_a_committed_run_is_not_computed_again(line: tuple[Path, Path, str, str]) -> None:
    store, model, unseen, run = line
    before = same_bytes(store)
    [again] = pipeline.infer(store, model, [unseen]).runs
    assert again.known
    assert again.run == run
    assert same_bytes(store) == before


def test_the_same_series_again_is_a_no_op(
    line: tuple[Path, Path, str, str], patients: list[tuple[Path, Path]]
) -> None:
    store = line[0]
    before = same_bytes(store)
    report = pipeline.ingest([ct for ct, _ in patients], store, [masks for _, masks in patients], CLASSES)
    assert [volume.known for volume in report.volumes] == [True] * 3
    assert [labels.known for labels in report.labels] == [True] * 3
    assert same_bytes(store) == before


def test_the_same_voxels_under_another_name_are_told_and_not_taken(
    line: tuple[Path, Path, str, str], patients: list[tuple[Path, Path]], tmp_path: Path
) -> None:
    ct, _ = patients[0]
    from ctpipe.dicom import check, read_planes, write_ct_series

    [verdict] = check([ct])
    assert verdict.source is not None
    hu = read_planes(verdict.source, 0, SHAPE[0])
    write_ct_series(tmp_path / "again", hu, verdict.source.grid, patient="OTHER", study_key="other")
    report = pipeline.ingest([tmp_path / "again"], line[0])
    assert [v.id for v in report.volumes] in ([], [report.volumes[0].id] if report.volumes else [])
    assert len(ctpipe.open_store(line[0])) == 3


def test_training_again_gives_the_same_model(line: tuple[Path, Path, str, str]) -> None:
    store, model, unseen, _ = line
    opened = ctpipe.open_store(store)
    others = sorted({series.patient for series in opened.values()} - {opened[unseen].patient})
    again = ctpipe.train(store, small_recipe(), patients=others, validate=others[:1])
    assert again.digest == ctpipe.load_model(model).digest


def test_a_table_can_be_trained_from(line: tuple[Path, Path, str, str]) -> None:
    table = ctpipe.patch_table(line[0], window=(1, 44, 44), stride=(1, 4, 4))
    assert ctpipe.train(table, small_recipe()).spec.classes == ("liver", "livertumor")
    with pytest.raises(UsageError, match="windows"):
        ctpipe.train(ctpipe.patch_table(line[0], window=(1, 21, 21), stride=(1, 4, 4)), small_recipe())


def test_what_is_not_there_is_named(line: tuple[Path, Path, str, str], tmp_path: Path) -> None:
    store, model, _, _ = line
    with pytest.raises(NotThereError, match="no run"):
        pipeline.evaluate(store, "ffff")
    with pytest.raises(NotThereError):
        pipeline.infer(store, model, ["ffff"])
    with pytest.raises(NotThereError):
        pipeline.infer(tmp_path / "nowhere", model)
    with pytest.raises(NotThereError, match="patient"):
        pipeline.train(store, small_recipe(), patients=["p-0"])
    assert not (tmp_path / "nowhere").exists()


def test_a_nan_in_the_weights_stops_the_volume_and_is_named(line: tuple[Path, Path, str, str]) -> None:
    """RELIABILITY I1: a NaN never becomes background."""
    store, model, unseen, _ = line
    broken = ctpipe.load_model(model)
    import torch

    with torch.no_grad():
        next(iter(broken.network.parameters()))[0] = float("nan")
    from ctpipe.models import Model

    bad = Model.of(broken.recipe, broken.spec.classes, broken.network)
    report = pipeline.infer(store, bad, [unseen])
    assert report.exit_code == 3
    assert "NaN" in report.failed[unseen]
    assert len([n for n in ctpipe.open_store(store)[unseen].labels if not n.startswith("truth")]) == 1


def test_the_affine_reaches_the_labels(line: tuple[Path, Path, str, str]) -> None:
    """RELIABILITY V6: the marker voxel of the truth lies where the phantom put it, in mm."""
    series = next(iter(ctpipe.open_store(line[0]).values()))
    at = np.argwhere(series.labels["truth"].read_planes(0, 32) == 2).mean(axis=0)
    left, posterior, _ = series.grid.to_lps(at)
    assert left == pytest.approx(-40 + 1.5 * 26, abs=3.5)
    assert posterior == pytest.approx(-35 + 1.5 * 24, abs=1.5)


def test_without_validation_patients_the_last_epoch_is_taken(line: tuple[Path, Path, str, str]) -> None:
    model = ctpipe.train(line[0], small_recipe(), validate=[])
    assert model.spec.training["best_epoch"] == 3
    assert model.spec.training["validation_dice"] == {}
    assert model.spec.training["validation_patients"] == []
