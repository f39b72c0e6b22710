"""What forward passes run on, and how precisely."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from segmenters_made import NNUNET, grid_of, segmenter, streamed, volume_of

from ctpipe.errors import UsageError
from ctpipe.models import Segmenter
from ctpipe.pipeline import infer
from ctpipe.volume import slabs_of
from ctpipe.words import Device

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


def halved(model: Segmenter) -> Segmenter:
    return Segmenter(replace(model.spec, precision="bfloat16"), model.networks)


def test_a_run_on_a_gpu_that_is_not_there_is_refused_before_any_work(tmp_path) -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    with pytest.raises(UsageError, match=r"no GPU .*--device cpu"):
        infer(_store(tmp_path), _saved(tmp_path), device="cuda")
    with pytest.raises(UsageError, match="device 'tpu' is unknown; cure: choose one of: cpu, cuda"):
        infer(_store(tmp_path), _saved(tmp_path), device="tpu")


def test_bfloat16_is_another_model_whose_labels_are_the_same_in_any_grouping() -> None:
    """I1, and MODELS 8: products are rounded, sums over windows are whole numbers as ever."""
    model = segmenter(**NNUNET)
    hu, grid = volume_of((70, 20, 24)), grid_of((70, 20, 24))
    found = streamed(halved(model), hu, grid)
    assert halved(model).digest != model.digest
    windows = np.random.default_rng(0).normal(size=(2, *model.spec.patch)).astype(np.float32)
    whole, rounded = model.scores(windows).scores, halved(model).scores(windows).scores
    assert 1e-5 < np.abs(whole - rounded).max() < 0.1
    assert rounded.dtype == np.float32
    assert np.array_equal(streamed(halved(model), hu, grid, [[slab] for slab in slabs_of(70)]), found)


@needs_gpu
def test_a_gpu_gives_the_labels_of_the_cpu_but_for_ties() -> None:
    model = segmenter(**NNUNET)
    hu, grid = volume_of((70, 40, 48)), grid_of((70, 40, 48))
    expected = streamed(model, hu, grid)
    found = streamed(model.on(Device.CUDA), hu, grid)
    assert (found != expected).mean() < 1e-4
    assert np.array_equal(streamed(model, hu, grid, [[slab] for slab in slabs_of(70)]), found)


def _store(folder):
    from ctpipe.dicom import write_ct_series
    from ctpipe.pipeline import ingest

    if not (folder / "S").exists():
        shape = (6, 16, 20)
        write_ct_series(folder / "CT", volume_of(shape), grid_of(shape), patient="SYN", study_key="device")
        ingest([folder / "CT"], folder / "S")
    return folder / "S"


def _saved(folder):
    segmenter(**NNUNET).save(folder / "M")
    return folder / "M"
