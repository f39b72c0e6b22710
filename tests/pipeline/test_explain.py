"""Explain: what decided a voxel, scored again, agrees with what is stored."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from line_made import AFFINE, CLASSES, small_patient, small_recipe

from ctpipe import open_store, pipeline
from ctpipe.cli import main
from ctpipe.config import recipe_from_dict
from ctpipe.dicom import write_ct_series
from ctpipe.errors import NotThereError, RunError, UsageError
from ctpipe.models import Model, Sizes, build_network
from ctpipe.store import files
from ctpipe.volume import Grid
from ctpipe.words import Fill


def _model(before: Model | None = None, classes: tuple[str, ...] = ("liver", "livertumor"), **changes) -> Model:
    """Random weights whose scores lie between 0 and 1: every class occurs."""
    plain = small_recipe().as_dict()
    for part, values in changes.items():
        plain[part] = {**plain[part], **values}
    recipe = recipe_from_dict({**plain, "classes": list(classes)})
    torch.manual_seed(1)
    network = build_network(recipe.network, 1, 1 + len(classes), recipe.windows.window, recipe.options)
    with torch.no_grad():
        network.head[-1].weight *= 0.1
    return Model.of(recipe, classes, network, before)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("explain")
    ct, masks = small_patient(root, 1)
    pipeline.ingest([ct], root / "S", [masks], CLASSES)
    return root / "S"


@pytest.fixture
def store(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "S"))


@pytest.mark.parametrize("fill", list(Fill))
@pytest.mark.parametrize("region", ["all", "body"])
def test_every_voxel_that_is_asked_for_agrees_with_its_label(store: Path, fill: Fill, region: str) -> None:
    model = _model(predict={"stride": [2, 5, 4], "fill": str(fill), "region": region})
    [run] = pipeline.infer(store, model).runs
    [series] = open_store(store).values()
    labels = series.labels[run.run].read_planes(0, 70)
    assert len(np.unique(labels)) == 3
    rng = np.random.default_rng(3)
    corners = [(0, 0, 0), (69, 55, 59), (31, 55, 0), (32, 28, 30)]
    for voxel in [*corners, *map(tuple, rng.integers(0, labels.shape, (6, 3)).tolist())]:
        told = pipeline.explain(store, series.id, voxel)
        assert (told.run, told.label, told.model) == (run.run, labels[voxel], model.digest)
        assert told.hu == series.read_planes(voxel[0], voxel[0] + 1)[0, voxel[1], voxel[2]]
        assert told.sop_instance == series.planes["sop_instance"][voxel[0]]
        assert sum(window.share for window in told.windows) == pytest.approx(1)
        mixed = sum(np.array(list(window.scores.values())) * window.share for window in told.windows)
        ranked = np.sort(mixed)
        assert mixed.argmax() == told.label or ranked[-1] - ranked[-2] < 1e-5
        for window in told.windows:
            assert window.stop[1] - window.start[1] == 44
            assert all(start <= centre < stop for start, centre, stop in zip(window.start, window.centre, window.stop,
                                                                             strict=True))  # fmt: skip
            assert sum(window.scores.values()) == pytest.approx(1, abs=1e-5)
        if fill is Fill.NEAREST:
            assert len(told.windows) == 1


def _two_levels(folder: Path) -> Path:
    """A volume large enough for a second level, of one slab."""
    grid = Grid.from_affine((24, 150, 144), AFFINE)
    z, y, x = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    hu = np.where(np.hypot(y - 70, x - 72) < 40, 110, -200).astype(np.int16) + (z * 2).astype(np.int16)
    write_ct_series(folder / "CT", hu, grid, patient="SYN", study_key="s")
    pipeline.ingest([folder / "CT"], folder / "S")
    return folder / "S"


def test_a_run_on_a_coarse_level_after_another_model_and_with_less_memory(tmp_path: Path) -> None:
    store = _two_levels(tmp_path)
    first = _model(classes=("liver",))
    model = _model(first, input={"relative_to": "liver", "level": 1},
                   predict={"region": "organ", "margin_mm": 6.0}).sized(Sizes(16, 64 << 20))  # fmt: skip
    [run] = pipeline.infer(store, model).runs
    [series] = open_store(store).values()
    labels = series.labels[run.run]
    inside = tuple(np.argwhere(labels.read_planes(0, 24) > 0)[100].tolist())
    told = pipeline.explain(store, series.id[:6], inside, run.run[:6])
    assert told.level == 1
    assert told.factors == tuple(series.levels[1].factors)
    assert told.before is not None
    assert told.before.run == labels.provenance["before"]
    assert told.before.reference_hu == labels.provenance["reference_hu"]
    earlier = pipeline.explain(store, series.id, inside, told.before.run)  # its model lies below the other one's
    assert (earlier.model, earlier.before) == (first.digest, None)
    far = pipeline.explain(store, series.id, (4, 0, 143), run.run)
    assert not any(window.evaluated for window in far.windows)
    assert far.label == 0
    with pytest.raises(UsageError, match=r"has 2 runs; cure: name one with --run: "):
        pipeline.explain(store, series.id, inside)


def test_a_label_that_its_windows_do_not_give_is_an_error(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline.infer(store, _model())
    [series] = open_store(store).values()
    from ctpipe.pipeline import explaining

    score = explaining.score_centres
    monkeypatch.setattr(explaining, "score_centres", lambda *given: np.roll(score(*given), 1, -1))
    with pytest.raises(RunError, match=r"voxel \(5, 28, 30\) of series \w+ is labelled \d in run \w+, and its windows"):
        pipeline.explain(store, series.id, (5, 28, 30))


def test_what_cannot_be_explained_says_why(store: Path) -> None:
    [run] = pipeline.infer(store, _model()).runs
    [series] = open_store(store).values()
    for voxel in ((70, 0, 0), (0, -1, 0)):
        with pytest.raises(UsageError, match=r"does not lie in series .* below 70 56 60"):
            pipeline.explain(store, series.id, voxel)
    with pytest.raises(UsageError, match="was made by no model"):
        pipeline.explain(store, series.id, (0, 0, 0), "truth")
    [post] = pipeline.post_process(store, run.run, "largest=liver").runs
    with pytest.raises(UsageError, match=f"post-processing.*--run {run.run}"):
        pipeline.explain(store, series.id, (0, 0, 0), post.run)
    files.remove(store / "models")
    with pytest.raises(NotThereError, match="the store has no model"):
        pipeline.explain(store, series.id, (0, 0, 0), run.run)


def test_the_command_tells_it_as_a_table_and_as_json(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [run] = pipeline.infer(store, _model()).runs
    [series] = open_store(store).values()
    line = ["explain", str(store), series.id[:8], "6", "28", "31"]
    assert main(line) == 0
    told = capsys.readouterr().out
    assert f"run {run.run}" in told
    assert "the windows give the stored label" in told
    assert main([*line, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads(json.dumps(pipeline.explain(store, series.id, (6, 28, 31)).as_json()))
    assert document["agrees"] is True
    assert [window["centre"] for window in document["windows"]] == [[6, 28, 28], [6, 28, 32]]
    assert main([*line[:3], "6", "28", "60"]) == 2
