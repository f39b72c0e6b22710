"""Models in workers: loaded once in each process, whatever threads and tasks ask for them."""

from __future__ import annotations

from functools import lru_cache
from threading import Lock

from ctpipe.models import Model, load_model

_lock = Lock()


def model_of(folder: str) -> Model:
    """The model of a folder that its digest names, so that a kept one is never stale.

    Kept in the process and not by a WorkerPlugin: it is there after a nanny's restart as well, in workers that join
    late, and where tasks run without a cluster.
    """
    with _lock:  # two threads of a worker that begin at once would each load it
        return _load(folder)


@lru_cache(maxsize=4)
def _load(folder: str) -> Model:
    return load_model(folder)
