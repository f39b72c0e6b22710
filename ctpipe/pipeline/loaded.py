"""Models in workers: loaded once in each process, whatever threads and tasks ask for them.

Before the first one the process must give the golden scores (`models.golden`).
"""

from __future__ import annotations

from functools import lru_cache
from threading import Lock

from ctpipe.errors import StoreFaultError
from ctpipe.models import Model, Segmenter, load_model, require_golden
from ctpipe.words import Device

_lock = Lock()
_CURE = "run the same line again with the model's own folder"


def model_of(folder: str, device: Device = Device.CPU) -> Model:
    """The classifier of a folder that its digest names, so that a kept one is never stale.

    Kept in the process and not by a WorkerPlugin: it is there after a nanny's restart as well, in workers that join
    late, and where tasks run without a cluster.
    """
    with _lock:  # two threads of a worker that begin at once would each load it
        loaded = _load(folder, device)
    if not isinstance(loaded, Model):
        raise StoreFaultError(f"{folder} holds no classifier", _CURE)
    return loaded


def segmenter_of(folder: str, device: Device = Device.CPU) -> Segmenter:
    """The segmenter of a folder; kept as `model_of` keeps classifiers."""
    with _lock:
        loaded = _load(folder, device)
    if not isinstance(loaded, Segmenter):
        raise StoreFaultError(f"{folder} holds no segmenter", _CURE)
    return loaded


@lru_cache(maxsize=4)
def _load(folder: str, device: Device) -> Model | Segmenter:
    require_golden(device)
    return load_model(folder).on(device)
