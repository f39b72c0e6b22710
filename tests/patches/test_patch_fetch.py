"""Fetch and batches: pixels of any rows equal windows of the padded volume, in any order, by whoever cuts them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st
from volumes import MemorySeries, labelled

from ctpipe.config import InputSpec
from ctpipe.errors import NotThereError, UsageError
from ctpipe.patches import PixelSteps, PlaneReader, patch_table, rows
from ctpipe.patches.order import Permutation, RowOrder
from ctpipe.patches.slab_cache import SLABS, SlabCache


@pytest.fixture(autouse=True)
def _empty_cache() -> Iterator[None]:
    SLABS.clear()
    yield
    SLABS.set_budget(256 << 20)
    SLABS.clear()


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with Client(n_workers=2, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as one:
        yield one


@pytest.fixture
def store() -> dict[str, MemorySeries]:
    made = [labelled((11, 9, 8), 1, id="a1", patient="p-1"), labelled((5, 8, 12), 2, id="b1", patient="p-2")]
    return {one.id: one for one in made}


def naive(hu: np.ndarray, window, pad: str, at, fill=-1024) -> np.ndarray:
    reach = [(w, w) for w in window]
    padded = np.pad(hu, reach, mode="edge") if pad == "edge" else np.pad(hu, reach, constant_values=fill)
    cut = tuple(slice(int(c) - w // 2 + w, int(c) - w // 2 + 2 * w) for c, w in zip(at, window, strict=True))
    return padded[cut]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_patch_equals_a_window_of_the_padded_volume(data):
    shapes = [tuple(data.draw(st.integers(1, 9)) for _ in range(3)) for _ in range(2)]
    window = tuple(data.draw(st.integers(1, 12)) for _ in range(3))
    pad = data.draw(st.sampled_from(["edge", "constant"]))
    slab = data.draw(st.sampled_from([1, 2, 4]))
    dtype = data.draw(st.sampled_from(["int16", "float32"]))
    made = {name: labelled(shape, number, slab, id=name)
            for number, (name, shape) in enumerate(zip("ab", shapes, strict=True))}
    for series in made.values():
        series.hu = series.hu.astype(dtype)
        series.dtype = dtype
        series.content = f"{shapes} {dtype} {slab}"
    table = patch_table(made, window, (1, 2, 2), pad)
    all_rows = table.compute()
    picked = all_rows.iloc[data.draw(st.lists(st.integers(0, len(all_rows) - 1), min_size=1, max_size=12))]
    SLABS.clear()
    found = table.fetch(picked)
    assert found.shape == (len(picked), *window)
    assert found.dtype == dtype
    for pixels, row in zip(found, picked.itertuples(), strict=True):
        assert np.array_equal(pixels, naive(made[row.series].hu, window, pad, (row.z, row.y, row.x)))


@pytest.mark.parametrize("pad", ["edge", "constant"])
def test_neighbouring_planes_are_channels(store, pad):
    table = patch_table(store, (1, 5, 5), (1, 3, 3), pad)
    some = table.sample(20, 1)
    found = table.fetch(some, PixelSteps(neighbours=2, apart=2))
    assert found.shape == (20, 5, 1, 5, 5)
    for pixels, row in zip(found, some.itertuples(), strict=True):
        hu = np.pad(store[row.series].hu, ((9, 9), (0, 0), (0, 0)), **(
            {"mode": "edge"} if pad == "edge" else {"constant_values": -1024}))
        for channel, offset in enumerate((-4, -2, 0, 2, 4)):
            assert np.array_equal(pixels[channel], naive(hu, (1, 5, 5), pad, (row.z + 9 + offset, row.y, row.x)))


def test_smoothed_neighbours_and_equalised_planes_are_those_of_the_plane_reader(store):
    table = patch_table(store, (1, 3, 3), (1, 2, 2))
    some = table.sample(15, 2)
    smoothed = table.fetch(some, PixelSteps(channels_mm=(0.0, 4.0), window_hu=(-200, 300)))
    equal = table.fetch(some, PixelSteps(equalise=True))
    for at, row in enumerate(some.itertuples()):
        reader = PlaneReader(store[row.series], InputSpec(channels_mm=(0.0, 4.0), window_hu=(-200, 300)))
        plane = np.pad(reader.features(row.z, row.z + 1)[0], ((0, 0), (1, 1), (1, 1)), mode="edge")
        np.testing.assert_allclose(smoothed[at, :, 0], plane[:, row.y:row.y + 3, row.x:row.x + 3], atol=1e-6)
        flat = PlaneReader(store[row.series], InputSpec(equalise=True)).features(row.z, row.z + 1)[0, 0]
        assert np.array_equal(equal[at, 0], np.pad(flat, 1, mode="edge")[row.y:row.y + 3, row.x:row.x + 3])


def test_normalisation_takes_numbers_columns_or_an_organ(store):
    table = patch_table(store, (1, 3, 3), (1, 2, 2)).assign(low="z * 10 - 500", width="100 + y")
    table = table.assign(high="low + width", deviation="x + 1.5", even="z % 2 == 0")
    some = table.sample(15, 2)
    raw = table.fetch(some).astype(np.float32)

    def per_row(name):
        return some[name].to_numpy(np.float32)[:, None, None, None]

    windowed = table.fetch(some, PixelSteps(window_hu=("low", "high")))
    wanted = np.clip((raw - per_row("low")) * 2 / per_row("width") - 1, -1, 1)
    np.testing.assert_allclose(windowed, wanted, atol=1e-5)
    np.testing.assert_allclose(table.fetch(some, PixelSteps(zscore=(40, "deviation"))),
                               (raw - 40) / per_row("deviation"), rtol=1e-5)
    medians = {name: np.sort(one.hu[one.labels["truth"].voxels == 1]) for name, one in store.items()}
    medians = {name: values[(len(values) - 1) // 2] for name, values in medians.items()}
    assert table.reference_hu("liver") == medians
    relative = table.fetch(some, PixelSteps(relative_to="liver"))
    assert np.array_equal(relative, raw - np.array([medians[name] for name in some["series"]])[:, None, None, None])
    mixed = table.fetch(some, PixelSteps(equalise="even"))
    equal = table.fetch(some, PixelSteps(equalise=True))
    even = some["even"].to_numpy(bool)
    assert np.array_equal(mixed[even], equal[even])
    assert np.array_equal(mixed[~even], raw[~even])


@pytest.mark.parametrize("wrong", [
    {"neighbours": 1, "channels_mm": (0.0,)}, {"window_hu": (0, 1), "zscore": (0, 1)},
    {"equalise": True, "zscore": (0, 1)},
    {"channels_mm": (0.0,)}, {"neighbours": -1}, {"channels_mm": (1.0,), "window_hu": ("a", 3)},
])  # fmt: skip
def test_steps_that_exclude_each_other_are_refused(wrong):
    with pytest.raises(UsageError):
        PixelSteps(**wrong)


def test_wrong_rows_and_columns_are_named(store):
    table = patch_table(store, (1, 3, 3), (1, 2, 2))
    some = table.sample(3, 2)
    with pytest.raises(NotThereError, match="column 'mean_of_it'"):
        table.fetch(some, PixelSteps(zscore=("mean_of_it", 2)))
    with pytest.raises(UsageError, match="outside the volume along y"):
        table.fetch(some.assign(y=99))
    with pytest.raises(NotThereError, match="no series 'zz'"):
        table.fetch(some.assign(series="zz"))
    with pytest.raises(UsageError, match="standard deviation"):
        table.fetch(some, PixelSteps(zscore=(0, 0)))


# ------------------------------------------------------------------------------------------------------ the cache
def test_a_budget_of_half_the_slabs_reads_through_and_gives_the_same(store):
    table = patch_table(store, (1, 5, 5), (1, 2, 2))
    some = table.sample(200, 3)
    whole = table.fetch(some)
    every = SLABS.residency
    assert every.slabs == 5
    assert every.read == 5
    table.budget(every.bytes // 2)
    assert SLABS.residency.bytes <= every.bytes // 2
    assert np.array_equal(table.fetch(some), whole)
    assert np.array_equal(table.budget(0).fetch(some), whole)
    assert table.resident()["here"]["bytes"] == 0
    assert table.memory()["pixels_resident"] == 0


def test_the_least_recently_used_slab_is_dropped_first():
    cache = SlabCache(30)
    reads = []

    def slab(name):
        return cache.get(name, lambda: reads.append(name) or np.zeros(10, np.uint8))

    for name in ("a", "b", "c", "a", "d", "a", "b"):
        slab(name)
    assert reads == ["a", "b", "c", "d", "b"]
    assert cache.residency.bytes == 30
    with pytest.raises(ValueError, match="read-only"):
        slab("a")[0] = 1


def test_what_fails_to_be_read_does_not_block_the_next_who_asks():
    cache = SlabCache(30)
    with pytest.raises(ZeroDivisionError):
        cache.get("a", lambda: 1 // 0)
    assert len(cache.get("a", lambda: np.zeros(3))) == 3


# ------------------------------------------------------------------------------------------------------ the order
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 700), st.integers(0, 2**63))
def test_a_permutation_gives_every_number_once(length, seed):
    found = Permutation(length, seed)(np.arange(length))
    assert sorted(found.tolist()) == list(range(length))


def test_a_permutation_is_drawn_by_its_seed_and_is_no_pattern():
    one, other = (Permutation(10_000, seed)(np.arange(10_000)) for seed in (1, 2))
    assert (one == other).mean() < 0.01
    assert abs(np.corrcoef(one, np.arange(10_000))[0, 1]) < 0.05


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), max_size=4).map(tuple), max_size=6).map(tuple),
       st.one_of(st.none(), st.integers(0, 99)), st.integers(1, 4), st.integers(1, 7))
def test_an_order_gives_every_row_once_however_it_is_asked(bands, seed, pool, step):
    order = RowOrder(bands, seed, pool)
    total = sum(map(sum, bands))
    assert len(order) == total
    pieces = [order.at(start, min(start + step, total)) for start in range(0, total, step)]
    found = [pair for parts, places in pieces for pair in zip(parts.tolist(), places.tolist(), strict=True)]
    wanted = [(part, place) for part, sizes in enumerate(bands) for place in range(sum(sizes))]
    assert sorted(found) == wanted
    if seed is None:
        assert found == wanted


@pytest.mark.parametrize("seed", [None, 7])
def test_batches_are_one_pass_over_the_rows_and_the_same_with_and_without_a_cluster(store, client, seed, monkeypatch):
    monkeypatch.setattr(rows, "PART_VOXELS", 1)
    alone, shared = (patch_table(store, (1, 3, 3), (1, 3, 3), where="label > 0", client=who) for who in (None, client))
    first, second = (list(table.batches(10, seed, pool=2)) for table in (alone, shared))
    assert [len(rows) for _, rows in first] == [10] * (len(alone) // 10) + [len(alone) % 10]
    for (pixels, some), (others, same) in zip(first, second, strict=True):
        assert np.array_equal(pixels, others)
        pd.testing.assert_frame_equal(some, same)
        assert np.array_equal(pixels, alone.fetch(some))
    together = pd.concat([some for _, some in first]).sort_values(["series", "z", "y", "x"], ignore_index=True)
    pd.testing.assert_frame_equal(together, alone.compute())
    shuffled = pd.concat([some for _, some in first], ignore_index=True)
    assert shuffled.equals(alone.compute()) == (seed is None)


def test_a_shuffled_table_keeps_its_order_in_head_and_batches(store):
    table = patch_table(store, (1, 3, 3), (1, 3, 3)).shuffle(5)
    [(_, batch)] = [next(iter(table.batches(6, drop_last=True)))]
    pd.testing.assert_frame_equal(table.head(6), batch)
    assert not table.head(6).equals(table.shuffle(6).head(6))
    one_slab = patch_table({"a": labelled((4, 9, 9), 1, id="a")}, (1, 3, 3), (1, 2, 2))
    assert not one_slab.shuffle(5).head(20).equals(one_slab.shuffle(6).head(20))
    assert table.shuffle(5).compute().equals(patch_table(store, (1, 3, 3), (1, 3, 3)).compute())


def test_a_transform_takes_the_place_of_the_pair(store):
    table = patch_table(store, (1, 3, 3), (2, 4, 4))
    means = list(table.batches(4, transform=lambda pixels, rows: (len(rows), float(pixels.mean()))))
    assert sum(n for n, _ in means) == len(table)


def test_a_cluster_fetches_the_same_pixels_held_or_not(store, client):
    alone, shared = (patch_table(store, (3, 5, 5), (2, 3, 3), client=who) for who in (None, client))
    some = alone.sample(60, 1)
    assert np.array_equal(shared.fetch(some), alone.fetch(some))
    assert np.array_equal(shared.persist().fetch(some), alone.fetch(some))
