"""What a file of a bare network (ONNX, TorchScript) does not say, from a TOML that the user writes.

Keys are fields of SegmenterSpec::

    classes = ["liver", "lesion"]
    axes = "RAS"                     # array axes grow to the right, to the front, to the head
    patch = [96, 96, 96]
    spacing_mm = [1.5, 1.5, 2.0]
    mirror = []
    [normalise]                      # HU -57 … 164 to 0 … 1
    low = -57.0
    high = 164.0
    mean = -57.0
    std = 221.0
    [resample_in]
    order = 1
    align = "first"
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from pathlib import Path
from typing import Any

from ctpipe.errors import InputError, NotThereError, UsageError
from ctpipe.models.segment_spec import Normalisation, Resampling, SegmenterSpec

# What the importer itself states.
_OURS = frozenset({"network", "options", "outputs", "folds", "origin", "format"})
FIELDS = frozenset(field.name for field in dataclasses.fields(SegmenterSpec)) - _OURS
_NEEDED = ("classes", "axes", "patch")


def stated(path: Path | None, metadata: dict[str, str], where: str) -> dict[str, Any]:
    """Fields of the spec: those of the TOML, else those that the file's own metadata holds as JSON.

    NotThereError: no TOML there. UsageError: it is no TOML, has keys that are no fields, or lacks classes, axes or
    patch. InputError: metadata of a field's name that is no JSON.
    """
    values: dict[str, Any] = {}
    for key in sorted(FIELDS & metadata.keys()):
        try:
            values[key] = json.loads(metadata[key])
        except ValueError as error:
            raise InputError(f"the metadata {key!r} of {where} is no JSON", "say it in the TOML of --spec") from error
    if path is not None:
        values |= _toml(path)
    lacking = [key for key in _NEEDED if key not in values]
    if lacking:
        raise UsageError(f"{where} does not say its {', '.join(lacking)}",
                         "write them into a TOML and give it with --spec; see docs/guides/guests.md")
    return values


def spec_of(values: dict[str, Any], **ours: Any) -> SegmenterSpec:
    """The spec of stated fields and the importer's own; UsageError where they do not make one."""
    made: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    try:
        for key, kind in (("normalise", Normalisation), ("resample_in", Resampling), ("resample_out", Resampling)):
            if key in made:
                made[key] = kind(**made[key])
        return SegmenterSpec(**(made | ours))
    except (TypeError, AttributeError) as error:
        raise UsageError("a field of the spec is of the wrong kind", "see docs/guides/guests.md") from error


def _toml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise NotThereError(f"no file at {path}", "give the TOML of the spec")
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no TOML", "see docs/guides/guests.md") from error
    strange = sorted(values.keys() - FIELDS)
    if strange:
        raise UsageError(f"{path} has keys that are no fields of a spec: {', '.join(strange)}",
                         f"known are {', '.join(sorted(FIELDS))}")
    return values
