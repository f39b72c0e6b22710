"""ModelSpec: what a model is, as plain values beside its weights."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from ctpipe.config import Recipe, recipe_from_dict
from ctpipe.errors import StoreFaultError
from ctpipe.words import ZYX

FORMAT = "ctpipe-model-1"


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """All that `model.json` says; together with the weights it decides every score.

    network, options: name and options for `build_network`. channels: of its input, all planes of a window counted.
    window: (z, y, x) voxels of the input level. classes: names of 1, 2, …; 0 is background. recipe: the whole recipe.
    micro_batch: windows of every forward pass. weights_sha256: of weights.safetensors. before: digest of the model
    that runs first. licence: of the weights, as the user stated it. training: how it was found (best epoch, scores);
    no times and no hosts, so that the same training gives the same digest.
    """

    network: str
    options: dict[str, Any]
    channels: int
    window: ZYX
    classes: tuple[str, ...]
    recipe: dict[str, Any]
    micro_batch: int
    weights_sha256: str
    before: str | None = None
    licence: str = ""
    training: dict[str, Any] = field(default_factory=dict)
    format: str = FORMAT

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` takes them back."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, values: Any, where: str) -> ModelSpec:
        """Spec of the values of a model.json; StoreFaultError where they are not one of this format."""
        fields = {f.name for f in dataclasses.fields(cls)}
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise StoreFaultError(f"{where} is no model of format {FORMAT}", "train or import the model again")
        if set(values) != fields:
            wrong = ", ".join(sorted(set(values) ^ fields))
            raise StoreFaultError(f"{where} lacks or has unknown fields: {wrong}", "train or import the model again")
        try:
            return cls(**{**values, "window": ZYX(*values["window"]), "classes": tuple(values["classes"])})
        except TypeError as error:
            raise StoreFaultError(f"{where} has a field of the wrong kind",
                                  "train or import the model again") from error

    def digest(self) -> str:
        """16 hex digits of SHA-256 over all fields, the weights by their own digest; no path enters."""
        return sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()[:16]

    def parsed_recipe(self) -> Recipe:
        """`recipe` as a Recipe."""
        return recipe_from_dict(self.recipe, where="recipe of the model")
