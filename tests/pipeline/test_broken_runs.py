"""Runs that cannot end as they began: values that are no numbers, and memory that runs out."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from distributed import Client, LocalCluster
from line_made import AFFINE, SHAPE, same_bytes, small_recipe

from ctpipe import open_store, pipeline
from ctpipe.errors import BudgetError
from ctpipe.models import Model, Sizes, build_network, require_golden
from ctpipe.models.model import memory_errors
from ctpipe.pipeline import classifier_slab
from ctpipe.store import GroupWriter, Store, VolumeMeta
from ctpipe.volume import Grid

IDS = ("aa" * 12, "bb" * 12, "cc" * 12)
NAN_PLANE = 66


class _AnyVoxels(GroupWriter):
    """A writer that lets everything pass: how a broken volume could come into a store."""

    def _check(self, slab, voxels) -> None:
        pass


def _volume(store: Store, series_id: str, hu: np.ndarray) -> None:
    meta = VolumeMeta(id=series_id, grid=Grid.from_affine(SHAPE, AFFINE), dtype="float32", patient=f"p-{series_id[:2]}",
                      study="s", series="s", voi=None, attributes={}, provenance={})  # fmt: skip
    writer = _AnyVoxels(store.root, series_id, meta)
    with store.lease(writer.target) as lease:
        writer.prepare()
        records = [writer.write_slab(slab, hu[slab.start : slab.stop].astype(np.float32)) for slab in writer.slabs]
        writer.commit(records, lease)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three float volumes: a body, the same with NaN in one voxel, and air alone."""
    root = tmp_path_factory.mktemp("broken") / "S"
    store = open_store(root, mode="a")
    rng = np.random.default_rng(2)
    body = rng.normal(60, 40, SHAPE)
    broken = body.copy()
    broken[NAN_PLANE, 20, 21] = np.nan
    for series_id, hu in zip(IDS, (body, broken, np.full(SHAPE, -1000.0)), strict=True):
        _volume(store, series_id, hu)
    return root


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A worker in this process: what a test changes here holds for it too."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as made,
    ):
        yield made


@pytest.fixture
def store(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "S"))


def _model(seed: int = 1, **predict: object) -> Model:
    recipe = small_recipe(stride=[2, 8, 8], **predict)
    torch.manual_seed(seed)
    return Model.of(recipe, recipe.classes, build_network(recipe.network, 1, 3, recipe.windows.window, recipe.options))


def _listed(store: Path) -> dict[str, int]:
    return {series.id: len(series.labels) for series in open_store(store).values()}


def test_nan_in_a_voxel_stops_its_volume_and_names_the_plane(store: Path, client: Client) -> None:
    """RELIABILITY I1."""
    report = pipeline.infer(store, _model(), client=client)
    assert [run.series for run in report.runs] == [IDS[0], IDS[2]]
    assert report.failed.keys() == {IDS[1]}
    assert f"plane {NAN_PLANE} holds NaN" in report.failed[IDS[1]]
    assert report.exit_code == 3
    assert _listed(store) == {IDS[0]: 1, IDS[1]: 0, IDS[2]: 1}


def test_a_worker_that_computes_wrongly_computes_no_volume(
    store: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RELIABILITY I6: told by the golden case, which every process must pass before its first model."""
    right, wrong = torch.nn.functional.conv2d, [0]

    def rounded(*args, **more):
        wrong[0] += 1
        return right(*args, **more).bfloat16().float()

    require_golden.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(torch.nn.functional, "conv2d", rounded)
        report = pipeline.infer(store, _model(seed=6), [IDS[0], IDS[2]], client)
    assert report.exit_code == 3
    assert report.failed.keys() == {IDS[0], IDS[2]}
    assert all("forward passes on the cpu of this machine give wrong scores" in why for why in report.failed.values())
    assert wrong[0]
    assert not any(_listed(store).values())
    assert pipeline.infer(store, _model(seed=6), [IDS[0]], client).exit_code == 0


def _weight(network: torch.nn.Module) -> str:
    name, convolution = [(name, m) for name, m in network.named_modules() if isinstance(m, torch.nn.Conv2d)][1]
    convolution.weight[1, 2, 0, 1] = torch.nan
    return name


def _negative_infinity(network: torch.nn.Module) -> str:
    """A class that can never win: softmax makes an innocent 0 of it."""
    network.head[-1].bias[2] = -torch.inf
    return f"head.{len(network.head) - 1}"


def _overflow(network: torch.nn.Module) -> str:
    network.head[-1].weight[:] = 3e38
    return f"head.{len(network.head) - 1}"


@pytest.mark.parametrize("plant", [_weight, _negative_infinity, _overflow])
@pytest.mark.parametrize("dense", [True, False])
def test_nan_or_infinity_in_weights_and_logits_stops_the_volume_and_names_the_layer(
    store: Path, client: Client, monkeypatch: pytest.MonkeyPatch, plant, dense: bool
) -> None:
    """RELIABILITY I1: where no centre is evaluated nothing is wrong, and that volume goes on."""
    good = _model()
    layer = plant(good.network)
    model = Model.of(good.recipe, good.recipe.classes, good.network)
    if not dense:
        from ctpipe.models.dense import NotExact

        monkeypatch.setattr(Model, "dense", lambda self, stride: NotExact(()))
    report = pipeline.infer(store, model, [IDS[0], IDS[2]], client)
    assert [run.series for run in report.runs] == [IDS[2]]
    assert report.failed.keys() == {IDS[0]}
    assert re.match(rf"series {IDS[0]}, plane \d+: layer {layer} of model", report.failed[IDS[0]])
    assert _listed(store) == {IDS[0]: 0, IDS[1]: 0, IDS[2]: 1}


def _short_of_memory(monkeypatch: pytest.MonkeyPatch, windows: int) -> list[int]:
    """More than so many windows at a time find no memory on the last slab. Gives the sizes that slabs ran with."""
    seen: list[int] = []
    kept = classifier_slab._scored

    def scored(model: Model, series, task):
        seen.append(model.sizes.micro_batch)
        if task.slab.index == 2 and model.sizes.micro_batch > windows:
            with memory_errors():
                torch.empty(1 << 50)
        return kept(model, series, task)

    monkeypatch.setattr(classifier_slab, "_scored", scored)
    return seen


def test_out_of_memory_begins_the_volume_again_with_half_the_micro_batch(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RELIABILITY I5, DESIGN 3: its own key, said in the record of the first, found by the next call, never mixed."""
    model = _model(micro_batch=64)
    seen = _short_of_memory(monkeypatch, 16)
    [run] = pipeline.infer(store, model, series=IDS[0]).runs
    assert seen == [64, 64, 64, 32, 32, 32, 16, 16, 16]
    opened = open_store(store)
    first, second = (key for key in _chain(opened, run.run) if key != run.run)
    assert opened.run(first)["continued_as"] == second
    assert opened.run(second)["continued_as"] == run.run
    assert opened.run(run.run)["settings"]["micro_batch"] == 16
    assert list(opened[IDS[0]].labels) == [run.run]
    assert not opened[IDS[0]].in_progress

    again = pipeline.infer(store, model, series=IDS[0]).runs[0]
    assert (again.run, again.known) == (run.run, True)
    shutil.rmtree(store / f"{IDS[0]}.ome.zarr" / "labels" / run.run)
    seen.clear()
    [anew] = pipeline.infer(store, model, series=IDS[0]).runs
    assert (anew.run, seen) == (run.run, [16, 16, 16])

    monkeypatch.undo()
    straight = Path(shutil.copytree(store, tmp_path / "straight"))
    shutil.rmtree(straight / "runs")
    shutil.rmtree(straight / f"{IDS[0]}.ome.zarr" / "labels")
    sized = model.sized(Sizes(16, 64 << 20))
    [whole] = pipeline.infer(straight, sized, series=IDS[0]).runs
    assert whole.run == run.run
    assert same_bytes(straight) == same_bytes(store)


def _chain(store: Store, last: str) -> list[str]:
    """Keys of the runs that went on as `last`, the first of them first."""
    before = {record["continued_as"]: key for key, record in store.runs().items() if "continued_as" in record}
    chain = [last]
    while chain[0] in before:
        chain.insert(0, before[chain[0]])
    return chain


def test_where_nothing_smaller_is_left_the_call_says_so(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _short_of_memory(monkeypatch, 0)
    with pytest.raises(BudgetError, match=rf"series {IDS[0]}: out of memory even with 16 windows"):
        pipeline.infer(store, _model(), series=IDS[0])
    assert _listed(store)[IDS[0]] == 0
