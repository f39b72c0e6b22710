"""Keys: what decides a result, digested. Equal keys mean equal bytes (DESIGN 1, rule 4)."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from hashlib import sha256
from typing import Any

from ctpipe.dicom import Assignment
from ctpipe.models import Model, Sizes
from ctpipe.store import Series
from ctpipe.words import Device

# Raise when the same inputs and settings begin to give other bytes.
PREDICT_ALGORITHM = "lattice-dense-2"
SEGMENT_ALGORITHM = "stream-1"
TRUTH_ALGORITHM = "truth-1"
LAYER_ALGORITHM = "layers-1"


def digest_of(value: Any) -> str:
    """16 hex digits of SHA-256 over the canonical JSON of plain values."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()[:16]


def truth_key(series: Series, classes: dict[int, str], assignment: Assignment) -> str:
    """Key of a truth label volume: the grid, the classes, and which structures fill which label in which order."""
    used = [[label, structure.digest] for label, structure in assignment.by_label]
    return digest_of([TRUTH_ALGORITHM, series.grid.grid_id, sorted(classes.items()), used])


def run_key(series: Series, model: Model, device: Device, before_run: str | None) -> str:
    """Key of one prediction over one volume: content, model, recipe, algorithm and every setting that changes bits.

    The recipe's PredictSpec holds stride, fill, region, micro-batch and threads; device and instruction set decide
    which kernels run (MODELS 8). Sizes other than the model's own, after memory ran out, are told as well.
    """
    told: list[Any] = [PREDICT_ALGORITHM, series.content, series.grid.grid_id, model.digest, model.recipe.digest(),
                       str(device), platform.machine(), before_run]  # fmt: skip
    if model.sizes != Sizes(model.spec.micro_batch):
        told.append(asdict(model.sizes))
    return digest_of(told)


def segment_key(series: Series, model_digest: str, device: Device) -> str:
    """Key of a segmenter's prediction; its spec, and so its digest, holds every setting that changes bits."""
    return digest_of([SEGMENT_ALGORITHM, series.content, series.grid.grid_id, model_digest, str(device),
                      platform.machine()])  # fmt: skip
