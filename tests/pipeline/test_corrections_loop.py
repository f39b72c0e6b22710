"""The loop of corrections: a run, what the model is unsure of, a review, and a model that learns from it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client, LocalCluster
from line_made import CLASSES, SHAPE, same_bytes, small_patient, small_recipe

import ctpipe
from ctpipe import cli, pipeline
from ctpipe.errors import NotThereError, UsageError
from ctpipe.models import load_model
from ctpipe.pipeline import centres, classifier_slab
from ctpipe.review.save import save_review
from ctpipe.review.working_copy import open_copy
from ctpipe.store import open_store, remove


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(store of three volumes, two with truth and one with a run and without truth; model folder)."""
    root = tmp_path_factory.mktemp("loop")
    patients = [small_patient(root / "dicom", number) for number in range(3)]
    pipeline.ingest([ct for ct, _ in patients], root / "S", [masks for _, masks in patients[:2]], CLASSES)
    pipeline.train_model(root / "S", small_recipe(), root / "M", validate=[])
    pipeline.infer(root / "S", root / "M", unlabelled(root / "S"))
    return root / "S", root / "M"


@pytest.fixture
def store(made: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made[0], tmp_path / "S"))


def unlabelled(store: Path) -> str:
    return next(series.id for series in open_store(store).values() if "truth" not in series.labels)


def correct(store: Path, series: str, labels: str, **how: Any) -> str:
    """Paint a box as a reviewer would, and save; the name of the review."""
    opened = open_store(store, "a")
    copy = open_copy(opened.root, opened[series], opened[series].labels[labels] if labels else None, **how)
    copy.array[4:9, 20:30, 22:32] = 2 if labels else 1
    result = save_review(opened, opened[series], copy)
    copy.close()
    assert result.name is not None
    return result.name


def run_of(store: Path) -> str:
    return next(iter(open_store(store)[unlabelled(store)].labels))


def test_a_review_counts_as_truth_and_the_model_says_which(store: Path, tmp_path: Path) -> None:
    series = unlabelled(store)
    plain = ctpipe.train(store, small_recipe(), validate=[])
    first = correct(store, series, run_of(store))
    assert ctpipe.train(store, small_recipe(), validate=[]).digest == plain.digest
    report = pipeline.train_model(store, small_recipe(), tmp_path / "M2", validate=[], with_reviews=True)
    assert report.reviews == {series: first}
    assert open_store(store)[series].patient in report.train_patients
    facts = load_model(tmp_path / "M2").spec.training
    assert facts["reviews"] == {series: first}
    assert report.digest != plain.digest
    again = ctpipe.train(store, small_recipe(), validate=[], with_reviews=True)
    assert again.digest == report.digest


def test_the_same_voxels_as_truth_and_as_a_review_give_other_models(store: Path) -> None:
    """The digest follows from what a model was made of, and corrected rows weigh more."""
    known = next(series.id for series in open_store(store).values() if "truth" in series.labels)
    before = ctpipe.train(store, small_recipe(), validate=[], with_reviews=False)
    correct(store, known, "truth")
    after = ctpipe.train(store, small_recipe(), validate=[], with_reviews=True)
    assert set(after.spec.training["reviews"]) == {known}
    assert after.digest != before.digest


def test_training_draws_what_a_reviewer_changed_more_often(store: Path) -> None:
    from ctpipe.patches import PlaneReader
    from ctpipe.training.loader import TileLoader, Tiling

    correct(store, unlabelled(store), run_of(store))
    series, recipe = open_store(store)[unlabelled(store)], small_recipe()
    table = ctpipe.patch_table(store, (1, 44, 44), (1, 4, 4), series=[series.id], source="best")
    loader = TileLoader(table, recipe, lambda _: PlaneReader(series, recipe.input), Tiling(3, 4, (44, 44)),
                        recipe.classes)  # fmt: skip
    drawn = [table.sample(len(loader.at), recipe.train.seed, by="label", weight=weight)[["z", "y", "x"]]
             for weight in (None, "weight")]  # fmt: skip
    plain, weighted = (rows.to_numpy().tolist() for rows in drawn)
    assert loader.at[:, 1:].tolist() == weighted != plain


def test_the_model_that_runs_before_learns_from_the_reviews_too(store: Path, tmp_path: Path) -> None:
    first = tmp_path / "first.toml"
    first.write_text(TOML.replace('["liver", "livertumor"]', '["liver"]\nmerge = { liver = ["liver", "livertumor"] }'))
    name = correct(store, unlabelled(store), run_of(store))
    model = ctpipe.train(store, replace(small_recipe(), before=str(first)), validate=[], with_reviews=True)
    assert model.spec.training["reviews"] == model.before.spec.training["reviews"] == {unlabelled(store): name}


def test_without_a_review_nothing_is_trained(store: Path) -> None:
    with pytest.raises(NotThereError, match=r"none of the 2 volume\(s\) to train on has a review.*ctpipe review"):
        pipeline.train(store, small_recipe(), with_reviews=True)


def test_a_review_that_does_not_know_a_class_is_refused(store: Path) -> None:
    """What its reviewer did not mark is not absent."""
    name = correct(store, unlabelled(store), "", classes={1: "liver"})
    with pytest.raises(UsageError, match=rf"{name} of volume {unlabelled(store)} knows no class livertumor"):
        pipeline.train(store, small_recipe(), validate=[], with_reviews=True)


def test_a_table_of_reviews_is_trained_as_it_is(store: Path) -> None:
    correct(store, unlabelled(store), run_of(store))
    table = ctpipe.patch_table(store, (1, 44, 44), (1, 4, 4), source="best")
    model = ctpipe.train(table, small_recipe(), validate=[])
    assert model.digest == ctpipe.train(store, small_recipe(), validate=[], with_reviews=True).digest
    with pytest.raises(UsageError, match="own rows"):
        ctpipe.train(table, small_recipe(), with_reviews=True)


def test_uncertainty_is_that_of_the_scores_and_changes_no_byte(made, store: Path, tmp_path: Path) -> None:
    plain = Path(shutil.copytree(store, tmp_path / "plain"))
    pipeline.infer(plain, made[1])
    values = pipeline.uncertainty_of(store, made[1])
    assert set(values) == set(open_store(store))
    assert open_store(store).uncertainty() == values == open_store(store).uncertainty(load_model(made[1]).digest)
    series = open_store(store)[unlabelled(store)]
    model = load_model(made[1])
    planes, mask = centres.centres_for(model, series, None, 0, SHAPE[0])
    from ctpipe.patches import PlaneReader
    from ctpipe.predict import score_centres

    scores = score_centres(model, PlaneReader(series, model.recipe.input), planes, mask)[mask] / 2**20
    scores = scores[scores.argmax(-1) > 0]
    entropy = -(scores * np.log(np.maximum(scores, 1e-12))).sum(-1) / np.log(3)
    assert values[series.id] == pytest.approx(entropy.mean(), abs=1 / 255)
    assert same_bytes(store) == same_bytes(plain)


def test_uncertainty_is_the_same_after_a_stop_on_workers_and_for_a_run_that_lay_there(made, store: Path,
                                                                                       tmp_path: Path) -> None:
    """Slabs that lie there are scored again, the others are counted as they are computed."""
    wanted = pipeline.uncertainty_of(store, made[1])
    half = Path(shutil.copytree(made[0], tmp_path / "half"))
    pipeline.infer(half, made[1])
    for series in open_store(half).values():  # as a kill after two slabs leaves it
        [run] = [labels for labels in series.labels.values() if labels.kind == "prediction"]
        (run.path / "zarr.json").unlink()
        for shard in run.path.glob("*/c/2/0/0"):
            shard.unlink()
    with (LocalCluster(n_workers=2, threads_per_worker=1, processes=False, protocol="inproc", silence_logs=50,
                       dashboard_address="127.0.0.1:0") as cluster, Client(cluster) as client):  # fmt: skip
        report = pipeline.infer(half, made[1], client=client, uncertainty=True)
    assert [run.resumed for run in report.runs] == [2, 2, 2]
    assert {run.series: run.uncertainty for run in report.runs} == wanted


def test_what_is_known_is_not_computed_again(made, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = pipeline.uncertainty_of(store, made[1], unlabelled(store))

    def forbidden(*_: Any) -> None:
        raise AssertionError("scored again")

    monkeypatch.setattr(classifier_slab, "score_centres", forbidden)
    assert pipeline.uncertainty_of(store, made[1], unlabelled(store)) == values


def test_a_removed_volume_is_in_no_worklist(made, store: Path) -> None:
    pipeline.uncertainty_of(store, made[1])
    gone = unlabelled(store)
    remove(open_store(store, "a"), gone)
    assert gone not in open_store(store).uncertainty()
    assert gone not in (store / "reviews" / f"uncertainty-{load_model(made[1]).digest}.json").read_text()


def test_the_command_line_trains_with_reviews_and_tells_uncertainty(made, store: Path, tmp_path: Path,
                                                                    capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "small.toml"
    recipe.write_text(TOML)
    line = ["train", str(store), "--recipe", str(recipe), "--out", str(tmp_path / "M2"), "--with-reviews", "--json"]
    assert cli.main([*line, "--validate", "none"]) == 2
    assert "has a review" in capsys.readouterr().err
    correct(store, unlabelled(store), run_of(store))
    assert cli.main([*line, "--validate", "none"]) == 0
    assert list(json.loads(capsys.readouterr().out)["reviews"]) == [unlabelled(store)]
    assert cli.main(["infer", str(store), "--model", str(tmp_path / "M2"), "--uncertainty", "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert all(0 < run["uncertainty"] <= 1 for run in runs)
    assert cli.main(["infer", str(store), "--model", str(tmp_path / "M2"), "--uncertainty"]) == 0
    assert "uncertainty" in capsys.readouterr().out
    assert cli.main(["patches", "build", str(store), "--source", "review", "--window", "1,9,9", "--stride", "1,9,9",
                     "--where", "changed > 0", "--json"]) == 0  # fmt: skip
    assert json.loads(capsys.readouterr().out)["rows"] > 0


TOML = """
name = "small"
network = "vgg-small"
options = { widths = [4, 8, 8, 16] }
classes = ["liver", "livertumor"]
[input]
window_hu = [-100, 200]
[windows]
window = [1, 44, 44]
stride = [1, 4, 4]
[train]
steps = 9
epochs = 3
batch = 4
tile = 3
[predict]
stride = [2, 4, 4]
fill = "linear"
region = "body"
micro_batch = 32
"""
