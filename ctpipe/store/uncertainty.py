"""How unsure a model is of each volume: a small file a model, read by a worklist that has no model.

STORE/reviews/uncertainty-<model>.json: {"model": its digest, "series": {volume: value}, "noted": when}. It decides
nothing but an order.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ctpipe.errors import StoreFaultError
from ctpipe.store import commit, files
from ctpipe.store.commit import CURE
from ctpipe.store.layout import FORMAT, REVIEWS, checked_name
from ctpipe.store.leases import Lease

_PREFIX, _SUFFIX = "uncertainty-", ".json"
_LOCK_WAIT_S = 120.0  # the file is written in milliseconds; a queue of writers waits its turn


def note_uncertainty(root: Path, model: str, values: Mapping[str, float]) -> None:
    """Add {volume: value} to what is known of a model; two writers at once lose nothing."""
    if values:
        _change(root, model, lambda known: known | dict(values))


def read_uncertainty(root: Path, model: str | None = None) -> dict[str, float]:
    """{volume: value} of a model (None: of the one that was noted last); empty where nothing is known."""
    found = [_read(root, name) for name in ([model] if model is not None else _models(root))]
    last = max((one for one in found if one is not None), key=lambda one: (one["noted"], one["model"]), default=None)
    return {} if last is None else dict(last["series"])


def forget_uncertainty(root: Path, series_id: str) -> None:
    """Leave a volume out of all files."""
    for model in _models(root):
        stated = _read(root, model)
        if stated is not None and series_id in stated["series"]:
            _change(root, model, lambda known: {key: value for key, value in known.items() if key != series_id})


def _change(root: Path, model: str, change: Any) -> None:
    path = _path(root, model)
    with Lease(root, f"{REVIEWS}/{path.name}", wait_s=_LOCK_WAIT_S, name=path.name):
        stated = _read(root, model)
        series = change({} if stated is None else dict(stated["series"]))
        noted = datetime.now(UTC).isoformat(timespec="microseconds")
        document = {"format": FORMAT, "model": model, "series": series, "noted": noted}
        files.write_atomic(path, commit.sealed(document))


def _read(root: Path, model: str) -> dict[str, Any] | None:
    document = commit.read_sealed(_path(root, model), f"the uncertainty of model {model}")
    if document is None:
        return None
    series: Any = document.get("series")
    right = document.get("model") == model and isinstance(document.get("noted"), str) and isinstance(series, dict)
    if not right or not all(isinstance(value, int | float) for value in series.values()):
        raise StoreFaultError(f"the uncertainty of model {model} is not what ctpipe writes", CURE)
    return document


def _models(root: Path) -> list[str]:
    names = files.names(root / REVIEWS)
    return [name[len(_PREFIX):-len(_SUFFIX)] for name in names if name.startswith(_PREFIX) and name.endswith(_SUFFIX)]


def _path(root: Path, model: str) -> Path:
    return root / REVIEWS / f"{_PREFIX}{checked_name(model, 'the digest of the model')}{_SUFFIX}"
