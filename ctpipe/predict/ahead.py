"""One step of a line working ahead of the next, so that a device never waits for a disk (DESIGN 3)."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


class _End:
    """Behind the last item: what the step ended with."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


@contextmanager
def ahead(items: Iterable[Item], depth: int = 1) -> Iterator[Iterator[Item]]:
    """The items, made in a thread of their own up to `depth` ahead of their use; that thread ends with the context.

    What making an item raises is raised where the item would have come.
    """
    waiting: queue.Queue[Item | _End] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(item: Item | _End) -> bool:
        while not stop.is_set():
            try:
                waiting.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def make() -> None:
        try:
            for item in items:
                if not put(item):
                    return
        except BaseException as error:  # whatever it is, the consumer raises it
            put(_End(error))
            return
        put(_End(None))

    def use() -> Iterator[Item]:
        while True:
            item = waiting.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item

    thread = threading.Thread(target=make, daemon=True, name="ctpipe-ahead")
    thread.start()
    try:
        yield use()
    finally:
        stop.set()
        thread.join()
