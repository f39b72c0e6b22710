"""A model's scores and its folder."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ctpipe.config import Recipe, recipe_from_dict
from ctpipe.errors import CtpipeError, NotThereError, RunError, StoreFaultError, UsageError
from ctpipe.models import Model, build_network, load_model

RECIPE = {
    "name": "tiny", "network": "vgg-small", "options": {"widths": [4, 6, 8, 10]}, "classes": ["liver", "lesion"],
    "windows": {"window": [1, 36, 36], "stride": [1, 4, 4]}, "input": {"channels_mm": [0, 2]},
    "train": {"steps": 2, "epochs": 1, "batch": 2}, "predict": {"stride": [1, 4, 4], "micro_batch": 8},
}  # fmt: skip


def _recipe(**changes: object) -> Recipe:
    return recipe_from_dict(RECIPE | changes)


def _model(seed: int = 0, before: Model | None = None, **changes: object) -> Model:
    torch.manual_seed(seed)
    recipe = _recipe(**changes)
    network = build_network("vgg-small", 2, 3, recipe.windows.window, recipe.options)
    return Model.of(recipe, recipe.classes, network, before, training={"best_epoch": 1})


def _windows(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 2, 36, 36), np.float32)


def test_scores_are_probabilities_of_every_window() -> None:
    scores = _model().scores(_windows(11))
    assert scores.shape == (11, 3)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-6)
    assert _model().scores(_windows(0)).shape == (0, 3)


@pytest.mark.parametrize("micro_batch", [5, 8, 16, 64])
def test_scores_do_not_depend_on_grouping_or_order(micro_batch: int) -> None:
    """I4: every forward pass has the same size, and a window's bits are its own in every row of it."""
    model, windows = _model(predict={"stride": [1, 4, 4], "micro_batch": micro_batch}), _windows(29)
    together = model.scores(windows)
    apart = np.concatenate([model.scores(windows[:1]), model.scores(windows[1:14]), model.scores(windows[14:])])
    order = np.random.default_rng(1).permutation(29)
    assert together.tobytes() == apart.tobytes()
    assert model.scores(windows[order]).tobytes() == together[order].tobytes()


def test_scores_are_those_of_the_trained_network() -> None:
    model, windows = _model(), _windows(5)
    with torch.inference_mode():
        expected = torch.softmax(model.network(torch.from_numpy(windows))[:, :, 0, 0], 1).numpy()
    np.testing.assert_allclose(model.scores(windows), expected, atol=1e-5)


def test_torch_takes_the_threads_of_the_recipe() -> None:
    before = torch.get_num_threads()
    try:
        _model(predict={"stride": [1, 4, 4], "threads": 2}).scores(_windows(1))
        assert torch.get_num_threads() == 2
        _model().scores(_windows(1))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_a_value_that_is_no_number_is_an_error_never_a_class() -> None:
    windows = _windows(3)
    windows[1, 0, 5, 5] = np.nan
    with pytest.raises(RunError, match="pixels of a window are NaN"):
        _model().scores(windows)
    broken = _model()
    broken.network.head[-1].weight[:] = float("inf")
    with pytest.raises(RunError, match=r"layer head.4 of model \w+ gave a value that is NaN"):
        Model(broken.spec, broken.network).scores(_windows(1))


def test_windows_of_another_shape_are_refused() -> None:
    with pytest.raises(UsageError, match=r"\(2, 36, 36\)"):
        _model().scores(np.zeros((1, 2, 40, 36), np.float32))


def test_a_saved_model_comes_back_with_its_scores_and_digest_wherever_it_lies(tmp_path: Path) -> None:
    first = _model(1, classes=["liver", "other"], name="first")
    model = _model(2, before=first)
    model.save(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "elsewhere" / "b")
    again = load_model(tmp_path / "elsewhere" / "b")
    assert again.spec == model.spec
    assert again.recipe == model.recipe
    assert again.digest == model.digest == load_model(tmp_path / "a").digest
    assert again.before is not None
    assert again.before.digest == first.digest
    assert again.scores(_windows(9)).tobytes() == model.scores(_windows(9)).tobytes()


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    _model().save(tmp_path / "a")
    _model().save(tmp_path / "b")
    for name in ("model.json", "weights.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_digest_changes_with_weights_recipe_and_the_model_before() -> None:
    digests = {_model().digest, _model(1).digest, _model(before=_model(1)).digest,
               _model(predict={"stride": [1, 4, 4], "micro_batch": 24}).digest}
    assert len(digests) == 4


class _Trap:
    def __reduce__(self) -> tuple[object, ...]:
        return (exec, ("raise SystemExit('code of a model file ran')",))


@pytest.mark.parametrize("kind", ["pickle", "torch", "renamed"])
def test_a_pickle_is_refused_and_not_loaded(tmp_path: Path, kind: str) -> None:
    path = tmp_path / {"pickle": "model.pkl", "torch": "model.pt", "renamed": "model.bin"}[kind]
    if kind == "torch":
        torch.save(_Trap(), path)
    else:
        path.write_bytes(pickle.dumps(_Trap()))
    with pytest.raises(UsageError, match=r"pickle or an archive.*not loaded") as caught:
        load_model(path)
    assert caught.value.exit_code == 2


def test_a_pickle_in_place_of_the_weights_is_refused_and_not_loaded(tmp_path: Path) -> None:
    _model().save(tmp_path / "m")
    torch.save(_Trap(), tmp_path / "m" / "weights.safetensors")
    with pytest.raises(UsageError, match="not loaded"):
        load_model(tmp_path / "m")


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotThereError, match="is no model"):
        load_model(tmp_path)
    with pytest.raises(NotThereError, match="is no model"):
        load_model(tmp_path / "absent")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(UsageError, match="is a file, not a model"):
        load_model(tmp_path / "text")


def _spoil(folder: Path, what: str) -> None:
    spec, weights = folder / "model.json", folder / "weights.safetensors"
    if what == "bit in the weights":
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
    elif what == "weights gone":
        weights.unlink()
    elif what == "digit in the spec":
        spec.write_text(spec.read_text().replace('"micro_batch": 16', '"micro_batch": 32'))
    elif what == "half a spec":
        spec.write_text(spec.read_text()[:100])
    elif what == "format":
        spec.write_text(json.dumps({"format": "something-2"}))
    elif what == "another model before":
        _model(7).save(folder / "before")


@pytest.mark.parametrize("what", ["bit in the weights", "weights gone", "digit in the spec", "half a spec", "format",
                                  "another model before"])  # fmt: skip
def test_a_changed_model_is_an_error_never_another_model(tmp_path: Path, what: str) -> None:
    """I2: a model is what its digest says."""
    _model(before=_model(1)).save(tmp_path / "m")
    _spoil(tmp_path / "m", what)
    with pytest.raises(StoreFaultError) as caught:
        load_model(tmp_path / "m")
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CtpipeError, match="cannot write a model"):
        _model().save(tmp_path / "file" / "model")
