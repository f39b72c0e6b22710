"""Recipes: every setting that trains a model or decides a prediction, as TOML and as frozen dataclasses.

A recipe is checked whole when it is read: an unknown key, a wrong type or a missing value is an error that names it.
The shipped recipes lie in `ctpipe/recipes/*.toml`; `load_recipe` takes their names or a path.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
import types
import typing
from dataclasses import dataclass, field
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Any

from ctpipe.errors import NotThereError, UsageError
from ctpipe.words import ZYX, Fill, Pad, Region


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """What a model sees of a volume: which voxels, on what scale, in which channels.

    level: the pyramid level on which windows lie; 0 is the full grid.
    channels_mm: one channel each; 0 is the plane itself, s > 0 the volume smoothed in 3-D by a Gaussian of s mm.
    equalise: histogram equalisation of each plane by itself, before anything else (it destroys HU).
    window_hu: (low, high), clipped to it and mapped linearly to -1 .. 1; after `relative_to` where that is given.
    relative_to: a class of the `before` model; its median HU in this patient is subtracted first.
    """

    level: int = 0
    channels_mm: tuple[float, ...] = (0.0,)
    equalise: bool = False
    window_hu: tuple[float, float] = (-160.0, 240.0)
    relative_to: str | None = None


@dataclass(frozen=True, kw_only=True)
class WindowSpec:
    """Where windows lie (rule *lattice*, DESIGN 3): centres 0, s, 2s, …; a window starts at centre - size // 2.

    window, stride: voxels of the input level, (z, y, x).
    """

    window: ZYX
    stride: ZYX
    pad: Pad = Pad.EDGE

    def __post_init__(self) -> None:
        if min(self.window) < 1 or min(self.stride) < 1:
            raise UsageError(f"window {tuple(self.window)} and stride {tuple(self.stride)} must be at least 1 voxel",
                             "give three whole numbers z, y, x for each")


@dataclass(frozen=True, kw_only=True)
class Stratum:
    """A share of every training batch: rows for which the pandas expression `where` holds."""

    where: str
    share: float


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """How weights are found.

    steps: optimiser steps in all; an epoch is steps / epochs of them, and each epoch's end is scored on the
        validation patient.
    tile: windows per side that are evaluated together around a drawn row (1: the row's window alone); they lie at the
        network's own step.
    class_weights: one per class, background first; empty means equal.
    strata: the mix of a batch; empty means classes in equal shares.
    shift, gain, noise: augmentation, in units of the normalised input.
    flip: tiles are mirrored along y and along x, each half of the time.
    threads: of torch while training; it changes the last bits, so it is part of the recipe.
    """

    steps: int
    epochs: int
    batch: int
    tile: int = 1
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    class_weights: tuple[float, ...] = ()
    strata: tuple[Stratum, ...] = ()
    shift: float = 0.0
    gain: float = 0.0
    noise: float = 0.0
    flip: bool = False
    seed: int = 0
    threads: int = 2


@dataclass(frozen=True, kw_only=True)
class PredictSpec:
    """How a volume is predicted; everything here changes bits and is part of the run key.

    stride: (z, y, x) between centres; fill: how they reach every voxel; region: which centres are evaluated.
    margin_mm: for region `organ`, how far outside the organ centres are still evaluated.
    micro_batch: windows per forward pass, always filled up with zeros to this size (MODELS: sums depend on it).
    threads: of torch per task.
    """

    stride: ZYX
    fill: Fill = Fill.NEAREST
    region: Region = Region.ALL
    margin_mm: float = 0.0
    micro_batch: int = 64
    threads: int = 1


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides a model and its predictions; equal recipes have equal digests.

    classes: names in order of their integer, from 1; 0 is background. A `before` recipe is trained and run first:
        its classes are those of this recipe merged by `merge` (its name -> names here that count as it).
    """

    name: str
    network: str
    options: dict[str, Any] = field(default_factory=dict)
    input: InputSpec = field(default_factory=InputSpec)
    windows: WindowSpec
    train: TrainSpec
    predict: PredictSpec
    classes: tuple[str, ...] = ()
    merge: dict[str, tuple[str, ...]] = field(default_factory=dict)
    before: str | None = None
    about: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values; `recipe_from_dict` takes them back."""
        return dataclasses.asdict(self)

    def digest(self) -> str:
        """16 hex digits of SHA-256 over the sorted JSON; `about` does not count."""
        plain = {key: value for key, value in self.as_dict().items() if key != "about"}
        return sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    folder = resources.files("ctpipe") / "recipes"
    return sorted(item.name[:-5] for item in folder.iterdir() if item.name.endswith(".toml"))


def load_recipe(name: str | Path) -> Recipe:
    """The recipe of a shipped name or a TOML file; UsageError names every wrong key."""
    text = str(name)
    if text in recipe_names():
        source = (resources.files("ctpipe") / "recipes" / f"{text}.toml").read_text("utf-8")
    elif text.endswith(".toml") and Path(text).is_file():
        source = Path(text).read_text("utf-8")
    else:
        raise NotThereError(f"no recipe {text!r}", f"give a .toml file or one of: {', '.join(recipe_names())}")
    try:
        values = tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{text} is not TOML: {error}", "see ctpipe/recipes/demo.toml for the form") from error
    return recipe_from_dict(values, where=text)


def recipe_from_dict(values: dict[str, Any], where: str = "recipe") -> Recipe:
    """Recipe of plain values (TOML or JSON), all faults named at once."""
    faults: list[str] = []
    recipe = _build(Recipe, values, "", faults)
    if faults or recipe is None:
        raise UsageError(f"{where}: {'; '.join(faults)}", "see ctpipe/recipes/demo.toml for the form")
    return typing.cast("Recipe", recipe)


def _build(kind: Any, value: Any, at: str, faults: list[str]) -> Any:
    """`value` as an instance of the annotation `kind`; what does not fit is added to `faults` with its place."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):  # only `X | None` occurs here
        return None if value is None else _build(arguments[0], value, at, faults)
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, at, faults)
    if kind is ZYX:
        if isinstance(value, (list, tuple)) and len(value) == 3 and all(type(v) is int for v in value):
            return ZYX(*value)
    elif origin is tuple:
        if isinstance(value, (list, tuple)) and (arguments[-1] is Ellipsis or len(value) == len(arguments)):
            return tuple(_build(arguments[0], item, f"{at}[{i}]", faults) for i, item in enumerate(value))
    elif origin is dict:
        if isinstance(value, dict):
            return {str(k): _build(arguments[1], v, f"{at}.{k}", faults) for k, v in value.items()}
    elif kind is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    elif kind is Any or (isinstance(kind, type) and type(value) is kind):
        return value
    elif isinstance(kind, type) and issubclass(kind, str) and isinstance(value, str):
        if value in list(kind):  # type: ignore[call-overload]
            return kind(value)
        faults.append(f"{at} is {value!r}, allowed: {', '.join(kind)}")  # type: ignore[arg-type]
        return None
    faults.append(f"{at} is {value!r}, not {getattr(kind, '__name__', kind)}")
    return None


def _build_dataclass(kind: Any, value: Any, at: str, faults: list[str]) -> Any:
    if not isinstance(value, dict):
        faults.append(f"{at or 'the recipe'} is not a table")
        return None
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    before = len(faults)
    faults += [f"unknown key {at + '.' if at else ''}{key}" for key in value if key not in fields]
    made = {key: _build(hints[key], value[key], f"{at}.{key}" if at else key, faults) for key in fields if key in value}
    for name, spec in fields.items():
        required = spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING
        if required and name not in value:
            faults.append(f"missing key {at + '.' if at else ''}{name}")
    return kind(**made) if len(faults) == before else None
