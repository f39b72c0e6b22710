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
    """The items, made in a thread of their own up to `depth` ahead of the one in use; it ends with the context.

    What making an item raises is raised where the item would have come.
    """
    made: queue.SimpleQueue[Item | _End] = queue.SimpleQueue()
    room = threading.Semaphore(depth)  # before an item is made, not behind it: one that waits for room takes room
    stop = threading.Event()

    def make() -> None:
        error: BaseException | None = None
        try:
            source = iter(items)
            while room.acquire() and not stop.is_set():
                item = next(source, made)
                if item is made:
                    break
                made.put(item)  # type: ignore[arg-type]
                del item  # it may be large, and is the user's alone
        except BaseException as raised:  # whatever it is, the consumer raises it
            error = raised
        made.put(_End(error))

    def use() -> Iterator[Item]:
        while True:
            item = made.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            room.release()
            yield item
            del item

    thread = threading.Thread(target=make, daemon=True, name="ctpipe-ahead")
    thread.start()
    try:
        yield use()
    finally:
        stop.set()
        room.release()
        thread.join()
