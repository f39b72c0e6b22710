"""One model a worker, loaded once."""

from __future__ import annotations

from pathlib import Path

import torch
from distributed import Client, LocalCluster
from line_made import small_patient, small_recipe

from ctpipe import pipeline
from ctpipe.models import Model, build_network


def _loads() -> int:
    from ctpipe.pipeline import loaded

    return loaded._load.cache_info().misses


def test_each_worker_loads_the_model_once(tmp_path: Path) -> None:
    """Two processes of two threads each, which begin with two slabs at once, three volumes: two loads."""
    for number in range(3):
        ct, _ = small_patient(tmp_path / "dicom", number)
        pipeline.ingest([ct], tmp_path / "S")
    recipe = small_recipe(stride=[2, 8, 8])
    torch.manual_seed(3)
    network = build_network(recipe.network, 1, 3, recipe.windows.window, recipe.options)
    model = Model.of(recipe, recipe.classes, network)
    with (
        LocalCluster(n_workers=2, threads_per_worker=2, processes=True, host="127.0.0.1", memory_limit=0,
                     dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        report = pipeline.infer(tmp_path / "S", model, client=client)
        loads = client.run(_loads)
    assert (report.exit_code, sum(run.slabs for run in report.runs)) == (0, 9)
    assert list(loads.values()) == [1, 1]
