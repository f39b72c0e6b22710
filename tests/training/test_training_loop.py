"""fit: it learns, repeats, takes the best epoch of a patient that it did not learn from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_case import BallSeries, ball_recipe, reader_of, table_of

from ctpipe.config import Recipe
from ctpipe.errors import NotThereError, RunError, UsageError
from ctpipe.models import load_model
from ctpipe.training import FitResult, curve_png, fit
from ctpipe.training.loop import rate
from ctpipe.training.validation import ValidationSet

SERIES = [BallSeries(1), BallSeries(2), BallSeries(3)]


def _fit(recipe: Recipe, **settings: Any) -> FitResult:
    train, validate = table_of(recipe, SERIES[:2]), table_of(recipe, SERIES[2:])
    return fit(train, validate, recipe, reader_of=reader_of(recipe, SERIES), **settings)


def test_a_ball_is_learnt_and_found_in_a_patient_never_seen() -> None:
    seen: list[tuple[str, int, int]] = []
    recipe = ball_recipe(train__steps=60)
    result = _fit(recipe, progress=lambda *at: seen.append(at))
    assert result.curves["dice_ball"][result.best_epoch - 1] > 0.8
    assert result.curves["dice_organ"][result.best_epoch - 1] > 0.8
    assert result.curves["loss"].iloc[-1] < result.curves["loss"].iloc[0]
    assert seen[0] == ("train", 1, 60)
    assert seen[-1] == ("train", 60, 60)
    assert result.model.spec.training["best_epoch"] == result.best_epoch
    assert result.model.spec.classes == ("organ", "ball")


def test_training_twice_gives_the_same_weights_and_digest(tmp_path: Path) -> None:
    """V8: same input, same bytes, also after other random numbers were drawn in this process."""
    recipe = ball_recipe(options__dropout=0.3)
    first = _fit(recipe)
    torch.manual_seed(99)
    np.random.default_rng().random(3)
    second = _fit(recipe)
    assert first.model.digest == second.model.digest
    assert first.curves.equals(second.curves)
    assert _fit(ball_recipe(options__dropout=0.3, train__seed=1)).model.digest != first.model.digest
    first.model.save(tmp_path / "m")
    assert load_model(tmp_path / "m").digest == first.model.digest


@pytest.mark.parametrize(("scores", "best"), [([0.3, 0.7, 0.5], 2), ([0.9, 0.7, 0.7], 1), ([0.7, 0.701, 0.695], 3),
                                              ([0.7, 0.695, 0.8], 3), ([0.7, 0.695, 0.689], 2)])  # fmt: skip
def test_the_last_epoch_as_good_as_the_best_is_taken_with_its_own_weights(
    monkeypatch: pytest.MonkeyPatch, scores: list[float], best: int
) -> None:
    states: list[dict[str, torch.Tensor]] = []
    coming = iter(scores)

    def dice(self: ValidationSet, network: torch.nn.Module) -> dict[str, float]:
        states.append({key: value.clone() for key, value in network.state_dict().items()})
        return {"organ": next(coming), "ball": float("nan")}

    monkeypatch.setattr(ValidationSet, "dice", dice)
    result = _fit(ball_recipe(train__steps=6))
    assert result.best_epoch == best
    assert result.curves["chosen"].tolist() == [epoch == best for epoch in (1, 2, 3)]
    found = result.model.network.state_dict()
    for epoch, state in enumerate(states, 1):
        assert all(torch.equal(found[key], value) for key, value in state.items()) == (epoch == best)


def test_a_patient_in_both_tables_is_refused() -> None:
    """V7: the patient that chooses the epoch was not learnt from."""
    recipe = ball_recipe()
    other = [BallSeries(4, patient="p-1")]
    with pytest.raises(RunError, match="patient p-1 is in the training and in the validation table"):
        fit(table_of(recipe, SERIES[:2]), table_of(recipe, other), recipe, reader_of=reader_of(recipe, SERIES + other))


def test_a_class_that_the_table_lacks_is_named() -> None:
    train, validate = table_of(ball_recipe(), SERIES[:2]), table_of(ball_recipe(), SERIES[2:])
    recipe = ball_recipe(classes=["organ", "lesion"])
    with pytest.raises(NotThereError, match=r"no class 'lesion'.*organ, ball"):
        fit(train, validate, recipe, reader_of=reader_of(recipe, SERIES))


def test_fewer_steps_than_epochs_are_refused() -> None:
    with pytest.raises(UsageError, match="2 steps cannot be 3 epochs"):
        _fit(ball_recipe(train__steps=2))


def test_a_loss_that_is_not_finite_stops_training() -> None:
    with pytest.raises(RunError, match="loss is not finite in epoch 1"):
        _fit(ball_recipe(train__learning_rate=1e30, options__batch_norm=False))


def test_the_model_before_and_what_was_scored_stay_with_the_model() -> None:
    first = _fit(ball_recipe(name="first", train__steps=3)).model
    result = _fit(ball_recipe(train__steps=3), before=first, score=lambda model: {"note": model.spec.before})
    assert result.model.before is first
    assert result.model.spec.training["note"] == first.digest


def test_the_learning_rate_warms_up_and_ends_at_nothing() -> None:
    rates = [rate(step, 200) for step in range(200)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert int(np.argmax(rates)) in (8, 9)
    assert rates[-1] == pytest.approx(0.0)


def test_the_curve_is_drawn_without_a_display(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    curve_png(_fit(ball_recipe(train__steps=6)).curves, tmp_path / "curve.png")
    data = (tmp_path / "curve.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(data) > 5000
