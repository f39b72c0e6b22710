"""Train: weights for a recipe from the patch table, the epoch chosen on a validation patient."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from ctpipe.config import Recipe, TrainSpec
from ctpipe.errors import RunError, UsageError
from ctpipe.models import Model, build_network, input_channels, load_vgg16_body, network_options, retag, use_threads
from ctpipe.patches import PatchTable
from ctpipe.training.loader import ReaderOf, TileLoader, Tiling, check_apart
from ctpipe.training.validation import ValidationSet, mean_dice
from ctpipe.words import Progress

if TYPE_CHECKING:
    import pandas as pd

# Part of all steps over which the learning rate rises from 0; then it falls to 0 along half a cosine.
WARM_UP = 0.05
# Validation Dice that differ by less are equal, and the last of equal epochs is taken: one patient's score jumps by as
# much from epoch to epoch while the learning rate is high, and weights settle when it has come down.
EQUAL_DICE = 0.01

State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class FitResult:
    """A trained model.

    curves: one row per epoch (epoch, steps, loss, dice, dice_<class>, chosen). best_epoch: the one whose weights were
    taken, from 1.
    """

    model: Model
    curves: pd.DataFrame
    best_epoch: int


def fit(train: PatchTable, validate: PatchTable | None, recipe: Recipe, *, reader_of: ReaderOf,
        before: Model | None = None, progress: Progress = None,
        score: Callable[[Model], dict[str, Any]] | None = None) -> FitResult:
    """Weights for `recipe` from the rows of `train`; the epoch is chosen on `validate`.

    Taken is the last epoch whose mean Dice over the classes (`ValidationSet`) is within EQUAL_DICE of the highest;
    without `validate` the last of all, and the spec's `training` says so by having no validation Dice.

    reader_of: series id -> its features (a `PlaneReader`, with the reference HU where the recipe is relative to one).
    before: the model that runs first, kept inside the new one. score: called with the final model; what it gives is
    written into the spec's `training`. The same tables, recipe and kind of processor give the same weights, bit for
    bit.

    NotThereError: a class or stratum that the table lacks. RunError: a patient in both tables, or a loss that is not
    finite.
    """
    if validate is not None:
        check_apart(train, validate)
    classes = recipe.classes or tuple(train.classes.values())
    spec = recipe.train
    _check(spec, classes)
    with torch.random.fork_rng(devices=[]):  # dropout and first weights draw from torch's own generator
        torch.manual_seed(spec.seed)
        use_threads(spec.threads)
        network, started_from = _fresh(recipe, 1 + len(classes))
        tiling = Tiling(spec.tile, network.step, network.window)  # type: ignore[arg-type]
        loader = TileLoader(train, recipe, reader_of, tiling, classes)
        validation = None if validate is None else ValidationSet(validate, recipe, reader_of, tiling, classes)
        curves, best_epoch, best_state = _epochs(network, loader, validation, spec, progress)
    network.load_state_dict(best_state)
    training: dict[str, Any] = {"best_epoch": best_epoch, "epochs": spec.epochs, "rows_left_out": loader.rows_left_out}
    if started_from:
        training["started_from"] = started_from
    scored = classes if validation else ()
    training["validation_dice"] = {name: round(float(curves[f"dice_{name}"][best_epoch - 1]), 4) for name in scored}
    model = Model.of(recipe, classes, network, before, training=training)
    if score:
        model = retag(model, score(model))
    return FitResult(model, curves, best_epoch)


def _check(spec: TrainSpec, classes: tuple[str, ...]) -> None:
    if spec.steps < spec.epochs or min(spec.epochs, spec.batch, spec.tile) < 1:
        numbers = f"{spec.epochs} epochs of {spec.batch} rows, tile {spec.tile}"
        raise UsageError(f"{spec.steps} steps cannot be {numbers}", "give at least 1 for each, a step an epoch")
    if spec.class_weights and len(spec.class_weights) != 1 + len(classes):
        raise UsageError(f"{len(spec.class_weights)} class weights do not fit {len(classes)} classes and background",
                         "give one for each, background first")


def _fresh(recipe: Recipe, n_classes: int) -> tuple[nn.Module, str]:
    """A network to train, and the digest of the weights file that it starts from ("" for none)."""
    channels = input_channels(recipe)
    network = build_network(recipe.network, channels, n_classes, recipe.windows.window, network_options(recipe))
    started_from = ""
    if recipe.options.get("weights"):
        started_from = load_vgg16_body(network, recipe.options["weights"], channels)
    return network.to(memory_format=torch.channels_last), started_from  # type: ignore[call-overload]


def _epochs(network: nn.Module, loader: TileLoader, validation: ValidationSet | None, spec: TrainSpec,
            progress: Progress) -> tuple[pd.DataFrame, int, State]:
    """Curves, the epoch chosen and its state."""
    import pandas as pd

    optimiser = torch.optim.AdamW(network.parameters(), lr=spec.learning_rate, weight_decay=spec.weight_decay)
    weights = torch.tensor(spec.class_weights) if spec.class_weights else None
    loss_of = nn.CrossEntropyLoss(weights)
    rows, highest, chosen, chosen_state = [], -1.0, 0, _state(network)
    ends = [round(spec.steps * epoch / spec.epochs) for epoch in range(spec.epochs + 1)]
    for epoch, (start, stop) in enumerate(pairwise(ends), 1):
        losses = []
        network.train()
        for step in range(start, stop):
            for group in optimiser.param_groups:
                group["lr"] = spec.learning_rate * rate(step, spec.steps)
            pixels, truth = loader.batch(step)
            batch = torch.from_numpy(pixels).contiguous(memory_format=torch.channels_last)  # a quarter faster
            loss = loss_of(network(batch), torch.from_numpy(truth))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
            if progress:
                progress("train", step + 1, spec.steps)
        if not np.isfinite(losses).all():
            raise RunError(f"the loss is not finite in epoch {epoch}", "lower learning_rate in the recipe")
        rows.append({"epoch": epoch, "steps": stop, "loss": float(np.mean(losses))})
        mean = highest
        if validation:
            dice = validation.dice(network)
            mean = mean_dice(dice)
            rows[-1] |= {"dice": mean} | {f"dice_{name}": value for name, value in dice.items()}
        highest = max(highest, mean)
        if mean >= highest - EQUAL_DICE:
            chosen, chosen_state = epoch, _state(network)
    curves = pd.DataFrame(rows)
    return curves.assign(chosen=curves["epoch"] == chosen), chosen, chosen_state


def _state(network: nn.Module) -> State:
    return {key: value.detach().clone() for key, value in network.state_dict().items()}


def rate(step: int, steps: int) -> float:
    """Part of the learning rate at `step` of `steps`: linear warm-up, then half a cosine to 0."""
    done = (step + 1) / steps
    if done < WARM_UP:
        return done / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP)))
