"""How far a long task is: it tells each slab that it has finished, and whoever submitted it hears of it.

In a Dask worker the word goes as an event through the scheduler; in the submitting process it is a plain call. It is
lost without harm: only a progress line hangs on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from weakref import WeakKeyDictionary

from distributed import Client, get_worker

# One topic for all: the scheduler keeps the last thousand events of each topic for ever.
_TOPIC = "ctpipe-slabs"
# Who listens on a client, by the beginning of a task's key.
_listening: WeakKeyDictionary[Client, dict[str, Callable[[str, int], None]]] = WeakKeyDictionary()
_tell: ContextVar[Callable[[int], None] | None] = ContextVar("ctpipe_tell", default=None)


def tell_slab(index: int) -> None:
    """To be called inside a task that covers several slabs: the slab `index` is done."""
    tell = _tell.get()
    if tell is not None:
        tell(index)


@contextmanager
def telling(tell: Callable[[int], None]) -> Iterator[None]:
    """Within this block `tell_slab` calls `tell`."""
    token = _tell.set(tell)
    try:
        yield
    finally:
        _tell.reset(token)


def tell_from_worker(key: str) -> Callable[[int], None]:
    """What sends "slab of the task `key` is done" to the client that submitted it."""
    worker = get_worker()
    return lambda index: worker.log_event(_TOPIC, [key, index])


@contextmanager
def hearing(client: Client, prefix: str, hear: Callable[[str, int], None]) -> Iterator[None]:
    """Within this block `hear(key, slab)` is called, in a thread of the client's, for tasks whose key has `prefix`."""
    known = _listening.setdefault(client, {})
    known[prefix] = hear
    if len(known) == 1:
        client.subscribe_topic(_TOPIC, lambda event: _heard(known, event[1]))
    try:
        yield
    finally:
        del known[prefix]
        if not known and client.status == "running":
            client.unsubscribe_topic(_TOPIC)


def _heard(known: dict[str, Callable[[str, int], None]], told: tuple[str, int]) -> None:
    key, index = told
    hear = known.get(key.rsplit("-", 2)[0])  # PREFIX-FUNCTION-NUMBER, as Slots makes it
    if hear is not None:
        hear(key, index)
