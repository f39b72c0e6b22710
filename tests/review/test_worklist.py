"""The worklist on napari's ViewerModel: rows, orders, filters, decisions; the next case is there before it is asked."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from worklist_store import FIRST, SECOND, A, B, C, D, add_labels

from ctpipe.errors import NotThereError, StoreFaultError, UsageError
from ctpipe.review import case_scores, lazy
from ctpipe.review.case_status import Decision, Status, add_status, read_status
from ctpipe.review.cases import Case, Order, arranged, passing
from ctpipe.review.preload import BlockCache
from ctpipe.review.session import ReviewSession
from ctpipe.review.worklist import Worklist
from ctpipe.store import open_store
from ctpipe.store.reader import LevelArray
from ctpipe.words import LabelKind


@pytest.fixture
def make(cases_path):
    """Makes worklists on the store of four cases; closes their sessions at the end."""
    made = []

    def one(path=cases_path, reviewer="p-01", **options) -> Worklist:
        made.append(Worklist(ReviewSession(ViewerModel(), path, reviewer), **options))
        return made[-1]

    yield one
    for worklist in made:
        worklist.preloader.stop()
        worklist.preloader.wait()
        worklist.session.close()


@pytest.fixture
def worklist(make) -> Worklist:
    return make()


def compute(worklist: Worklist) -> None:
    for series, figures in worklist.score_steps():
        worklist.take_figures(series, figures)


def order_of(worklist: Worklist) -> list[str]:
    return [case.series for case in worklist.cases]


def test_a_row_says_what_the_store_knows(worklist):
    case = worklist[A]
    assert (case.patient, case.shape) == ("p-1", (40, 160, 144))
    assert case.spacing_mm == pytest.approx((2.5, 0.6, 1.2))
    assert case.labels == ("truth-0123456789abcdef", FIRST, SECOND), "the oldest first"
    assert case.runs == (FIRST, SECOND)
    assert (case.on_show, worklist[D].on_show) == (SECOND, None)
    assert (case.status, case.dice, case.disagreement, case.volumes_ml) == (Status.TODO, None, None, None)


def test_figures_are_those_of_evaluate_and_are_computed_once(worklist, make, cases_path, monkeypatch):
    from ctpipe import pipeline

    compute(worklist)
    scores = pipeline.evaluate(cases_path, SECOND).as_json()["series"]
    for series in (A, B):
        expected = {name: values["dice"] for name, values in scores[series]["classes"].items()}
        assert worklist[series].dice == pytest.approx(expected, abs=1e-6)
        voxels = scores[series]["classes"]["lesion"]["predicted_voxels"]
        assert worklist[series].volume_of("lesion") == pytest.approx(voxels * 2.5 * 0.6 * 1.2 / 1000, abs=1e-3)
    # six planes of lesion: the runs on A hold 5 and 4 of them, on B 3 and 4
    lesion_a, lesion_b = 1 - 8 / 9, 1 - 6 / 7
    assert worklist[A].disagreement == pytest.approx(lesion_a / 2, abs=1e-3)
    assert worklist[B].disagreement == pytest.approx(lesion_b / 2, abs=2e-3)
    assert (worklist[C].dice, worklist[C].disagreement) == (None, None)

    def never(*_args, **_options):
        raise AssertionError("computed again")

    monkeypatch.setattr(case_scores, "_dice", never)
    monkeypatch.setattr(case_scores, "_volumes_ml", never)
    again = make()
    assert again[A].dice == worklist[A].dice
    compute(again)


def test_figures_of_other_voxels_are_never_taken(worklist, make, cases_path):
    compute(worklist)
    before = worklist[C].volumes_ml
    voxels = open_store(cases_path)[C].labels[FIRST].read_planes(0, 40)
    add_labels(cases_path, C, SECOND, LabelKind.PREDICTION, np.where(voxels == 2, 0, voxels).astype(np.uint8), 3000)
    again = make()
    assert again[C].volumes_ml is None
    compute(again)
    assert again[C].volumes_ml == {"liver": before["liver"], "lesion": 0.0}


def test_the_stage_before_a_run_is_no_second_opinion(make, cases_path):
    voxels = open_store(cases_path)[C].labels[FIRST].read_planes(0, 40)
    add_labels(cases_path, C, SECOND, LabelKind.PREDICTION, voxels, 3000, before=FIRST)
    worklist = make()
    compute(worklist)
    assert worklist[C].runs == (FIRST, SECOND)
    assert worklist[C].disagreement is None


def test_a_damaged_cache_is_made_again(worklist, make, cases_path):
    compute(worklist)
    (cases_path / "reviews" / f"{A}.scores.json").write_bytes(b"{torn")
    again = make()
    assert again[A].dice is None
    compute(again)
    assert again[A].dice == worklist[A].dice


def test_a_disk_that_takes_no_figures_is_no_harm(worklist, monkeypatch):
    from ctpipe.errors import BudgetError

    def full(*_args):
        raise BudgetError("the disk is full", "free some space")

    monkeypatch.setattr(case_scores.files, "write_atomic", full)
    compute(worklist)
    assert worklist[A].dice is not None
    assert not (worklist.session.store.root / "reviews").exists()


def test_orders_put_the_telling_case_first(worklist, cases_path):
    compute(worklist)
    worklist.arrange("dice")
    assert order_of(worklist)[:2] == [B, A], "the worst first, what is not known last"
    worklist.arrange("disagreement")
    assert order_of(worklist)[:2] == [B, A]
    worklist.arrange("volume", "lesion")
    assert order_of(worklist) == [C, A, B, D]
    with pytest.raises(UsageError, match="no labels hold a class 'spleen'; cure: choose among: liver, lesion"):
        worklist.arrange("volume", "spleen")
    with pytest.raises(UsageError, match="order 'size' is unknown"):
        worklist.arrange("size")


def test_the_least_certain_case_comes_first_without_a_model(make, cases_path):
    for model, series in (("m1", {A: 0.9}), ("m2", {C: 0.4, B: 0.1})):
        open_store(cases_path, "a").note_uncertainty(model, series)
    worklist = make()
    assert order_of(worklist) == [C, B, A, D]
    assert [worklist[series].uncertainty for series in (A, B, C)] == [None, 0.1, 0.4], "of the newest model"
    worklist.arrange("uncertainty")
    assert order_of(worklist)[:2] == [C, B]


def test_filters_by_status_and_words(worklist):
    worklist.open(A)
    worklist.flag("check the dome")
    worklist.ask_for("flagged")
    assert order_of(worklist) == [A]
    worklist.ask_for(None, "DOME check")
    assert order_of(worklist) == [A]
    worklist.ask_for("todo", D[:6])
    assert order_of(worklist) == [D]
    with pytest.raises(UsageError, match="status 'done' is unknown"):
        worklist.ask_for("done")


def test_next_and_previous_step_through_the_cases_asked_for(worklist):
    worklist.arrange("patient")
    seen = []
    worklist.opened.connect(seen.append)
    assert worklist.open() == f"case 1 of 4: p-1, {A[:8]}"
    worklist.next()
    worklist.next()
    worklist.previous()
    assert seen == [A, B, C, B]
    assert worklist.session.series.id == B
    worklist.ask_for("todo", D)
    worklist.next()
    assert worklist.next() == "that was the last case"
    assert worklist.current == D
    worklist.ask_for()
    assert "first case" in [worklist.previous() for _ in range(4)][-1]


def test_a_case_is_shown_to_be_read_with_the_labels_to_judge(worklist):
    worklist.open(A)
    layers = worklist.session.viewer.layers
    assert [layer.name for layer in layers] == [f"CT {A[:8]}", f"prediction {SECOND[:8]}"]
    assert layers.selection.active is layers[0]
    assert worklist.session.copy is None
    assert not (worklist.session.store.root / "reviews").exists(), "reading writes nothing"
    plane = (worklist.session.viewer.dims.point[0] - 100) / 2.5
    assert 16 <= plane < 22, "a plane of the lesion"


def test_an_accepted_case_says_which_labels_by_whom_and_for_how_long(worklist, cases_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("ctpipe.review.worklist.time.monotonic", lambda: clock[0])
    worklist.arrange("patient")
    worklist.open()
    clock[0] += 30
    worklist.next()
    clock[0] += 5
    worklist.previous()
    clock[0] += 12
    line = worklist.accept()
    decision = read_status(cases_path, A).newest()
    assert (decision.status, decision.labels, decision.reviewer) == (Status.ACCEPTED, SECOND, "p-01")
    assert decision.seconds == 42
    assert line.startswith(f"{A[:8]} accepted; case 2 of 4")
    assert (worklist.current, worklist[A].status, worklist[A].seconds) == (B, Status.ACCEPTED, 42)
    worklist.reject("motion")
    assert read_status(cases_path, B).newest().seconds == 5


def test_an_accepted_correction_is_saved_first(worklist, cases_path):
    worklist.arrange("patient")
    worklist.open()
    worklist.session.edit(SECOND)
    worklist.session.layer.paint((12, 80, 70), 2)
    worklist.accept()
    decision = read_status(cases_path, A).newest()
    assert decision.status is Status.CORRECTED
    assert open_store(cases_path)[A].labels[decision.labels].kind is LabelKind.REVIEW
    assert worklist[A].on_show == decision.labels
    worklist.session.edit(SECOND)  # of B; nothing is painted
    worklist.accept()
    assert read_status(cases_path, B).newest().status is Status.ACCEPTED
    worklist.open(A)  # the copy is taken up again, and nothing new is in it
    worklist.accept()
    assert read_status(cases_path, A).newest().labels == decision.labels


def test_a_copy_under_way_is_taken_up_again(worklist, make):
    worklist.open(A)
    folder = worklist.session.edit(SECOND).folder
    worklist.session.close()
    again = make()
    assert again[A].copy_under_way
    again.open(A)
    assert again.session.copy.folder == folder
    assert again.session.viewer.layers.selection.active is again.session.viewer.layers[0]
    other = make(reviewer="p-02")
    other.open(A)
    assert other.session.copy is None


def test_decisions_of_two_reviewers_are_both_kept_and_the_conflict_is_shown(worklist, make):
    """RELIABILITY R3."""
    worklist.open(A)
    worklist.accept()
    other = make(reviewer="p-02")
    assert other[A].status is Status.ACCEPTED
    other.open(A)
    other.reject()
    worklist.refresh()
    assert worklist[A].in_conflict
    worklist.open(A)
    worklist.put_back()
    assert worklist.current == A
    assert not worklist[A].in_conflict


def test_a_blinded_reviewer_sees_no_truth_no_dice_and_no_other_reviewer(worklist, make, cases_path):
    compute(worklist)
    worklist.open(A)
    worklist.flag("look at segment 4")
    voxels = open_store(cases_path)[A].labels[FIRST].read_planes(0, 40)
    add_labels(cases_path, A, "review-1", LabelKind.REVIEW, voxels, 5000, reviewer="p-01")
    blinded = make(reviewer="p-02", blinded=True)
    case = blinded[A]
    assert case.labels == (FIRST, SECOND)
    assert (case.status, case.comment, case.dice, case.in_conflict) == (Status.TODO, "", None, False)
    blinded.open(A)
    assert [layer.name for layer in blinded.session.viewer.layers][1:] == [f"prediction {SECOND[:8]}"]
    own = make(reviewer="p-01", blinded=True)
    assert own[A].on_show == "review-1"


def test_the_next_case_is_in_memory_before_it_is_asked_for(worklist, monkeypatch):
    """Opened, shown on its plane, and looked at on every level of it, without a read of the store's arrays."""
    monkeypatch.setattr(lazy, "BLOCKS", lazy.SlabCache(64 << 20))
    worklist.arrange("patient")
    worklist.open()
    worklist.preloader.wait()
    plain, reads = LevelArray.read, []
    monkeypatch.setattr(LevelArray, "read", lambda self, *cut: reads.append((self.what, cut)) or plain(self, *cut))
    with monkeypatch.context() as patch:
        patch.setattr(worklist.preloader, "load", lambda *_: None)
        worklist.next()
    assert worklist.current == B
    image, labels = worklist.session.viewer.layers
    plane = round((worklist.session.viewer.dims.point[0] - 100) / 2.5)
    shown = [np.asarray(layer.data[0][plane]) for layer in (image, labels)]
    for layer in (image, labels):
        np.asarray(layer.data[1])
    assert reads == []
    series = worklist.session.series
    assert np.array_equal(shown[0], series.read_planes(plane, plane + 1)[0])
    assert np.array_equal(shown[1], series.labels[SECOND].read_planes(plane, plane + 1)[0])
    assert reads


def test_a_cut_across_blocks_that_are_read_ahead_is_the_stores(cases_path):
    cache = BlockCache()
    series = open_store(cases_path)[A]
    ahead = cache.of(series).arrays[0]
    cut = (20, 37, slice(3, 90), slice(7, 144))
    assert cache.cut(series, 20, 37, 0) is None
    assert np.array_equal(ahead.read(*cut), series.arrays[0].read(*cut)), "nothing is in memory"
    for start, stop in ((0, 32), (32, 40)):
        cache.load(series, start, stop, 0, set())
    assert len(cache.cut(series, 20, 37, 0)) == 2
    assert np.array_equal(ahead.read(*cut), series.arrays[0].read(*cut))


def test_what_is_read_ahead_stays_under_its_budget(cases_path):
    store, cache = open_store(cases_path), BlockCache(budget=2_500_000)
    series = store[A]
    spare: set = set()
    assert cache.load(series, 0, 32, 0, spare)  # 1.47 MB
    assert cache.load(series, 32, 40, 0, spare)
    assert not cache.load(store[B], 0, 32, 0, spare), "what was read for the same case is not let go"
    assert cache.held <= cache.budget
    assert cache.load(store[B], 0, 32, 0, set()), "what an earlier case left is"
    assert cache.held <= cache.budget
    assert np.array_equal(cache.of(store[B]).read_planes(0, 32), store[B].read_planes(0, 32))


def test_a_rotten_case_is_told_and_the_others_go_on(worklist, make, cases_path):
    path = cases_path / f"{B}.ome.zarr" / "zarr.json"
    path.write_bytes(path.read_bytes().replace(b"p-1", b"p-2"))
    again = make()
    assert len(again) == 3
    assert any(B in note for note in again.notes)
    again.arrange("patient")
    for file in (cases_path / f"{A}.ome.zarr" / "labels" / SECOND).rglob("*"):
        if file.is_file() and file.name != "zarr.json":
            file.write_bytes(b"rotten")
    with pytest.raises(StoreFaultError):
        again.open(A)
    again.next()
    assert again.current == C


def test_an_empty_store_and_an_empty_list_are_said(worklist, make, tmp_path):
    open_store(tmp_path / "none", "a")
    with pytest.raises(NotThereError, match="holds no volume"):
        make(tmp_path / "none").open()
    worklist.ask_for("rejected")
    with pytest.raises(NotThereError, match=r"none of 4 cases is asked for \(rejected\)"):
        worklist.open()
    with pytest.raises(UsageError, match="no case is on show"):
        make().accept()


def test_figures_that_are_not_known_sort_last_and_equals_by_id():
    rows = [Case("d", "p", (1, 1, 1), (1, 1, 1)), Case("c", "p", (1, 1, 1), (1, 1, 1), uncertainty=0.0),
            Case("b", "p", (1, 1, 1), (1, 1, 1), uncertainty=0.5), Case("a", "p", (1, 1, 1), (1, 1, 1))]  # fmt: skip
    assert [case.series for case in arranged(rows, Order.UNCERTAINTY)] == ["b", "c", "a", "d"]
    done = [Case("a", "p", (1, 1, 1), (1, 1, 1), status=Status.ACCEPTED, uncertainty=1.0), *rows[:2]]
    assert [case.series for case in arranged(done, Order.DUE)] == ["c", "d", "a"], "what is done comes last"
    assert [case.series for case in arranged(done, Order.STATUS)] == ["c", "d", "a"]
    assert passing(done, Status.ACCEPTED) == done[:1]


def test_decisions_made_elsewhere_are_there_after_a_refresh(worklist, cases_path):
    add_status(cases_path, Decision(C, Status.REJECTED, "p-09", comment="cut off"))
    assert worklist[C].status is Status.TODO
    worklist.refresh()
    assert (worklist[C].status, worklist[C].reviewer, worklist[C].comment) == (Status.REJECTED, "p-09", "cut off")
