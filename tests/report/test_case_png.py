"""The picture of a case shows what is there, at the side where it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread
from report_phantom import CLASSES, FakeLabels, FakeSeries, abdomen, axial_grid, moved

from ctpipe.errors import BudgetError, UsageError
from ctpipe.report import case_png
from ctpipe.scoring import evaluate_volume
from ctpipe.volume import SLAB_PLANES, Grid


@pytest.fixture(scope="module")
def case():
    hu, labels = abdomen(shape=(40, 100, 120))
    grid = axial_grid(hu.shape)
    truth = FakeLabels(labels, grid, CLASSES, "truth-1")
    return FakeSeries(hu, grid), truth, FakeLabels(moved(labels), grid, CLASSES, "4be1")


def columns_with(picture, colour, tolerance=0.02):
    """Shares of the width at which a colour of full strength (an outline) stands."""
    near = np.abs(picture[..., :3] - np.array(colour) / 255).max(axis=-1) < tolerance
    return np.flatnonzero(near.any(axis=0)) / picture.shape[1]


def test_the_liver_of_a_supine_patient_is_on_the_left_of_the_axial_picture(case, tmp_path):
    series, truth, _ = case
    picture = imread(case_png(tmp_path / "case.png", series, truth, None, "case"))
    assert picture.shape[1] == 1650
    greens = columns_with(picture[: int(picture.shape[0] * 0.9)], (46, 184, 134))
    axial = greens[greens < 0.29]
    assert len(axial)
    assert np.median(axial) < 0.16


@pytest.mark.parametrize(
    ("with_truth", "with_prediction"), [(True, True), (True, False), (False, True), (False, False)]
)
def test_rows_are_those_that_were_given(case, tmp_path, with_truth, with_prediction):
    series, truth, prediction = case
    path = tmp_path / "case.png"
    case_png(path, series, truth if with_truth else None, prediction if with_prediction else None, "case")
    height = imread(path).shape[0]
    alone = imread(case_png(tmp_path / "ct.png", series, None, None, "case")).shape[0]
    assert (height > 1.3 * alone) == (with_truth or with_prediction)


def test_equal_cases_make_equal_bytes(case, tmp_path):
    series, truth, prediction = case
    scores = evaluate_volume(truth, prediction)
    a = case_png(tmp_path / "a.png", series, truth, prediction, "case", scores).read_bytes()
    with matplotlib.rc_context({"image.origin": "lower", "figure.facecolor": "red", "figure.autolayout": True}):
        b = case_png(tmp_path / "b.png", series, truth, prediction, "case", scores).read_bytes()
    assert a == b
    assert matplotlib.rcParams["image.origin"] == "upper"


def test_no_more_than_a_slab_is_read_at_once(case, tmp_path):
    series, truth, prediction = case
    widest = []

    class Watched:
        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def read_planes(self, start, stop):
            widest.append(stop - start)
            return self.inner.read_planes(start, stop)

    case_png(tmp_path / "case.png", Watched(series), Watched(truth), Watched(prediction), "case")
    assert max(widest) <= SLAB_PLANES


@pytest.mark.parametrize("shape", [(1, 8, 8), (300, 6, 6), (2, 1, 1), (40, 64, 3)])
def test_volumes_of_odd_shapes_are_drawn(shape, tmp_path):
    grid = Grid.from_affine(shape, [[0, 0, 1, 0], [0, 1, 0, 0], [5, 0, 0, 0], [0, 0, 0, 1]])
    labels = np.zeros(shape, np.uint8)
    labels[0, 0, 0] = 1
    truth = FakeLabels(labels, grid, {1: "lesion"}, "truth-1")
    path = case_png(tmp_path / "case.png", FakeSeries(np.full(shape, -1000, np.int16), grid), truth, truth, "odd")
    assert max(imread(path).shape[:2]) < 6000


def test_names_from_outside_are_drawn_as_text_and_not_as_formulas(case, tmp_path):
    """RELIABILITY X9: a name may hold markup, control characters, or letters that the font lacks."""
    series, truth, _ = case
    nasty = {1: r"$\frac{a}{b$ \x1b[31m" + "\x1b\u202e\n肝臓 <b>", 2: "x" * 300}
    strange = FakeLabels(truth.voxels, truth.grid, nasty, "truth\x00$")
    case_png(tmp_path / "case.png", series, strange, strange, "$$ \x07 肝")


def test_a_hundred_classes_leave_room_for_the_picture(case, tmp_path):
    series, truth, _ = case
    many = FakeLabels(truth.voxels, truth.grid, {n: f"class {n}" for n in range(1, 118)}, "truth-1")
    usual = imread(case_png(tmp_path / "a.png", series, truth, None, "case")).shape[0]
    assert imread(case_png(tmp_path / "b.png", series, many, None, "case")).shape[0] < usual + 100


def test_a_full_disk_says_how_much_was_wanted_and_leaves_the_old_picture(case, tmp_path, monkeypatch):
    series, *_ = case
    path = tmp_path / "case.png"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(BudgetError, match=r"needs \d+ bytes"):
        case_png(path, series, None, None, "case")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("case.png", b"old")]


def test_a_folder_that_cannot_be_written_is_one_clear_line(case, tmp_path):
    series, *_ = case
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        case_png(tmp_path / "file" / "case.png", series, None, None, "case")


def test_what_is_no_plain_file_is_refused_and_left_as_it_is(case, tmp_path):
    series, *_ = case
    pipe, link, folder = tmp_path / "pipe", tmp_path / "link", tmp_path / "folder"
    os.mkfifo(pipe)
    link.symlink_to(tmp_path / "elsewhere.png")
    folder.mkdir()
    for path in (pipe, link, folder):
        with pytest.raises(UsageError, match="no plain file"):
            case_png(path, series, None, None, "case")
    assert pipe.is_fifo()
    assert link.is_symlink()
    assert folder.is_dir()


def test_pyplot_is_never_imported_and_the_door_is_light(tmp_path):
    code = """
import sys
import ctpipe.report, ctpipe.scoring, ctpipe.postprocess
heavy = {"matplotlib", "scipy", "zarr", "torch", "pandas"} & set(sys.modules)
assert not heavy, heavy
sys.path.insert(0, sys.argv[1])
from report_phantom import FakeSeries, axial_grid, np
grid = axial_grid((3, 9, 9))
ctpipe.report.case_png(sys.argv[2], FakeSeries(np.zeros((3, 9, 9), np.int16), grid), None, None, "case")
assert "matplotlib.pyplot" not in sys.modules
"""
    here = str(Path(__file__).parent)
    subprocess.run([sys.executable, "-c", code, here, str(tmp_path / "case.png")], check=True)
