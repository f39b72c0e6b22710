"""What the store keeps for reviews: which one is the newest, and how unsure models are of its volumes."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import store_made as made

from ctpipe.errors import StoreFaultError, UsageError
from ctpipe.store import Store, collect_garbage, open_store, remove
from ctpipe.words import LabelKind

SHAPE = (40, 60, 50)


def reviewed(root: Path, names: list[str]) -> Store:
    store = made.store_of(root, SHAPE)
    series = store[made.ID]
    for number, name in enumerate(names):
        voxels = np.full(SHAPE, number % 2, np.uint8)
        meta = made.labels_meta(series.grid, name, LabelKind.REVIEW)
        made.put(store, store.labels_writer(made.ID, meta), voxels)
    return store


def test_the_newest_review_is_the_last_committed_whatever_its_name(tmp_path) -> None:
    store = reviewed(tmp_path / "S", ["review-b", "review-c", "review-a"])
    labels = store[made.ID].labels
    assert labels["review"].name == "review-a"
    assert "review" in labels
    remove(store, "review-a")
    assert open_store(store.root)[made.ID].labels["review"].name == "review-c"
    assert "review" not in made.store_of(tmp_path / "other", SHAPE)[made.ID].labels


def test_a_review_that_was_not_counted_is_older_than_one_that_was(tmp_path) -> None:
    """Stores of a ctpipe before reviews had numbers open as they are."""
    from ctpipe.store import commit
    store = reviewed(tmp_path / "S", ["review-b", "review-z"])
    path = store[made.ID].labels["review-z"].path / "zarr.json"
    document = commit.unsealed(path.read_bytes(), "it", "attributes", "ctpipe")
    del document["attributes"]["ctpipe"]["sequence"]
    path.write_bytes(commit.sealed(document, "attributes", "ctpipe"))
    assert open_store(store.root)[made.ID].labels["review"].name == "review-b"


def test_no_labels_can_take_the_name_of_the_alias(tmp_path) -> None:
    store = made.store_of(tmp_path / "S", SHAPE)
    with pytest.raises(UsageError, match="not a name"):
        made.labels_meta(store[made.ID].grid, "review")


def test_uncertainty_is_read_without_a_model_the_last_noted_first(tmp_path) -> None:
    store = made.store_of(tmp_path / "S", SHAPE)
    assert store.uncertainty() == {}
    store.note_uncertainty("beef", {"s1": 0.25})
    store.note_uncertainty("cafe", {"s1": 0.5})
    store.note_uncertainty("cafe", {"s2": 0.75})
    assert open_store(store.root).uncertainty() == {"s1": 0.5, "s2": 0.75}
    assert store.uncertainty("beef") == {"s1": 0.25}
    stated = json.loads((store.root / "reviews" / "uncertainty-cafe.json").read_text())
    assert (stated["model"], stated["series"]) == ("cafe", {"s1": 0.5, "s2": 0.75})


def test_two_that_note_at_once_lose_nothing(tmp_path) -> None:
    store = made.store_of(tmp_path / "S", SHAPE)
    threads = [threading.Thread(target=store.note_uncertainty, args=("beef", {f"s{n}": n / 10})) for n in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert store.uncertainty("beef") == {f"s{n}": n / 10 for n in range(8)}


def test_a_changed_file_is_an_error_and_a_removed_volume_is_in_none(tmp_path) -> None:
    store = made.store_of(tmp_path / "S", SHAPE)
    store.note_uncertainty("beef", {made.ID: 0.5, "other": 0.25})
    assert collect_garbage(store) == []
    remove(store, made.ID)
    assert store.uncertainty("beef") == {"other": 0.25}
    path = store.root / "reviews" / "uncertainty-beef.json"
    path.write_text(path.read_text().replace("0.25", "0.75"))
    with pytest.raises(StoreFaultError, match="beef"):
        store.uncertainty("beef")


def test_a_store_open_for_reading_takes_no_note(tmp_path) -> None:
    root = made.store_of(tmp_path / "S", SHAPE).root
    with pytest.raises(UsageError, match="open for reading"):
        open_store(root).note_uncertainty("beef", {"s1": 0.5})
